package names

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestALookupIsAnsweredAsAContainerIs(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		switch name, a := m.Question[0].Name, m.Question[0].Qtype == dns.TypeA; {
		case strings.HasSuffix(name, "example.com."), name == "db.prod." && a: // which it denies when asked for another type
			answerA(w, m)
			return
		case name == "here.prod.":
			w.WriteMsg(new(dns.Msg).SetReply(m))
			return
		}
		w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeNameError))
	})
	tab := testTable()
	tab.PutSet("s", Set{Network: "net1", Host: "h", Names: []string{"svc"}, Addrs: addrs("10.48.0.9"), Services: []Service{{"http", "tcp", 80}}, Texts: []string{"v"}})
	tab.PutSet("dotted", Set{Network: "net1", Host: "h", Names: []string{"db.prod", "here.prod"}, Addrs: addrs("10.48.0.8")})
	s := New(Config{Domain: "weave.local", Table: tab, Upstreams: func() []string { return []string{up.addr} }, Log: quiet()})
	zones := testListeners()
	if err := s.Sync(t.Context(), zones); err != nil {
		t.Fatal(err)
	}
	in, internal := Listener{Network: "net1"}, Listener{Network: "net1", Internal: true}
	for _, c := range []struct {
		from      Listener
		name      string
		typ, want string
	}{
		{in, "web", "", "web NOERROR weave: A 10.48.0.2, A 10.48.0.3, AAAA fd00:1::2"},
		{in, "web", "A", "web NOERROR weave: A 10.48.0.2, A 10.48.0.3"},
		{in, "WEB.weave.local.", "AAAA", "WEB.weave.local NOERROR weave: AAAA fd00:1::2"},
		{in, "pod.prod", "A", "pod.prod.weave.local NOERROR weave: A 10.48.0.3"}, // by the search domain
		{in, "pod.prod.", "A", "pod.prod NXDOMAIN upstream: "},
		{in, "db.prod", "", "db.prod NOERROR upstream: A 192.0.2.99"}, // as it is comes first
		{in, "db.prod.weave.local", "", "db.prod.weave.local NOERROR weave: A 10.48.0.8"},
		{internal, "db.prod", "", "db.prod.weave.local NOERROR weave: A 10.48.0.8"},
		{in, "here.prod", "", "here.prod.weave.local NOERROR weave: A 10.48.0.8"}, // there, without addresses
		{in, "here.prod", "TXT", "here.prod NOERROR upstream: "},
		{in, "only4", "AAAA", "only4 NOERROR weave: "},
		{in, "nosuch", "", "nosuch NXDOMAIN weave: "},
		{in, "nosuch.weave.local", "", "nosuch.weave.local NXDOMAIN weave: "},
		{in, "a.nosuch", "", "a.nosuch NXDOMAIN upstream: "},
		{in, "www.example.com", "A", "www.example.com NOERROR upstream: A 192.0.2.99"},
		{internal, "www.example.com", "A", "www.example.com NXDOMAIN none: "},
		{internal, "web", "A", "web NOERROR weave: A 10.48.0.2, A 10.48.0.3"},
		{in, "_http._tcp.svc", "", "_http._tcp.svc NOERROR weave: SRV 0 0 80 svc.weave.local."},
		{in, "svc", "TXT", `svc NOERROR weave: TXT "v"`},
		{in, "10.48.0.2", "", "2.0.48.10.in-addr.arpa NOERROR weave: PTR web.weave.local."},
		{in, "fd00:1::3", "", strings.TrimSuffix(arpa(t, "fd00:1::3"), ".") + " NXDOMAIN weave: "},
		{Listener{Network: "Net2"}, "web", "", "web NOERROR weave: A 10.49.0.2"},
	} {
		f, err := s.Lookup(t.Context(), c.from, c.name, c.typ)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var rs []string
		for _, rr := range f.Answer {
			rs = append(rs, rr.Type+" "+rr.Data)
		}
		slices.Sort(rs)
		got := fmt.Sprintf("%s %s %s: %s", f.Name, f.Rcode, f.Source, strings.Join(rs, ", "))
		if got = strings.Replace(got, "A "+upAnswer(f), "A 192.0.2.99", 1); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if _, err := s.Lookup(t.Context(), in, "web", "NOSUCH"); err == nil {
		t.Error("a type that there is not was looked up")
	}
	for bad, want := range map[string]string{
		strings.Repeat("a", 70): "70 characters, DNS takes 63", strings.Repeat("a", 300): "300 characters, DNS takes 253",
		"a..b": "two dots in a row", "": "empty",
	} {
		if f, err := s.Lookup(t.Context(), in, bad, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v; want %q", bad, f, err, want)
		}
	}
	if f, err := s.Lookup(t.Context(), in, strings.Repeat("a.", 124)+"b", ""); err != nil || f.Rcode != "NXDOMAIN" {
		t.Errorf("a name that is too long with the domain: %+v, %v", f, err)
	}
}

