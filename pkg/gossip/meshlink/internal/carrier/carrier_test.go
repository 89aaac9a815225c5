package carrier

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/identity"
)

// node is a carrier under test, with the far ends of its sessions' streams.
type node struct {
	*Carrier
	id      *identity.Identity
	addr    netip.AddrPort
	log     *journal
	streams chan stream // cap 64: as sessions open
	cluster *shared[string]
	stop    func() // ends it and waits
	dir     string
}

type stream struct {
	net.Conn
	peer    gossip.Peer
	dialled bool
}

// Open makes node the Inner of its own carrier.
func (n *node) Open(_ context.Context, peer gossip.Peer, dialled bool) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case n.streams <- stream{far, peer, dialled}:
	default:
		return nil, errors.New("the test takes no more streams")
	}
	return near, nil
}

type shared[T any] struct {
	mu sync.Mutex
	v  T
}

func (s *shared[T]) get() T  { s.mu.Lock(); defer s.mu.Unlock(); return s.v }
func (s *shared[T]) set(v T) { s.mu.Lock(); defer s.mu.Unlock(); s.v = v }

// journal is a log to look into.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// secretText is one secret for a whole test binary.
func secretFile(t testing.TB) string {
	t.Helper()
	text, err := identity.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	f := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func loadSecret(t testing.TB, file string) identity.Secret {
	t.Helper()
	s, err := identity.LoadSecret(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// loopback is a random address of 127/8, so that tests do not meet.
func loopback() netip.AddrPort {
	var b [3]byte
	rand.Read(b[:])
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 128 | b[0]>>1, b[1], b[2]&^1 | 2}), 16783)
}

type option func(*Config, *node)

func listen(a netip.AddrPort) option {
	return func(c *Config, n *node) { c.Listen, n.addr = []netip.AddrPort{a}, a }
}
func stateDir(dir string) option { return func(_ *Config, n *node) { n.dir = dir } }
func calls(targets ...fmt.Stringer) option {
	return func(c *Config, _ *node) {
		for _, t := range targets {
			c.Targets = append(c.Targets, t.String())
		}
	}
}
func inCluster(id string) option { return func(_ *Config, n *node) { n.cluster.set(id) } }

// start runs a node until the test ends. Two nodes with cluster ids that differ
// refuse each other, as routers do.
func start(t testing.TB, name string, secret identity.Secret, opts ...option) *node {
	t.Helper()
	n := &node{log: &journal{}, streams: make(chan stream, 64), cluster: &shared[string]{}, dir: t.TempDir()}
	cfg := Config{Inner: n, Lost: func(gossip.Peer) {}, Cluster: n.cluster.get, Log: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	cfg.Accept = func(h Hello) error {
		if mine := n.cluster.get(); mine != "" && h.Cluster != "" && h.Cluster != mine {
			return fmt.Errorf("cluster %s is not ours, %s: weave reset on one side joins it to the other", h.Cluster, mine)
		}
		return nil
	}
	listen(loopback())(&cfg, n)
	for _, o := range opts {
		o(&cfg, n)
	}
	var err error
	if n.id, err = identity.Open(n.dir, name, secret); err != nil {
		t.Fatal(err)
	}
	cfg.ID = n.id
	if n.Carrier, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	<-n.bound
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(patience):
			t.Errorf("%s does not stop", name)
		}
	})
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, n.log)
		}
	})
	return n
}

// patience bounds waits for what takes a second or two where nothing else runs.
const patience = 2 * time.Minute

// slack is how many times a promise in seconds may be exceeded by a machine that
// is busy with something else. What is measured is logged.
const slack = 5

// eventually waits for a condition and tells how long that took.
func eventually(t testing.TB, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}

func (n *node) has(peers ...gossip.Peer) bool { return fmt.Sprint(n.Neighbours()) == fmt.Sprint(peers) }

func next(t testing.TB, n *node) stream {
	t.Helper()
	select {
	case s := <-n.streams:
		t.Cleanup(func() { s.Close() })
		return s
	case <-time.After(patience):
		t.Fatal("no stream")
		return stream{}
	}
}

// talk sends a text through and expects it at the other end.
func talk(t testing.TB, from, to net.Conn, text []byte) {
	t.Helper()
	go from.Write(text)
	got := make([]byte, len(text))
	to.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%d bytes did not come through: %v", len(text), err)
	}
}

