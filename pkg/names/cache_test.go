package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

type netConn = net.Conn

// parsed is a query as the server sees it.
func parsed(t testing.TB, m *dns.Msg) *query {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := new(query)
	if rcode, silent := q.parse(wire, false); rcode != 0 || silent {
		t.Fatalf("%v: %d", m, rcode)
	}
	return q
}

// forwarded is what a client is answered whose query others have to answer, by UDP.
func forwarded(t testing.TB, s *Server, client netip.Addr, q *query) []byte {
	answer, e := s.atOnce(nil, q, false, false, netip.AddrPortFrom(client, 1))
	if e == nil {
		return answer
	}
	return s.inTurn(t.Context(), e)
}

// reply is an upstream's answer to m with these records; those with "SOA" or "NS" in
// them go where they belong.
func reply(t testing.TB, m *dns.Msg, rcode int, records ...string) []byte {
	t.Helper()
	r := new(dns.Msg).SetRcode(m, rcode)
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		if h := rr.Header().Rrtype; h == dns.TypeSOA || h == dns.TypeNS {
			r.Ns = append(r.Ns, rr)
		} else {
			r.Answer = append(r.Answer, rr)
		}
	}
	r.SetEdns0(1232, false)
	wire, err := r.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func unpacked(t testing.TB, b []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return m
}

func TestHowLongAnAnswerIsKept(t *testing.T) {
	soa := func(ttl, minimum int) string {
		return fmt.Sprintf("example.com. %d IN SOA ns.example.com. root.example.com. 1 2 3 4 %d", ttl, minimum)
	}
	for name, c := range map[string]struct {
		rcode   int
		records []string
		want    uint32
	}{
		"an address":                     {0, []string{"a.example.com. 60 IN A 192.0.2.1"}, 60},
		"two, the shorter counts":        {0, []string{"a.example.com. 60 IN A 192.0.2.1", "a.example.com. 7 IN A 192.0.2.2"}, 7},
		"an alias":                       {0, []string{"a.example.com. 5 IN CNAME b.example.com.", "b.example.com. 60 IN A 192.0.2.1"}, 5},
		"of no duration":                 {0, []string{"a.example.com. 0 IN A 192.0.2.1"}, 0},
		"longer than we keep anything":   {0, []string{"a.example.com. 86400 IN A 192.0.2.1"}, cachePositive},
		"a duration that is none":        {0, []string{"a.example.com. 4294967295 IN A 192.0.2.1"}, 0},
		"no such name":                   {dns.RcodeNameError, []string{soa(60, 30)}, 30},
		"no such name, by the record":    {dns.RcodeNameError, []string{soa(20, 30)}, 20},
		"no such name, for a day":        {dns.RcodeNameError, []string{soa(86400, 86400)}, cacheNegative},
		"no such name, and no authority": {dns.RcodeNameError, nil, 0},
		"no such type":                   {0, []string{soa(60, 30)}, 30},
		"an alias of no such type":       {0, []string{"a.example.com. 60 IN CNAME b.example.com.", soa(60, 30)}, 30},
		"a referral":                     {0, []string{"example.com. 60 IN NS ns.example.com."}, 0},
		"nothing":                        {0, nil, 0},
		"a failure":                      {dns.RcodeServerFailure, []string{"a.example.com. 60 IN A 192.0.2.1"}, 0},
		"refused":                        {dns.RcodeRefused, nil, 0},
	} {
		m := question("a.example.com.", dns.TypeA)
		q := parsed(t, m)
		cache, now := newCache(), time.Now()
		key := q.forwardKey(nil, upstreamSet{})
		cache.put(key, q, reply(t, m, c.rcode, c.records...), now)
		end := now.Add(time.Duration(c.want) * time.Second)
		if c.want > 0 && cache.answer(nil, key, q, end.Add(-time.Nanosecond)) == nil {
			t.Errorf("%s: gone before %d s", name, c.want)
		}
		if cache.answer(nil, key, q, end) != nil {
			t.Errorf("%s: still there after %d s", name, c.want)
		}
	}
}

// An upstream's options are for us; that signatures are wanted is the client's to hear.
func TestTheOPTRecordOfAnAnswerIsOurs(t *testing.T) {
	for _, do := range []bool{false, true} {
		m := question("www.example.com.", dns.TypeA)
		m.SetEdns0(1232, do)
		q := parsed(t, m)
		up := unpacked(t, reply(t, m, 0, "www.example.com. 60 IN A 192.0.2.1"))
		up.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
		wire, err := up.Pack()
		if err != nil {
			t.Fatal(err)
		}
		o := unpacked(t, q.adopt(wire)).IsEdns0()
		if o == nil || len(o.Option) != 0 || o.Do() != do || o.UDPSize() != maxUDP {
			t.Errorf("DO %v: got %v", do, o)
		}
	}
}

