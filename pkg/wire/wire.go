// Package wire encodes what routers tell each other: CBOR, deterministic on the
// way out and with hard limits on the way in. It is the only importer of the
// CBOR library, so that the limits are set once.
package wire

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Limits on what is decoded: a message is at most 256 KiB (gossip.MaxMessage), so
// no honest one comes near them.
const (
	maxElements = 65536
	maxNesting  = 16
)

// Codec encodes and decodes; make it once with New and share it.
type Codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

// New returns the codec that every router uses.
func New() Codec {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // constant options: a mistake in this file
	}
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxArrayElements: maxElements,
		MaxMapPairs:      maxElements,
		MaxNestedLevels:  maxNesting,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		UTF8:             cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic(err) // constant options: a mistake in this file
	}
	return Codec{enc, dec}
}

// Encode gives the one encoding of v.
func (c Codec) Encode(v any) ([]byte, error) { return c.enc.Marshal(v) }

// Decode fills v, a pointer, from exactly one encoded item. Fields that this
// version does not know are passed over, so that a newer peer can add some.
func (c Codec) Decode(b []byte, v any) error {
	if err := c.dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode message of %d bytes: %w", len(b), err)
	}
	return nil
}
