package ledger

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Label is a word of the operator's about a network; nothing here reads it.
type Label struct {
	Key   string `cbor:"1,keyasint"`
	Value string `cbor:"2,keyasint,omitempty"`
}

// Limits of labels. They are text without control characters, in a key no '=' either.
const (
	MaxLabels     = 32      // of one network
	MaxLabelKey   = 128     // bytes
	MaxLabelValue = 256     // bytes
	maxAllLabels  = 1 << 20 // bytes, of all networks
)

// SetLabels changes a network's labels: first those of Drop go, which need not be
// there, then those of Set come.
type SetLabels struct {
	Name string
	ID   string // of the network that is meant
	Set  []Label
	Drop []string // keys
}

func (s *State) setLabels(c SetLabels) Result {
	i, res := s.identify(c.Name, c.ID)
	if res.Code != OK {
		return res
	}
	if len(c.Set) > MaxLabels || len(c.Drop) > MaxLabels {
		return tooManyLabels(max(len(c.Set), len(c.Drop)))
	}
	n := *s.networks[i]
	labels := slices.DeleteFunc(slices.Clone(n.Labels), func(l Label) bool {
		return slices.Contains(c.Drop, l.Key) || slices.ContainsFunc(c.Set, func(o Label) bool { return o.Key == l.Key })
	})
	labels, res = sortLabels(append(labels, c.Set...))
	if res.Code != OK {
		return res
	}
	if res := s.roomForLabels(labels, n.Labels); res.Code != OK {
		return res
	}
	n.Labels = labels
	s.setNetwork(i, &n)
	return Result{}
}

// sortLabels sorts labels in place, nil for none, and refuses what no network may have.
func sortLabels(labels []Label) ([]Label, Result) {
	if len(labels) > MaxLabels {
		return nil, tooManyLabels(len(labels))
	}
	slices.SortFunc(labels, func(a, b Label) int { return strings.Compare(a.Key, b.Key) })
	for i, l := range labels {
		switch {
		case l.Key == "" || len(l.Key) > MaxLabelKey || !printable(l.Key) || strings.Contains(l.Key, "="):
			return nil, refuse(CodeInvalid, "label %q: want 1 to %d bytes before the '=', without control characters", clip(l.Key), MaxLabelKey)
		case len(l.Value) > MaxLabelValue || !printable(l.Value):
			return nil, refuse(CodeInvalid, "label %q: want at most %d bytes after the '=', without control characters", clip(l.Key), MaxLabelValue)
		case i > 0 && labels[i-1].Key == l.Key:
			return nil, refuse(CodeInvalid, "label %q is set twice", clip(l.Key))
		}
	}
	if len(labels) == 0 {
		return nil, Result{}
	}
	return labels, Result{}
}

func tooManyLabels(n int) Result {
	return refuse(CodeTooMany, "%d labels, at most %d may be on a network", n, MaxLabels)
}

// roomForLabels refuses labels, in the place of others, that all networks together have
// no room for.
func (s *State) roomForLabels(labels, instead []Label) Result {
	sum := labelBytes(labels) - labelBytes(instead)
	for _, n := range s.networks {
		sum += labelBytes(n.Labels)
	}
	if sum > maxAllLabels && labelBytes(labels) > labelBytes(instead) {
		return refuse(CodeTooMany, "the labels of all networks would have %d bytes, at most %d may be", sum, maxAllLabels)
	}
	return Result{}
}

func labelBytes(labels []Label) (n int) {
	for _, l := range labels {
		n += len(l.Key) + len(l.Value)
	}
	return n
}

// printable reports whether a text has no control characters. It asks no table that
// another version may have in another form.
func printable(t string) bool {
	control := func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 }
	return utf8.ValidString(t) && !strings.ContainsFunc(t, control)
}
