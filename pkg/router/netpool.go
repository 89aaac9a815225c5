package router

import (
	"crypto/sha256"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Where subnets are chosen from, and how large they are.
var pool4 = netip.MustParsePrefix("10.48.0.0/12")

const (
	chosenBits4 = 20
	chosenBits6 = 64
	poolBits6   = 48
)

// pool6 is the cluster's ULA /48: of 40 bits that nobody else draws.
func pool6(cluster string) netip.Prefix {
	d := sha256.Sum256([]byte("weave ula\x00" + cluster))
	a := [16]byte{0: 0xfd}
	copy(a[1:6], d[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), poolBits6)
}

// clearOf splits a pool into the largest parts that overlap none of some routes. What is
// smaller than a subnet of so many bits is left out.
func clearOf(pool netip.Prefix, bits int, routes []netip.Prefix) []netip.Prefix {
	if !slices.ContainsFunc(routes, pool.Overlaps) {
		return []netip.Prefix{pool}
	}
	if pool.Bits() >= bits {
		return nil
	}
	half := netip.PrefixFrom(pool.Addr(), pool.Bits()+1)
	upper := netip.PrefixFrom(addr.LastOf(half).Next(), half.Bits())
	return append(clearOf(half, bits, routes), clearOf(upper, bits, routes)...)
}

// choices are what the ledger is asked to choose for a network, one after the other until
// it finds room: one from each part of the pool, and a subnet of IPv6 with it if wanted.
func choices(cluster string, want4, want6 bool, routes []netip.Prefix) (out [][]ledger.Choice) {
	var six []ledger.Choice
	if want6 {
		six = []ledger.Choice{{From: pool6(cluster), Bits: chosenBits6}}
	}
	if !want4 {
		return [][]ledger.Choice{six}
	}
	for _, part := range clearOf(pool4, chosenBits4, routes) {
		out = append(out, append([]ledger.Choice{{From: part, Bits: chosenBits4}}, six...))
	}
	return out
}
