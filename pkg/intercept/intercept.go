// Package intercept turns a container's queries for names to the network's resolver,
// whichever server it asks, by rules inside the container's own network namespace.
//
// Each attachment has a table of its own there, which goes with its DEL and with the
// namespace. Of several the first one counts. What goes over the loopback is not touched:
// a resolver inside the container answers as before, but what it asks itself is turned too.
package intercept

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	tablePrefix = "weavedns_" // before Key.Hash
	dnsPort     = 53
	reg         = unix.NFT_REG_1
	// statusDNAT is the bit of a connection whose destination was changed.
	statusDNAT = 1 << 5
	outputName = "output"
)

// Put turns the queries of a namespace, an open file, to the servers: to the first of each
// family. Those to a family that has none are left alone. What an earlier Put of the same
// attachment did is replaced, in the same transaction.
func Put(netns int, hash string, servers []netip.Addr) error {
	c, err := nftables.New(nftables.WithNetNSFd(netns))
	if err != nil {
		return fmt.Errorf("intercept DNS: %w", err)
	}
	prio, err := priority(c, hash)
	if err != nil {
		return fmt.Errorf("intercept DNS: %w", err)
	}
	t := c.AddTable(table(hash))
	c.DelTable(t)
	c.AddTable(t)
	out := c.AddChain(&nftables.Chain{Table: t, Name: outputName, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: &prio})
	post := c.AddChain(&nftables.Chain{Table: t, Name: "postrouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	add := func(chain *nftables.Chain, parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: slices.Concat(parts...)})
	}
	add(out, toLoopback(), []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}})
	for _, s := range firsts(servers) {
		f := familyOf(s)
		for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			add(out, f.is(), asks(proto), f.turn(s)) // also what is to s already: then no other table turns it
			// It may have been about to leave by another interface, from an address there.
			add(post, f.is(), asks(proto), f.to(s), turned(), []expr.Any{&expr.Masq{}})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("intercept DNS: %w", err)
	}
	return nil
}

// priority is behind that of all other attachments' rules: of two at one priority the
// kernel would ask the later one first.
func priority(c *nftables.Conn, hash string) (nftables.ChainPriority, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return 0, err
	}
	prio := *nftables.ChainPriorityNATDest
	for _, ch := range chains {
		if ch.Name == outputName && ch.Priority != nil && strings.HasPrefix(ch.Table.Name, tablePrefix) && ch.Table.Name != tablePrefix+hash {
			prio = max(prio, *ch.Priority+1)
		}
	}
	return prio, nil
}

// Remove takes an attachment's rules out of a namespace. There need be none.
func Remove(netns int, hash string) error {
	c, err := nftables.New(nftables.WithNetNSFd(netns))
	if err != nil {
		return fmt.Errorf("end to intercept DNS: %w", err)
	}
	c.DelTable(c.AddTable(table(hash))) // adding it first makes the deletion succeed when there is none
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("end to intercept DNS: %w", err)
	}
	return nil
}

func table(hash string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: tablePrefix + hash}
}

// firsts are the first servers of each family.
func firsts(servers []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, s := range servers {
		if !slices.ContainsFunc(out, func(o netip.Addr) bool { return o.Is4() == s.Is4() }) {
			out = append(out, s)
		}
	}
	return out
}

// family is where the packets of one have their destination.
type family struct {
	proto          byte
	offset, length uint32
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return family{unix.NFPROTO_IPV4, 16, 4}
	}
	return family{unix.NFPROTO_IPV6, 24, 16}
}

func (f family) is() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, equal(f.proto)}
}

func (f family) destination() expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.length}
}

func (f family) to(s netip.Addr) []expr.Any {
	return []expr.Any{f.destination(), equal(s.AsSlice()...)}
}

func (f family) turn(s netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: s.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: reg, RegAddrMax: reg},
	}
}

func asks(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, equal(proto),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal(binary.BigEndian.AppendUint16(nil, dnsPort)...),
	}
}

func toLoopback() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}, equal(append([]byte("lo"), make([]byte, 14)...)...)}
}

func turned() []expr.Any {
	bit := binaryutil.NativeEndian.PutUint32(statusDNAT)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: bit, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}

func equal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}
}
