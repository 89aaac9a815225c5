package netlists

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"
)

// Range is what a list that is not of weave gives addresses from.
type Range struct {
	Prefix  netip.Prefix
	File    string
	Network string // as runtimes call it
}

// ipam is where the reference plugins, and those that follow them, have their subnets.
type ipam struct {
	Type   string
	Subnet string
	Ranges [][]struct{ Subnet string }
}

// Ranges are those of the lists in the directory, by file: of other plugins' networks, whose
// bridges need not be up. What cannot be read has none.
func (k *Keeper) Ranges() (out []Range) {
	if k.dir == "" {
		return nil
	}
	for name, f := range k.look().files {
		for _, p := range f.said.subnets {
			out = append(out, Range{p, filepath.Join(k.dir, name), f.said.network})
		}
	}
	slices.SortFunc(out, func(a, b Range) int { return cmp.Or(cmp.Compare(a.File, b.File), a.Prefix.Compare(b.Prefix)) })
	return out
}

// subnets are those that a list, or the configuration of a single plugin, has for plugins
// other than weave's.
func (f file) subnets() (out []netip.Prefix) {
	var l struct {
		IPAM    ipam
		Plugins []struct{ IPAM ipam }
	}
	if f.err != "" || json.Unmarshal([]byte(f.text), &l) != nil {
		return nil
	}
	add := func(text string) {
		if p, err := netip.ParsePrefix(text); err == nil && p.Bits() > 0 {
			out = append(out, p.Masked())
		}
	}
	for _, p := range append(l.Plugins, struct{ IPAM ipam }{l.IPAM}) {
		if p.IPAM.Type == "weave-ipam" {
			continue
		}
		add(p.IPAM.Subnet)
		for _, set := range p.IPAM.Ranges {
			for _, r := range set {
				add(r.Subnet)
			}
		}
	}
	return out
}
