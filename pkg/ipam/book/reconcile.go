package book

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Kernel is an attachment as the kernel shows it: a veth with our alias.
type Kernel struct {
	Alias   attachment.Alias
	Veth    string
	Network string // the ledger's name of the network whose bridge the veth is on, "" for none
	NetID   string // how that network's id begins, by the bridge; "" when that does not tell
}

// Claim is what can be known of an attachment from the kernel alone.
func (k Kernel) Claim(bootID string, now time.Duration) Claim {
	return Claim{
		Hash: k.Alias.Hash, Key: attachment.Key{Network: k.Alias.Network}, Network: k.Network, NetID: k.NetID,
		Addrs: k.Alias.Addrs, MAC: k.Alias.MAC, OnBridge: k.Network != "" || k.NetID != "", BootID: bootID,
		Decider: ctl.DecidedByVeth, State: Attached, Since: now,
	}
}

// Reconcile compares the book with all attachments that the kernel shows. A claim
// that the veth decides ends when the veth was missing twice, AbsentFor apart or
// more, and no ADD is under way for it; those are released and returned. A veth
// without a claim, seen twice as well, gets one: the kernel is right.
//
// A veth that is there always keeps its claim, also one whose ADD never finished:
// a container may be behind it.
func (b *Book) Reconcile(present []Kernel, bootID string, now time.Duration) (released, adopted []Claim) {
	there := make(map[string]Kernel, len(present))
	for _, k := range present {
		there[k.Alias.Hash] = k
	}
	for hash, c := range b.claims {
		if _, ok := there[hash]; ok || c.Decider != ctl.DecidedByVeth || now < c.Deadline {
			delete(b.absent, hash)
			continue
		}
		if seenTwice(b.absent, hash, now) {
			released = append(released, *c)
		}
	}
	byHash := func(x, y Claim) int { return strings.Compare(x.Hash, y.Hash) }
	slices.SortFunc(released, byHash)
	for _, c := range released {
		b.Release(c.Hash, now) // in order, so that a run can be repeated
	}
	maps.DeleteFunc(b.strays, func(hash string, _ time.Duration) bool { _, ok := there[hash]; return !ok })
	for hash, k := range there {
		if _, ok := b.claims[hash]; ok {
			delete(b.strays, hash)
		} else if seenTwice(b.strays, hash, now) {
			delete(b.strays, hash)
			b.Put(k.Claim(bootID, now))
			adopted = append(adopted, *b.claims[hash])
		}
	}
	slices.SortFunc(adopted, byHash)
	return released, adopted
}

func seenTwice(since map[string]time.Duration, hash string, now time.Duration) bool {
	first, ok := since[hash]
	if !ok {
		since[hash] = now
		return false
	}
	return now-first >= AbsentFor
}

// Stale lists what GC of a network (Key.Network) may take: what is not among the
// valid, is old enough, and has a namespace that is known and not alive.
func (b *Book) Stale(network string, valid map[string]bool, alive func(attachment.NSID) bool, now time.Duration) (out []Claim) {
	for _, c := range b.Claims() {
		switch {
		case c.Key.Network != network || c.Host() || valid[c.Hash]:
		case now-c.Since < CollectOver || now < c.Deadline:
		case !c.NetNS.Known() || alive(c.NetNS):
		default:
			out = append(out, c)
		}
	}
	return out
}
