package offers

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
)

func TestOffersAreReadAsTheyWereWritten(t *testing.T) {
	f := New(filepath.Join(t.TempDir(), "offers"))
	if list, err := f.Load(); err != nil || list != nil {
		t.Errorf("none yet: %v, %v", list, err)
	}
	for _, want := range [][]allot.Offer{
		{{Network: "weave", Ranges: []addr.Range{addr.RangeOf(netip.MustParsePrefix("10.32.4.0/24")), addr.RangeOf(netip.MustParsePrefix("fd00::/100"))}}},
		{},
	} {
		if err := f.Save(want); err != nil {
			t.Fatal(err)
		}
		if got, err := New(f.path).Load(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	if files, _ := os.ReadDir(filepath.Dir(f.path)); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

func TestADamagedFileIsAnErrorAndNotNothing(t *testing.T) {
	f := New(filepath.Join(t.TempDir(), "offers"))
	for _, text := range []string{"", "[{", `[{"network":"weave","ranges":[{}]}]`, `[{"network":"weave","ranges":[{"First":"10.0.0.9","Last":"10.0.0.1"}]}]`} {
		if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := f.Load(); err == nil {
			t.Errorf("%q reads as %v", text, list)
		}
	}
}
