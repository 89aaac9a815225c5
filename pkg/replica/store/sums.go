package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"
)

// Each value ends with a checksum of its table's name, its key and itself, and one
// value counts all others and adds up their checksums: so what was changed, put
// elsewhere or lost by the disk is noticed. It is no defence against malice.
const sumSize = 4

var errSum = errors.New("a checksum is wrong")

func sum(table, key, value []byte) uint32 {
	crc := crc32.MakeTable(crc32.Castagnoli)
	s := crc32.Update(0, crc, table)
	s = crc32.Update(s, crc, key)
	return crc32.Update(s, crc, value)
}

// unseal takes the checksum off a value as it lies in the file; nil is none.
func unseal(table, key, sealed []byte) ([]byte, error) {
	if sealed == nil {
		return nil, nil
	}
	n := len(sealed) - sumSize
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != sum(table, key, sealed[:n]) {
		return nil, fmt.Errorf("%s %q: %w", table, key, errSum)
	}
	return sealed[:n:n], nil
}

func get(tx *bbolt.Tx, table, key []byte) ([]byte, error) {
	b := tx.Bucket(table)
	if b == nil {
		return nil, fmt.Errorf("table %s is missing", table)
	}
	return unseal(table, key, b.Get(key))
}

// getNumber is 0 where there is none.
func getNumber(tx *bbolt.Tx, key []byte) (uint64, error) {
	v, err := get(tx, bucketMeta, key)
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%s of %d bytes", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// total is of all values but itself.
type total struct {
	count uint64
	sums  uint32 // exclusive or
}

const totalSize = 12

func (t *total) add(sealed []byte)    { t.count++; t.turn(sealed) }
func (t *total) remove(sealed []byte) { t.count--; t.turn(sealed) }

func (t *total) turn(sealed []byte) {
	if n := len(sealed) - sumSize; n >= 0 {
		t.sums ^= binary.BigEndian.Uint32(sealed[n:])
	}
}

func getTotal(tx *bbolt.Tx) (t total, err error) {
	v, err := get(tx, bucketMeta, keyTotal)
	if err != nil {
		return t, err
	}
	if len(v) != totalSize {
		return t, fmt.Errorf("a total of %d bytes", len(v))
	}
	return total{binary.BigEndian.Uint64(v), binary.BigEndian.Uint32(v[8:])}, nil
}

// changing is a transaction that keeps the total.
type changing struct {
	tx    *bbolt.Tx
	total total
}

func (c *changing) put(table, key, value []byte) error {
	b := c.tx.Bucket(table)
	if old := b.Get(key); old != nil {
		c.total.remove(old)
	}
	sealed := binary.BigEndian.AppendUint32(value[:len(value):len(value)], sum(table, key, value))
	c.total.add(sealed)
	return b.Put(key, sealed)
}

func (c *changing) putNumber(name []byte, n uint64) error {
	return c.put(bucketMeta, name, key(n))
}

// delete removes what the cursor stands on.
func (c *changing) delete(at *bbolt.Cursor, sealed []byte) error {
	c.total.remove(sealed)
	return at.Delete()
}

// finish writes the total.
func (c *changing) finish() error {
	v := binary.BigEndian.AppendUint64(nil, c.total.count)
	v = binary.BigEndian.AppendUint32(v, c.total.sums)
	return c.tx.Bucket(bucketMeta).Put(keyTotal, binary.BigEndian.AppendUint32(v, sum(bucketMeta, keyTotal, v)))
}

// verify looks at every value.
func verify(tx *bbolt.Tx) error {
	want, err := getTotal(tx)
	if err != nil {
		return err
	}
	var got total
	for _, table := range tables {
		b := tx.Bucket(table)
		if b == nil {
			return fmt.Errorf("table %s is missing", table)
		}
		err := b.ForEach(func(k, sealed []byte) error {
			if sealed == nil {
				return fmt.Errorf("%s has a table %q", table, k)
			}
			if _, err := unseal(table, k, sealed); err != nil {
				return err
			}
			if !bytes.Equal(table, bucketMeta) || !bytes.Equal(k, keyTotal) {
				got.add(sealed)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if got != want {
		return fmt.Errorf("of %d values there are %d, or they are others", want.count, got.count)
	}
	return nil
}