// Who asks by TCP has joined the search of one who asked by UDP, and whose answer did not fit.
func TestWhoAsksByTCPIsNotToldToAskByTCP(t *testing.T) {
	u := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			_ = w.WriteMsg(&dns.Msg{MsgHdr: dns.MsgHdr{Id: m.Id, Response: true, Truncated: true}, Question: m.Question})
		} else {
			_ = w.Close()
		}
	})
	s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { return []string{u.addr} }})
	_, e := s.atOnce(nil, parsed(t, question("www.example.com.", dns.TypeA)), false, false, netip.MustParseAddrPort("10.48.0.2:1"))
	found, err := s.search(t.Context(), e, func(stamp) {})
	if err != nil || !truncated(found) {
		t.Fatalf("got %x, %v", found, err)
	}
	for _, tcp := range []bool{false, true} {
		release := make(chan struct{})
		go func() { // the one whose search it is
			_, _ = s.flights.do(t.Context(), e.key, func(context.Context, func(stamp)) ([]byte, error) { <-release; return found, nil })
		}()
		waiting := func(n int) func() bool {
			return func() bool {
				s.flights.mu.Lock()
				defer s.flights.mu.Unlock()
				c := s.flights.calls[e.key]
				return c != nil && c.waiting == n
			}
		}
		eventually(t, "it is looked for", waiting(1))
		mine := *e
		mine.tcp, mine.begun = tcp, time.Now()
		got := make(chan []byte)
		go func() { got <- s.forward(t.Context(), &mine) }()
		eventually(t, "it is waited for", waiting(2))
		close(release)
		if m := unpacked(t, <-got); m.Truncated == tcp || (m.Rcode == dns.RcodeServerFailure) != tcp {
			t.Errorf("tcp %v: got %v", tcp, m)
		}
		eventually(t, "it is over", func() bool { s.flights.mu.Lock(); defer s.flights.mu.Unlock(); return len(s.flights.calls) == 0 })
	}
}

func TestACachedAnswerIsTheClientsOwn(t *testing.T) {
	m := question("www.example.com.", dns.TypeA)
	q := parsed(t, m)
	cache, now := newCache(), time.Now()
	cache.put(q.forwardKey(nil, upstreamSet{}), q, reply(t, m, 0, "www.example.com. 60 IN A 192.0.2.1", "www.example.com. 90 IN A 192.0.2.2"), now)

	other := question("wWw.Example.COM.", dns.TypeA)
	other.SetEdns0(4096, false)
	q = parsed(t, other)
	for range 2 { // what is handed out is a copy
		got := unpacked(t, cache.answer(nil, q.forwardKey(nil, upstreamSet{}), q, now.Add(10*time.Second)))
		if got.Id != other.Id || got.Question[0].Name != "wWw.Example.COM." || got.IsEdns0() == nil || got.Authoritative || !got.RecursionAvailable {
			t.Errorf("got %v", got)
		}
		if text(got) != "A 192.0.2.1, A 192.0.2.2" || got.Answer[0].Header().Ttl != 50 || got.Answer[1].Header().Ttl != 80 {
			t.Errorf("got %v", got)
		}
	}
	plain := parsed(t, question("www.example.com.", dns.TypeA))
	if got := unpacked(t, cache.answer(nil, plain.forwardKey(nil, upstreamSet{}), plain, now)); got.IsEdns0() != nil {
		t.Errorf("EDNS to a client without: %v", got)
	}
}

