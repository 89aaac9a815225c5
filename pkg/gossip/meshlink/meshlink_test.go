package meshlink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/identity"
)

// mesh never stops and has data races of its own, so each router of these tests
// is a process: this test binary, run again with asNode set.
const asNode = "MESHLINK_TEST_NODE"

func TestMain(m *testing.M) {
	if spec := os.Getenv(asNode); spec != "" {
		if err := node(strings.Split(spec, "|")); err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// node runs one router: name, listen, mesh port, secret file, state directory, cluster, targets.
// It takes commands on stdin and prints, one line each, what it hears and how its peers change.
func node(f []string) error {
	secret, err := identity.LoadSecret(f[3])
	if err != nil {
		return err
	}
	id, err := identity.Open(f[4], f[0], secret)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(f[2], 10, 16)
	if err != nil {
		return err
	}
	l, err := New(Config{
		ID: id, Listen: []netip.AddrPort{netip.MustParseAddrPort(f[1])}, MeshPort: uint16(port), Targets: strings.Fields(f[6]),
		Hello: func() Hello { return Hello{Cluster: f[5]} },
		Accept: func(h Hello) error {
			if h.Cluster != f[5] {
				return fmt.Errorf("cluster %s is not ours, %s", h.Cluster, f[5])
			}
			return nil
		},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return err
	}
	for _, ch := range []gossip.Channel{gossip.Records, gossip.Ledger} {
		l.Handle(ch, func(from gossip.Peer, msg []byte) {
			if string(msg) == "panic" {
				panic("as told")
			}
			fmt.Printf("heard %s %d %d %.40s\n", from, ch, len(msg), msg)
		})
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		for {
			changed := l.Changed()
			fmt.Printf("peers %v neighbours %v\n", l.Peers(), l.Neighbours())
			<-changed
		}
	}()
	go obey(l)
	err = l.Run(ctx)
	fmt.Println("ended", err)
	return err
}

func obey(l *Link) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var (
			verb, to string
			n        int
		)
		fmt.Sscan(in.Text(), &verb, &to, &n)
		text := to
		if n > 0 {
			text = strings.Repeat("x", n)
		}
		switch verb {
		case "send":
			if n == 0 {
				text = "hello"
			}
			fmt.Println("sent", l.Send(gossip.Peer(to), gossip.Records, []byte(text)))
		case "panic":
			l.Send(gossip.Peer(to), gossip.Ledger, []byte("panic"))
		case "cast":
			fmt.Println("cast", l.Broadcast(gossip.Ledger, []byte(text)))
		case "status":
			fmt.Printf("status %+v\n", l.Status())
		case "stats":
			fmt.Printf("stats panics=%d bad=%d\n", l.Stats().HandlerPanics.Load(), l.Stats().BadFrames.Load())
		}
	}
}

// process is a router in a process of its own.
type process struct {
	t    *testing.T
	name string
	addr netip.AddrPort
	cmd  *exec.Cmd
	in   io.Writer
	dir  string

	mu   sync.Mutex
	out  []string
	when []time.Time // of each line of out
	seen int
	log  bytes.Buffer
	race string
}

type cluster struct {
	t      *testing.T
	secret string
	port   int
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	text, err := identity.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	f := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &cluster{t, f, 0}
}

func loopback() netip.AddrPort {
	var b [3]byte
	rand.Read(b[:])
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 128 | b[0]>>1, b[1], b[2]&^1 | 2}), 16784)
}

func freePort(t *testing.T) int {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// prepare makes a router that is not running yet.
func (c *cluster) prepare(name string) *process {
	return &process{t: c.t, name: name, addr: loopback(), dir: c.t.TempDir()}
}

func (c *cluster) start(p *process, clusterID string, targets ...*process) *process {
	c.t.Helper()
	var to []string
	for _, q := range targets {
		to = append(to, q.addr.String())
	}
	spec := strings.Join([]string{p.name, p.addr.String(), strconv.Itoa(freePort(c.t)), c.secret, p.dir, clusterID, strings.Join(to, " ")}, "|")
	p.race = filepath.Join(c.t.TempDir(), "race")
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), asNode+"="+spec, "GORACE=exitcode=0 log_path="+p.race)
	p.cmd.Stderr = lockedWriter{&p.mu, &p.log}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	p.in = in
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			p.mu.Lock()
			p.out, p.when = append(p.out, sc.Text()), append(p.when, time.Now())
			p.mu.Unlock()
		}
	}()
	cmd := p.cmd
	c.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGCONT)
		cmd.Process.Kill()
		cmd.Wait()
		p.races()
		if c.t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			c.t.Logf("%s printed:\n%s\nand logged:\n%s", p.name, strings.Join(p.out, "\n"), p.log.String())
		}
	})
	return p
}

