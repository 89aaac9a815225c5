package names

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// patience is how long a test waits for what takes no time, before it fails: other
// tests may have all processors.
const patience = 30 * time.Second

// bind binds one port of loopback for UDP and TCP.
func bind(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return u, l
		}
		l.Close()
	}
	t.Fatal("no port is free")
	return nil, nil
}

// freePort is a port that is free for UDP and TCP on loopback, now.
func freePort(t testing.TB) uint16 {
	t.Helper()
	u, l := bind(t)
	u.Close()
	l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// running is a server with net1 on 127.0.0.1 and Net2 on 127.0.0.2.
type running struct {
	*Server
	addr, addr2 string
}

// selfUpstream stands for the server's own address among its upstreams.
const selfUpstream = "self"

func start(t testing.TB, upstreams ...string) running {
	t.Helper()
	for range 10 { // somebody may be quicker to take the port
		port, ups := freePort(t), slices.Clone(upstreams)
		if i := slices.Index(ups, selfUpstream); i >= 0 {
			ups[i] = fmt.Sprint("127.0.0.1:", port)
		}
		s := New(Config{Domain: "weave.local.", Table: testTable(), Port: port, Log: quiet(), Upstreams: func() []string { return ups }})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		if err := s.Sync(ctx, testListeners()); err != nil {
			t.Fatal(err)
		}
		go func() { done <- s.Run(ctx) }()
		end := func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		open := func() (n int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.sockets)
		}
		eventually(t, "Run has begun", func() bool { return open() == 2 })
		if l := s.Stats().Listeners; l[0].Error == "" && l[1].Error == "" {
			t.Cleanup(end)
			return running{s, fmt.Sprint("127.0.0.1:", s.port), fmt.Sprint("127.0.0.2:", s.port)}
		}
		end()
	}
	t.Fatal("no port is free on 127.0.0.1 and 127.0.0.2")
	return running{}
}

func testListeners() []Listener {
	return []Listener{
		{"net1", netip.MustParseAddr("127.0.0.1"), []netip.Prefix{testZones[0], testZones[2]}, false},
		{"Net2", netip.MustParseAddr("127.0.0.2"), []netip.Prefix{testZones[1]}, false},
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// exchangeOver asks over the given network and fails the test when nothing comes.
func exchangeOver(t testing.TB, network, addr string, m *dns.Msg) *dns.Msg {
	t.Helper()
	answer, _, err := (&dns.Client{Net: network, Timeout: patience}).Exchange(m, addr)
	if err != nil {
		t.Fatalf("%s %v: %v", network, m.Question, err)
	}
	return answer
}

// upstream is a resolver of others, which notes what it is asked.
type upstream struct {
	addr  string
	asked atomic.Int32
	mu    sync.Mutex
	names []string
}

func (u *upstream) seen() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.names)
}

func newUpstream(t testing.TB, h func(w dns.ResponseWriter, m *dns.Msg)) *upstream {
	t.Helper()
	u := &upstream{}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		u.asked.Add(1)
		u.mu.Lock()
		u.names = append(u.names, m.Question[0].Name)
		u.mu.Unlock()
		h(w, m)
	})
	udp, tcp := bind(t)
	u.addr = udp.LocalAddr().String()
	var ready, ended sync.WaitGroup
	t.Cleanup(ended.Wait) // runs last
	for _, srv := range []*dns.Server{{PacketConn: udp}, {Listener: tcp}} {
		ready.Add(1)
		srv.Handler, srv.NotifyStartedFunc = handler, ready.Done
		ended.Go(func() { _ = srv.ActivateAndServe() })
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	ready.Wait()
	return u
}

func answerA(w dns.ResponseWriter, m *dns.Msg) {
	r := new(dns.Msg).SetReply(m)
	rr, _ := dns.NewRR(m.Question[0].Name + " 60 IN A 198.51.100.7")
	r.Answer = append(r.Answer, rr)
	if o := m.IsEdns0(); o != nil {
		r.SetEdns0(4096, o.Do())
	}
	_ = w.WriteMsg(r)
}

