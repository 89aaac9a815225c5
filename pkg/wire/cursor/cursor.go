// Package cursor reads what was packed by hand, piece by piece. Any bytes are safe to
// read: of a count or size no more is believed than there are bytes for.
package cursor

import (
	"encoding/binary"
	"unicode/utf8"
)

// Cursor takes pieces off the front of what is left. After the first that is not there
// it is bad, and all further ones are zero.
type Cursor struct {
	left []byte
	bad  bool
}

// New is a cursor at the front of b, which it never writes to.
func New(b []byte) Cursor { return Cursor{left: b} }

// Bad reports whether something was not there, or not as it must be.
func (c *Cursor) Bad() bool { return c.bad }

// Done reports whether all was read, and none of it was bad.
func (c *Cursor) Done() bool { return !c.bad && len(c.left) == 0 }

// Fail makes the cursor bad where yes: what was read cannot be meant.
func (c *Cursor) Fail(yes bool) { c.bad = c.bad || yes }

// Left is how many bytes are left.
func (c *Cursor) Left() int { return len(c.left) }

// Rest takes all that is left. It is a part of what New was given.
func (c *Cursor) Rest() []byte { return c.Bytes(uint64(len(c.left))) }

// Bytes takes n bytes; nil when there are fewer. They are a part of what New was given.
func (c *Cursor) Bytes(n uint64) []byte {
	if c.bad = c.bad || n > uint64(len(c.left)); c.bad {
		return nil
	}
	head := c.left[:n:n]
	c.left = c.left[n:]
	return head
}

// Byte takes one.
func (c *Cursor) Byte() byte {
	if x := c.Bytes(1); x != nil {
		return x[0]
	}
	return 0
}

// Fixed takes a number of 8 bytes, big endian.
func (c *Cursor) Fixed() uint64 {
	if x := c.Bytes(8); x != nil {
		return binary.BigEndian.Uint64(x)
	}
	return 0
}

// Num takes a varint.
func (c *Cursor) Num() uint64 {
	n, size := binary.Uvarint(c.left)
	if c.bad = c.bad || size <= 0; c.bad {
		return 0
	}
	c.left = c.left[size:]
	return n
}

// Small takes a varint that is at most max.
func (c *Cursor) Small(max int) int {
	n := c.Num()
	if c.bad = c.bad || n > uint64(max); c.bad {
		return 0
	}
	return int(n)
}

// Count takes the number of things that follow, at most max, of size bytes each at least.
func (c *Cursor) Count(max, size int) int {
	n := c.Small(min(max, len(c.left)))
	if c.bad = c.bad || n > len(c.left)/size; c.bad {
		return 0
	}
	return n
}

// Text takes a text in UTF-8, its length before it.
func (c *Cursor) Text() string {
	t := string(c.Bytes(c.Num()))
	c.bad = c.bad || !utf8.ValidString(t)
	return t
}

// Clip is the first n bytes of a text at most, cut between letters.
func Clip(t string, n int) string {
	if len(t) <= n {
		return t
	}
	for n > 0 && !utf8.RuneStart(t[n]) {
		n--
	}
	return t[:n]
}
