package main

import (
	"encoding/json"
	"fmt"
	"slices"
)

// list is what is read of a CNI network list.
type list struct {
	CNIVersions []string `json:"cniVersions"`
	Plugins     []struct {
		Type string                `json:"type"`
		IPAM struct{ Type string } `json:"ipam"`
	} `json:"plugins"`
}

func parseList(s string) (l list, err error) {
	if err := json.Unmarshal([]byte(s), &l); err != nil {
		return l, fmt.Errorf("the installed list: %w", err)
	}
	return l, nil
}

// plugins are all programs that the list makes a runtime start, in their order.
func (l list) plugins() (names []string) {
	for _, p := range l.Plugins {
		for _, n := range []string{p.Type, p.IPAM.Type} {
			if n != "" {
				names = append(names, n)
			}
		}
	}
	return names
}

func (l list) speaks(version string) bool { return slices.Contains(l.CNIVersions, version) }