func TestEachNetworkIsAnsweredOnItsOwnAddress(t *testing.T) {
	s := start(t)
	for _, network := range []string{"udp", "tcp"} {
		if got := text(exchangeOver(t, network, s.addr, question("web.", dns.TypeA))); got != "A 10.48.0.2, A 10.48.0.3" {
			t.Errorf("%s net1: %s", network, got)
		}
		if got := text(exchangeOver(t, network, s.addr2, question("web.", dns.TypeA))); got != "A 10.49.0.2" {
			t.Errorf("%s Net2: %s", network, got)
		}
	}
	st := s.Stats()
	if h := st.Own; h.Count < 4 || h.Sum <= 0 || st.Forwarded.Count != 0 {
		t.Errorf("durations %+v", st)
	}
	if st.Queries["answered"] < 4 || st.Names != 5 || st.Records != 7 || len(st.Listeners) != 2 || st.Listeners[0].Error != "" {
		t.Errorf("stats %+v", st)
	}
}

func TestNamesOfOthersAreForwarded(t *testing.T) {
	u := newUpstream(t, answerA)
	s := start(t, u.addr)
	for _, network := range []string{"udp", "tcp"} {
		for _, edns := range []bool{false, true} {
			m := question(fmt.Sprintf("%s-%v.Example.COM.", network, edns), dns.TypeA)
			if edns {
				m.SetEdns0(4096, false)
			}
			answer := exchangeOver(t, network, s.addr, m)
			if text(answer) != "A 198.51.100.7" || !answer.RecursionAvailable || answer.Authoritative || !answer.RecursionDesired {
				t.Errorf("%s: %v", network, answer)
			}
			if o := answer.IsEdns0(); (o != nil) != edns || o != nil && o.UDPSize() != 1232 {
				t.Errorf("%s edns %v: OPT %v", network, edns, o)
			}
		}
	}
	eventually(t, "nothing is in flight", func() bool { return s.Stats().Forwarding == 0 })
	if st := s.Stats(); st.Queries["forwarded"] != 4 || st.Forwarded.Count != 4 || st.Own.Count != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestNothingOfOursEverGoesUpstream(t *testing.T) {
	u := newUpstream(t, answerA)
	s := start(t, u.addr)
	for _, name := range []string{"web.", "gone.", "gone.weave.local.", "web.net2.weave.local.", "weave.local.", "9.9.48.10.in-addr.arpa.", "1.0.49.10.in-addr.arpa.", arpa(t, "fd00:1::77"), "localhost.", "a.localhost."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeMX, dns.TypeSOA, dns.TypeDS, dns.TypeANY} {
			if zoneType(qtype) && name == "gone." {
				continue // a top-level domain may be called so
			}
			exchangeOver(t, "udp", s.addr, question(name, qtype))
		}
	}
	for _, op := range []int{dns.OpcodeUpdate, dns.OpcodeNotify} {
		m := question("example.com.", dns.TypeSOA)
		m.Opcode = op
		if got := exchangeOver(t, "udp", s.addr, m); got.Rcode != dns.RcodeNotImplemented {
			t.Errorf("opcode %d: %v", op, got.Rcode)
		}
	}
	exchangeOver(t, "udp", s.addr, question("example.com.", dns.TypeA))
	if got := u.seen(); !slices.Equal(got, []string{"example.com."}) {
		t.Errorf("the upstream was asked for %v", got)
	}
}

func TestUpstreamsAreTriedInTurn(t *testing.T) {
	refusing := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeRefused)) })
	silent := newUpstream(t, func(dns.ResponseWriter, *dns.Msg) {})
	good := newUpstream(t, answerA)
	closed := fmt.Sprint("127.0.0.1:", freePort(t))
	for name, ups := range map[string][]string{
		"refused": {refusing.addr, good.addr}, "silent": {silent.addr, good.addr}, "closed": {closed, good.addr}, "not an address": {"nonsense", good.addr},
	} {
		s := start(t, ups...)
		if got := text(exchangeOver(t, "udp", s.addr, question("example.com.", dns.TypeA))); got != "A 198.51.100.7" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestTheClientOfADeadUpstreamIsTold(t *testing.T) {
	silent := newUpstream(t, func(dns.ResponseWriter, *dns.Msg) {})
	s := start(t, silent.addr)
	if answer := exchangeOver(t, "udp", s.addr, question("example.com.", dns.TypeA)); answer.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %v", answer)
	}
	if n := silent.asked.Load(); n != 2 {
		t.Errorf("the only upstream was asked %d times, want 2", n)
	}
}