func TestTwoRoutersConnectAndBytesFlowBothWays(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s)
	b := start(t, "b", s, calls(a.addr))
	sa, sb := next(t, a), next(t, b)
	if sa.peer != "b" || sb.peer != "a" || sa.dialled || !sb.dialled {
		t.Fatalf("%+v, %+v", sa, sb)
	}
	big := make([]byte, 1<<20)
	rand.Read(big)
	talk(t, sa, sb, []byte("hello"))
	talk(t, sb, sa, big)
	st := b.Status()
	if len(st) != 1 || st[0].State != Connected || st[0].Addr != a.addr.String() || st[0].Hello.MemberID != a.id.MemberID() {
		t.Errorf("status %+v", st)
	}
}

func TestRoutersThatDialEachOtherKeepOneConnection(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	for range 3 {
		addrA, addrB := loopback(), loopback()
		a := start(t, "a", s, listen(addrA), calls(addrA, addrB))
		b := start(t, "b", s, listen(addrB), calls(addrA, addrB))
		eventually(t, "one connection", func() bool { return a.has("b") && b.has("a") })
		first := a.table.get("b")
		time.Sleep(3 * dialEvery) // whatever they still had under way is over
		if a.table.get("b") != first || !b.has("a") {
			t.Error("the connection did not stay")
		}
		if n := a.stats.Sessions.Load(); n > 2 {
			t.Errorf("%d sessions", n)
		}
		a.stop()
		b.stop()
	}
}

func TestIPv6Works(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("this host has no IPv6 loopback: ", err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s, listen(addr))
	b := start(t, "b", s, calls(addr))
	talk(t, next(t, a), next(t, b), []byte("over IPv6"))
}

func TestOtherClusterIsRefusedInWordsOnBothSides(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s, inCluster("1111"))
	b := start(t, "b", s, inCluster("2222"), calls(a.addr))
	const words = "weave reset on one side"
	eventually(t, "words on both sides", func() bool {
		return strings.Contains(a.log.String(), words) && strings.Contains(b.log.String(), words)
	})
	if len(a.Neighbours())+len(b.Neighbours()) != 0 {
		t.Error("they are connected all the same")
	}
	st := b.Status()
	if len(st) != 1 || st[0].State != Refused || !strings.Contains(st[0].Detail, words) || st[0].Name != "a" {
		t.Errorf("status %+v", st)
	}
	dials, begin := a.stats.Accepted.Load(), time.Now()
	time.Sleep(3 * time.Second)
	n, d := a.stats.Accepted.Load()-dials, time.Since(begin)
	if most := d / (dialEvery + dialJitter); time.Duration(n) > max(most, 2) { // dialled in every round
		t.Errorf("dialled %d times in %v: there is no back-off", n, d)
	}
	if n := strings.Count(b.log.String(), words); n != 1 {
		t.Errorf("said %d times", n)
	}
	b.cluster.set("1111")
	b.Recheck()
	eventually(t, "connected after the reset", func() bool { return a.has("b") && b.has("a") })
}

func TestRecheckEndsAConnectionThatIsNoLongerRight(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s, inCluster("1111"))
	b := start(t, "b", s, calls(a.addr))
	eventually(t, "connected", func() bool { return a.has("b") && b.has("a") })
	b.cluster.set("1111")
	b.Recheck()
	eventually(t, "a hears b's cluster", func() bool { st := a.Status(); return len(st) == 1 && st[0].Hello.Cluster == "1111" })
	b.cluster.set("2222")
	b.Recheck()
	eventually(t, "disconnected with words", func() bool {
		return !a.has("b") && strings.Contains(a.log.String(), "weave reset") && strings.Contains(b.log.String(), "weave reset")
	})
}

func TestSecondHostOfANameIsRefusedInWordsOnBothSides(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s)
	start(t, "twin", s, calls(a.addr))
	eventually(t, "the first twin", func() bool { return a.has("twin") })
	second := start(t, "twin", s, calls(a.addr))
	const words = "with another key"
	eventually(t, "words on both sides", func() bool {
		return strings.Contains(a.log.String(), words) && strings.Contains(second.log.String(), words)
	})
	if a.stats.Dropped.Load() != 0 {
		t.Error("the first twin suffered")
	}
	// And where the twins meet each other.
	third := start(t, "twin", s, calls(second.addr))
	eventually(t, "words on both sides", func() bool {
		return strings.Contains(third.log.String(), words) && strings.Count(second.log.String(), words) > 1
	})
}

func TestRestartedPeerTakesTheOldOnesPlaceWhenThatOneIsSilent(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	for _, name := range []string{"a", "z"} { // below and above the other's name
		var took time.Duration
		for range 3 { // what waits for a time-out does so each time; a busy machine is not as late each time
			if took = replace(t, name, s); took < 2*silence {
				break
			}
		}
		if t.Logf("%s after %v", name, took); took > 2*silence {
			t.Error("too late")
		}
	}
}

