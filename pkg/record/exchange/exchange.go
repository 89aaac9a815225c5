// Package exchange carries a record.Store's digests and deltas over gossip, so
// that every host ends up with every other's records.
//
// A change made here is broadcast at once, as a hint. What the hints do not
// reach, digests do: one goes to two random neighbours every half second, and to
// a new neighbour at once; who gets one answers with what its sender lacks, in
// bounded messages, and asks back for what it lacks itself.
package exchange

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/record"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// Times and sizes.
const (
	digestEvery   = 500 * time.Millisecond
	digestTo      = 2                    // neighbours at a time
	hintDelay     = 3 * time.Millisecond // changes made together are told together
	formerWithin  = time.Second          // after the first neighbour came
	answerEvery   = 50 * time.Millisecond
	jumpEvery     = time.Second // two hosts of one name would jump over each other for ever
	deltaBytes    = 200 << 10   // of one message, estimated; leaves room below gossip.MaxMessage
	answerDeltas  = 4           // messages in one answer
	queueMessages = 512
	mergeEntries  = 32 // under one lock: each costs the check of a signature
)

// Config is what an exchange needs. Watch and Former may be nil.
type Config struct {
	Store *record.Store // the exchange's own from here on
	Net   gossip.Net
	Log   *slog.Logger

	// Watch hears of every change of other hosts' records, in order, one call at a
	// time, from Run. It must not block for long.
	Watch func([]record.Change)

	// Former, when set, is called once from Run before anything is announced, with
	// what the other hosts have of this host's life before (nothing, if they have
	// nothing). It may Put. Until then they keep what they have. See Announce.
	Former func(map[string][]byte)
}

// Stats is what an exchange counted since New, for `weave report`.
type Stats struct {
	record.Stats
	Origins     int    `json:"origins"`
	Incarnation uint64 `json:"incarnation"`
	Announced   bool   `json:"announced"`
	Received    uint64 `json:"received"` // messages
	Malformed   uint64 `json:"malformed"`
	Dropped     uint64 `json:"dropped"` // messages that found the queue full
	Hurried     uint64 `json:"hurried"` // digests that came too soon after the last
}

// message is what goes over the wire. A digest asks; deltas answer or hint.
type message struct {
	Digest record.Digest  `cbor:"1,keyasint,omitempty"`
	Back   bool           `cbor:"2,keyasint,omitempty"` // the digest answers one: send none back
	Deltas []record.Delta `cbor:"3,keyasint,omitempty"`
	More   bool           `cbor:"4,keyasint,omitempty"` // ask again at once: there was more than one answer holds
}

// told is how far a neighbour's own records went when it last said so, and when that was.
type told struct {
	at   time.Time
	mark record.Mark
}

// answered is when a peer last had an answer, and whether it was told to ask for more.
type answered struct {
	at   time.Time
	more bool
}

type received struct {
	from gossip.Peer
	msg  []byte
}

// Exchange is a Store that many goroutines may use, kept in step with the other hosts'.
type Exchange struct {
	config Config
	codec  wire.Codec
	inbox  chan received
	poke   chan struct{} // own records have changed

	received, malformed, dropped, hurried atomic.Uint64

	mu       sync.Mutex
	store    *record.Store
	announce bool          // Announce was called
	doomed   []gossip.Peer // to be forgotten by Run
	told     map[gossip.Peer]told

	// Of Run's goroutine alone.
	sent       uint64 // own writes up to here were hinted
	neighbours map[gossip.Peer]bool
	said       map[gossip.Peer]record.Mark // how far neighbours have this host's records, by their last digests
	answered   map[gossip.Peer]answered
	jumped     time.Time
	met        time.Time // when the first neighbour came; zero before
}

// New makes an exchange and takes the Records channel of the net.
func New(c Config) *Exchange {
	e := &Exchange{
		config:     c,
		codec:      wire.New(),
		inbox:      make(chan received, queueMessages),
		poke:       make(chan struct{}, 1),
		store:      c.Store,
		neighbours: map[gossip.Peer]bool{},
		said:       map[gossip.Peer]record.Mark{},
		answered:   map[gossip.Peer]answered{},
		told:       map[gossip.Peer]told{},
	}
	c.Net.Handle(gossip.Records, e.handle)
	return e
}

// Put writes an own record; see record.Store.Put.
func (e *Exchange) Put(key string, value []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.changed()
	return e.store.Put(key, value)
}

// Delete removes an own record.
func (e *Exchange) Delete(key string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.changed()
	return e.store.Delete(key)
}

// Announce says that the own records are complete enough to replace, at the other
// hosts, those of this host's life before. With Config.Former set the exchange
// first waits for what they have: until all neighbours that are there have said how
// much that is and the most of it is here, or the first was there for a second without
// that. A host that has no neighbour has nobody to announce to either.
func (e *Exchange) Announce() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.announce = true
	if e.config.Former == nil {
		e.store.Announce()
	}
	e.changed()
}