// The claim is that no local name waits for an upstream, and that is what is judged,
// not a time: in one round, a client's share of dead forwards is in flight, and fifty
// local names are answered before the first of these is given up, which is 2 s later.
// A machine that is too busy for that gets another round. A server that makes names
// of ours wait has no such round ever.
func TestLocalNamesAreFastWhileTheUpstreamIsDead(t *testing.T) {
	silent := newUpstream(t, func(dns.ResponseWriter, *dns.Msg) {})
	s := start(t, silent.addr)
	c, err := net.Dial("udp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "fifty local names answered while the upstream keeps everybody waiting", func() bool {
		before := s.Stats().Queries
		for i := range maxInFlight {
			wire, _ := question(fmt.Sprint("x", i, ".example.com."), dns.TypeA).Pack()
			_, _ = c.Write(wire)
		}
		eventually(t, "a client is held back", func() bool { return s.Stats().Waiting > 0 })
		if n := s.Stats().Forwarding; n > maxInFlight/2 {
			t.Fatalf("one client holds %d", n)
		}
		for range 50 {
			resolve(t, s.addr, "web.")
		}
		if s.Stats().Queries["failed"] == before["failed"] {
			return true
		}
		eventually(t, "every forward is given up", func() bool { return s.Stats().Forwarding == 0 })
		return false
	})
}

// resolve asks for a name of ours as a resolver does, which loses datagrams and
// asks again.
func resolve(t testing.TB, addr, name string) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		answer, _, err := (&dns.Client{Timeout: time.Second}).Exchange(question(name, dns.TypeA), addr)
		if err == nil && answer.Rcode == dns.RcodeSuccess && len(answer.Answer) > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v, %v", name, answer, err)
		}
	}
}

func TestABurstOfQueriesWaitsForTheReaders(t *testing.T) {
	s, err := listenUDP(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := net.Dial("udp", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// More than a socket holds by the kernel's default, and no more than it does
	// where the default is also the limit, and we have no privilege to pass it.
	const burst = 400
	wire, _ := question("x100.example.com.", dns.TypeA).Pack()
	arrived := func() (n int) {
		for range burst {
			_, _ = c.Write(wire)
		}
		buf := make([]byte, maxQuery)
		for ; n < burst; n++ {
			_ = s.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := s.Read(buf); err != nil {
				return n
			}
		}
		return n
	}
	got := 0
	for range 5 { // a processor's backlog, which is everybody's, may lose a burst; not each
		if got = arrived(); got == burst {
			return
		}
	}
	t.Errorf("%d of %d queries arrived", got, burst)
}

func TestForgedAnswersArePassedOverAndTheRightOneAwaited(t *testing.T) {
	u := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		forged := new(dns.Msg).SetReply(m)
		rr, _ := dns.NewRR(m.Question[0].Name + " 60 IN A 6.6.6.6")
		forged.Answer = append(forged.Answer, rr)
		for range 50 {
			forged.Id++
			_ = w.WriteMsg(forged)
		}
		forged.Id = m.Id
		forged.Question = []dns.Question{{Name: "other.com.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		_ = w.WriteMsg(forged)
		_, _ = w.Write([]byte("garbage"))
		wire, _ := new(dns.Msg).SetReply(m).Pack()
		wire[7] = 9 // answers that are not there
		_, _ = w.Write(wire)
		answerA(w, m)
	})
	s := start(t, u.addr)
	if got := text(exchangeOver(t, "udp", s.addr, question("example.com.", dns.TypeA))); got != "A 198.51.100.7" {
		t.Errorf("got %s", got)
	}
}

func TestLongAnswersOfOthers(t *testing.T) {
	u := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		for i := range 300 {
			rr, _ := dns.NewRR(fmt.Sprintf("%s 60 IN A 198.51.%d.%d", m.Question[0].Name, i/256, i%256))
			r.Answer = append(r.Answer, rr)
		}
		r.SetEdns0(1232, false)
		r.Compress = true
		if w.LocalAddr().Network() == "udp" {
			r.Truncate(1232)
		}
		_ = w.WriteMsg(r)
	})
	s := start(t, u.addr)
	m := question("example.com.", dns.TypeA)
	if got := exchangeOver(t, "udp", s.addr, m); !got.Truncated || len(got.Answer) != 0 || got.Len() > 512 {
		t.Errorf("udp: truncated %v, %d records", got.Truncated, len(got.Answer))
	}
	if got := exchangeOver(t, "tcp", s.addr, m); got.Truncated || len(got.Answer) != 300 || got.IsEdns0() != nil {
		t.Errorf("tcp: truncated %v, %d records", got.Truncated, len(got.Answer))
	}
}