// replace restarts a peer without an end, and measures how long it takes until the new one has the place.
func replace(t *testing.T, name string, s identity.Secret) time.Duration {
	t.Helper()
	m := start(t, "m", s)
	dir := t.TempDir()
	wire := newCable(t, m.addr)
	old := start(t, name, s, stateDir(dir), calls(wire))
	eventually(t, "connected", func() bool { return m.has(gossip.Peer(name)) })
	wire.sever() // the old one does not say goodbye: at first m can only take it for alive
	start(t, name, s, stateDir(dir), calls(m.addr))
	took := eventually(t, "the new incarnation", func() bool {
		st := m.Status()
		return len(st) == 1 && st[0].Hello.Incarnation == 2
	})
	wire.mend()
	eventually(t, "the old incarnation is refused in words", func() bool {
		return strings.Contains(old.log.String(), "same state directory") && strings.Contains(m.log.String(), "same state directory")
	})
	old.stop()
	return took
}

func TestStuckPeerIsDroppedAndHindersNobody(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	for range 3 { // who waits for the stuck peer does so each time; a busy machine is not as late each time
		took, worst := stuckPeer(t, s)
		t.Logf("dropped after %v, others' worst delay %v", took, worst)
		if worst <= took/4 { // who waits for it waits until it is dropped
			return
		}
	}
	t.Error("the other was hindered")
}

// stuckPeer measures how long a peer that reads nothing is kept, and the longest that
// another one's message takes meanwhile.
func stuckPeer(t *testing.T, s identity.Secret) (took, worst time.Duration) {
	t.Helper()
	a := start(t, "a", s)
	b := start(t, "b", s, calls(a.addr))
	sa, sb := next(t, a), next(t, b)
	stuck := connect(t, a, newIdentity(t, "stuck", s))
	defer stuck.close(errors.New("the test ends"))
	toStuck := next(t, a)
	var lost shared[bool]
	go func() { // fills every buffer on the way to the stuck peer
		for {
			if _, err := toStuck.Write(make([]byte, 64<<10)); err != nil {
				lost.set(true)
				return
			}
		}
	}()
	begin := time.Now()
	for !lost.get() {
		if time.Since(begin) > slack*5*time.Second {
			t.Fatal("the stuck peer is still there")
		}
		sent := time.Now()
		talk(t, sa, sb, []byte("meanwhile"))
		worst = max(worst, time.Since(sent))
	}
	took = time.Since(begin)
	if !a.has("b") {
		t.Error("b suffered")
	}
	return took, worst
}