// races fails the test for a data race that is not mesh's own.
func (p *process) races() {
	files, _ := filepath.Glob(p.race + "*")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, report := range strings.Split(string(b), "==================") {
			if strings.Contains(report, "DATA RACE") && !strings.Contains(report, "weaveworks/mesh.") {
				p.t.Errorf("%s: %s", p.name, report)
			}
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (p *process) tell(format string, args ...any) { fmt.Fprintf(p.in, format+"\n", args...) }

func (p *process) logged(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Contains(p.log.String(), text)
}

// patience bounds waits for what takes a second or two where nothing else runs.
const patience = time.Minute

// slack is how many times a promise in seconds may be exceeded by a machine that
// is busy with something else. What is measured is logged.
const slack = 5

// says waits for a line after those that were waited for before, and tells how long that took.
func (p *process) says(line string) time.Duration {
	p.t.Helper()
	begin := time.Now()
	for {
		p.mu.Lock()
		for i := p.seen; i < len(p.out); i++ {
			if strings.Contains(p.out[i], line) {
				p.seen = i + 1
				when := p.when[i]
				p.mu.Unlock()
				return when.Sub(begin)
			}
		}
		p.mu.Unlock()
		if time.Since(begin) > patience {
			p.t.Fatalf("%s does not say %q within %v", p.name, line, patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// logs waits until the log has a text.
func (p *process) logs(text string) {
	p.t.Helper()
	for begin := time.Now(); !p.logged(text); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > patience {
			p.t.Fatalf("%s does not log %q within %v", p.name, text, patience)
		}
	}
}

func TestThreeRoutersInAChainReachEachOtherThroughTheMiddle(t *testing.T) {
	c := newCluster(t)
	b := c.start(c.prepare("b"), "1")
	a := c.start(c.prepare("a"), "1", b)
	z := c.start(c.prepare("z"), "1", b)
	a.says("peers [b z] neighbours [b]")
	z.says("peers [a b] neighbours [b]")
	b.says("peers [a z] neighbours [a z]")

	a.tell("send z")
	z.says("heard a 1 5 hello")
	z.tell("send a 262144")
	a.says("heard z 1 262144")
	a.tell("send a")
	a.says("heard a 1 5 hello")
	a.tell("send nobody")
	a.says(gossip.ErrUnreachable.Error())
	a.tell("send b 262145")
	a.says(gossip.ErrTooLarge.Error())

	z.tell("cast news")
	a.says("heard z 2 4 news")
	b.says("heard z 2 4 news")
	z.tell("status")
	z.says("{Name:a Addr: State:relayed")

	// A handler that panics costs its message only.
	a.tell("panic z")
	a.tell("send z")
	z.says("heard a 1 5 hello")
	z.tell("stats")
	z.says("stats panics=1 bad=0")

	b.cmd.Process.Signal(syscall.SIGTERM)
	b.says("ended")
	a.says("peers [] neighbours []")
}

func TestStoppedPeerIsDroppedAndHindersNobody(t *testing.T) {
	c := newCluster(t)
	a, b, z := c.prepare("a"), c.prepare("b"), c.prepare("z")
	c.start(a, "1")
	c.start(b, "1", a)
	c.start(z, "1", a, b)
	a.says("neighbours [b z]")
	b.says("neighbours [a z]")
	z.cmd.Process.Signal(syscall.SIGSTOP)
	begin := time.Now()
	var worst time.Duration
	for time.Since(begin) < 4*time.Second {
		a.tell("send z 250000") // fills every buffer on the way to the stopped one
		a.tell("cast x 250000")
		a.tell("send b")
		sent := time.Now()
		b.says("heard a 1 5 hello")
		worst = max(worst, time.Since(sent))
	}
	dropped := time.Since(begin) + a.says("peers [b] neighbours [b]")
	t.Logf("dropped after %v; worst delay of another %v", dropped, worst)
	if dropped > slack*5*time.Second {
		t.Error("dropped too late")
	}
	if worst > dropped/2 { // who waits for the stopped one waits until it is dropped
		t.Error("the other was hindered")
	}
	z.cmd.Process.Signal(syscall.SIGCONT)
	t.Log("back after ", a.says("neighbours [b z]"))
	heard := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() { // what is sent into the old session is lost
		for again := time.NewTicker(300 * time.Millisecond); ; {
			z.tell("send a")
			select {
			case <-heard:
				return
			case <-again.C:
			}
		}
	})
	defer sender.Wait()
	defer close(heard)
	a.says("heard z 1 5 hello")
}

func TestKilledRouterComesBackAtOnce(t *testing.T) {
	c := newCluster(t)
	a, b := c.prepare("a"), c.prepare("b")
	c.start(a, "1", b)
	c.start(b, "1", a)
	a.says("neighbours [b]")
	soonest := patience
	for range 3 {
		b.cmd.Process.Kill()
		b.cmd.Wait()
		soonest = min(soonest, a.says("neighbours []"))
		c.start(b, "1", a)
		t.Log("back after ", a.says("neighbours [b]"))
		a.tell("send b")
		b.says("heard a 1 5 hello")
	}
	// Silence would be noticed after 4 s, each time; a busy machine is not as late each time.
	if t.Log("noticed after ", soonest); soonest > 2*time.Second {
		t.Error("its end is not noticed at once")
	}
}

func TestOtherClusterIsRefusedInWordsOnBothSides(t *testing.T) {
	c := newCluster(t)
	a := c.start(c.prepare("a"), "1")
	b := c.start(c.prepare("b"), "2", a)
	b.says("peers []")
	a.logs("cluster 1 is not ours, 2")
	b.logs("cluster 1 is not ours, 2")
}

func TestTwinThatOthersReachIsRefused(t *testing.T) {
	c := newCluster(t)
	b := c.start(c.prepare("b"), "1")
	a := c.start(c.prepare("a"), "1", b)
	c.start(c.prepare("twin"), "1", b)
	a.says("peers [b twin] neighbours [b]")
	second := c.start(c.prepare("twin"), "1", a)
	a.logs("with another key")
	second.logs("with another key")
}

func TestPortInUseIsAnErrorInWords(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := newCluster(t)
	secret, err := identity.LoadSecret(c.secret)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.Open(t.TempDir(), "a", secret)
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(Config{ID: id, MeshPort: uint16(ln.Addr().(*net.TCPAddr).Port), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "loopback port") {
		t.Fatal(err)
	}
}
