package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// lookup asks as programs do that run in the container: by its /etc/resolv.conf, which
// `ip netns exec` puts there.
func (c *cluster) lookup(from *container, name string) (addr string, err error) {
	out, err := from.Host().Run("ip", "netns", "exec", filepath.Base(from.Path()), "getent", "ahostsv4", name)
	if f := strings.Fields(out); err == nil && len(f) > 0 {
		return f[0], nil
	}
	return "", fmt.Errorf("%s finds no %s: %w", from.Path(), name, err)
}

// finds waits until a container finds a name.
func (c *cluster) finds(from *container, name, addr string) {
	c.t.Helper()
	c.wait(fmt.Sprintf("%s finds %s", filepath.Base(from.Path()), name), func() error {
		got, err := c.lookup(from, name)
		if err == nil && got != addr {
			err = fmt.Errorf("got %s, want %s", got, addr)
		}
		return err
	})
}

// upstream answers every name with one address, on a host's own address.
func upstream(t *testing.T, h *netlab.Host, at netip.Addr, answer string) {
	t.Helper()
	var conn net.PacketConn
	err := h.Do(func() (err error) {
		var lc net.ListenConfig
		conn, err = lc.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(at, 53).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(answer)}}
		}
		_ = w.WriteMsg(m)
	})}
	ended := make(chan error)
	go func() { ended <- s.ActivateAndServe() }()
	t.Cleanup(func() { _ = conn.Close(); <-ended })
}

func TestAContainerOfIpNetnsFindsOthersByItsResolvConf(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	web := c.add(0, "web")
	asker := c.add(1, "asker")
	c.finds(asker, "web", web.result.addr().String())
	c.finds(web, "asker.weave.local", asker.result.addr().String())

	off := c.add(1, "off", "CNI_ARGS=WEAVE_DNS=off")
	if text, err := off.Host().ReadFile("/etc/netns/off/resolv.conf"); err == nil {
		t.Errorf("written although told off:\n%s", text)
	}
	c.finds(asker, "off", off.result.addr().String())
	c.del(asker)
	if _, err := web.Host().ReadFile("/etc/netns/web/resolv.conf"); err != nil {
		t.Error(err)
	}
	h := c.lab.Host(1)
	if out, err := h.Run("sh", "-euc", "ls -A /etc/netns; test ! -e /run/weave/resolv"); err != nil || strings.Contains(out, "asker") {
		t.Errorf("left: %s %v", out, err)
	}
}

// A user's own --dns: containerd passes it as the capability dns, and so does CAP_ARGS.
func TestTheServersThatAUserChoseAreAskedForThatContainerAlone(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	h0, h1 := c.lab.Host(0), c.lab.Host(1)
	upstream(t, h1, h1.Addr4(), "192.0.2.1")
	web := c.add(0, "web")
	own := c.add(0, "own", `CAP_ARGS={"dns":{"servers":["`+h1.Addr4().String()+`"],"searches":["corp.example"]}}`)
	outside := func(from *container) string {
		got, err := c.resolve(from, "outside.example")
		if err != nil && !strings.Contains(err.Error(), "timed out") {
			t.Log(err)
		}
		return strings.Join(got, " ")
	}
	check := func(when string) {
		t.Helper()
		c.wait(when+": its own server is asked", func() error {
			if got := outside(own); got != "192.0.2.1" {
				return errors.New("got " + got)
			}
			return nil
		})
		if got := outside(web); strings.Contains(got, "192.0.2.1") {
			t.Errorf("%s: asked for another container too: %s", when, got)
		}
		c.finds(own, "web", web.result.addr().String())
		c.finds(own, "web.weave.local", web.result.addr().String())
	}
	check("at first")
	if d := own.result.DNS; !slices.Equal(d.Search, []string{"weave.local", "corp.example"}) {
		t.Errorf("search %v", d.Search)
	}
	c.restart(0)
	check("after a restart of the router")

	addr := own.result.addr().String()
	c.del(own)
	ns, err := h0.NewContainer("again")
	if err != nil {
		t.Fatal(err)
	}
	var again *container
	c.wait("another container has the address", func() (err error) {
		again, err = c.tryAdd(ns, "weave", "CNI_ARGS=IP="+addr)
		return err
	})
	if got := outside(again); strings.Contains(got, "192.0.2.1") {
		t.Error("and the servers of the one before")
	}
}
