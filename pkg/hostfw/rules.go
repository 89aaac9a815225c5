package hostfw

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// plannedRule is a rule and what `nft list` says of it.
type plannedRule struct {
	comment string
	exprs   []expr.Any
}

// priorityGuard puts our drops before the host's own filter. Their place against
// each other does not matter, a drop anywhere is final; it only saves work.
const priorityGuard nftables.ChainPriority = -10

// planChains gives the rules: the same number whatever r holds. All of them see
// packets after destination and before source translation, and whole: the nat
// chain turns connection tracking on, which puts fragments together first.
func planChains(r Rules) []plannedChain {
	return []plannedChain{
		{"input", nftables.ChainTypeFilter, *nftables.ChainHookInput, priorityGuard, []plannedRule{
			{"containers do not reach the overlay's ports", exprs(iif(setBridges), guarded(), drop())},
			{"VXLAN from peers only", exprs(ip4(), port(unix.IPPROTO_UDP, r.VXLANPort), saddr4(), notIn(setPeers4), drop())},
			{"VXLAN from peers only", exprs(ip6(), port(unix.IPPROTO_UDP, r.VXLANPort), saddr6(), notIn(setPeers6), drop())},
			{"nobody reaches loopback from outside", exprs(notVia(expr.MetaKeyIIFNAME, "lo"), ip4(), toLoopback4(), port(unix.IPPROTO_TCP, r.MeshPort), drop())},
		}},
		{"forward", nftables.ChainTypeFilter, *nftables.ChainHookForward, priorityGuard, []plannedRule{
			{"containers do not reach the overlay's ports of other hosts", exprs(iif(setBridges), oifNot(setBridges), guarded(), drop())},
			{"nothing leaves an internal network", exprs(iif(setInternal), crosses(), drop())},
			{"nothing enters an internal network", exprs(oif(setInternal), crosses(), drop())},
		}},
		{"output", nftables.ChainTypeFilter, *nftables.ChainHookOutput, priorityGuard, []plannedRule{
			{"gossip on loopback is the router's own", exprs(via(expr.MetaKeyOIFNAME, "lo"), port(unix.IPPROTO_TCP, r.MeshPort), uidNot(r.UID), drop())},
		}},
		{"postrouting", nftables.ChainTypeNAT, *nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource, []plannedRule{
			{"what leaves an IPv4 network", exprs(oifNot(setBridges), ip4(), saddr4(), in(setSubnets4), unicast4(), daddr4(), notIn(setSame4), masquerade())},
			{"what leaves an IPv6 network", exprs(oifNot(setBridges), ip6(), saddr6(), in(setSubnets6), unicast6(), daddr6(), notIn(setSame6), masquerade())},
		}},
	}
}

// A few words of the kernel's language. Register 1 is 16 bytes and register 2
// follows it; registers 8, 9, … are the same memory in steps of 4 bytes. A
// concatenated key is read from register 1 on.
const (
	reg1     = unix.NFT_REG_1
	reg2     = unix.NFT_REG_2
	reg32at1 = unix.NFT_REG32_01 // the second 4 bytes of register 1
)

func exprs(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

func in(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg1, SetName: set}}
}

func notIn(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg1, SetName: set, Invert: true}}
}

func meta(k expr.MetaKey) expr.Any { return &expr.Meta{Key: k, Register: reg1} }

func compare(op expr.CmpOp, data ...byte) expr.Any {
	return &expr.Cmp{Op: op, Register: reg1, Data: data}
}

func load(base expr.PayloadBase, offset, length, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: length}
}

func iif(set string) []expr.Any {
	return exprs([]expr.Any{meta(expr.MetaKeyIIFNAME)}, in(set))
}

func oif(set string) []expr.Any {
	return exprs([]expr.Any{meta(expr.MetaKeyOIFNAME)}, in(set))
}

// crosses passes what is not forwarded from a bridge to itself.
func crosses() []expr.Any {
	return exprs([]expr.Any{meta(expr.MetaKeyIIFNAME), &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg2}}, notIn(setInside))
}

func oifNot(set string) []expr.Any {
	return exprs([]expr.Any{meta(expr.MetaKeyOIFNAME)}, notIn(set))
}

func via(k expr.MetaKey, name string) []expr.Any {
	return []expr.Any{meta(k), compare(expr.CmpOpEq, ifname(name)...)}
}

func notVia(k expr.MetaKey, name string) []expr.Any {
	return []expr.Any{meta(k), compare(expr.CmpOpNeq, ifname(name)...)}
}

func ip4() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyNFPROTO), compare(expr.CmpOpEq, unix.NFPROTO_IPV4)}
}

func ip6() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyNFPROTO), compare(expr.CmpOpEq, unix.NFPROTO_IPV6)}
}

func saddr4() []expr.Any { return []expr.Any{load(expr.PayloadBaseNetworkHeader, 12, 4, reg1)} }
func saddr6() []expr.Any { return []expr.Any{load(expr.PayloadBaseNetworkHeader, 8, 16, reg1)} }

// daddr4 and daddr6 put the destination behind the source that is loaded already.
func daddr4() []expr.Any { return []expr.Any{load(expr.PayloadBaseNetworkHeader, 16, 4, reg32at1)} }
func daddr6() []expr.Any { return []expr.Any{load(expr.PayloadBaseNetworkHeader, 24, 16, reg2)} }

// unicast4 passes what is neither multicast nor reserved nor broadcast: below 224.0.0.0.
func unicast4() []expr.Any {
	return []expr.Any{
		load(expr.PayloadBaseNetworkHeader, 16, 1, reg2),
		&expr.Cmp{Op: expr.CmpOpLt, Register: reg2, Data: []byte{224}},
	}
}

// unicast6 passes what is not in ff00::/8.
func unicast6() []expr.Any {
	return []expr.Any{
		load(expr.PayloadBaseNetworkHeader, 24, 1, reg2),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg2, Data: []byte{0xff}},
	}
}

// toLoopback4 matters where route_localnet is on, as kube-proxy sets it.
func toLoopback4() []expr.Any {
	return []expr.Any{load(expr.PayloadBaseNetworkHeader, 16, 1, reg1), compare(expr.CmpOpEq, 127)}
}

func port(proto byte, p uint16) []expr.Any {
	return []expr.Any{
		meta(expr.MetaKeyL4PROTO), compare(expr.CmpOpEq, proto),
		load(expr.PayloadBaseTransportHeader, 2, 2, reg1), compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, p)...),
	}
}

func guarded() []expr.Any {
	return exprs([]expr.Any{meta(expr.MetaKeyL4PROTO), load(expr.PayloadBaseTransportHeader, 2, 2, reg32at1)}, in(setGuarded))
}

func uidNot(uid uint32) []expr.Any {
	return []expr.Any{meta(expr.MetaKeySKUID), compare(expr.CmpOpNeq, binaryutil.NativeEndian.PutUint32(uid)...)}
}

func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }
