package allot

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

type noFiles struct{}

func (noFiles) Load() (live, resting []Claim, bad []error, err error) { return nil, nil, nil, nil }
func (noFiles) Save(Claim) error                                      { return nil }
func (noFiles) Rest(string) error                                     { return nil }
func (noFiles) Drop(string) error                                     { return nil }

// owner is the core of a host that owns all of 10.32.0.0/28.
func owner(t *testing.T) *Core {
	t.Helper()
	const all = "10.32.0.0/28"
	state := ledger.New()
	for i, c := range []ledger.Command{
		{Found: &ledger.Found{Cluster: "c", Network: ledger.Network{Name: "weave", Driver: "weave", MTU: 1400, Subnets: []netip.Prefix{netip.MustParsePrefix(all)}}}},
		{Join: &ledger.Join{Member: ledger.Member{ID: 1, Name: "a"}}},
		{Take: &ledger.Take{ID: 1, Network: "weave", Subnet: netip.MustParsePrefix(all), Want: 16}},
	} {
		if res := state.Apply(uint64(i+1), c); res.Code != ledger.OK {
			t.Fatalf("%+v: %s", c, res.Err)
		}
	}
	for state.Pool("weave", netip.MustParsePrefix(all)) > 0 {
		if res := state.Apply(state.Index()+1, ledger.Command{Take: &ledger.Take{ID: 1, Network: "weave", Subnet: netip.MustParsePrefix(all), Want: 16}}); res.Code != ledger.OK {
			t.Fatal(res.Err)
		}
	}
	a := New(Config{Self: 1, Claims: noFiles{}, Log: slog.New(slog.DiscardHandler), Now: func() time.Duration { return 0 }})
	a.Sync(state, true)
	return a
}

// add is one ADD: the address that it gets, or the code and words of the refusal.
func add(a *Core, container string, in ctl.AllocateRequest) string {
	in.Key, in.Network, in.Decider = keyOf(container), "weave", ctl.DecidedByClaim
	o, err := ParseAllocate(in)
	var got []netip.Prefix
	var l *Lack
	if err == nil {
		got, l, err = a.Try(o)
	}
	var coded *ctl.Error
	switch {
	case errors.As(err, &coded):
		return fmt.Sprint(coded.Code, " ", coded.Msg, "; ", coded.Details)
	case err != nil || l != nil || len(got) != 1:
		return fmt.Sprint(got, l, err)
	}
	return got[0].Addr().String()
}

func keyOf(container string) attachment.Key {
	return attachment.Key{Network: "weave", ContainerID: container, IfName: "eth0"}
}

