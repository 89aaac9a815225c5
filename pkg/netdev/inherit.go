package netdev

import (
	"fmt"
	"net"
	"net/netip"
)

// ReadForwarding reads back what SyncForwarding wrote, maybe in an earlier life
// of the router. ErrNotFound when either device is not there.
func ReadForwarding(bridge, vxlan string) (Forwarding, error) {
	f, err := readForwarding(bridge, vxlan)
	return f, wrap(fmt.Sprintf("read forwarding of bridge %q, vxlan %q", bridge, vxlan), err)
}

func readForwarding(bridge, vxlan string) (f Forwarding, err error) {
	c, err := dial()
	if err != nil {
		return f, err
	}
	defer c.close()
	var d devices
	if d.bridge, err = c.index(bridge); err != nil {
		return f, err
	}
	if d.vxlan, err = c.index(vxlan); err != nil {
		return f, err
	}
	have, err := c.readTables(d)
	if err != nil {
		return f, err
	}
	return have.forwarding(), nil
}

// forwarding is tablesOf the other way round.
func (have tables) forwarding() (f Forwarding) {
	addrs := map[mac][]netip.Addr{}
	for a, m := range have.neigh {
		addrs[m] = append(addrs[m], a)
	}
	for m, vtep := range have.tunnel {
		if vtep.IsValid() && m != (mac{}) {
			f.Remotes = append(f.Remotes, Remote{MAC: net.HardwareAddr(m[:]), VTEP: vtep, Addrs: addrs[m]})
		}
	}
	for a, ours := range have.flood {
		if ours {
			f.Flood = append(f.Flood, a)
		}
	}
	return f
}
