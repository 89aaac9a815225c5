package netdev

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Remote is an endpoint on another host.
type Remote struct {
	MAC   net.HardwareAddr
	VTEP  netip.Addr   // its host, of the family of VXLAN.Local
	Addrs []netip.Addr // its own addresses
}

// Forwarding is all that a network's VXLAN device and bridge shall know of other hosts.
type Forwarding struct {
	Remotes []Remote     // of two with the same MAC or address the first counts
	Flood   []netip.Addr // hosts that get broadcast, multicast and what is for unknown stations
}

// SyncForwarding makes the kernel's tables as wanted, and reports how many
// entries it wrote or removed. It reads first and writes only the difference, so
// calling it with nothing new to say changes nothing, and traffic to endpoints
// that stay is never disturbed: additions come before removals, and a changed
// entry is replaced, not removed.
//
// For each remote endpoint: MAC to host in the VXLAN device, MAC to VXLAN device
// in the bridge, and its addresses as permanent neighbours of the bridge, from
// which both this host and (by neigh_suppress) the bridge itself for its
// containers resolve them. One entry of the zero MAC for each flood host.
//
// Ours, and therefore removed when not wanted, is every entry of the VXLAN
// device, every static bridge entry at its port, and those neighbours that bear
// our protocol number. A MAC that is static at another port, which is an
// attachment of this host, stays there and is no error: the local one is the
// fresher news. What is wrong in want (an address of the wrong family, a MAC that
// is none) or refused by the kernel is left out and told in the error; the rest is done.
func SyncForwarding(bridge, vxlan string, want Forwarding) (changed int, err error) {
	changed, err = syncForwarding(bridge, vxlan, want)
	return changed, wrap(fmt.Sprintf("forwarding of bridge %q, vxlan %q", bridge, vxlan), err)
}

func syncForwarding(bridge, vxlan string, want Forwarding) (int, error) {
	c, err := dial()
	if err != nil {
		return 0, err
	}
	defer c.close()
	var d devices
	if d.bridge, err = c.index(bridge); err != nil {
		return 0, fmt.Errorf("bridge: %w", err)
	}
	if d.vxlan, err = c.index(vxlan); err != nil {
		return 0, fmt.Errorf("vxlan: %w", err)
	}
	have, err := c.readTables(d)
	if err != nil {
		return 0, err
	}
	wanted, bad := tablesOf(want)
	changed, err := c.apply(d, have.changesTo(wanted))
	return changed, errors.Join(bad, err)
}

// devices are the two whose tables are kept, by index.
type devices struct{ bridge, vxlan int }

type mac [6]byte

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

// tables is what the kernel knows, or shall know, of other hosts. In a table
// that was read, entries of another shape than ours have the value false, or the
// zero MAC: there to be overwritten, but not to be removed.
type tables struct {
	tunnel map[mac]netip.Addr  // VXLAN device: MAC to host
	flood  map[netip.Addr]bool // VXLAN device: hosts of the zero MAC
	port   map[mac]bool        // bridge, at the VXLAN device's port; true: static
	neigh  map[netip.Addr]mac  // neighbours of the bridge
}

func newTables() tables {
	return tables{map[mac]netip.Addr{}, map[netip.Addr]bool{}, map[mac]bool{}, map[netip.Addr]mac{}}
}

// tablesOf turns the description into tables, without what cannot be right.
func tablesOf(f Forwarding) (tables, error) {
	t, bad := newTables(), badEntries{}
	for _, r := range f.Remotes {
		if err := checkMAC(r.MAC); err != nil || !r.VTEP.IsValid() {
			bad.add(fmt.Errorf("remote %v at %q: %w", r.MAC, r.VTEP, cmp.Or(err, errors.New("no host"))))
			continue
		}
		m := mac(r.MAC)
		if _, dup := t.tunnel[m]; dup {
			continue
		}
		t.tunnel[m], t.port[m] = r.VTEP, true
		for _, a := range r.Addrs {
			if _, dup := t.neigh[a]; !dup && a.IsValid() {
				t.neigh[a] = m
			}
		}
	}
	for _, a := range f.Flood {
		if !a.IsValid() {
			bad.add(errors.New("a flood address is not valid"))
			continue
		}
		t.flood[a] = true
	}
	return t, bad.err()
}

