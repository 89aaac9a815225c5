package cniconf

import (
	"encoding/json"
	"errors"
)

// Aliases is the capability "aliases": other names for a container. CNI's
// conventions say a list of names; podman and cri-o send a list for each
// network, {"NETWORK": ["name", …]}.
type Aliases struct {
	Any   []string            // the list: for whatever network is being attached
	ByNet map[string][]string // the map
}

// UnmarshalJSON takes both shapes, and null.
func (a *Aliases) UnmarshalJSON(b []byte) error {
	*a = Aliases{}
	if json.Unmarshal(b, &a.Any) == nil {
		return nil
	}
	a.Any = nil
	if json.Unmarshal(b, &a.ByNet) == nil {
		return nil
	}
	return errors.New(`aliases: want ["name", …] or {"network": ["name", …]}`)
}

// For gives the names meant for one network.
func (a Aliases) For(network string) []string {
	return append(append([]string(nil), a.Any...), a.ByNet[network]...)
}