// upAnswer is whatever address the upstream of the tests gives.
func upAnswer(f Found) string {
	for _, rr := range f.Answer {
		if f.Source == FromUpstream {
			return rr.Data
		}
	}
	return "none"
}

func TestTheQueriesOfWhoIsTracedAreNotedAndOfNobodyElse(t *testing.T) {
	up := newUpstream(t, answerA)
	s := start(t, up.addr)
	at := fmt.Sprint("127.0.0.1:", s.port)
	ask := func(network, name string) { exchangeOver(t, network, at, question(name, dns.TypeA)) }
	ask("udp", "web.")
	if s.traces.on.Load() != nil {
		t.Error("somebody asks")
	}
	me := addrs("127.0.0.1")
	if qs, last, _, err := s.Trace("c", me, 0); err != nil || len(qs) != 0 || last != 0 {
		t.Fatalf("at first: %v, %d, %v", qs, last, err)
	}
	if _, _, _, err := s.Trace("other", addrs("10.0.0.1"), 0); err != nil {
		t.Fatal(err)
	}
	ask("udp", "web.")
	ask("tcp", "Nosuch.weave.local.")
	ask("udp", "www.example.com.")
	ask("tcp", "www.example.com.")
	ask("tcp", "other.example.com.")
	want := []string{"web answered", "nosuch.weave.local nxdomain", "www.example.com forwarded", "www.example.com cached", "other.example.com forwarded"}
	var got []string
	var number uint64
	eventually(t, "all are noted", func() bool {
		qs, last, missed, err := s.Trace("c", me, number)
		for _, q := range qs {
			if got = append(got, q.Name+" "+q.Outcome); q.Type != "A" || q.Client != me[0] || q.Took < 0 || q.At.IsZero() || missed != 0 || err != nil {
				t.Errorf("%+v, missed %d, %v", q, missed, err)
			}
		}
		number = last
		return len(got) >= len(want)
	})
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if qs, _, _, _ := s.Trace("other", addrs("10.0.0.1"), 0); len(qs) != 0 {
		t.Errorf("of another one: %v", qs)
	}
}

func TestATraceEndsTenSecondsAfterItWasLastAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Domain: "d", Table: NewTable(), Log: quiet()})
		a := addrs("10.0.0.1")
		for range 5 {
			if _, _, _, err := s.Trace("c", a, 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(traceFor - time.Millisecond)
			if s.traces.on.Load() == nil {
				t.Fatal("it has ended early")
			}
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if s.traces.on.Load() != nil || len(s.traces.traces) != 0 {
			t.Error("it goes on")
		}
		for i := range mostTraces {
			if _, _, _, err := s.Trace(fmt.Sprint(i), a, 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, _, err := s.Trace("more", a, 0); err != ErrTooManyTraces {
			t.Errorf("got %v", err)
		}
		time.Sleep(traceFor)
	})
}

func TestATraceKeepsTheLatestAndCountsWhatItMissed(t *testing.T) {
	tr := &trace{queries: make([]Traced, traceQueries)}
	for i := range 3 * traceQueries {
		tr.note(itself, &query{name: fmt.Sprint(i), qtype: dns.TypeA}, answered)
	}
	qs, last, missed := tr.since(10)
	if len(qs) != traceQueries || qs[0].Name != fmt.Sprint(2*traceQueries) || last != 3*traceQueries || missed != 2*traceQueries-10 {
		t.Errorf("%d from %s, last %d, missed %d", len(qs), qs[0].Name, last, missed)
	}
	if qs, _, missed := tr.since(last - 2); len(qs) != 2 || missed != 0 {
		t.Errorf("%d, missed %d", len(qs), missed)
	}
	if qs, _, _ := tr.since(last + 5); len(qs) != traceQueries {
		t.Errorf("after a number of another trace: %d", len(qs))
	}
}