// change is one entry to write or to remove.
type change struct {
	where  table
	remove bool
	mac    mac
	addr   netip.Addr // a host for tunnel and flood, an endpoint's address for neigh
}

type table int

const (
	tunnel table = iota
	flood
	port
	neigh
)

func (c change) String() string {
	verb := map[bool]string{false: "write", true: "remove"}[c.remove]
	switch c.where {
	case tunnel:
		return fmt.Sprintf("%s host %s of %s", verb, c.addr, c.mac)
	case flood:
		return fmt.Sprintf("%s flood host %s", verb, c.addr)
	case port:
		return fmt.Sprintf("%s bridge entry of %s", verb, c.mac)
	}
	return fmt.Sprintf("%s neighbour %s at %s", verb, c.addr, c.mac)
}

// changesTo is the difference, in the order in which nothing is lost: first the
// way to a station, then its place in the bridge, then the addresses that lead
// to it; removals after that and the other way round.
func (have tables) changesTo(want tables) []change {
	var cs []change
	for m, host := range want.tunnel {
		if have.tunnel[m] != host {
			cs = append(cs, change{where: tunnel, mac: m, addr: host})
		}
	}
	for a := range want.flood {
		if !have.flood[a] {
			cs = append(cs, change{where: flood, addr: a})
		}
	}
	for m := range want.port {
		if !have.port[m] {
			cs = append(cs, change{where: port, mac: m})
		}
	}
	for a, m := range want.neigh {
		if have.neigh[a] != m {
			cs = append(cs, change{where: neigh, mac: m, addr: a})
		}
	}
	return append(cs, have.surplus(want)...)
}

func (have tables) surplus(want tables) []change {
	var cs []change
	for a, m := range have.neigh {
		if _, ok := want.neigh[a]; !ok && m != (mac{}) {
			cs = append(cs, change{where: neigh, remove: true, mac: m, addr: a})
		}
	}
	for m, static := range have.port {
		if !want.port[m] && static {
			cs = append(cs, change{where: port, remove: true, mac: m})
		}
	}
	for a := range have.flood {
		if !want.flood[a] {
			cs = append(cs, change{where: flood, remove: true, addr: a})
		}
	}
	for m, host := range have.tunnel {
		if _, ok := want.tunnel[m]; !ok {
			cs = append(cs, change{where: tunnel, remove: true, mac: m, addr: host})
		}
	}
	return cs
}

// apply writes the changes and counts those that took effect.
func (c *conn) apply(d devices, cs []change) (int, error) {
	ms := make([]*nl.NetlinkRequest, len(cs))
	for i, ch := range cs {
		ms[i] = d.message(ch)
	}
	changed, bad := 0, badEntries{}
	for i, err := range c.batch(ms...) {
		if cs[i].where == port && errors.Is(err, unix.EEXIST) {
			var local bool
			if local, err = c.takeOver(d, cs[i].mac); local {
				continue
			}
		}
		switch {
		case err == nil:
			changed++
		case cs[i].remove && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)): // gone by itself
		default:
			bad.add(fmt.Errorf("%s: %w", cs[i], err))
		}
	}
	return changed, bad.err()
}

// takeOver gives a MAC that the bridge knows at another port to the VXLAN
// device, unless that port has it for good: then it is local.
func (c *conn) takeOver(d devices, m mac) (local bool, err error) {
	b, err := c.get(getEntry(d.bridge, m))
	if errors.Is(err, unix.ENOENT) {
		err = nil
	} else if err != nil {
		return false, err
	}
	if e, ok := parseEntry(b); ok && e.static() && e.index != d.vxlan {
		return true, nil
	}
	return false, c.batch(staticEntry(d.vxlan, m[:], unix.NLM_F_REPLACE))[0]
}

// badEntries collects errors, a few of them in words: there may be thousands of the same.
type badEntries struct {
	n     int
	shown []error
}

const showBad = 4

func (b *badEntries) add(err error) {
	if b.n++; b.n <= showBad {
		b.shown = append(b.shown, err)
	}
}

func (b *badEntries) err() error {
	if b.n > showBad {
		return errors.Join(append(b.shown, fmt.Errorf("and %d more", b.n-showBad))...)
	}
	return errors.Join(b.shown...)
}
