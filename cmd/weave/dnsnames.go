package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// mostOwn is on how many networks a host's own name has a line for each.
const mostOwn = 2

// nameRows are the names as a table: those of containers, and by hand, then the hosts' own,
// which each has on every network: of many networks one line a host.
func nameRows(all []ctl.NameEntry) [][]string {
	rows := [][]string{{"NAME", "ADDRESS", "NETWORK", "HOST"}}
	var others []ctl.NameEntry
	own := map[string][]ctl.NameEntry{} // by host
	for _, n := range all {
		if n.Name == n.Host && !n.ByHand {
			own[n.Host] = append(own[n.Host], n)
		} else {
			others = append(others, n)
		}
	}
	for _, n := range byName(others) {
		rows = append(rows, nameRow(n))
	}
	for _, host := range slices.Sorted(maps.Keys(own)) {
		rows = append(rows, ownRows(byName(own[host]))...)
	}
	return rows
}

func byName(names []ctl.NameEntry) []ctl.NameEntry {
	slices.SortFunc(names, func(x, y ctl.NameEntry) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), x.Address.Compare(y.Address))
	})
	return names
}

func nameRow(n ctl.NameEntry) []string {
	host := n.Host
	if n.ByHand {
		host += " (by hand)"
	}
	return []string{n.Name, n.Address.String(), n.Network, host}
}

// ownRows are those of one host's own name; of many networks the first by address stands
// for all, or the default one.
func ownRows(names []ctl.NameEntry) (rows [][]string) {
	networks := map[string]bool{}
	for _, n := range names {
		networks[n.Network] = true
	}
	if len(networks) <= mostOwn {
		for _, n := range names {
			rows = append(rows, nameRow(n))
		}
		return rows
	}
	first := names[max(slices.IndexFunc(names, func(n ctl.NameEntry) bool { return n.Network == "weave" }), 0)]
	row := nameRow(first)
	row[2] += fmt.Sprintf(" and %d more", len(networks)-1)
	return [][]string{row}
}