func (e *Exchange) changed() {
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// Get is one visible record of any host; nil when there is none.
func (e *Exchange) Get(origin gossip.Peer, key string) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.store.Get(origin, key)
}

// Records are an origin's visible records. The map is the caller's, the values are not to be changed.
func (e *Exchange) Records(origin gossip.Peer) map[string][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.store.Records(origin)
}

// Origins lists the other hosts that are known, sorted.
func (e *Exchange) Origins() []gossip.Peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.store.Origins()
}

// UpToDate reports whether all is here that a host has said, since a time, that it has
// written. It is false as long as it has said nothing, as one says that is no neighbour.
func (e *Exchange) UpToDate(origin gossip.Peer, since time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, ok := e.told[origin]
	mine := record.Digest{origin: e.store.Mark(origin)}
	return ok && t.at.After(since) && !mine.Behind(record.Digest{origin: t.mark})
}

// Forget has a retired host's records dropped, by Run, which tells Watch; see
// record.Store.Forget.
func (e *Exchange) Forget(origin gossip.Peer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doomed = append(e.doomed, origin)
	e.changed()
}

func (e *Exchange) forgetDoomed() {
	e.mu.Lock()
	doomed := e.doomed
	e.doomed = nil
	var cs []record.Change
	for _, o := range doomed {
		cs = append(cs, e.store.Forget(o)...)
	}
	e.mu.Unlock()
	if len(cs) > 0 && e.config.Watch != nil {
		e.config.Watch(cs)
	}
}

// Stats gives the counts.
func (e *Exchange) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Stats{
		Stats: e.store.Stats(), Origins: len(e.store.Origins()),
		Incarnation: e.store.Incarnation(), Announced: e.store.Announced(),
		Received: e.received.Load(), Malformed: e.malformed.Load(), Dropped: e.dropped.Load(), Hurried: e.hurried.Load(),
	}
}

// handle runs on the carrier's goroutine, so it only queues.
func (e *Exchange) handle(from gossip.Peer, msg []byte) {
	e.received.Add(1)
	select {
	case e.inbox <- received{from, slices.Clone(msg)}:
	default:
		e.dropped.Add(1) // the next digest makes up for it
	}
}

// Run exchanges until ctx ends; then it returns nil.
func (e *Exchange) Run(ctx context.Context) error {
	tick := time.NewTicker(digestEvery)
	defer tick.Stop()
	var hint <-chan time.Time
	for {
		changed := e.config.Net.Changed()
		e.greet()
		e.tryAnnounce()
		select {
		case <-ctx.Done():
			return nil
		case r := <-e.inbox:
			e.receive(r)
		case <-tick.C:
			e.sendDigests()
		case <-changed:
		case <-e.poke:
			e.forgetDoomed()
			if hint == nil {
				hint = time.After(hintDelay)
			}
		case <-hint:
			hint = nil
			e.sendHints()
		}
	}
}

// greet sends a digest to each neighbour that was none before.
func (e *Exchange) greet() {
	now := map[gossip.Peer]bool{}
	for _, p := range e.config.Net.Neighbours() {
		now[p] = true
		if !e.neighbours[p] {
			e.sendDigest(p, false)
		}
	}
	if e.met.IsZero() && len(now) > 0 {
		e.met = time.Now()
	}
	maps.DeleteFunc(e.said, func(p gossip.Peer, _ record.Mark) bool { return !now[p] })
	e.mu.Lock()
	maps.DeleteFunc(e.told, func(p gossip.Peer, _ told) bool { return !now[p] })
	e.mu.Unlock()
	e.neighbours = now
}

func (e *Exchange) sendDigests() {
	all := slices.Sorted(maps.Keys(e.neighbours))
	for _, i := range rand.Perm(len(all))[:min(digestTo, len(all))] {
		e.sendDigest(all[i], false)
	}
	maps.DeleteFunc(e.answered, func(_ gossip.Peer, a answered) bool { return time.Since(a.at) > answerEvery })
}

func (e *Exchange) sendDigest(to gossip.Peer, back bool) {
	e.mu.Lock()
	d := e.store.Digest()
	e.mu.Unlock()
	if len(d) == 0 {
		d[e.config.Net.Self()] = record.Mark{} // an empty digest could not be told from none
	}
	e.send(to, message{Digest: d, Back: back})
}

// send drops what cannot be sent: whoever misses it asks again.
func (e *Exchange) send(to gossip.Peer, m message) {
	b, err := e.codec.Encode(m)
	if err == nil {
		err = e.config.Net.Send(to, gossip.Records, b)
	}
	if err != nil {
		e.config.Log.Debug("records not sent", "to", to, "bytes", len(b), "error", err)
	}
}

