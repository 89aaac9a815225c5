package carrier

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// DefaultPort is where routers listen for each other unless told otherwise.
const DefaultPort = 6783

// Bounds of what the book remembers.
const (
	maxAddrs     = 16   // of one peer
	maxPlaces    = 4096 // addresses with a history
	maxTroubles  = 256
	sureFor      = 5 * time.Minute  // that an address still leads to the same peer
	shownFor     = 10 * time.Second // after it was last asked for
	keptFor      = 10 * time.Minute // likewise
	badFor       = 10 * time.Second
	sayAgain     = time.Minute // that a trouble lasts
	firstPenalty = 2 * time.Second
	maxPenalty   = 10 * time.Second
	maxCuts      = 5           // that are tried again at once
	brief        = time.Second // for a session
)

// book is what the carrier knows of where peers are.
type book struct {
	self gossip.Peer
	port uint16 // of targets that name none
	salt string

	mu       sync.Mutex
	targets  []string        // host:port
	homes    map[string]bool // targets that lead to ourselves and nowhere else
	learned  map[gossip.Peer][]netip.AddrPort
	places   map[netip.AddrPort]*place
	failed   map[gossip.Peer]time.Time // when no address of a peer answered
	troubles map[string]trouble
}

// place is one address that was dialled.
type place struct {
	busy    bool                // being dialled
	asked   time.Time           // when it was last among the addresses to be dialled
	askers  map[asker]time.Time // the same of each
	peer    gossip.Peer         // who was there when it last answered, "" if none did
	sure    time.Time           // when it last answered
	penalty time.Duration
	after   time.Time    // do not dial before
	refused time.Time    // when the first refusal in a row came, zero: the last was none
	settled time.Time    // when the last attempt ended
	err     error        // of the last attempt, nil if it led to a session
	no      *Refusal     // why one of us refused, when err is that
	other   *secretError // likewise, when the secrets differ
	cuts    int          // attempts in a row that were cut off without a word
}

// trouble is a reason that was logged.
type trouble struct {
	words string
	when  time.Time
}

func newBook(self gossip.Peer, port uint16) *book {
	return &book{
		self: self, port: port, salt: rand.Text(), learned: map[gossip.Peer][]netip.AddrPort{}, places: map[netip.AddrPort]*place{},
		failed: map[gossip.Peer]time.Time{}, troubles: map[string]trouble{}, homes: map[string]bool{},
	}
}

// Target adds the default port to a target that names none.
func Target(target string, standard uint16) (string, error) {
	target = strings.TrimSpace(target)
	if a, err := netip.ParseAddr(strings.Trim(target, "[]")); err == nil {
		return netip.AddrPortFrom(a, standard).String(), nil
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		host, port = target, strconv.Itoa(int(standard))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, " /[]@") {
		return "", fmt.Errorf("peer %q: must be a host name or address, with a :port or without", target)
	}
	return net.JoinHostPort(host, port), nil
}

func (b *book) addTarget(target string) error {
	t, err := Target(target, b.port)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.targets, t) {
		b.targets = append(b.targets, t)
	}
	return nil
}

// removeTarget reports whether it was there.
func (b *book) removeTarget(target string) bool {
	t, err := Target(target, b.port)
	if err != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.targets, t)
	if i >= 0 {
		b.targets = slices.Delete(b.targets, i, i+1)
		b.askedNoMore(asker{target: t})
	}
	return i >= 0
}

func (b *book) allTargets() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.targets)
}

// called notes where a target has led, after its addresses were called, and reports
// whether it has just turned out that every target leads to ourselves. A router of our
// name that is refused is another one.
func (b *book) called(target string, addrs []netip.AddrPort) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.onlySelf()
	b.homes[target] = len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a netip.AddrPort) bool {
		p := b.places[a]
		return p == nil || p.peer != b.self || p.no != nil
	})
	return !before && b.onlySelf()
}

// onlySelf reports whether every target leads to ourselves; b.mu is held.
func (b *book) onlySelf() bool {
	return len(b.targets) > 0 && !slices.ContainsFunc(b.targets, func(t string) bool { return !b.homes[t] })
}

// learn replaces what is known of a peer's addresses; none: the peer is forgotten.
// It reports whether anything is new.
func (b *book) learn(p gossip.Peer, addrs []netip.AddrPort) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	var good []netip.AddrPort
	for _, a := range addrs {
		if a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast() && len(good) < maxAddrs {
			good = append(good, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
		}
	}
	old, had := b.learned[p]
	switch {
	case p == b.self || len(good) == 0:
		delete(b.learned, p)
		delete(b.failed, p)
		b.askedNoMore(asker{peer: p})
		return had
	case !had && len(b.learned) >= maxPeers || slices.Equal(old, good):
		return false
	}
	b.learned[p] = good
	delete(b.failed, p)
	return true
}

// addresses of a peer, as learned.
func (b *book) addresses(p gossip.Peer) []netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.learned[p])
}

