package router

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/netlab"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/record"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

func TestANameByHandIsTakenInDNSOwnFormOrRefused(t *testing.T) {
	weave, blue := ledger.Network{Name: "weave"}, ledger.Network{Name: "Blue"}
	for asked, want := range map[string]string{
		"db": "db", "DB.": "db", "db.prod": "db.prod", "my_db": "my_db", "db.weave.local": "db", "db.blue.weave.local": "db", "db.prod.blue.weave.local.": "db.prod",
	} {
		if got, err := handNameOf(asked, "weave.local", blue, []ledger.Network{weave, blue}); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", asked, got, err, want)
		}
	}
	for asked, words := range map[string]string{
		"": "empty", "a b": "other characters", "*": "other characters", "*.db": "other characters", "-a": "begins or ends", strings.Repeat("a", 64): "64 characters", strings.Repeat("a.", 130): "DNS takes",
		"10.0.0.1": "is an address", "fd00::1": "is an address", "blue": "is that of a network", "weave": "is that of a network", "db.weave": "--network weave", "db.Blue": "--network Blue",
		"db.weave.weave.local": "--network weave", "_http._tcp.db": "of a service", "a._tcp": "of a service", "weave.local": "nobody's to give", "localhost": "nobody's to give",
	} {
		got, err := handNameOf(asked, "weave.local", blue, []ledger.Network{weave, blue})
		var coded *ctl.Error
		if !errors.As(err, &coded) || coded.Code != ctl.CodeInvalidConfig || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: got %q, %v; want %q", asked, got, err, words)
		}
	}
}

func TestOfANameByHandItIsSaidWhoAsksElsewhereFirstAndWhoSharesIt(t *testing.T) {
	at := netip.MustParseAddr("10.32.0.7")
	rec := func(name, host string, byHand bool) names.Record {
		return names.Record{Name: name, Host: host, Addr: at, ByHand: byHand}
	}
	for name, c := range map[string]struct {
		internal bool
		sharing  []names.Record
		want     []string
	}{
		"alone":  {},
		"in.it":  {internal: true},
		"db.out": {want: []string{"db.out has a dot, so resolvers ask the upstream servers first: for sure it is db.out.weave.local"}},
		"web":    {sharing: []names.Record{rec("web", "b", false)}, want: []string{"web is also 10.32.0.7 (a container on host b): who asks gets all addresses"}},
		"b":      {sharing: []names.Record{rec("b", "B", false)}, want: []string{"b is also 10.32.0.7 (host B): who asks gets all addresses"}},
		"a":      {sharing: []names.Record{rec("a", "b", true)}, want: []string{"a is also 10.32.0.7 (by hand on host b): who asks gets all addresses"}},
		"many": {sharing: slices.Repeat([]names.Record{rec("many", "b", false)}, 5), want: append(
			slices.Repeat([]string{"many is also 10.32.0.7 (a container on host b): who asks gets all addresses"}, 3), "and 2 addresses more; see `weave status dns`")},
	} {
		if got := handRemarks(name, "weave.local", ledger.Network{Internal: c.internal}, c.sharing); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// hand calls one of the calls about names by hand.
func (r *lone) hand(path string, in ctl.HandName) (out ctl.HandName, err error) {
	err = ctl.New(r.config.Socket, 0).Call(r.t.Context(), path, in, &out)
	return out, err
}

// finds reports what a container of a network would be answered.
func (r *lone) finds(network, name string) string {
	var out ctl.LookupReply
	if err := ctl.New(r.config.Socket, 0).Call(r.t.Context(), ctl.PathDNSLookup, ctl.LookupRequest{Name: name, Network: network}, &out); err != nil {
		return err.Error()
	}
	var data []string
	for _, rec := range out.Records {
		data = append(data, rec.Data)
	}
	slices.Sort(data)
	return strings.Join(data, " ")
}

// findsAtLast waits until a container would be answered that.
func (r *lone) findsAtLast(network, name, want string) {
	r.t.Helper()
	must(r.t, netlab.Wait(patience, fmt.Sprintf("%s finds %q for %s on %s", r.config.Name, want, name, network), func() error {
		if got := r.finds(network, name); got != want {
			return fmt.Errorf("got %q", got)
		}
		return nil
	}))
}

func codeIn(err error) uint {
	var e *ctl.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func TestNamesByHandOutliveTheRouterAndGoWithTheirNetworkOrHost(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	a := startOn(t, lab.Host(0), as("a"))
	a.until("a founds", ready)
	start := func() *lone {
		return startOn(t, lab.Host(1), func(c *Config) { c.Name, c.Peers = "b", []string{lab.Host(0).Addr().String()} })
	}
	b := start()
	b.until("b joins", ready)
	must(t, ctl.New(a.config.Socket, 0).Call(t.Context(), ctl.PathNetCreate, ctl.NetCreateRequest{Name: "blue"}, nil))
	b.until("b has the network", func(s ctl.Status) bool {
		return slices.ContainsFunc(s.Networks, func(n ctl.NetStatus) bool { return n.Name == "blue" })
	})

	db := ctl.HandName{Name: "DB", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}}
	if out, err := b.hand(ctl.PathDNSAdd, db); err != nil || out.Name != "db" || out.Network != DefaultNetwork || len(out.Addresses) != 2 {
		t.Fatalf("got %+v, %v", out, err)
	}
	_, err := a.hand(ctl.PathDNSAdd, ctl.HandName{Name: "db", Addresses: db.Addresses[:1]})
	must(t, err)
	_, err = b.hand(ctl.PathDNSAdd, ctl.HandName{Name: "other", Network: "blue", Addresses: db.Addresses[:1]})
	must(t, err)
	for _, r := range []*lone{a, b} {
		r.findsAtLast("", "db", "192.0.2.7 2001:db8::7")
		r.findsAtLast("", "db.weave.weave.local", "192.0.2.7 2001:db8::7")
		r.findsAtLast("blue", "other", "192.0.2.7")
		r.findsAtLast("blue", "db", "")
	}
	must(t, netlab.Wait(patience, "b says who shares the name", func() error {
		out, err := b.hand(ctl.PathDNSAdd, db)
		if err != nil || len(out.Remarks) != 1 || !strings.Contains(out.Remarks[0], "192.0.2.7 (by hand on host a)") {
			return fmt.Errorf("got %+v, %v", out, err)
		}
		return nil
	}))
	s, err := a.status()
	must(t, err)
	if !slices.ContainsFunc(s.DNS.Names, func(n ctl.NameEntry) bool { return n.Name == "other" && n.ByHand && n.Host == "b" }) {
		t.Errorf("not in the status: %+v", s.DNS.Names)
	}

	for what, c := range map[string]struct {
		r    *lone
		path string
		in   ctl.HandName
		code uint
	}{
		"of another host":       {a, ctl.PathDNSRemove, ctl.HandName{Name: "other", Network: "blue"}, ctl.CodeWrongHost},
		"of a host itself":      {a, ctl.PathDNSRemove, ctl.HandName{Name: "b"}, ctl.CodeInvalidConfig},
		"not there":             {a, ctl.PathDNSRemove, ctl.HandName{Name: "nosuch"}, ctl.CodeInvalidConfig},
		"an address it has not": {b, ctl.PathDNSRemove, ctl.HandName{Name: "db", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}, ctl.CodeInvalidConfig},
		"without an address":    {a, ctl.PathDNSAdd, ctl.HandName{Name: "x"}, ctl.CodeInvalidConfig},
		"to nobody":             {a, ctl.PathDNSAdd, ctl.HandName{Name: "x", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, ctl.CodeInvalidConfig},
		"on no network":         {a, ctl.PathDNSAdd, ctl.HandName{Name: "x", Network: "nosuch", Addresses: db.Addresses}, ctl.CodeInvalidConfig},
		"of a network":          {a, ctl.PathDNSAdd, ctl.HandName{Name: "blue", Addresses: db.Addresses}, ctl.CodeInvalidConfig},
	} {
		if out, err := c.r.hand(c.path, c.in); codeIn(err) != c.code {
			t.Errorf("%s: got %+v, %v; want code %d", what, out, err, c.code)
		}
	}

	must(t, b.Signal(unix.SIGKILL))
	b.ends()
	b = start()
	b.findsAtLast("", "db", "192.0.2.7 2001:db8::7")
	b.findsAtLast("blue", "other", "192.0.2.7")
	must(t, b.Signal(unix.SIGKILL))
	b.ends()
	a.findsAtLast("blue", "other", "") // 6 s after that
	b = start()
	a.findsAtLast("blue", "other", "192.0.2.7")
	if out, err := b.hand(ctl.PathDNSRemove, ctl.HandName{Name: "db", Addresses: db.Addresses[:1]}); err != nil || len(out.Addresses) != 1 {
		t.Errorf("got %+v, %v", out, err)
	}
	_, err = a.hand(ctl.PathDNSRemove, ctl.HandName{Name: "db"})
	must(t, err)
	a.findsAtLast("", "db", "2001:db8::7")

	must(t, ctl.New(a.config.Socket, 0).Call(t.Context(), ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "blue"}, nil))
	gone := func(name string) func(ctl.Status) bool {
		return func(s ctl.Status) bool {
			return !slices.ContainsFunc(s.DNS.Names, func(n ctl.NameEntry) bool { return n.Name == name })
		}
	}
	a.until("the name has gone with its network", gone("other"))
	b.until("the name has gone with its network", gone("other"))
	must(t, ctl.New(b.config.Socket, 0).Call(t.Context(), ctl.PathReset, ctl.ResetRequest{Stop: true}, nil))
	b.ends()
	a.until("the name has gone with its host", gone("db"))
}

// FuzzHandRecord has a peer send any bytes as a name by hand.
func TestANameByHandThatCannotBeToldHidesNoOther(t *testing.T) {
	r, _ := bare(t)
	net := map[string]ledger.Network{"id": {ID: "id", Name: "weave"}}
	addr := netip.MustParseAddr("192.0.2.7")
	huge := handName{NetID: "id", Name: "huge", Addrs: make([]netip.Addr, 100_000)}
	for i := range huge.Addrs {
		huge.Addrs[i] = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
	}
	r.byHand.list = []handName{huge, {NetID: "id", Name: "db", Addrs: []netip.Addr{addr}}, {NetID: "other", Name: "x", Addrs: []netip.Addr{addr}}}
	kept, err := r.tellEach(net, true)
	if err == nil || !strings.Contains(err.Error(), "huge") || len(kept) != 2 {
		t.Errorf("kept %d, %v", len(kept), err)
	}
	if got := r.table.Lookup("weave", "db"); len(got) != 1 || len(r.table.Lookup("weave", "huge")) != 0 {
		t.Errorf("got %v, and of what no other host hears %d", got, len(r.table.Lookup("weave", "huge")))
	}

	r.table.Drop(r.byHand.list[1].key()) // to see whether it is written again
	if _, err = r.tellEach(net, true); err == nil || len(r.table.Lookup("weave", "db")) != 0 {
		t.Errorf("written although nothing has changed: %v", err)
	}
	r.byHand.list[1].Addrs = append(r.byHand.list[1].Addrs, netip.MustParseAddr("192.0.2.8"))
	if _, err = r.tellEach(net, true); len(r.table.Lookup("weave", "db")) != 2 {
		t.Errorf("not written although it has changed: %v", err)
	}
}

func FuzzHandRecord(f *testing.F) {
	r := &Router{log: quiet(), table: names.NewTable(), codec: wire.New()}
	b, err := r.codec.Encode(overlay.HandName{Network: "weave", Name: "db", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r.handChanged(record.Change{Origin: "o", Key: "nm/x", New: b})
		for _, rec := range r.table.All() {
			if n, err := names.ValidName(rec.Name); err != nil || n != rec.Name || !rec.ByHand || rec.Host != "o" {
				t.Fatalf("%+v", rec)
			}
		}
		if r.handChanged(record.Change{Origin: "o", Key: "nm/x"}); len(r.table.All()) != 0 {
			t.Fatal("it is still there")
		}
	})
}