func TestAnUpstreamThatIsOurselvesIsNotAsked(t *testing.T) {
	port := freePort(t)
	s := New(Config{Domain: "weave.local", Table: testTable(), Port: port, Log: quiet(), Upstreams: func() []string {
		return []string{fmt.Sprint("127.0.0.1:", port), fmt.Sprint("[::ffff:127.0.0.2]:", port), "192.0.2.1:53"}
	}})
	if err := s.Sync(t.Context(), testListeners()); err != nil {
		t.Fatal(err)
	}
	if got := s.upstreamsOf(netip.Addr{}).addrs; len(got) != 1 || got[0].String() != "192.0.2.1:53" {
		t.Errorf("got %v", got)
	}
}

func TestSyncFollowsWhatIsWanted(t *testing.T) {
	s := start(t)
	ls := testListeners()
	first := func() *socketPair {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.sockets[ls[0].Addr]
	}
	pair := first()
	for range 3 {
		if err := s.Sync(t.Context(), ls); err != nil {
			t.Fatal(err)
		}
	}
	if first() != pair {
		t.Error("a socket that fits was replaced")
	}
	ls[0].Network = "Net2" // the same address, for another network
	if err := s.Sync(t.Context(), ls[:1]); err != nil {
		t.Fatal(err)
	}
	if got := text(exchangeOver(t, "udp", s.addr, question("web.", dns.TypeA))); got != "A 10.49.0.2" {
		t.Errorf("after the change: %s", got)
	}
	if _, err := net.Dial("tcp", s.addr2); err == nil {
		t.Error("an address that is no longer wanted is still served")
	}
	if len(s.Stats().Listeners) != 1 {
		t.Errorf("stats %+v", s.Stats())
	}
}

func TestAnAddressThatCannotBeBoundIsReportedAndTriedAgain(t *testing.T) {
	s := start(t)
	occupied, err := net.ListenPacket("udp", fmt.Sprint("127.0.0.3:", s.port))
	if err != nil {
		t.Fatal(err)
	}
	ls := append(testListeners(), Listener{Network: "net1", Addr: netip.MustParseAddr("127.0.0.3")})
	if err := s.Sync(t.Context(), ls); err == nil || !strings.Contains(err.Error(), "net1") {
		t.Errorf("got %v", err)
	}
	if st := s.Stats().Listeners[2]; st.Error == "" {
		t.Errorf("stats %+v", st)
	}
	exchangeOver(t, "udp", s.addr2, question("web.", dns.TypeA))
	occupied.Close()
	eventually(t, "the address is served", func() bool { return s.Stats().Listeners[2].Error == "" })
	exchangeOver(t, "tcp", fmt.Sprint("127.0.0.3:", s.port), question("web.", dns.TypeA))
}

func TestTCPConnectionsAreBounded(t *testing.T) {
	s := start(t)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	alive := func(c net.Conn) bool {
		_ = c.SetDeadline(time.Now().Add(patience))
		dc := &dns.Conn{Conn: c}
		if dc.WriteMsg(question("web.", dns.TypeA)) != nil {
			return false
		}
		_, err := dc.ReadMsg()
		return err == nil
	}
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		return c
	}
	for client := range 12 {
		served := 0
		for range 10 {
			if alive(dial(fmt.Sprint("127.0.1.", client))) {
				served++
			}
		}
		if client == 0 && served != tcpPerClient {
			t.Errorf("one client has %d connections, want %d", served, tcpPerClient)
		}
		if served == 0 {
			t.Errorf("client %d is shut out by connections that are idle", client)
		}
	}
	if st := s.Stats(); st.TCPConnections != tcpConns || st.TCPRefused == 0 || st.TCPEvicted == 0 {
		t.Errorf("stats %+v", st)
	}
	for range 64 { // half a query, and a reset
		c := dial("127.0.2.1")
		_, _ = c.Write([]byte{0, 40, 1})
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	exchangeOver(t, "udp", s.addr, question("web.", dns.TypeA))
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "every connection is given up", func() bool { return s.Stats().TCPConnections == 0 })
	exchangeOver(t, "tcp", s.addr, question("web.", dns.TypeA))
}

