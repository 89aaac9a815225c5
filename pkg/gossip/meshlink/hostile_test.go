package meshlink

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/identity"
)

// rss is the resident memory of a process, in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// attack keeps n connections to a router busy in one way until ctx ends, each
// from an address of its own, and makes a new one whenever one is closed.
func attack(ctx context.Context, wg *sync.WaitGroup, n int, to string, one func(context.Context, net.Conn)) {
	for range n {
		wg.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: loopback().Addr().AsSlice()}, Timeout: time.Second}
			for ctx.Err() == nil {
				conn, err := d.DialContext(ctx, "tcp4", to)
				if err == nil {
					stop := context.AfterFunc(ctx, func() { conn.Close() })
					one(ctx, conn)
					stop()
					conn.Close()
				}
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
}

// hold waits until the router closes.
func hold(_ context.Context, c net.Conn) { c.Read(make([]byte, 1)) }

func attacks(stranger *identity.Identity) map[string]func(context.Context, net.Conn) {
	random := make([]byte, 64<<10)
	rand.Read(random)
	say := func(b ...byte) func(context.Context, net.Conn) {
		return func(ctx context.Context, c net.Conn) {
			c.Write(b)
			hold(ctx, c)
		}
	}
	return map[string]func(context.Context, net.Conn){
		"half open":            hold,
		"garbage":              say(random...),
		"mesh's own header":    say([]byte("weave\x00\x00")...),
		"a huge record":        say(append([]byte{22, 3, 1, 0xff, 0xff}, random...)...),
		"a huge handshake":     say(append([]byte{22, 3, 1, 0x3f, 0xff, 1, 0xff, 0xff, 0xff}, random...)...),
		"one byte at a time":   func(ctx context.Context, c net.Conn) { drip(ctx, c, []byte{22, 3, 1, 0x20, 0, 1, 0, 0x1f, 0xfc}) },
		"another cluster's":    func(ctx context.Context, c net.Conn) { shake(ctx, c, stranger) },
		"written, never read":  func(_ context.Context, c net.Conn) { flood(c, random) },
		"closed in the middle": func(_ context.Context, c net.Conn) { c.Write([]byte{22, 3, 1}) },
	}
}

func drip(ctx context.Context, c net.Conn, b []byte) {
	for i := 0; ctx.Err() == nil; i++ {
		if _, err := c.Write(b[min(i, len(b)-1):][:1]); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func shake(ctx context.Context, c net.Conn, id *identity.Identity) {
	if conf, err := id.TLSClient(); err == nil {
		conf.InsecureSkipVerify = true
		tls.Client(c, conf).HandshakeContext(ctx)
	}
}

func flood(c net.Conn, b []byte) {
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

func TestHostileConnectionsHinderNobody(t *testing.T) {
	c := newCluster(t)
	a, b := c.prepare("a"), c.prepare("b")
	c.start(a, "1")
	c.start(b, "1", a)
	a.says("neighbours [b]")
	before := rss(t, a.cmd.Process.Pid)
	id, err := identity.Open(t.TempDir(), "stranger", identity.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for _, one := range attacks(id) {
		attack(ctx, &wg, 500/len(attacks(id))+1, a.addr.String(), one)
	}
	most := 0
	measure := func() { most = max(most, rss(t, a.cmd.Process.Pid)-before) }
	var joins []time.Duration
	for i := range 5 {
		time.Sleep(500 * time.Millisecond) // the attack goes on
		measure()
		name := fmt.Sprint("late", i)
		begin := time.Now()
		late := c.start(c.prepare(name), "1", a)
		late.says("neighbours [a]")
		joins = append(joins, time.Since(begin))
		late.tell("send b")
		b.says("heard " + name + " 1 5 hello")
		measure()
		late.cmd.Process.Kill()
	}
	stop()
	wg.Wait()
	slices.Sort(joins)
	if t.Logf("joined after %v", joins); joins[len(joins)/2] > slack*2*time.Second {
		t.Error("too late")
	}
	t.Logf("memory grew by %.1f MiB at most", float64(most)/(1<<20))
	if most > 16<<20 && !raceDetector {
		t.Error("more than 16 MiB")
	}
	if a.logged("panic") || a.logged("peer disconnected\" peer=b") {
		t.Error("a suffered")
	}
}

func TestHalfOpenConnectionsFromOneAddressHinderNobodyThere(t *testing.T) {
	c := newCluster(t)
	a := c.start(c.prepare("a"), "1")
	a.says("peers []")
	var took time.Duration
	// A half-open connection lives for 5 s: who must wait for its place waits as long
	// each time, whereas a busy machine is not as late each time.
	for i := range 3 {
		if took = joinAmongHalfOpen(c, a, fmt.Sprint("late", i)); took < 2*time.Second {
			return
		}
	}
	t.Errorf("joins after %v", took)
}

// joinAmongHalfOpen opens 500 connections from 127.0.0.1, says nothing on them, and
// measures how long a router takes to join from the same address.
func joinAmongHalfOpen(c *cluster, a *process, name string) time.Duration {
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for len(conns) < 500 {
		conn, err := net.Dial("tcp4", a.addr.String())
		if err != nil {
			if time.Sleep(10 * time.Millisecond); !strings.Contains(err.Error(), "refused") {
				c.t.Fatal(err)
			}
			continue
		}
		conns = append(conns, conn)
	}
	begin := time.Now()
	late := c.start(c.prepare(name), "1", a)
	late.says("neighbours [a")
	took := time.Since(begin)
	c.t.Logf("%s joins after %v", name, took)
	return took
}