func TestAnAnswerIsKeptForThoseWhoAskTheSameOfTheSame(t *testing.T) {
	m := question("www.example.com.", dns.TypeA)
	q := parsed(t, m)
	cache, now := newCache(), time.Now()
	own := func(netip.AddrPort) bool { return false }
	one, two := newUpstreamSet([]string{"192.0.2.1:53"}, own), newUpstreamSet([]string{"192.0.2.1:53", "192.0.2.2:53"}, own)
	cache.put(q.forwardKey(nil, one), q, reply(t, m, 0, "www.example.com. 60 IN A 192.0.2.1"), now)
	for name, c := range map[string]struct {
		change func(m *dns.Msg)
		set    upstreamSet
		want   bool
	}{
		"the same":         {func(*dns.Msg) {}, one, true},
		"other servers":    {func(*dns.Msg) {}, two, false},
		"no servers":       {func(*dns.Msg) {}, upstreamSet{}, false},
		"another name":     {func(m *dns.Msg) { m.Question[0].Name = "ww.example.com." }, one, false},
		"another type":     {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }, one, false},
		"with signatures":  {func(m *dns.Msg) { m.SetEdns0(1232, true) }, one, false},
		"unchecked":        {func(m *dns.Msg) { m.CheckingDisabled = true }, one, false},
		"if authenticated": {func(m *dns.Msg) { m.AuthenticatedData = true }, one, false},
		"not recursively":  {func(m *dns.Msg) { m.RecursionDesired = false }, one, false},
	} {
		m := question("www.example.com.", dns.TypeA)
		c.change(m)
		q := parsed(t, m)
		if got := cache.answer(nil, q.forwardKey(nil, c.set), q, now) != nil; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestACachedAnswerFitsTheClient(t *testing.T) {
	m := question("www.example.com.", dns.TypeA)
	q := parsed(t, m)
	var records []string
	for i := range 60 {
		records = append(records, fmt.Sprintf("www.example.com. 60 IN A 192.0.2.%d", i))
	}
	r := unpacked(t, reply(t, m, 0, records...))
	r.Compress = true
	wire, _ := r.Pack()
	cache, now := newCache(), time.Now()
	key := q.forwardKey(nil, upstreamSet{})
	cache.put(key, q, wire, now)
	if got := unpacked(t, cache.answer(nil, key, q, now)); !got.Truncated || len(got.Answer) != 0 {
		t.Errorf("without EDNS: %v", got)
	}
	q.limit = dns.MaxMsgSize
	if got := unpacked(t, cache.answer(nil, key, q, now)); got.Truncated || len(got.Answer) != 60 {
		t.Errorf("by TCP: %v", got)
	}
}

func TestWhatATruncatedAnswerSaysIsNotKept(t *testing.T) {
	m := question("www.example.com.", dns.TypeA)
	q := parsed(t, m)
	wire := reply(t, m, 0, "www.example.com. 60 IN A 192.0.2.1")
	wire[2] |= flagTC >> 8
	cache, now := newCache(), time.Now()
	cache.put(q.forwardKey(nil, upstreamSet{}), q, wire, now)
	if st := cache.stats(); st.Entries != 0 || st.Bytes != 0 {
		t.Errorf("%+v", st)
	}
}

func TestTheCacheIsBoundedAndKeepsWhatIsOfUse(t *testing.T) {
	cache, now := newCache(), time.Now()
	enter := func(name string) (key []byte, q *query) {
		m := question(name, dns.TypeTXT)
		q = parsed(t, m)
		key = q.forwardKey(nil, upstreamSet{})
		cache.put(key, q, reply(t, m, 0, name+` 3600 IN TXT "`+strings.Repeat("x", 250)+`"`), now)
		return key, q
	}
	key, q := enter("popular.example.com.")
	kept := 0
	const n = 30_000
	for i := range n {
		now = now.Add(10 * time.Millisecond)
		enter(fmt.Sprintf("n%d.example.com.", i))
		if cache.answer(nil, key, q, now) != nil {
			kept++
		}
	}
	st := cache.stats()
	if st.Bytes > cacheBytes || st.Bytes < cacheBytes/2 || st.Evicted == 0 || st.Entries < 1000 {
		t.Errorf("%+v", st)
	}
	if kept != n {
		t.Errorf("a name that is asked for all the time was there %d times of %d", kept, n)
	}
	sum := 0
	for i := range cache.shards {
		for key, e := range cache.shards[i].entries {
			sum += e.size([]byte(key))
		}
	}
	if sum != st.Bytes {
		t.Errorf("%d bytes are counted as %d", sum, st.Bytes)
	}
}

func TestANameOfOthersIsAskedForOnce(t *testing.T) {
	u := newUpstream(t, answerA)
	s := start(t, u.addr)
	for _, network := range []string{"udp", "tcp", "udp"} {
		for _, addr := range []string{s.addr, s.addr2} {
			if got := text(exchangeOver(t, network, addr, question("Example.com.", dns.TypeA))); got != "A 198.51.100.7" {
				t.Errorf("%s: %s", network, got)
			}
		}
	}
	st := s.Stats()
	if u.asked.Load() != 1 || st.Queries["forwarded"] != 1 || st.Queries["cached"] != 5 || st.Cache.Entries != 1 || st.Cache.Hits != 5 || st.Cache.Misses != 1 {
		t.Errorf("asked %d times, %+v", u.asked.Load(), st)
	}
	if len(st.Upstreams) != 1 || st.Upstreams[0].Answered != 1 || st.Upstreams[0].Took.Count != 1 {
		t.Errorf("%+v", st.Upstreams)
	}
}

// A container with resolvers of its own is told what these say, and nobody else is.
func TestEachIsAnsweredByItsOwnUpstreams(t *testing.T) {
	const common, theirs = "192.0.2.1:53", "192.0.2.2:53"
	says := func(addr string) func(netConn) {
		return func(c netConn) {
			buf := make([]byte, upstreamRead)
			n, _ := c.Read(buf)
			m := unpacked(t, buf[:n])
			_, _ = c.Write(reply(t, m, 0, m.Question[0].Name+" 60 IN A "+addr))
		}
	}
	special := netip.MustParseAddr("10.0.0.2")
	s := New(Config{
		Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { return []string{common} },
		UpstreamsOf: func(client netip.Addr) []string {
			if client == special {
				return []string{theirs}
			}
			return nil
		},
	})
	s.forwarder.dialer = &pipes{upstreams: map[string]func(netConn){common: says("198.51.100.1"), theirs: says("198.51.100.2")}}
	for range 2 {
		for client, want := range map[netip.Addr]string{special: "A 198.51.100.2", netip.MustParseAddr("10.0.0.1"): "A 198.51.100.1"} {
			q := parsed(t, question("example.com.", dns.TypeA))
			if got := text(unpacked(t, forwarded(t, s, client, q))); got != want {
				t.Errorf("%v: %s, want %s", client, got, want)
			}
		}
	}
	if st := s.Stats(); st.Cache.Hits != 2 || st.Cache.Entries != 2 {
		t.Errorf("%+v", st.Cache)
	}
}

func TestThatThereIsNoUpstreamIsFoundOutTenTimesASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		var servers []string
		s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { told++; return servers }})
		client := netip.MustParseAddr("10.0.0.1")
		for range 3 {
			for range 100 {
				if set := s.upstreamsOf(client); len(set.addrs) != 0 {
					t.Fatalf("got %v", set)
				}
			}
			time.Sleep(upstreamsFresh)
		}
		if told != 3 {
			t.Errorf("looked for them %d times, want 3", told)
		}
		servers = []string{"192.0.2.1:53"}
		if set := s.upstreamsOf(client); len(set.addrs) != 1 {
			t.Errorf("once there is one: %v", set)
		}
	})
}

func TestEqualQuestionsAreAskedOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const up = "192.0.2.1:53"
		s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { return []string{up} }})
		p := &pipes{upstreams: map[string]func(netConn){up: answerAfter(time.Second / 2)}}
		s.forwarder.dialer = p
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				m := question("Example.com.", dns.TypeA)
				if i%2 == 1 {
					m.Question[0].Name = "eXAMPLE.com."
				}
				client := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				got := unpacked(t, forwarded(t, s, client, parsed(t, m)))
				if text(got) != "A 198.51.100.7" || got.Id != m.Id || got.Question[0].Name != m.Question[0].Name {
					t.Errorf("got %v", got)
				}
			})
		}
		all.Wait()
		if n := p.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestWhoAskedFirstMayGoWithoutHarmToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flights
		var all sync.WaitGroup
		asked := 0
		ask := func(context.Context, func(stamp)) ([]byte, error) {
			asked++
			time.Sleep(time.Second)
			return []byte("answer"), nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		all.Go(func() {
			if _, err := f.do(ctx, "key", ask); err == nil {
				t.Error("an answer to one who has gone")
			}
		})
		synctest.Wait()
		for range 3 {
			all.Go(func() {
				answer, err := f.do(t.Context(), "key", ask)
				if err != nil || string(answer) != "answer" {
					t.Errorf("%q, %v", answer, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		all.Wait()
		if asked != 1 || len(f.calls) != 0 {
			t.Errorf("asked %d times, left %v", asked, f.calls)
		}
	})
}

// Else a client could have more searches under way than there is room for.
func TestASearchEndsWithTheLastWhoWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flights
		ctx, cancel := context.WithCancel(t.Context())
		ended := 0
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				_, err := f.do(ctx, "key", func(ctx context.Context, _ func(stamp)) ([]byte, error) {
					<-ctx.Done()
					ended++
					return nil, ctx.Err()
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		cancel()
		all.Wait()
		if ended != 1 || len(f.calls) != 0 {
			t.Errorf("%d have ended, left %v", ended, f.calls)
		}
		answer, err := f.do(t.Context(), "key", func(context.Context, func(stamp)) ([]byte, error) { return []byte("answer"), nil })
		if err != nil || string(answer) != "answer" {
			t.Errorf("who asks then: %q, %v", answer, err)
		}
	})
}

// Who has waited for its turn has little time left, on purpose or not. That is not
// what those get who ask the same.
func TestWhoAskedFirstWithLittleTimeLeftTakesNoneFromTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const up = "192.0.2.1:53"
		s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { return []string{up} }})
		p := &pipes{upstreams: map[string]func(netConn){up: answerAfter(time.Second / 2)}}
		s.forwarder.dialer = p
		errandOf := func(client string) *errand {
			_, e := s.atOnce(nil, parsed(t, question("example.com.", dns.TypeA)), false, false, netip.MustParseAddrPort(client))
			return e
		}
		early := errandOf("10.0.0.1:1")
		time.Sleep(forwardBudget - time.Millisecond)
		var all sync.WaitGroup
		all.Go(func() {
			if got := unpacked(t, s.forward(t.Context(), early)); got.Rcode != dns.RcodeServerFailure || time.Since(early.begun) != forwardBudget {
				t.Errorf("who has no time left: %s after %v", text(got), time.Since(early.begun))
			}
		})
		synctest.Wait()
		late := errandOf("10.0.0.2:1")
		if got := text(unpacked(t, s.forward(t.Context(), late))); got != "A 198.51.100.7" || time.Since(late.begun) != time.Second/2 {
			t.Errorf("who has asked since: %s after %v", got, time.Since(late.begun))
		}
		all.Wait()
		if n := p.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestAnInternalNetworkKnowsNoNamesOfOthers(t *testing.T) {
	u := newUpstream(t, answerA)
	s := start(t, u.addr)
	exchangeOver(t, "udp", s.addr2, question("example.com.", dns.TypeA)) // so that it is in the cache
	ls := testListeners()
	ls[0].Internal = true
	if err := s.Sync(t.Context(), ls); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, name := range []string{"example.com.", "other.example.com.", "1.2.0.192.in-addr.arpa."} {
			if got := exchangeOver(t, network, s.addr, question(name, dns.TypeA)); got.Rcode != dns.RcodeNameError || len(got.Answer) != 0 {
				t.Errorf("%s %s: %v", network, name, got)
			}
		}
		if got := exchangeOver(t, network, s.addr, question(".", dns.TypeNS)); got.Rcode != dns.RcodeSuccess || len(got.Answer) != 0 {
			t.Errorf("%s: there is no root: %v", network, got)
		}
		if got := text(exchangeOver(t, network, s.addr, question("web.", dns.TypeA))); got != "A 10.48.0.2, A 10.48.0.3" {
			t.Errorf("%s: %s", network, got)
		}
	}
	if n := u.asked.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// A router whose upstream is, by whatever way, the router.
