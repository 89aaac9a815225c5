// Package record keeps what hosts say of themselves: replicated records of which
// each has one writer for ever, its origin. A host writes only its own, and every
// other host ends up with a copy, whatever is lost, repeated or reordered between.
//
// How it converges. An origin numbers its writes 1, 2, 3, …; a key holds its last
// write and that write's number. A digest says, per origin, up to which number a
// host has everything. The answer to it, a delta, is what was written after that
// and was not overwritten since, in order of number. Applying one twice, late, or
// with a gap before it is harmless: a number below the one that is held changes
// nothing, and a gap keeps the digest where it was, so that it is filled later.
//
// How it is known to have converged. The origin signs a head: its last number and
// a checksum over the keys and numbers that live. A copy that has reached the
// head's number and not its checksum is wrong (it missed a deletion that nobody
// remembers any more); it stays visible while a fresh copy is fetched beside it.
//
// The first records of an origin, and those of a restarted one, which comes with a
// higher incarnation, are staged out of sight until they are complete up to its head,
// then swapped in at once, and only what differs is reported, sorted by key, by one
// Merge: neither its restart nor a reader's flaps anything.
//
// The package is pure: no I/O, no clock, no log, no goroutine. A Store is not safe
// for concurrent use; record/exchange drives one over gossip.
package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Limits. What exceeds one is refused, by the writer and by everybody else, so
// that no member can fill the others' memory.
const (
	MaxKey     = 128       // bytes of a key
	MaxValue   = 32 << 10  // bytes of a value
	MaxCert    = 8 << 10   // bytes of a certificate
	MaxEntries = 16384     // keys of one origin
	MaxBytes   = 16 << 20  // of one origin's entries, as size counts them
	MaxOrigins = 1024      // origins of one store
	MaxTotal   = 128 << 20 // bytes of all entries of one store
	maxSig     = 512       // bytes of a signature

	maxIncarnation = 1 << 62 // so that there always is a higher one to jump to

	// A set with more than twice keepDeleted deletions forgets the oldest. Whoever
	// had not heard of them yet notices by the checksum and takes a full copy.
	keepDeleted = 1024
)

// Overheads of an entry and of a delta beside their texts, in bytes, rounded up.
const (
	entryOverhead = 48
	deltaOverhead = 256
)

// Entry is one write: the last one to its key.
type Entry struct {
	Seq     uint64 `cbor:"1,keyasint"`
	Key     string `cbor:"2,keyasint"`
	Value   []byte `cbor:"3,keyasint,omitempty"`
	Deleted bool   `cbor:"4,keyasint,omitempty"`
	Sig     []byte `cbor:"5,keyasint"` // by the origin, over signedEntry
}

// Head is what an origin says of all its writes.
type Head struct {
	Incarnation uint64 `cbor:"1,keyasint"`
	Seq         uint64 `cbor:"2,keyasint"` // of the last write
	Sum         []byte `cbor:"3,keyasint"` // checksum over the entries that live
	Sig         []byte `cbor:"4,keyasint"` // by the origin, over signedHead
}

// Delta is a part of one origin's records: every write with From < Seq ≤ To that
// was not overwritten since. It may hold later ones too; Head is never older than
// any of them.
type Delta struct {
	Origin  gossip.Peer `cbor:"1,keyasint"`
	Cert    []byte      `cbor:"2,keyasint"`
	Head    Head        `cbor:"3,keyasint"`
	From    uint64      `cbor:"4,keyasint"`
	To      uint64      `cbor:"5,keyasint"`
	Entries []Entry     `cbor:"6,keyasint,omitempty"`
}

// Mark says up to where a host has an origin's writes.
type Mark struct {
	Incarnation uint64 `cbor:"1,keyasint"`
	Seq         uint64 `cbor:"2,keyasint,omitempty"`

	// Head and Sum are the number and the first half of the checksum of the newest
	// head that was heard. By them an origin that lost its memory and took an
	// incarnation again notices that it did (Store.Heard).
	Head uint64 `cbor:"4,keyasint,omitempty"`
	Sum  uint64 `cbor:"5,keyasint,omitempty"`

	// Gone: the host was told to forget the origin up to this incarnation.
	Gone bool `cbor:"3,keyasint,omitempty"`
}

// Digest is a host's marks. An origin that is not in it is not known there.
type Digest map[gossip.Peer]Mark

