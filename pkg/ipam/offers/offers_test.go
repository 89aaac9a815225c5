package offers

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
)

type notes map[string][]byte

func (n notes) Get(name string) ([]byte, error)    { return n[name], nil }
func (n notes) Put(name string, note []byte) error { n[name] = note; return nil }

func TestOffersAreReadAsTheyWereWritten(t *testing.T) {
	n := notes{}
	if list, err := New(n).Load(); err != nil || list != nil {
		t.Errorf("none yet: %v, %v", list, err)
	}
	for _, want := range [][]allot.Offer{
		{{Network: "weave", Ranges: []addr.Range{addr.RangeOf(netip.MustParsePrefix("10.32.4.0/24")), addr.RangeOf(netip.MustParsePrefix("fd00::/100"))}}},
		{},
	} {
		if err := New(n).Save(want); err != nil {
			t.Fatal(err)
		}
		if got, err := New(n).Load(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
}

func TestADamagedNoteIsAnErrorAndNotNothing(t *testing.T) {
	for _, text := range []string{"", "[{", `[{"network":"weave","ranges":[{}]}]`, `[{"network":"weave","ranges":[{"first":"10.0.0.9","last":"10.0.0.1"}]}]`} {
		if list, err := New(notes{name: []byte(text)}).Load(); err == nil {
			t.Errorf("%q reads as %v", text, list)
		}
	}
}
