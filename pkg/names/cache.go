package names

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	cacheBytes  = 8 << 20 // of all entries, with what each costs beside its bytes
	cacheShards = 16
	// cacheLargest is the longest answer that is kept, in bytes.
	cacheLargest = 4096
	// cacheOverhead is what an entry takes beside its key and its message, about.
	cacheOverhead = 200
	// cacheSample is how many entries are looked at for the one that has to go.
	cacheSample = 8

	// What is kept is kept no longer than this, in seconds, whatever it says.
	cachePositive = 3600
	cacheNegative = 300
	cacheBlocked  = 60 // what of an answer the filter has left
)

// cache holds answers of others as they came, under what was asked and who was
// asked: never is a client answered with what was said to one that has other
// servers. It is safe for concurrent use, and its memory is bounded.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard

	hits, misses, evicted atomic.Uint64
}

type cacheShard struct {
	mu      sync.RWMutex
	entries map[string]*cacheEntry
	bytes   int
}

// cacheEntry does not change, but for used.
type cacheEntry struct {
	msg     []byte // well-formed, without OPT
	born    time.Time
	expires time.Time
	used    atomic.Int64 // when it was last of use: seconds after born
}

func newCache() *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].entries = map[string]*cacheEntry{}
	}
	return c
}

// forwardKey appends what an answer depends on: the question in lower case, what the
// client wants to be told, and the servers.
func (q *query) forwardKey(b []byte, set upstreamSet) []byte {
	flags := q.flags & (flagRD | flagAD | flagCD)
	if q.do {
		flags |= 1
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	for _, c := range q.question[:len(q.question)-4] {
		if c >= 'A' && c <= 'Z' { // no length of a label is that great
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	b = append(b, q.question[len(q.question)-4:]...)
	return append(b, set.id...)
}

func (c *cache) shard(key []byte) *cacheShard {
	return &c.shards[maphash.Bytes(c.seed, key)%cacheShards]
}

// answer gives the answer to q in dst's memory; nil: there is none.
func (c *cache) answer(dst, key []byte, q *query, now time.Time) []byte {
	sh := c.shard(key)
	sh.mu.RLock()
	e := sh.entries[string(key)]
	sh.mu.RUnlock()
	if e == nil || !now.Before(e.expires) {
		c.misses.Add(1)
		return nil
	}
	c.hits.Add(1)
	age := now.Sub(e.born) / time.Second
	if e.used.Load() != int64(age) {
		e.used.Store(int64(age))
	}
	b := append(dst[:0], e.msg...)
	q.eachRecord(b, func(_ int, r rr, rest []byte) {
		left := binary.BigEndian.Uint32(rest[4:]) - uint32(age) // none is less than the entry's
		if r.rtype == dns.TypeSOA {
			left = min(left, uint32(e.expires.Sub(e.born)/time.Second-age)) // by which a client keeps a denial (RFC 2308, 5)
		}
		binary.BigEndian.PutUint32(rest[4:], left)
	})
	return q.adopt(b)
}

// put keeps an answer of an upstream to q, if it may be kept. The message is copied.
func (c *cache) put(key []byte, q *query, msg []byte, now time.Time) {
	if len(msg) > cacheLargest || truncated(msg) {
		return
	}
	msg = q.withoutOPT(bytes.Clone(msg))
	ttl := q.lifetime(msg)
	if ttl == 0 || q.findOPT(msg) != 0 {
		return
	}
	e := &cacheEntry{msg: msg, born: now, expires: now.Add(time.Duration(ttl) * time.Second)}
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if old := sh.entries[string(key)]; old != nil {
		sh.bytes -= old.size(key)
	}
	sh.entries[string(key)] = e
	sh.bytes += e.size(key)
	for sh.bytes > cacheBytes/cacheShards {
		sh.evict(now)
		c.evicted.Add(1)
	}
}

// clear forgets all answers.
func (c *cache) clear() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		clear(sh.entries)
		sh.bytes = 0
		sh.mu.Unlock()
	}
}

func (e *cacheEntry) size(key []byte) int { return len(key) + len(e.msg) + cacheOverhead }

// evict takes away one entry of a few: one that has expired, or else the one that has
// been of no use for longest. Which few it looks at is the map's chance.
func (s *cacheShard) evict(now time.Time) {
	var worst string
	var idle time.Duration = -1
	n := 0
	for key, e := range s.entries {
		i := now.Sub(e.born) - time.Duration(e.used.Load())*time.Second
		if !now.Before(e.expires) {
			i = now.Sub(time.Time{})
		}
		if i > idle {
			worst, idle = key, i
		}
		if n++; n == cacheSample {
			break
		}
	}
	s.bytes -= s.entries[worst].size([]byte(worst))
	delete(s.entries, worst)
}

// CacheStats is the state of the cache.
type CacheStats struct {
	Entries int    `json:"entries"` // also those that have expired and not been replaced yet
	Bytes   int    `json:"bytes"`
	Limit   int    `json:"limit"` // in bytes
	Hits    uint64 `json:"hits"`  // since the start, as the following
	Misses  uint64 `json:"misses"`
	Evicted uint64 `json:"evicted"` // for want of room
}

func (c *cache) stats() CacheStats {
	st := CacheStats{Limit: cacheBytes, Hits: c.hits.Load(), Misses: c.misses.Load(), Evicted: c.evicted.Load()}
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.RLock()
		st.Entries += len(sh.entries)
		st.Bytes += sh.bytes
		sh.mu.RUnlock()
	}
	return st
}

// lifetime is for how many seconds an answer that is well-formed may be kept; 0: not at all.
// What says that there is nothing is kept only for as long as its zone says (RFC 2308).
func (q *query) lifetime(msg []byte) uint32 {
	rcode := int(msg[3] & 0xf)
	if rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError {
		return 0
	}
	least, found, zone := uint32(cachePositive), false, false
	inAnswer := int(binary.BigEndian.Uint16(msg[answers:]))
	q.eachRecord(msg, func(i int, r rr, rest []byte) {
		ttl := r.ttl
		if ttl > 1<<31-1 {
			ttl = 0 // RFC 2181, 8
		}
		least = min(least, ttl)
		if i < inAnswer && (r.rtype == q.qtype || q.qtype == dns.TypeANY) {
			found = true
		}
		if size := len(rest); i >= inAnswer && r.rtype == dns.TypeSOA && size >= 10+4 {
			zone = true
			least = min(least, binary.BigEndian.Uint32(rest[size-4:]))
		}
	})
	switch {
	case msg[3]&flagBlocked != 0:
		return min(least, cacheBlocked)
	case found && rcode == dns.RcodeSuccess:
		return least
	case zone:
		return min(least, cacheNegative)
	}
	return 0
}

// eachRecord calls f for every record of a well-formed message: its place among all,
// its frame, and its bytes from the type on.
func (q *query) eachRecord(msg []byte, f func(i int, r rr, rest []byte)) {
	n := 0
	for off := answers; off < headerLen; off += 2 {
		n += int(binary.BigEndian.Uint16(msg[off:]))
	}
	b := msg[headerLen+len(q.question):]
	for i := range n {
		r, size := readRR(b)
		if size == 0 {
			return
		}
		f(i, r, b[r.nameLen:size])
		b = b[size:]
	}
}
