package carrier

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Bounds of the memory of who called and was refused. Strangers have a part of
// their own, so that they push out no member.
const (
	maxCallers   = 32 // that hold the secret
	maxStrangers = 16 // that are routers with another one
	rememberFor  = 10 * time.Minute
)

// refusedCall is somebody who called us and whom we refused, or who refused us
// then.
type refusedCall struct {
	name   gossip.Peer // "" of a stranger
	member uint64      // 0: it has not proven which
	addr   netip.Addr  // the last one that it called from
	theirs bool        // they refused
	twin   bool        // see Status.Twin
	words  string
	last   time.Time
	count  uint64
}

// same reports whether two calls are of one router, as far as one can know: a
// stranger is its address.
func (c refusedCall) same(d refusedCall) bool {
	return c.name == d.name && c.member == d.member && (c.name != "" || c.addr == d.addr)
}

func (c refusedCall) isTwin() bool { return c.twin && !c.theirs }

func (c refusedCall) old() bool { return time.Since(c.last) > rememberFor }

// refusedCalls remembers the latest of them. Its methods may be called from any
// goroutine.
type refusedCalls struct {
	mu   sync.Mutex
	list []refusedCall
}

// note remembers one more call, now.
func (r *refusedCalls) note(c refusedCall) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.count, c.last = 1, time.Now()
	r.list = slices.DeleteFunc(r.list, refusedCall.old)
	if i := slices.IndexFunc(r.list, c.same); i >= 0 {
		c.count += r.list[i].count
		r.list[i] = c
		return
	}
	r.makeRoom(c.name == "")
	r.list = append(r.list, c)
}

// makeRoom forgets, where there are too many, who called least often, and of those
// the one that called longest ago.
func (r *refusedCalls) makeRoom(strangers bool) {
	n, worst := 0, -1
	for i, c := range r.list {
		if (c.name == "") != strangers {
			continue
		}
		n++
		if worst < 0 || c.count < r.list[worst].count || c.count == r.list[worst].count && c.last.Before(r.list[worst].last) {
			worst = i
		}
	}
	most := maxCallers
	if strangers {
		most = maxStrangers
	}
	if n >= most {
		r.list = slices.Delete(r.list, worst, worst+1)
	}
}

// welcome forgets a member that is refused no more, and the stranger at its
// address: that it was, before its secret was mended. One that is still there
// behind the same address calls again.
func (r *refusedCalls) welcome(name gossip.Peer, member uint64, addr netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = slices.DeleteFunc(r.list, func(c refusedCall) bool {
		if c.name == "" {
			return c.addr == addr
		}
		return c.name == name && (c.member == member || c.member == 0)
	})
}

// all are those that are not too old.
func (r *refusedCalls) all() []refusedCall {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.list), refusedCall.old)
}
