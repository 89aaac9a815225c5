package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

func (s *State) addNetwork(a AddNetwork) Result {
	n := a.Network
	if n.Closing || n.Forced {
		return refuse(CodeInvalid, "network %q cannot begin as one that is being removed", clip(n.Name))
	}
	if res := s.checkNetwork(n, len(a.Choose)); res.Code != OK {
		return res
	}
	subnets := make([]netip.Prefix, 0, len(n.Subnets)+len(a.Choose))
	for _, p := range n.Subnets {
		if res := s.checkSubnet(p, subnets); res.Code != OK {
			return res
		}
		subnets = append(subnets, p)
	}
	for _, c := range a.Choose {
		p, res := s.chooseSubnet(c, subnets)
		if res.Code != OK {
			return res
		}
		subnets = append(subnets, p)
	}
	n.Subnets = subnets
	if n.VNI == 0 {
		if n.VNI = s.freeVNI(); n.VNI == 0 {
			return refuse(CodeTooMany, "every VNI is in use")
		}
		s.nextVNI = n.VNI + 1
	}
	if n.ID == "" {
		n.ID = s.deriveID(n.Name)
	}
	var res Result
	if n.Labels, res = sortLabels(slices.Clone(n.Labels)); res.Code != OK {
		return res
	}
	if res := s.roomForLabels(n.Labels, nil); res.Code != OK {
		return res
	}
	i, _ := s.findNetwork(n.Name)
	s.networks = slices.Insert(slices.Clone(s.networks), i, newNetwork(n))
	return Result{}
}

func newNetwork(n Network) *network {
	spaces := make([]space, len(n.Subnets))
	for i, p := range n.Subnets {
		spaces[i].whole = addr.RangeOf(p)
	}
	return &network{n, spaces}
}

// deriveID names a network by what made it: no two entries have one index.
func (s *State) deriveID(name string) string {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], s.index)
	d := sha256.Sum256([]byte("network\x00" + s.cluster + "\x00" + name + "\x00" + string(at[:])))
	return hex.EncodeToString(d[:])
}

// freeVNI is the next that was never chosen, then any that is free; 0 when none is.
func (s *State) freeVNI() uint32 {
	used := make(map[uint32]bool, len(s.networks))
	for _, n := range s.networks {
		used[n.VNI] = true
	}
	for v := s.nextVNI; v <= maxVNI; v++ {
		if !used[v] {
			return v
		}
	}
	for v := uint32(FirstVNI); v <= maxVNI; v++ {
		if !used[v] {
			return v
		}
	}
	return 0
}

// checkNetwork refuses a definition that is malformed or in another's way, all but its subnets.
func (s *State) checkNetwork(n Network, choices int) Result {
	switch {
	case !validText(n.Name):
		return refuse(CodeInvalid, "network name %q: want 1 to %d letters, digits, '_', '.', '-'", clip(n.Name), MaxName)
	case n.ID != "" && !validHex(n.ID):
		return refuse(CodeInvalid, "network id %q: want 64 hexadecimal digits in lower case", clip(n.ID))
	case n.VNI > maxVNI:
		return refuse(CodeInvalid, "VNI %d: want at most %d", n.VNI, maxVNI)
	case n.MTU < 0 || n.MTU > maxMTU:
		return refuse(CodeInvalid, "MTU %d: want at most %d", n.MTU, maxMTU)
	case n.Driver != "" && !validText(n.Driver):
		return refuse(CodeInvalid, "driver %q: want at most %d letters, digits, '_', '.', '-'", clip(n.Driver), MaxName)
	case n.Host != "" && !validText(n.Host):
		return refuse(CodeInvalid, "host %q: want at most %d letters, digits, '_', '.', '-'", clip(n.Host), MaxName)
	case len(n.Subnets)+choices > MaxSubnets:
		return refuse(CodeTooMany, "network %s has %d subnets, at most %d may be", n.Name, len(n.Subnets)+choices, MaxSubnets)
	case len(s.networks) >= MaxNetworks:
		return refuse(CodeTooMany, "there are %d networks, the most that there may be", len(s.networks))
	}
	for _, o := range s.networks {
		switch {
		case o.Name == n.Name:
			return refuse(CodeTaken, "there is a network %s already", n.Name)
		case o.ID == n.ID:
			return refuse(CodeTaken, "network %s has the id %s already", o.Name, n.ID)
		case o.VNI == n.VNI && n.VNI != 0:
			return refuse(CodeTaken, "network %s has the VNI %d already", o.Name, n.VNI)
		}
	}
	return Result{}
}

// checkSubnet refuses a prefix that overlaps one of more, or of any network.
func (s *State) checkSubnet(p netip.Prefix, more []netip.Prefix) Result {
	if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
		return refuse(CodeInvalid, "subnet %s: want an address and a length, with no bits set beyond it", p)
	}
	if other, name, yes := s.overlap(p, more); yes {
		return refuse(CodeTaken, "subnet %s overlaps %s of network %s", p, other, name)
	}
	return Result{}
}

func (s *State) overlap(p netip.Prefix, more []netip.Prefix) (other netip.Prefix, name string, yes bool) {
	for _, o := range more {
		if o.Overlaps(p) {
			return o, "itself", true
		}
	}
	for _, n := range s.networks {
		for _, o := range n.Subnets {
			if o.Overlaps(p) {
				return o, n.Name, true
			}
		}
	}
	return netip.Prefix{}, "", false
}

// chooseSubnet finds the first free subnet of a Choice. It leaps over whatever
// is in the way, so it takes at most one step for each subnet that exists.
func (s *State) chooseSubnet(c Choice, more []netip.Prefix) (netip.Prefix, Result) {
	if !c.From.IsValid() || c.From.Addr().Is4In6() || c.Bits < c.From.Bits() || c.Bits > c.From.Addr().BitLen() {
		return netip.Prefix{}, refuse(CodeInvalid, "choose a /%d inside %s: not possible", c.Bits, c.From)
	}
	pool := addr.RangeOf(c.From)
	for at := pool.First; pool.Contains(at); {
		p := netip.PrefixFrom(at, c.Bits)
		other, _, taken := s.overlap(p, more)
		if !taken {
			return p, Result{}
		}
		last := addr.LastOf(p)
		if o := addr.LastOf(other); last.Less(o) {
			last = o // other is larger than p, and both are aligned
		}
		if at = last.Next(); !at.IsValid() {
			break
		}
	}
	return netip.Prefix{}, refuse(CodeEmpty, "no free /%d is left inside %s", c.Bits, c.From)
}

func (s *State) findNetwork(name string) (int, bool) {
	return slices.BinarySearchFunc(s.networks, name, func(n *network, name string) int { return strings.Compare(n.Name, name) })
}
