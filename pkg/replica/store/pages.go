package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// checkPages reads the file as bbolt would and believes nothing: bbolt follows what it
// reads in mapped memory, in goroutines of its own, so that a page that was damaged
// ends the process or has it go round for ever. Nothing here is left to be fetched
// twice, so it ends. What the values say is not looked at.
//
// Of the two heads, which are written by turns, both must be whole: the other one would
// lead to the file as it was before the last change, which was promised to others.
func checkPages(f io.ReaderAt, size int64) error {
	head, err := readHeads(f)
	if err != nil {
		return err
	}
	if size%head.page != 0 || uint64(size/head.page) < head.pages {
		return fmt.Errorf("it is cut short: %d bytes, of %d pages of %d", size, head.pages, head.page)
	}
	c := &checker{f, head, make(map[uint64]bool)}
	return c.tree(head.root, nil, nil)
}

// head is what one of the first two pages says.
type head struct {
	page  int64 // bytes
	root  uint64
	pages uint64 // that are in use or were
	txid  uint64
}

// Layout of bbolt's pages, in the machine's own byte order: that of its format 2.
const (
	pageHeader  = 16 // id 8, kind 2, count 2, overflow 4
	pageElement = 16 // of a branch: position 4, key size 4, page 8; of a leaf: flags 4, position 4, key size 4, value size 4
	headSize    = 64
	smallPage   = 1 << 10
	largePage   = 1 << 16
	firstData   = 2 // page after the heads
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	kindBranch = 1
	kindLeaf   = 2
	kindHead   = 4

	leafIsBucket = 1
	bucketHeader = 16 // root 8, a number 8; with root 0 a page follows
)

var ne = binary.NativeEndian

func readHeads(f io.ReaderAt) (newest head, err error) {
	first, err := readHead(f, 0)
	if err != nil {
		return head{}, err
	}
	second, err := readHead(f, first.page)
	switch {
	case err != nil:
		return head{}, err
	case second.page != first.page || first.txid%2 != 0 || second.txid%2 != 1:
		return head{}, errors.New("its two heads belong to two files")
	case second.txid > first.txid:
		return second, nil
	}
	return first, nil
}

func readHead(f io.ReaderAt, at int64) (h head, err error) {
	var b [pageHeader + headSize]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return h, fmt.Errorf("head at byte %d: %w", at, err)
	}
	m := b[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(m[:headSize-8])
	page := int64(ne.Uint32(m[8:]))
	switch {
	case ne.Uint32(m) != boltMagic || ne.Uint32(m[4:]) != boltVersion || ne.Uint64(m[headSize-8:]) != sum.Sum64() || ne.Uint16(b[8:]) != kindHead:
		return h, fmt.Errorf("the head at byte %d is damaged", at)
	case page < smallPage || page > largePage || page&(page-1) != 0:
		return h, fmt.Errorf("pages of %d bytes", page)
	}
	return head{page: page, root: ne.Uint64(m[16:]), pages: ne.Uint64(m[40:]), txid: ne.Uint64(m[48:])}, nil
}

type checker struct {
	f    io.ReaderAt
	head head
	seen map[uint64]bool
}

// tree checks the page and all below it. Its keys are from lo on and before hi, where
// hi is not nil.
func (c *checker) tree(id uint64, lo, hi []byte) error {
	b, err := c.read(id)
	if err == nil {
		err = c.elements(b, lo, hi)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// read fetches a page with those that belong to it, each once.
func (c *checker) read(id uint64) ([]byte, error) {
	if id < firstData || id >= c.head.pages {
		return nil, errors.New("there is no such page")
	}
	var h [pageHeader]byte
	if _, err := c.f.ReadAt(h[:], int64(id)*c.head.page); err != nil {
		return nil, err
	}
	n := uint64(ne.Uint32(h[12:])) + 1
	if ne.Uint64(h[:]) != id || n > c.head.pages-id {
		return nil, fmt.Errorf("it says that it is page %d of %d", ne.Uint64(h[:]), n)
	}
	for i := id; i < id+n; i++ {
		if c.seen[i] {
			return nil, errors.New("it is used twice")
		}
		c.seen[i] = true
	}
	b := make([]byte, int64(n)*c.head.page)
	_, err := c.f.ReadAt(b, int64(id)*c.head.page)
	return b, err
}

func (c *checker) elements(b, lo, hi []byte) error {
	kind, count := ne.Uint16(b[8:]), int(ne.Uint16(b[10:]))
	if kind != kindBranch && kind != kindLeaf || kind == kindBranch && count == 0 || pageHeader+count*pageElement > len(b) {
		return fmt.Errorf("kind %d with %d elements", kind, count)
	}
	keys, values, err := cut(b, kind, count)
	if err != nil {
		return err
	}
	for i, k := range keys {
		if i == 0 && bytes.Compare(k, lo) < 0 || i > 0 && bytes.Compare(keys[i-1], k) >= 0 || hi != nil && bytes.Compare(k, hi) >= 0 {
			return fmt.Errorf("key %d of %d is out of order", i, count)
		}
	}
	for i := range count {
		at := b[pageHeader+i*pageElement:]
		switch {
		case kind == kindBranch:
			next := hi
			if i+1 < count {
				next = keys[i+1]
			}
			err = c.tree(ne.Uint64(at[8:]), keys[i], next)
		case ne.Uint32(at) == leafIsBucket:
			err = c.bucket(values[i])
		case ne.Uint32(at) != 0:
			err = fmt.Errorf("element %d of an unknown kind", i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cut finds keys and values, which lie behind the elements, in their order.
func cut(b []byte, kind uint16, count int) (keys, values [][]byte, err error) {
	for i := range count {
		at := pageHeader + i*pageElement
		e := b[at:]
		pos, k, v := ne.Uint32(e), ne.Uint32(e[4:]), uint32(0)
		if kind == kindLeaf {
			pos, k, v = ne.Uint32(e[4:]), ne.Uint32(e[8:]), ne.Uint32(e[12:])
		}
		from := uint64(at) + uint64(pos)
		if end := from + uint64(k) + uint64(v); from < uint64(pageHeader+count*pageElement) || end > uint64(len(b)) || k == 0 {
			return nil, nil, fmt.Errorf("element %d lies outside", i)
		}
		keys = append(keys, b[from:from+uint64(k)])
		values = append(values, b[from+uint64(k):from+uint64(k)+uint64(v)])
	}
	return keys, values, nil
}

// bucket checks a table within the table; a small one lies in the value itself.
func (c *checker) bucket(v []byte) error {
	if len(v) < bucketHeader {
		return errors.New("a table without a root")
	}
	if root := ne.Uint64(v); root != 0 {
		return c.tree(root, nil, nil)
	}
	if len(v) < bucketHeader+pageHeader {
		return errors.New("a table without a page")
	}
	return c.elements(v[bucketHeader:], nil, nil)
}
