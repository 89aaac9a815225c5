package router

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// idLike is the shortest text of hexadecimal digits that is taken for (a beginning of) an
// id, and so can be no name.
const idLike = 12

// minBegin is how much of a network's id stands for it, as of an endpoint's: one digit that
// was typed by mistake is not to remove a network.
const minBegin = 4

var (
	nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	hexForm  = regexp.MustCompile(`^[0-9a-f]+$`)
)

// runtimesOwn are names that mean something else to podman, docker, nerdctl or containerd:
// their own networks, and words that stand in the place of a network.
var runtimesOwn = []string{
	"bridge", "cni-loopback", "container", "default", "docker_gwbridge", "host", "ingress", "kubenet", "nat", "none", "ns", "pasta", "podman", "private", "slirp4netns",
}

// checkName refuses what no network is to be called.
func checkName(name string) error {
	switch {
	case len(name) > ledger.MaxName || !nameForm.MatchString(name):
		return ctl.Errorf(ctl.CodeInvalidConfig, "network name %.80q: want 1 to %d letters, digits, '_', '.', '-', beginning with a letter or digit", name, ledger.MaxName)
	case len(name) >= idLike && hexForm.MatchString(strings.ToLower(name)):
		return ctl.Errorf(ctl.CodeInvalidConfig, "network name %q would be taken for an id: choose one that is not hexadecimal digits alone", name)
	}
	if slices.Contains(runtimesOwn, strings.ToLower(name)) {
		return &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: fmt.Sprintf("network name %q is one that runtimes have for themselves", name),
			Details: "their containers that ask for it, or for no network at all, would come to this one: choose another"}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return ctl.Errorf(ctl.CodeInvalidConfig, "network name %q would be taken for an address: choose another", name)
	}
	return nil
}

// resolve finds the network that a REF means: its name, its id, or a beginning of its id
// that no other has, of minBegin digits or more. A name goes before an id.
func resolve(all []ledger.Network, ref string) (ledger.Network, error) {
	var begin []ledger.Network
	for _, n := range all {
		switch {
		case n.Name == ref:
			return n, nil
		case len(ref) >= minBegin && strings.HasPrefix(n.ID, strings.ToLower(ref)):
			begin = append(begin, n)
		}
	}
	switch len(begin) {
	case 1:
		return begin[0], nil
	case 0:
		no := ", and no id begins like that"
		switch {
		case ref == "" || strings.Trim(strings.ToLower(ref), "0123456789abcdef") != "": // it can be none
			no = ""
		case len(ref) < minBegin:
			no = fmt.Sprintf(", and of an id %d digits or more are wanted", minBegin)
		}
		return ledger.Network{}, &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: fmt.Sprintf("no network is called %.80q%s", ref, no), Details: "there are " + candidates(all)}
	}
	return ledger.Network{}, &ctl.Error{Code: ctl.CodeAmbiguous, Msg: fmt.Sprintf("%d networks have an id that begins with %q", len(begin), ref), Details: "they are " + candidates(begin)}
}

// someNets is how many networks a refusal lists.
const someNets = 8

// candidates names networks with the beginnings of their ids.
func candidates(all []ledger.Network) string {
	names := make([]string, 0, len(all))
	for _, n := range all {
		names = append(names, fmt.Sprintf("%s (%s)", n.Name, n.ID[:min(idLike, len(n.ID))]))
	}
	slices.Sort(names)
	if more := len(names) - someNets; more > 0 {
		names = append(names[:someNets], fmt.Sprintf("%d more: `weave net list`", more))
	}
	return strings.Join(names, ", ")
}
