package netdev

import "strings"

// Port is the host's end of a veth: ours, by its alias, or anybody's.
type Port struct {
	Name   string
	Index  int
	Alias  string // "" or any text; attachment.ParseAlias tells whose
	Master string // the bridge, "" for none
	Group  uint32 // 0 as a rule; a number of the reaper's marks a link that is being deleted
	Up     bool
}

// Ports lists every veth of this namespace, in the kernel's order. The list is
// whole: one that was disturbed by a change is read again, and after thirty
// times given up with an error.
func Ports() ([]Port, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	links, err := c.links()
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.index] = l.name
	}
	var ports []Port
	for _, l := range links {
		if l.kind == "veth" {
			ports = append(ports, Port{l.name, l.index, l.alias, names[l.master], l.group, l.up})
		}
	}
	return ports, nil
}

// Device is a bridge or a tunnel (VXLAN).
type Device struct {
	Name    string
	Cluster string // of a bridge: see Bridge; "" when it does not say
}

// Devices lists the bridges and tunnels of this namespace; the list is whole, as that of
// Ports.
func Devices() (all []Device, err error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	links, err := c.links()
	for _, l := range links {
		if l.kind == "bridge" || l.kind == "vxlan" {
			all = append(all, Device{l.name, l.cluster()})
		}
	}
	return all, err
}

// cluster is what a bridge says that it is of.
func (l link) cluster() string {
	if cluster, ok := strings.CutPrefix(l.alias, ofCluster); ok && l.kind == "bridge" {
		return cluster
	}
	return ""
}
