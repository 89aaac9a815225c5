package cursor

import (
	"encoding/binary"
	"testing"
	"unicode/utf8"
)

func TestPiecesComeOffInTheirOrder(t *testing.T) {
	b := []byte{7}
	b = binary.BigEndian.AppendUint64(b, 1<<60)
	b = binary.AppendUvarint(b, 300)
	b = append(b, "\x02äxyz"...)
	c := New(b)
	if c.Byte() != 7 || c.Fixed() != 1<<60 || c.Small(300) != 300 || c.Text() != "ä" || c.Left() != 3 || c.Done() || string(c.Rest()) != "xyz" || !c.Done() {
		t.Errorf("%+v", c)
	}
}

func TestWhatIsNotThereIsZeroAndEverythingAfterItToo(t *testing.T) {
	for what, take := range map[string]func(*Cursor) bool{
		"bytes":         func(c *Cursor) bool { return c.Bytes(6) == nil },
		"number":        func(c *Cursor) bool { return c.Fixed() == 0 },
		"no varint":     func(c *Cursor) bool { c.Bytes(1); return c.Num() == 0 },
		"above max":     func(c *Cursor) bool { return c.Small(1) == 0 },
		"text":          func(c *Cursor) bool { c.Bytes(5); return c.Text() == "" },
		"count":         func(c *Cursor) bool { return c.Count(9, 3) == 0 },
		"count too big": func(c *Cursor) bool { return c.Count(1, 1) == 0 },
		"failed":        func(c *Cursor) bool { c.Fail(false); c.Fail(true); return true },
	} {
		c := New([]byte{2, 0x80, 0x80, 0x80, 0x80})
		if !take(&c) || !c.Bad() || c.Done() {
			t.Errorf("%s: %+v", what, c)
		}
		if c.Byte() != 0 || c.Num() != 0 || c.Fixed() != 0 || c.Text() != "" || c.Bytes(0) != nil || c.Rest() != nil {
			t.Errorf("%s: something came after it", what)
		}
	}
	c := New([]byte("\x01\xff"))
	if c.Text(); !c.Bad() {
		t.Error("half a letter is a text")
	}
}

func TestATextIsCutBetweenLetters(t *testing.T) {
	for n, want := range map[int]string{0: "", 1: "a", 2: "a", 3: "aä", 4: "aä", 5: "aä", 6: "aä€", 9: "aä€"} {
		if got := Clip("aä€", n); got != want || !utf8.ValidString(got) {
			t.Errorf("%d bytes: %q", n, got)
		}
	}
}
