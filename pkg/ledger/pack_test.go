package ledger

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

func parsed(b []byte) (*State, error) {
	d, err := ParseDump(b)
	if err != nil {
		return nil, err
	}
	return Load(d)
}

// told is a ledger with something of everything.
func told(t interface{ Fatalf(string, ...any) }) *State {
	s := founded(t, 3, "10.0.0.0/30", "fd00::/64")
	s.do(Command{From: 1, Seq: 1, Take: &Take{ID: 1, Network: "weave", Subnet: netip.MustParsePrefix("fd00::/64"), Want: 4}})
	s.do(Command{From: 2, Seq: 1, AddNetwork: &AddNetwork{Network: Network{Name: "n", Subnets: pfx("10.9.0.0/24")}}})
	for i := range 4 {
		s.do(Command{TakeAddr: &TakeAddr{1, "weave", netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}})
	}
	s.grab(2, "10.0.0.0/30", 2, false)
	s.do(Command{From: 2, Seq: 2, TakeAddr: &TakeAddr{2, "weave", netip.MustParseAddr("10.0.0.1")}})
	s.do(Command{Retire: &Retire{3}})
	return s
}

func TestADumpThatNoStateCanHaveMadeIsRefused(t *testing.T) {
	if _, err := parsed(told(t).Dump().Append(nil)); err != nil {
		t.Fatal(err)
	}
	many := make([]addr.Range, maxPieces+1)
	for i := range many {
		many[i] = addr.RangeOf(netip.MustParsePrefix("10.0.0.0/30"))
	}
	for what, harm := range map[string]func(d *Dump){
		"the next VNI is 0":      func(d *Dump) { d.NextVNI = 0 },
		"the next VNI is 7":      func(d *Dump) { d.NextVNI = 7 },
		"who is no member":       func(d *Dump) { d.Recalls = append(d.Recalls, Recall{ID: 99}) },
		"3, who is no member":    func(d *Dump) { d.Recalls = append(d.Recalls, Recall{ID: 3}) },
		"out of order":           func(d *Dump) { d.Recalls = append(d.Recalls, d.Recalls[0]) },
		"17 ranges":              func(d *Dump) { d.Recalls[0].Result.Ranges = many },
		"was granted":            func(d *Dump) { d.Recalls[0].Result.Ranges = []addr.Range{{}} },
		"code 0, 1 ranges, \"no": func(d *Dump) { d.Recalls[0].Result.Err = "no" },
		"code 4":                 func(d *Dump) { d.Recalls[0].Result = Result{Code: CodeEmpty, Err: strings.Repeat("x", maxErr+1)} },
		"joined by entry":        func(d *Dump) { d.Members[0].Since = d.Index + 1 },
		"needs 2 of":             func(d *Dump) { d.Needs[0].Network = "n" },
		"members":                func(d *Dump) { d.Members = make([]Member, mostMembers+1) },
	} {
		d, err := ParseDump(told(t).Dump().Append(nil)) // one of its own
		if err != nil {
			t.Fatal(err)
		}
		harm(&d)
		if _, err := Load(d); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestALedgerOfANewerVersionIsCalledThat(t *testing.T) {
	b := told(t).Dump().Append(nil)
	b[0] = dumpFormatMore + 1
	if _, err := ParseDump(b); !errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
	if _, err := ParseDump([]byte{0}); err == nil || errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
}

// A peer's ledger of 8 MiB whose counts are as high as its bytes allow.
func TestALedgerThatLiesAboutItsSizeCostsNoMoreMemoryThanATrueOne(t *testing.T) {
	head := Dump{Index: 1, Cluster: "c", NextVNI: FirstVNI}.Append(nil)
	head = head[:len(head)-4]                // without its four counts
	owners := func(p string, n int) []byte { // of one network
		b := packer(append(append([]byte(nil), head...), 0, 1))
		b.network(Network{Name: "n", Subnets: pfx(p)}, false)
		b.num(uint64(n))
		return b
	}
	for what, b := range map[string][]byte{
		"members":      binary.AppendUvarint(append([]byte(nil), head...), mostMembers),
		"many members": binary.AppendUvarint(append([]byte(nil), head...), 1<<20),
		"networks":     binary.AppendUvarint(append(append([]byte(nil), head...), 0), MaxNetworks),
		"ranges":       owners("10.0.0.0/8", mostBlocks),
		"many ranges":  owners("10.0.0.0/8", 700000),
		"no family":    owners("0.0.0.0/0", 700000)[:len(head)+6],
		"recalls":      binary.AppendUvarint(append(append([]byte(nil), head...), 0, 0), mostMembers),
	} {
		b = append(b, make([]byte, 8<<20-len(b))...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ParseDump(b)
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; err == nil || used > 16 {
			t.Errorf("%s: %d MiB, %v", what, used, err)
		}
	}
}

// FuzzParseDump: what is read at all is written as it was read, if a state can have it.
func FuzzParseDump(f *testing.F) {
	f.Add(told(f).Dump().Append(nil))
	f.Add([]byte{dumpFormat})
	s := registry(f)
	f.Add(s.Dump().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parsed(b)
		if err != nil {
			return
		}
		again, err := parsed(s.Dump().Append(nil))
		if err != nil || string(again.Dump().Append(nil)) != string(s.Dump().Append(nil)) {
			t.Errorf("%v", err)
		}
	})
}