// Behind reports whether other has something that d lacks.
func (d Digest) Behind(other Digest) bool {
	for o, m := range other {
		if m.after(d[o]) {
			return true
		}
	}
	return false
}

// Advance notes in d what the deltas bring whoever sent it.
func (d Digest) Advance(ds []Delta) {
	for _, x := range ds {
		d[x.Origin] = Mark{Incarnation: x.Head.Incarnation, Seq: x.To}
	}
}

// after reports whether a host at m has something for a host at than.
func (m Mark) after(than Mark) bool {
	switch {
	case m.Gone:
		return false
	case m.Incarnation != than.Incarnation:
		return m.Incarnation > than.Incarnation
	}
	return !than.Gone && m.Seq > than.Seq
}

// Change is one key's value before and after; nil means that it has none.
type Change struct {
	Origin   gossip.Peer
	Key      string
	Old, New []byte // not to be changed
}

// Refused says that parts of a delta were not taken. The others were.
type Refused struct {
	Origin gossip.Peer
	Count  int
	First  error // why, for the first
}

func (r *Refused) Error() string {
	return fmt.Sprintf("records of %q: %d refused, first: %v", clip(string(r.Origin)), r.Count, r.First)
}

func (r *Refused) Unwrap() error { return r.First }

// Reasons for a refusal.
var (
	ErrMalformed = errors.New("malformed")
	ErrTooLarge  = errors.New("over a limit")
	ErrForged    = errors.New("signature does not hold")
)

// size is what an entry counts against the limits, and about what it takes in a message.
func (e Entry) size() int { return entryOverhead + len(e.Key) + len(e.Value) + len(e.Sig) }

func (d Delta) size() int {
	n := deltaOverhead + len(d.Origin) + len(d.Cert)
	for _, e := range d.Entries {
		n += e.size()
	}
	return n
}

// check is for entries from outside.
func (e Entry) check() error {
	switch {
	case e.Seq == 0 || e.Key == "" || e.Deleted && len(e.Value) != 0:
		return fmt.Errorf("entry %d, key %q: %w", e.Seq, clip(e.Key), ErrMalformed)
	case len(e.Key) > MaxKey || len(e.Value) > MaxValue || len(e.Sig) > maxSig:
		return fmt.Errorf("entry %d, key %q, value of %d bytes: %w", e.Seq, clip(e.Key), len(e.Value), ErrTooLarge)
	}
	return nil
}

// check is for deltas from outside; it leaves the entries alone.
func (d Delta) check() error {
	switch {
	case d.Origin == "" || len(d.Origin) > gossip.MaxPeer || len(d.Cert) > MaxCert || len(d.Head.Sig) > maxSig:
		return fmt.Errorf("delta: %w", ErrMalformed)
	case d.Head.Incarnation == 0 || d.Head.Incarnation > maxIncarnation || len(d.Head.Sum) != len(checksum{}) || d.From > d.To || d.To > d.Head.Seq:
		return fmt.Errorf("delta of %q: %w", clip(string(d.Origin)), ErrMalformed)
	}
	return nil
}

// checksum is the exclusive or of the hashes of all entries that live, so that it
// is kept up to date one write at a time.
type checksum [16]byte

func (c *checksum) flip(e Entry) {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 12+len(e.Key)+len(e.Value)), e.Seq)
	h := sha256.Sum256(append(appendText(b, e.Key), e.Value...))
	for i := range c {
		c[i] ^= h[i]
	}
}

func half(sum []byte) uint64 { return binary.BigEndian.Uint64(sum) }

func (c *checksum) is(b []byte) bool { return bytes.Equal(c[:], b) }

// signedEntry is what an origin signs of an entry: nothing of it can be moved to
// another origin, incarnation, key or number.
func signedEntry(origin gossip.Peer, incarnation uint64, e Entry) []byte {
	b := signedPrefix("weave record entry 1", origin, incarnation, e.Seq)
	if e.Deleted {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = appendText(b, e.Key)
	return append(b, e.Value...)
}

func signedHead(origin gossip.Peer, h Head) []byte {
	return append(signedPrefix("weave record head 1", origin, h.Incarnation, h.Seq), h.Sum...)
}

func signedPrefix(purpose string, origin gossip.Peer, incarnation, seq uint64) []byte {
	b := appendText(nil, purpose)
	b = appendText(b, string(origin))
	b = binary.BigEndian.AppendUint64(b, incarnation)
	return binary.BigEndian.AppendUint64(b, seq)
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