// sendHints broadcasts what was written here since the last time.
func (e *Exchange) sendHints() {
	for {
		e.mu.Lock()
		d, ok := e.store.DeltaSelf(e.sent, deltaBytes)
		e.mu.Unlock()
		if !ok {
			return
		}
		e.sent = d.To
		b, err := e.codec.Encode(message{Deltas: []record.Delta{d}})
		if err == nil {
			err = e.config.Net.Broadcast(gossip.Records, b)
		}
		if err != nil {
			e.config.Log.Debug("records not broadcast", "bytes", len(b), "error", err)
		}
	}
}

func (e *Exchange) receive(r received) {
	var m message
	if err := e.codec.Decode(r.msg, &m); err != nil {
		e.malformed.Add(1)
		e.config.Log.Debug("records not understood", "from", r.from, "error", err)
		return
	}
	for _, d := range m.Deltas {
		for len(d.Entries) > mergeEntries {
			part := d
			part.Entries, d.Entries = d.Entries[:mergeEntries], d.Entries[mergeEntries:]
			part.To = min(d.To, part.Entries[mergeEntries-1].Seq)
			d.From = part.To
			e.merge(r.from, part)
		}
		e.merge(r.from, d)
	}
	if m.More {
		e.sendDigest(r.from, true)
	}
	if m.Digest != nil {
		e.answer(r.from, m)
	}
	e.jump()
}

func (e *Exchange) merge(from gossip.Peer, d record.Delta) {
	e.mu.Lock()
	cs, err := e.store.Merge(d)
	e.mu.Unlock()
	if err != nil {
		e.config.Log.Debug("records refused", "from", from, "error", err)
	}
	if len(cs) > 0 && e.config.Watch != nil {
		e.config.Watch(cs)
	}
}

// answer sends what the sender of a digest lacks, and asks for what it has more.
func (e *Exchange) answer(to gossip.Peer, m message) {
	last, ok := e.answered[to]
	if ok && !last.more && time.Since(last.at) < answerEvery {
		e.hurried.Add(1)
		return
	}
	e.said[to] = m.Digest[e.config.Net.Self()]
	e.mu.Lock()
	e.store.Heard(m.Digest)
	if own := m.Digest[to]; own.Incarnation != 0 {
		e.told[to] = told{time.Now(), own}
	}
	e.mu.Unlock()
	more := false
	for sent := 1; sent <= answerDeltas; sent++ {
		e.mu.Lock()
		ds := e.store.Delta(m.Digest, deltaBytes)
		m.Digest.Advance(ds)
		more = len(e.store.Delta(m.Digest, 1)) > 0
		e.mu.Unlock()
		if len(ds) == 0 {
			break
		}
		e.send(to, message{Deltas: ds, More: more && sent == answerDeltas})
	}
	e.answered[to] = answered{time.Now(), more}
	e.mu.Lock()
	behind := e.store.Digest().Behind(m.Digest)
	e.mu.Unlock()
	waits := m.Digest[to].Incarnation == 0 // to announce, until it has heard what is known of it
	if (behind || waits) && !m.Back {
		e.sendDigest(to, true)
	}
}

// jump raises the incarnation when an earlier life of this host turns out to have had a higher one.
func (e *Exchange) jump() {
	e.mu.Lock()
	defer e.mu.Unlock()
	heard := e.store.Overtaken()
	if heard == 0 || !e.jumped.IsZero() && time.Since(e.jumped) < jumpEvery {
		return
	}
	e.jumped = time.Now()
	now := e.store.Jump(0)
	e.sent = 0
	e.changed()
	e.config.Log.Info("the other hosts remember a later life of this host than it does itself; going on above it", "heard", heard, "incarnation", now)
}

// tryAnnounce announces once it was asked for and what the others have of the life
// before has come, or need not be waited for.
func (e *Exchange) tryAnnounce() {
	e.mu.Lock()
	if !e.announce || e.store.Announced() {
		e.mu.Unlock()
		return
	}
	former, complete := e.store.Former()
	self := e.config.Net.Self()
	here := record.Digest{self: e.store.Digest()[self]}
	e.mu.Unlock()
	late := !e.met.IsZero() && time.Since(e.met) >= formerWithin
	if !late && !e.newest(here, complete) {
		return
	}
	e.config.Former(former)
	e.mu.Lock()
	e.store.Announce()
	e.mu.Unlock()
	e.changed()
}

// newest reports whether no neighbour has more of the life before than is here, which is
// complete or not: one may have been cut off while the others heard on. All that are there
// must have said what they have.
func (e *Exchange) newest(here record.Digest, complete bool) bool {
	self, unknown := e.config.Net.Self(), len(e.neighbours) > 0
	for p := range e.neighbours {
		m, ok := e.said[p]
		if !ok || here.Behind(record.Digest{self: m}) {
			return false
		}
		unknown = unknown && m.Incarnation == 0
	}
	return complete || unknown
}