func TestTCPConnectionsEndInTime(t *testing.T) {
	good, _ := question("web.", dns.TypeA).Pack()
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(good))), good...)
	for name, c := range map[string]struct {
		send []byte
		want time.Duration
	}{
		"silent from the start":  {nil, tcpIdle},
		"silent after a query":   {framed, tcpIdle},
		"half a length":          {framed[:1], tcpRead},
		"half a query":           {framed[:20], tcpRead},
		"more than any query":    {[]byte{0xff, 0xff, 0}, 0},
		"shorter than a header":  {[]byte{0, 2, 1, 2}, 0},
		"nothing in the message": {[]byte{0, 0}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet()})
			var p socketPair
			p.scope.Store(&scope{"net1", "net1"})
			p.fence.Store(&fence{served: &served{}})
			client, server := net.Pipe()
			begin, done := time.Now(), make(chan time.Duration)
			go func() {
				s.serveTCP(t.Context(), &p, &tcpConn{Conn: server, from: netip.MustParseAddrPort("10.48.0.2:5300")})
				server.Close()
				done <- time.Since(begin)
			}()
			go func() { _, _ = client.Write(c.send) }()
			go func() { _, _ = io.Copy(io.Discard, client) }()
			if took := <-done; took != c.want {
				t.Errorf("%s: ended after %v, want %v", name, took, c.want)
			}
			client.Close()
		})
	}
}

func TestAConnectionHasSoManyQueries(t *testing.T) {
	s := start(t)
	c, err := dns.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := 0
	for ; n < 2*tcpQueries; n++ {
		_ = c.SetDeadline(time.Now().Add(patience))
		if c.WriteMsg(question("web.", dns.TypeA)) != nil {
			break
		}
		if _, err := c.ReadMsg(); err != nil {
			break
		}
	}
	if n != tcpQueries {
		t.Errorf("%d queries were answered, want %d", n, tcpQueries)
	}
}

func TestAPanicCostsOneQuery(t *testing.T) {
	s := New(Config{Domain: "weave.local", Log: quiet()}) // no table: a lookup panics
	wire, _ := question("web.", dns.TypeA).Pack()
	if answer, o := s.serve(nil, wire, &query{}, false, scope{}); answer != nil || o != panicked || s.counters[panicked].Load() != 1 {
		t.Errorf("%v %v", answer, o)
	}
	// And so it is where others are asked, for whoever waits for the same.
	s = New(Config{Domain: "weave.local", Log: quiet(), Table: NewTable(), Upstreams: func() []string { return []string{"192.0.2.1:53"} }})
	s.forwarder.dialer = nil
	for range 2 {
		got := unpacked(t, forwarded(t, s, netip.MustParseAddr("10.48.0.2"), parsed(t, question("example.com.", dns.TypeA))))
		if under, _ := s.slots.stats(); got.Rcode != dns.RcodeServerFailure || under != 0 {
			t.Errorf("%v, %d under way", got, under)
		}
	}
	s.cache = nil
	if got := forwarded(t, s, netip.MustParseAddr("10.48.0.2"), parsed(t, question("example.com.", dns.TypeA))); got != nil || s.counters[panicked].Load() != 3 {
		t.Errorf("got %x, %d panics", got, s.counters[panicked].Load())
	}
}

// FuzzUpstreamAnswer has any bytes be an upstream's answer: see upstreamCheck.
func FuzzUpstreamAnswer(f *testing.F) {
	for _, p := range upstreamSeeds(f) {
		f.Add(p.bytes, p.flag)
	}
	check := upstreamCheck(f)
	f.Fuzz(func(t *testing.T, msg []byte, edns bool) {
		if _, err := check(packet{bytes: msg, flag: edns}); err != nil {
			t.Fatal(err)
		}
	})
}