func TestWhatIsReservedIsGivenToWhoAsksForItAndToNobodyElse(t *testing.T) {
	const allBut = "10.32.0.8/29" // .1 to .7 are left of the network
	list := func(texts ...string) []string { return texts }
	for _, c := range []struct {
		what                        string
		exclude, reserve, requested []string
		subnet                      string
		want                        string // the address, or what the refusal begins with
		words                       string // and what else it says
	}{
		{what: "nobody asks", reserve: list("10.32.0.0/29"), want: "10.32.0.8"},
		{what: "nobody asks, and a part of the network is chosen from", reserve: list("10.32.0.8/30"), subnet: allBut, want: "10.32.0.12"},
		{what: "a single address", reserve: list("10.32.0.1", "10.32.0.3"), want: "10.32.0.2"},
		{what: "the ranges of both lists", exclude: list("10.32.0.1"), reserve: list("10.32.0.2", "10.32.0.1"), want: "10.32.0.3"},
		{what: "it is asked for", reserve: list("10.32.0.0/29"), requested: list("10.32.0.5"), want: "10.32.0.5"},
		{what: "one that is not reserved is asked for", reserve: list("10.32.0.0/29"), requested: list("10.32.0.9/28"), want: "10.32.0.9"},
		{what: "it is excluded too", exclude: list("10.32.0.4/30"), reserve: list("10.32.0.0/29"), requested: list("10.32.0.5"), want: "7 ", words: "excluded by the same configuration"},
		{what: "it is outside the subnet", reserve: list("10.32.0.0/29"), subnet: allBut, requested: list("10.32.0.5"), want: "7 ", words: "not in the subnet"},
		{what: "it is the network's first", reserve: list("10.32.0.0/29"), requested: list("10.32.0.0"), want: "7 ", words: "nobody may have"},
		{what: "everything is reserved", reserve: list("10.32.0.0/28"), want: "100 ", words: "; what the configuration reserves is not counted"},
		{what: "everything is one or the other", exclude: list("10.32.0.0/29"), reserve: list("10.32.0.8/29"), want: "100 ", words: "; what the configuration excludes or reserves is not counted"},
		{what: "everything is excluded", exclude: list("10.32.0.0/28"), want: "100 ", words: "; what the configuration excludes is not counted"},
		{what: "no list can be read like that", reserve: list("10.32.0.0-10.32.0.4"), want: "7 ", words: `reserved "10.32.0.0-10.32.0.4": want a prefix`},
		{what: "what is excluded is elsewhere", exclude: list("10.32.0.1", "10.99.0.0/24"), want: "7 ", words: `10.99.0.0-10.99.0.255 is excluded, and not in network "weave", which has [10.32.0.0/28]`},
		{what: "what is reserved is elsewhere, and another is asked for", reserve: list("10.99.0.1"), requested: list("10.32.0.5"), want: "7 ", words: `10.99.0.1 is reserved, and not in`},
		{what: "what is reserved is of a family that the network does not have", reserve: list("fd00::1"), want: "10.32.0.1"},
		{what: "what is excluded is more than the network", exclude: list("10.32.0.0/29", "10.32.0.0/12"), want: "100 "},
		{what: "the lists are too long together", exclude: slices.Repeat(list("10.32.0.1"), 32), reserve: slices.Repeat(list("10.32.0.2"), 33), want: "7 ", words: "65 ranges"},
		{what: "they are just short enough", exclude: slices.Repeat(list("10.32.0.1"), 32), reserve: slices.Repeat(list("10.32.0.2"), 32), want: "10.32.0.3"},
	} {
		got := add(owner(t), "a", ctl.AllocateRequest{Requested: c.requested, Subnet: c.subnet, Exclude: c.exclude, Reserve: c.reserve})
		if strings.HasSuffix(c.want, " ") && !strings.HasPrefix(got, c.want) || !strings.HasSuffix(c.want, " ") && got != c.want || !strings.Contains(got, c.words) {
			t.Errorf("%s: got %q, want %s%s", c.what, got, c.want, c.words)
		}
	}
}

// A container that is added again, also after its DEL, and does not ask this time.
func TestWhoHadAReservedAddressGetsItAgain(t *testing.T) {
	a := owner(t)
	reserving := ctl.AllocateRequest{Reserve: []string{"10.32.0.8/29"}}
	asking := reserving
	asking.Requested = []string{"10.32.0.9"}
	for i, in := range []ctl.AllocateRequest{asking, reserving, asking} {
		if got := add(a, "it", in); got != "10.32.0.9" {
			t.Errorf("call %d while it has it: %s", i, got)
		}
	}
	a.Release(keyOf("it").Hash())
	if got := add(a, "other", reserving); got != "10.32.0.1" {
		t.Errorf("another: %s", got)
	}
	if got := add(a, "it", reserving); got != "10.32.0.9" {
		t.Errorf("after its release: %s", got)
	}
	a.Release(keyOf("it").Hash())
	for i := range 6 {
		add(a, fmt.Sprint("more", i), reserving)
	}
	if got := add(a, "last", reserving); !strings.HasPrefix(got, "100 ") {
		t.Errorf("one that was freed and is reserved is given to another: %s", got)
	}
	if got := add(a, "asks", asking); got != "10.32.0.9" {
		t.Errorf("who asks for it: %s", got)
	}
	excluding := ctl.AllocateRequest{Exclude: asking.Reserve, Reserve: asking.Reserve}
	a.Release(keyOf("asks").Hash())
	if got := add(a, "asks", excluding); !strings.HasPrefix(got, "100 ") {
		t.Errorf("who had it, and now it is excluded: %s", got)
	}
}