// plan says which peers to call, given those with a session; sparse tells that
// these are not all.
func (b *book) plan(live map[gossip.Peer]bool) (chosen map[gossip.Peer]bool, sparse bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	known := maps.Clone(live)
	for p := range b.learned {
		known[p] = true
	}
	for a, p := range b.places {
		if p.peer != "" && p.peer != b.self {
			known[p.peer] = true
		}
		if !p.busy && now.Sub(p.asked) > keptFor {
			delete(b.places, a)
		}
	}
	chosen = choose(b.self, slices.Collect(maps.Keys(known)), b.salt, func(p gossip.Peer) bool {
		t, failed := b.failed[p]
		return !live[p] && failed && now.Sub(t) < badFor
	})
	return chosen, len(chosen) < len(known) && len(known) >= fullMesh
}

// claim reports whether an address is to be dialled now, for by, and then it is the
// caller's until settle. wanted says whether a peer that was there is worth a call.
func (b *book) claim(by asker, a netip.AddrPort, wanted func(gossip.Peer) bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.places[a]
	if p == nil {
		if len(b.places) >= maxPlaces {
			b.forgetPlace()
		}
		p = &place{penalty: firstPenalty}
		b.places[a] = p
	}
	now := time.Now()
	if !b.askedBy(by, p, now) || p.busy || now.Before(p.after) || p.idle(now, wanted) {
		return false
	}
	p.busy = true
	return true
}

// idle reports that an address leads to a peer that nobody wants to call. One that
// refuses is called again all the same, after its penalty: it may have been mended.
func (p *place) idle(now time.Time, wanted func(gossip.Peer) bool) bool {
	return p.no == nil && p.peer != "" && now.Sub(p.sure) < sureFor && !wanted(p.peer)
}

// allIdle reports whether none of some addresses is worth a look.
func (b *book) allIdle(by asker, addrs []netip.AddrPort, wanted func(gossip.Peer) bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, a := range addrs {
		p := b.places[a]
		if p == nil || !p.idle(now, wanted) {
			return false
		}
		b.askedBy(by, p, now)
	}
	return len(addrs) > 0
}

// forgetPlace makes room for one more.
func (b *book) forgetPlace() {
	for a, p := range b.places {
		if !p.busy {
			delete(b.places, a)
			return
		}
	}
}

// settle records what came of dialling an address, and ends the claim on it. peer
// is who answered, "" if nobody; no is the refusal in err, if it is one.
func (b *book) settle(a netip.AddrPort, peer gossip.Peer, err error, no *Refusal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.places[a]
	if p == nil {
		return
	}
	now := time.Now()
	p.busy, p.settled, p.err, p.no, p.other, p.after = false, now, err, nil, nil, time.Time{}
	errors.As(err, &p.other)
	if no != nil && !no.quiet() {
		p.no = no
	}
	if peer != "" {
		p.peer, p.sure, p.cuts = peer, now, 0
	}
	switch {
	case p.no != nil:
		p.punish(now)
	case no != nil:
		p.err = nil
	default:
		p.penalty, p.refused = firstPenalty, time.Time{}
	}
}

// punish sets when an address that refuses is dialled again: later each time, but
// in each round as long as the refusal may be for a session that is about to be
// found dead.
func (p *place) punish(now time.Time) {
	if p.refused.IsZero() {
		p.refused = now
	}
	if p.no.passes() && now.Sub(p.refused) < silence+dialEvery+dialJitter {
		return
	}
	p.after = now.Add(p.penalty/2 + mrand.N(p.penalty))
	p.penalty = min(2*p.penalty, maxPenalty)
}

// tryAgain reports whether to dial an address again at once: a router that is
// under attack may close a connection of ours among many others.
func (b *book) tryAgain(a netip.AddrPort, cut bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.places[a]
	if p == nil {
		return false
	}
	if !cut {
		p.cuts = 0
		return false
	}
	p.cuts++
	return p.cuts <= maxCuts
}

// unreachable and reachable record whether a learned peer answered at all.
func (b *book) unreachable(p gossip.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.learned[p]; ok {
		b.failed[p] = time.Now()
	}
}

func (b *book) reachable(p gossip.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failed, p)
}

// lost records the end of a session. One that ended at once is not made again at
// once.
func (b *book) lost(s *session, err error) {
	if !s.dialled {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.places[s.addr]; p != nil {
		p.err = err
		if now := time.Now(); now.Sub(s.since) < brief {
			p.after = now.Add(brief)
		}
	}
}

// forgive lets addresses that refused us be dialled again at once.
func (b *book) forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.places {
		p.after, p.refused, p.penalty = time.Time{}, time.Time{}, firstPenalty
	}
}

// knows reports whether a peer has answered at an IP address, or is said to be there.
func (b *book) knows(ip netip.Addr) bool {
	ip = ip.Unmap()
	b.mu.Lock()
	defer b.mu.Unlock()
	for a, p := range b.places {
		if p.peer != "" && a.Addr() == ip {
			return true
		}
	}
	for _, as := range b.learned {
		if slices.ContainsFunc(as, func(a netip.AddrPort) bool { return a.Addr() == ip }) {
			return true
		}
	}
	return false
}

// newTrouble reports whether a trouble with this key is worth a line in the log:
// it is new, its words have changed, or it has lasted.
func (b *book) newTrouble(key, words string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if t, ok := b.troubles[key]; ok && t.words == words && now.Sub(t.when) < sayAgain {
		return false
	}
	if len(b.troubles) >= maxTroubles {
		clear(b.troubles)
	}
	b.troubles[key] = trouble{words, now}
	return true
}

// over ends a trouble.
func (b *book) over(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.troubles, key)
}
