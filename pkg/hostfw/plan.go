package hostfw

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// tableName is of the inet family. It must be no name that iptables uses for a
// table of its own: its tools refuse to work beside such a table.
const tableName = "weave"

// Names of the sets.
const (
	setBridges  = "bridges"  // interface names
	setGuarded  = "guarded"  // protocol . port that containers must not reach
	setPeers4   = "peers4"   // addresses
	setPeers6   = "peers6"   //
	setSubnets4 = "subnets4" // intervals: all networks
	setSubnets6 = "subnets6" //
	setSame4    = "same4"    // source . destination of one network, intervals
	setSame6    = "same6"    //

	setInternal = "internal" // interface names of bridges that nothing leaves
	setInside   = "inside"   // in . out: each of them with itself
)

// normalise checks r and gives it a form in which equal rules are equal values.
func normalise(r Rules) (Rules, error) {
	n := r
	n.Networks, n.Peers = nil, nil
	for _, p := range r.Peers {
		if p = p.Unmap().WithZone(""); !p.IsValid() {
			return Rules{}, fmt.Errorf("peer without an address")
		}
		n.Peers = append(n.Peers, p)
	}
	slices.SortFunc(n.Peers, netip.Addr.Compare)
	n.Peers = slices.Compact(n.Peers)
	for _, w := range r.Networks {
		if err := attachment.ValidIfName(w.Bridge); err != nil {
			return Rules{}, fmt.Errorf("bridge: %w", err)
		}
		s, err := normaliseSubnets(w)
		if err != nil {
			return Rules{}, err
		}
		n.Networks = append(n.Networks, Network{w.Bridge, s, w.Internal})
	}
	slices.SortFunc(n.Networks, func(a, b Network) int { return cmp.Compare(a.Bridge, b.Bridge) })
	return n, distinct(n.Networks)
}