// connect makes a session with n by hand that nobody runs: its peer is stuck from
// the first moment.
func connect(t testing.TB, n *node, id *identity.Identity) *session {
	t.Helper()
	c, err := New(Config{ID: id, Cluster: func() string { return "" }, Accept: func(Hello) error { return nil }, Inner: n, Lost: func(gossip.Peer) {}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := (&dialler{Carrier: c}).connect(t.Context(), n.addr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newIdentity(t testing.TB, name string, s identity.Secret) *identity.Identity {
	t.Helper()
	id, err := identity.Open(t.TempDir(), name, s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// cable is a TCP proxy that can be cut without either end being told.
type cable struct {
	addr netip.AddrPort
	cut  chan struct{} // closed while it is whole; swapped under mu
	mu   sync.Mutex
}

func (c *cable) String() string { return c.addr.String() }

func (c *cable) whole() chan struct{} { c.mu.Lock(); defer c.mu.Unlock(); return c.cut }
func (c *cable) sever()               { c.mu.Lock(); defer c.mu.Unlock(); c.cut = make(chan struct{}) }
func (c *cable) mend()                { c.mu.Lock(); defer c.mu.Unlock(); close(c.cut) }

func newCable(t testing.TB, to netip.AddrPort) *cable {
	c := &cable{addr: loopback(), cut: make(chan struct{})}
	close(c.cut)
	ln, err := net.Listen("tcp", c.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			x, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				<-c.whole()
				y, err := net.Dial("tcp", to.String())
				if err != nil {
					x.Close()
					return
				}
				t.Cleanup(func() { x.Close(); y.Close() })
				go c.pump(x, y)
				go c.pump(y, x)
			}()
		}
	}()
	return c
}

func (c *cable) pump(dst, src net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := src.Read(buf)
		<-c.whole()
		if err != nil {
			dst.Close()
			return
		}
		dst.Write(buf[:n])
	}
}

func TestPartitionIsNoticedAndHeals(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s)
	wire := newCable(t, a.addr)
	b := start(t, "b", s, calls(wire))
	eventually(t, "connected", func() bool { return a.has("b") && b.has("a") })
	wire.sever()
	noticed := eventually(t, "the partition is noticed on both sides", func() bool { return a.has() && b.has() })
	if t.Log("noticed after ", noticed); noticed > slack*5*time.Second {
		t.Error("too late")
	}
	wire.mend()
	healed := eventually(t, "healed", func() bool { return a.has("b") && b.has("a") })
	if t.Log("healed after ", healed); healed > slack*2*time.Second {
		t.Error("too late")
	}
}

func TestStoppedRouterSaysGoodbye(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s)
	b := start(t, "b", s, calls(a.addr))
	eventually(t, "connected", func() bool { return a.has("b") && b.has("a") })
	b.stop()
	eventually(t, "a notices", func() bool { return a.has() })
	eventually(t, "a says why", func() bool { return strings.Contains(a.log.String(), errStopping.Error()) })
}

func TestLearnedPeersAreCalledAndForgotten(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a, c := start(t, "a", s), start(t, "c", s)
	b := start(t, "b", s)
	b.Learn("a", []netip.AddrPort{loopback(), a.addr}) // the first one is dead
	b.Learn("b", []netip.AddrPort{b.addr})
	if err := b.Connect(c.addr.String()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected", func() bool { return b.has("a", "c") })
	b.Learn("a", nil)
	if !b.Forget(c.addr.String()) || b.Forget(c.addr.String()) {
		t.Error("Forget does not say what was there")
	}
	a.stop()
	c.stop()
	eventually(t, "alone", func() bool { return b.has() })
}

func TestTargetsAreCompleted(t *testing.T) {
	for in, want := range map[string]string{
		"host": "host:6783", "host:1": "host:1", "10.0.0.1": "10.0.0.1:6783", "10.0.0.1:2": "10.0.0.1:2",
		"fd00::1": "[fd00::1]:6783", "[fd00::1]": "[fd00::1]:6783", "[fd00::1]:3": "[fd00::1]:3", " x ": "x:6783",
		"": "", "a b": "", "a:b": "", "a:0": "", "a:70000": "", "http://a": "", ":1": "", "a/24": "",
	} {
		got, err := Target(in, DefaultPort)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestForeignWordsAreMadePlain(t *testing.T) {
	got := plain("a\nb\x1b[31m\xff" + strings.Repeat("x", 9999))
	if strings.ContainsAny(got, "\n\x1b\xff") || len(got) > maxWords+10 {
		t.Errorf("%q", got)
	}
}

// put writes one frame by hand, whatever its length says.
func put(k kind, n int, body []byte) []byte {
	b := []byte{byte(k), 0, 0}
	binary.BigEndian.PutUint16(b[1:], uint16(n))
	return append(b, body...)
}

// Not beside the others: its handshakes are many, and each has but greetWithin.
func TestLargeClusterBecomesOneGraphOfFewConnections(t *testing.T) {
	s := loadSecret(t, secretFile(t))
	const hosts = fullMesh + 6
	var nodes []*node
	addrs := make([]netip.AddrPort, hosts)
	for i := range hosts {
		addrs[i] = loopback()
	}
	name := func(i int) string { return fmt.Sprintf("n%02d", i) }
	for i := range hosts { // one after the other: all at once, a busy machine is done with no handshake in time
		n := start(t, name(i), s, listen(addrs[i]))
		for j, a := range addrs {
			n.Learn(gossip.Peer(name(j)), []netip.AddrPort{a})
		}
		nodes = append(nodes, n)
	}
	links := func() (calls map[gossip.Peer]map[gossip.Peer]bool, all []gossip.Peer) {
		calls = map[gossip.Peer]map[gossip.Peer]bool{}
		for _, n := range nodes {
			all, calls[n.id.Name()] = append(all, n.id.Name()), map[gossip.Peer]bool{}
			for _, p := range n.Neighbours() {
				calls[n.id.Name()][p] = true
			}
		}
		return calls, all
	}
	eventually(t, "one graph", func() bool {
		calls, all := links()
		n, _, _ := reached(all, calls)
		return n == hosts
	})
	eventually(t, "few connections each", func() bool {
		calls, all := links()
		n, _, degree := reached(all, calls)
		return n == hosts && degree <= 16
	})
	calls, all := links()
	_, depth, degree := reached(all, calls)
	t.Logf("%d hosts, depth %d, largest degree %d", hosts, depth, degree)
}
