package carrier

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A frame is one byte of kind, two of length (big endian) and as many of body.
// It fits one TLS record with its header.
const (
	headerLen = 3
	maxBody   = 16<<10 - headerLen
	maxHello  = 4 << 10 // body of a frame that is decoded: hello, verdict, bye
)

type kind byte

const (
	kindData    kind = 1 // bytes of the inner stream
	kindBeat    kind = 2 // empty: the sender lives
	kindBye     kind = 3 // words: why the sender closes
	kindHello   kind = 4 // greeting: who the sender is; again whenever its Hello changes
	kindVerdict kind = 5 // verdict: the answer to the first greeting
)

// limit is the largest body of a frame of this kind; ok is false for a kind that
// does not exist.
func (k kind) limit() (n int, ok bool) {
	switch k {
	case kindData:
		return maxBody, true
	case kindBeat:
		return 0, true
	case kindBye, kindHello, kindVerdict:
		return maxHello, true
	}
	return 0, false
}

// readFrame reads one frame into buf, which has room for maxBody bytes, and
// returns its body as a part of buf. It reads nothing of a frame that is unknown
// or too long.
func readFrame(r io.Reader, buf []byte) (kind, []byte, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	k, n := kind(h[0]), int(binary.BigEndian.Uint16(h[1:]))
	limit, ok := k.limit()
	if !ok {
		return 0, nil, fmt.Errorf("frame of unknown kind %d", k)
	}
	if n > limit {
		return 0, nil, fmt.Errorf("frame of kind %d with %d bytes: at most %d", k, n, limit)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, nil, err
	}
	return k, buf[:n], nil
}

// putHeader writes the header of a frame with n bytes of body into b.
func putHeader(b []byte, k kind, n int) {
	b[0] = byte(k)
	binary.BigEndian.PutUint16(b[1:], uint16(n))
}

// frame builds a whole frame. The body is within the kind's limit.
func frame(k kind, body []byte) []byte {
	b := make([]byte, headerLen, headerLen+len(body))
	putHeader(b, k, len(body))
	return append(b, body...)
}