func normaliseSubnets(w Network) ([]netip.Prefix, error) {
	var s []netip.Prefix
	for _, p := range w.Subnets {
		if !p.IsValid() || p.Bits() == 0 || p.Addr().Is4In6() {
			return nil, fmt.Errorf("bridge %q: subnet %v is no network", w.Bridge, p)
		}
		s = append(s, p.Masked())
	}
	slices.SortFunc(s, comparePrefix)
	return slices.Compact(s), nil
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// distinct refuses two networks on one bridge or in one subnet: traffic between
// them could be called neither inside nor outside.
func distinct(ns []Network) error {
	for i, a := range ns {
		for _, b := range ns[i+1:] {
			if a.Bridge == b.Bridge {
				return fmt.Errorf("bridge %q is given twice", a.Bridge)
			}
			for _, p := range a.Subnets {
				for _, q := range b.Subnets {
					if p.Overlaps(q) {
						return fmt.Errorf("subnets %v of bridge %q and %v of bridge %q overlap", p, a.Bridge, q, b.Bridge)
					}
				}
			}
		}
	}
	return nil
}

func (r Rules) bridges() []string {
	var names []string
	for _, n := range r.Networks {
		names = append(names, n.Bridge)
	}
	return names
}

func onlyPeersDiffer(a, b Rules) bool {
	a.Peers, b.Peers = nil, nil
	return reflect.DeepEqual(a, b)
}

// plan is the table as it shall be, in the library's terms but not bound to a
// connection. Sets and chains are in the order of creation.
type plan struct {
	sets   []plannedSet
	chains []plannedChain
}

type plannedSet struct {
	spec  nftables.Set // with a fixed ID, and no Table
	elems []nftables.SetElement
}

type plannedChain struct {
	name  string
	kind  nftables.ChainType
	hook  nftables.ChainHook
	prio  nftables.ChainPriority
	rules []plannedRule
}

// planFor gives the table for normalised rules.
func planFor(n Rules) plan {
	return plan{sets: planSets(n), chains: planChains(n)}
}

func planSets(n Rules) []plannedSet {
	addr2 := func(t nftables.SetDatatype) nftables.SetDatatype { return nftables.MustConcatSetType(t, t) }
	port := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	specs := []nftables.Set{
		{Name: setBridges, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian},
		{Name: setGuarded, KeyType: port, Concatenation: true},
		{Name: setPeers4, KeyType: nftables.TypeIPAddr},
		{Name: setPeers6, KeyType: nftables.TypeIP6Addr},
		{Name: setSubnets4, KeyType: nftables.TypeIPAddr, Interval: true},
		{Name: setSubnets6, KeyType: nftables.TypeIP6Addr, Interval: true},
		{Name: setSame4, KeyType: addr2(nftables.TypeIPAddr), Interval: true, Concatenation: true},
		{Name: setSame6, KeyType: addr2(nftables.TypeIP6Addr), Interval: true, Concatenation: true},
		{Name: setInternal, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian},
		{Name: setInside, KeyType: addr2(nftables.TypeIFName), Concatenation: true},
	}
	internal := slices.DeleteFunc(slices.Clone(n.Networks), func(w Network) bool { return !w.Internal })
	elems := map[string][]nftables.SetElement{
		setBridges:  bridgeElems(n.Networks),
		setGuarded:  guardedElems(n),
		setPeers4:   peerElems(n.Peers, true),
		setPeers6:   peerElems(n.Peers, false),
		setSubnets4: subnetElems(n.Networks, true),
		setSubnets6: subnetElems(n.Networks, false),
		setSame4:    sameElems(n.Networks, true),
		setSame6:    sameElems(n.Networks, false),
		setInternal: bridgeElems(internal),
		setInside:   insideElems(internal),
	}
	sets := make([]plannedSet, len(specs))
	for i, s := range specs {
		s.ID = uint32(i + 1) // the library's own counter is not safe between goroutines
		sets[i] = plannedSet{s, elems[s.Name]}
	}
	return sets
}

// ifname is an interface name as the kernel's register holds it.
func ifname(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

func bridgeElems(ns []Network) []nftables.SetElement {
	var es []nftables.SetElement
	for _, n := range ns {
		es = append(es, nftables.SetElement{Key: ifname(n.Bridge)})
	}
	return es
}

// insideElems has each bridge twice: a packet that is forwarded from it to itself.
func insideElems(ns []Network) []nftables.SetElement {
	var es []nftables.SetElement
	for _, n := range ns {
		es = append(es, nftables.SetElement{Key: slices.Concat(ifname(n.Bridge), ifname(n.Bridge))})
	}
	return es
}

// guardedElems has one key for each port: the protocol and the port in network
// byte order, each at the start of four bytes.
func guardedElems(n Rules) []nftables.SetElement {
	var es []nftables.SetElement
	add := func(proto byte, port uint16) {
		key := []byte{proto, 0, 0, 0, byte(port >> 8), byte(port), 0, 0}
		same := func(e nftables.SetElement) bool { return slices.Equal(e.Key, key) }
		if port != 0 && !slices.ContainsFunc(es, same) {
			es = append(es, nftables.SetElement{Key: key})
		}
	}
	add(unix.IPPROTO_TCP, n.GossipPort)
	add(unix.IPPROTO_UDP, n.VXLANPort)
	add(unix.IPPROTO_UDP, n.TunnelPort)
	return es
}

func peerElems(peers []netip.Addr, is4 bool) []nftables.SetElement {
	var es []nftables.SetElement
	for _, p := range peers {
		if p.Is4() == is4 {
			es = append(es, nftables.SetElement{Key: p.AsSlice()})
		}
	}
	return es
}

// ranges merges the subnets of one family into ranges that neither overlap nor
// touch, ascending: the kernel refuses intervals that do.
func ranges(subnets []netip.Prefix, is4 bool) []addr.Range {
	subnets = slices.SortedFunc(slices.Values(subnets), comparePrefix)
	var rs []addr.Range
	for _, p := range subnets {
		if p.Addr().Is4() != is4 {
			continue
		}
		r := addr.RangeOf(p)
		if k := len(rs) - 1; k >= 0 {
			next, more := addr.Add(rs[k].Last, 1)
			if !more || !next.Less(r.First) {
				if rs[k].Last.Less(r.Last) {
					rs[k].Last = r.Last
				}
				continue
			}
		}
		rs = append(rs, r)
	}
	return rs
}

// subnetElems has two elements for an interval: its start, and the first key
// after it, which the very last interval of a family has not.
func subnetElems(ns []Network, is4 bool) []nftables.SetElement {
	var all []netip.Prefix
	for _, n := range ns {
		all = append(all, n.Subnets...)
	}
	var es []nftables.SetElement
	for _, r := range ranges(all, is4) {
		es = append(es, nftables.SetElement{Key: r.First.AsSlice()})
		if end, ok := addr.Add(r.Last, 1); ok {
			es = append(es, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return es
}

// sameElems has, for each network, each pair of its own ranges.
func sameElems(ns []Network, is4 bool) []nftables.SetElement {
	var es []nftables.SetElement
	for _, n := range ns {
		rs := ranges(n.Subnets, is4)
		for _, a := range rs {
			for _, b := range rs {
				es = append(es, nftables.SetElement{
					Key:    slices.Concat(a.First.AsSlice(), b.First.AsSlice()),
					KeyEnd: slices.Concat(a.Last.AsSlice(), b.Last.AsSlice()),
				})
			}
		}
	}
	return es
}
