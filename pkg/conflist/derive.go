package conflist

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// managed marks a list that the router has written: a key that no runtime knows, with
// the network's id. What has none, or stands in a file of another name than FileName's,
// is somebody else's.
const managed = "weave.managed"

// ours is the plugin that a pattern begins with.
const ours = "weave-net"

// Network is what a network's list has otherwise than the pattern.
type Network struct {
	Name     string
	ID       string
	Subnets  []netip.Prefix
	Bridge   string // of driver simplebridge; "" for driver weave, whose plugin asks for it
	Internal bool   // no way out of the network
}

// FileName is where the list of a network that is not the default one stands.
func FileName(network string) string { return "weave-" + network + ".conflist" }

// ManagedID is the id of the network that the router wrote the list for; "" when it did
// not write it.
func (l *List) ManagedID() string { return l.text(managed) }

// Derive makes the list of a network from that of the default network, the pattern: its
// plugins, their capabilities and sockets, and the versions that were fitted to them
// stay. What the pattern says of the default network's addresses goes.
func (l *List) Derive(n Network) (*List, error) {
	var plugins []json.RawMessage
	if err := json.Unmarshal(l.get("plugins"), &plugins); err != nil || len(plugins) == 0 {
		return nil, errors.New(`no "plugins"`)
	}
	main, err := parseObject(plugins[0])
	if err != nil {
		return nil, fmt.Errorf("the first plugin: %w", err)
	}
	if t := main.text("type"); t != ours {
		return nil, fmt.Errorf("the first plugin is %q, want %s", t, ours)
	}
	if err := n.adapt(&main); err != nil {
		return nil, err
	}
	plugins[0], _ = main.MarshalJSON() // it returns no error
	d := &List{object{slices.Clone(l.fields)}}
	d.set("plugins", "", plugins)
	if err := d.SetName(n.Name); err != nil {
		return nil, err
	}
	d.set(managed, "name", n.ID)
	return d, nil
}

// adapt has the main plugin attach to the network.
func (n Network) adapt(main *object) error {
	ipam, err := parseObject(main.get("ipam"))
	if err != nil {
		return fmt.Errorf("ipam of the first plugin: %w", err)
	}
	ipam.drop("network", "subnet", "exclude", "reserve", "routes")
	main.drop("network") // the list's name is the network's
	stays := n.Internal || string(main.get("isDefaultGateway")) == "false"
	if n.Bridge != "" {
		n.toBridge(main)
		if routes := n.defaultRoutes(); len(routes) > 0 && !stays {
			ipam.set("routes", "type", routes)
		}
	}
	if stays {
		main.set("isDefaultGateway", "type", false)
	}
	main.set("ipam", "type", ipam)
	return nil
}

// toBridge makes a plugin of driver weave one of driver simplebridge.
func (n Network) toBridge(main *object) {
	main.drop("isDefaultGateway")
	main.set("type", "", "simplebridge")
	main.set("bridge", "type", n.Bridge)
	main.set("isGateway", "bridge", true)
}

type route struct {
	Dst string `json:"dst"`
}

// defaultRoutes are those of the families that the network has: simplebridge, unlike
// weave-net, sets none by itself.
func (n Network) defaultRoutes() (routes []route) {
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		if slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Addr().Is4() == all.Addr().Is4() }) {
			routes = append(routes, route{all.String()})
		}
	}
	return routes
}