func TestAQueryOfOursThatComesBackIsRefused(t *testing.T) {

	s := start(t, selfUpstream)
	s.own.Store(&[]netip.Addr{}) // as if we did not know the address for ours
	if got := exchangeOver(t, "udp", s.addr, question("example.com.", dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %v", got)
	}
	if st := s.Stats(); st.Queries["looped"] != 2 || st.Queries["failed"] != 1 {
		t.Errorf("%+v", st)
	}
	eventually(t, "nothing is in flight", func() bool { return s.Stats().Forwarding == 0 })
}

// A router whose upstream is a forwarder whose upstream is the router: no query of
// ours makes more than one of the forwarder's, and that makes none.
func TestALoopThroughAForwarderEndsInOneRound(t *testing.T) {
	var ours atomic.Value
	relay := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		again := m.Copy()
		again.Id = dns.Id()
		if answer, _, err := (&dns.Client{Timeout: patience}).Exchange(again, ours.Load().(string)); err == nil {
			answer.Id = m.Id
			_ = w.WriteMsg(answer)
		}
	})
	s := start(t, relay.addr)
	ours.Store(s.addr)
	if got := exchangeOver(t, "udp", s.addr, question("example.com.", dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %v", got)
	}
	eventually(t, "nothing is in flight", func() bool { return s.Stats().Forwarding == 0 })
	if n := relay.asked.Load(); n > 2 {
		t.Errorf("the forwarder was asked %d times", n)
	}
}

// FuzzCachedAnswer keeps whatever an upstream may say, and answers with it: see cacheCheck.
func FuzzCachedAnswer(f *testing.F) {
	for _, p := range cacheSeeds(f) {
		f.Add(p.bytes, p.number, p.flag)
	}
	check := cacheCheck(f)
	f.Fuzz(func(t *testing.T, msg []byte, age uint16, edns bool) {
		if _, err := check(packet{bytes: msg, number: age, flag: edns}); err != nil {
			t.Fatal(err)
		}
	})
}
