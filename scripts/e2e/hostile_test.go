package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const gossipPort = 6783

// rss is the resident memory of a router, in KiB.
func (c *cluster) rss(i int) int {
	c.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.lab.Host(i).Router().PID()))
	if err != nil {
		c.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		c.t.Fatal(err)
	}
	return kib
}

// attacks are what strangers send to the gossip port.
var attacks = map[string][]byte{
	"half-open":     nil,
	"garbage":       bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 1024),
	"mesh's header": []byte("weave\x00\x00"),
	"mesh's gob":    append([]byte("weave\x01\x02"), bytes.Repeat([]byte{0xff}, 64)...),
	"huge length":   binary.BigEndian.AppendUint32([]byte{0x16, 0x03, 0x03}, 0xffffffff),
	"http":          []byte("GET / HTTP/1.1\r\nHost: weave\r\n\r\n"),
}

func TestStrangersChangeNothingAndKeepNobodyOut(t *testing.T) {
	const connections = 500
	c := newCluster(t, 2, netlab.Options{Hosts: 4})
	before := c.rss(0)
	attacker := c.lab.Host(3)
	dst := net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.lab.Host(0).Addr(), gossipPort))
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	err := attacker.Do(func() error {
		for i := 0; len(conns) < connections; i++ {
			for _, bytes := range attacks {
				conn, err := net.DialTCP("tcp", nil, dst)
				if err != nil {
					continue // it sheds: that is its right
				}
				_, _ = conn.Write(bytes)
				conns = append(conns, conn)
			}
			if i > connections {
				return fmt.Errorf("only %d connections were accepted", len(conns))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	c.n = 3 // a legitimate peer joins meanwhile
	start := time.Now()
	c.start(2)
	c.waitReady(2)
	c.promised(fmt.Sprintf("a peer joins under %d hostile connections", connections), 2*time.Second, time.Since(start))
	t.Logf("memory %d -> %d KiB", before, c.rss(0))
	if grown := c.rss(0) - before; grown > 16<<10 {
		t.Errorf("memory grew by %d KiB", grown)
	}
	for name, bytes := range attacks {
		if answer := c.ask(attacker, dst, bytes); strings.Contains(answer, "h0") {
			t.Errorf("%s: a stranger was told %q", name, answer)
		}
	}
	if s, err := c.status(0); err != nil || len(s.Overlay) != 2 {
		t.Errorf("host 0 has %d remotes, %v", len(s.Overlay), err)
	}
	if h := c.lab.Host(0).Router(); h.State() != nil {
		t.Errorf("the router ended: %v", h.State())
	}
}

// ask sends bytes and returns what comes back.
func (c *cluster) ask(from *netlab.Host, dst *net.TCPAddr, bytes []byte) string {
	var conn *net.TCPConn
	if err := from.Do(func() (err error) {
		conn, err = net.DialTCP("tcp", nil, dst)
		return err
	}); err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(bytes)
	buf := make([]byte, 8192)
	n, _ := conn.Read(buf)
	return string(buf[:n])
}

func TestAStrangerWithoutTheSecretIsNoMember(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{Hosts: 3})
	h := c.lab.Host(2)
	other := h.MustRun(t, bin+"/weave", "secret", "new")
	if err := h.WriteFile(secretFile, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StartRouter(c.lab.Host(0).Addr().String()); err != nil {
		t.Fatal(err)
	}
	c.wait("the stranger says why it is alone", func() error {
		s, err := c.status(2)
		if err != nil {
			return err
		}
		if s.Error == nil || s.Cluster != "" {
			return fmt.Errorf("it is in cluster %q", s.Cluster)
		}
		if len(s.Peers) == 0 || s.Peers[0].Detail == "" {
			return fmt.Errorf("no reason given: %+v", s.Peers)
		}
		return nil
	})
	for i := range 2 {
		if s, err := c.status(i); err != nil || len(s.Overlay) != 1 {
			t.Errorf("host %d: %+v %v", i, s.Overlay, err)
		}
	}
}

func TestAStoppedPeerIsDroppedAndHindersNoADD(t *testing.T) {
	c := newCluster(t, 3, netlab.Options{})
	stopped := c.lab.Host(2).Router()
	if err := stopped.Pause(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var worst time.Duration
	for i := range 20 {
		begin := time.Now()
		c.add(0, fmt.Sprintf("a%d", i))
		worst = max(worst, time.Since(begin))
	}
	c.promised("the slowest ADD", time.Second, worst)
	c.wait("the stopped peer is dropped", func() error {
		s, err := c.status(0)
		if err != nil {
			return err
		}
		for _, p := range s.Peers {
			if p.Name == "h2" && p.State == "connected" {
				return fmt.Errorf("%+v", p)
			}
		}
		return nil
	})
	c.promised("a stopped peer is dropped", 10*time.Second, time.Since(start))
	if err := stopped.Resume(); err != nil {
		t.Fatal(err)
	}
	c.wait("it is back", func() error {
		s, err := c.status(0)
		if err != nil {
			return err
		}
		for _, p := range s.Peers {
			if p.Name == "h2" && p.State != "connected" {
				return fmt.Errorf("%+v", p)
			}
		}
		return nil
	})
}
