package router

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// wholeLooks counts how often a router has compared all its networks with the kernel.
func (r *lone) wholeLooks() int {
	return strings.Count(r.Log(), "compared networks with one picture of the kernel\" all=true")
}

// mends waits until a change of somebody's is undone, which a command shows by its output.
func mends(t *testing.T, h *netlab.Host, shows, want string) {
	t.Helper()
	must(t, netlab.Wait(patience, shows+" shows "+want, func() error {
		if out, err := h.Run("sh", "-c", shows); err != nil || !strings.Contains(out, want) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	}))
}

// Whatever has a notice is mended by it, before everything is looked at again, which mends
// the rest: hence the order.
func TestWhatSomebodyChangesIsMendedByItsNoticeAndTheRestByTheNextWholeLook(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	h := lab.Host(0)
	a := startOn(t, h, as("a"))
	a.until("a is ready", ready)
	b := startOn(t, lab.Host(1), func(c *Config) { c.Name, c.Peers = "b", []string{h.Addr().String()} })
	b.until("b is ready", ready)
	n := create(t, a, ctl.NetCreateRequest{Name: "red"}, a, b)
	tunnel := deviceName(ledger.Network{ID: n.ID})
	other := lab.Host(1).Addr().String()
	mends(t, h, "bridge fdb show dev "+tunnel, "dst "+other)
	addr := strings.Fields(h.MustRun(t, "ip", "-4", "-o", "addr", "show", "dev", n.Bridge))[3]
	far := strings.Fields(h.MustRun(t, "ip", "-4", "neigh", "show", "dev", n.Bridge, "nud", "permanent"))[0]
	for _, d := range []struct{ damage, shows, want string }{
		{"ip link del " + tunnel, "bridge fdb show dev " + tunnel, "dst " + other},
		{"ip link set " + tunnel + " nomaster", "ip link show " + tunnel, "master " + n.Bridge},
		{"ip link set " + n.Bridge + " down", "ip link show " + n.Bridge, ",UP"},
		{"ip addr del " + addr + " dev " + n.Bridge, "ip addr show dev " + n.Bridge, addr},
		{"ip link set " + n.Bridge + " down", "ip neigh show dev " + n.Bridge, far},
		{"ip neigh del " + far + " dev " + n.Bridge, "ip neigh show dev " + n.Bridge, far},
		{"ip link del weave-vx", "ip link show weave-vx", "master weave"},
		{"sysctl -qw net.ipv4.ip_forward=0", "sysctl -n net.ipv4.ip_forward", "1"},
	} {
		err := errors.New("")
		for range 5 { // a whole look may come in between
			mends(t, h, d.shows, d.want) // all of what the damage before did
			looks := a.wholeLooks()
			h.MustRun(t, "sh", "-c", d.damage)
			mends(t, h, d.shows, d.want)
			if a.wholeLooks() == looks {
				err = nil
				break
			}
		}
		if err != nil {
			t.Errorf("%s: mended by a whole look only", d.damage)
		}
	}
	h.MustRun(t, "sysctl", "-qw", "net.ipv6.conf."+n.Bridge+".accept_ra=1")
	mends(t, h, "sysctl -n net.ipv6.conf."+n.Bridge+".accept_ra", "0")
}

func TestWhatWasChangedWhileNoticesWereLostIsMended(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	a := startOn(t, h, as("a"))
	a.until("a is ready", ready)
	n := create(t, a, ctl.NetCreateRequest{Name: "red"}, a)
	losses := func() int { return strings.Count(a.Log(), "all=true lost=true") }
	must(t, netlab.Wait(patience, "the first look, which is as after a loss", func() error {
		if losses() == 0 {
			return errors.New("none yet")
		}
		return nil
	}))
	h.MustRun(t, "ip", "link", "add", "busy", "type", "bridge")
	must(t, a.Pause())
	// More notices than it can be told of while it does not run, then the change.
	h.MustRun(t, "sh", "-c", "for i in $(seq 3000); do echo link set busy mtu 1400; echo link set busy mtu 1401; done | ip -batch -")
	h.MustRun(t, "ip", "link", "del", n.Bridge)
	must(t, a.Resume())
	mends(t, h, "ip addr show dev "+n.Bridge, "inet ")
	must(t, netlab.Wait(patience, "it was told that notices were lost", func() error {
		if n := losses(); n < 2 {
			return fmt.Errorf("losses: %d", n)
		}
		return nil
	}))
}

// A container's interface is looked at when its link changes, not only with everything.
func TestAContainersLinkIsLookedAtWhenItChanges(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	a := startOn(t, h, as("a"))
	a.until("a is ready", ready)
	n := create(t, a, ctl.NetCreateRequest{Name: "red"}, a)
	byNotice := func(what string, once func(try int)) {
		for try := range 5 {
			looks := a.wholeLooks()
			if once(try); a.wholeLooks() == looks {
				return
			}
		}
		t.Errorf("%s: seen by a whole look only", what)
	}
	k, _ := plug(t, a, h, n, "stays")
	byNotice("a port out of its bridge", func(int) {
		h.MustRun(t, "ip", "link", "set", k.Veth(), "nomaster")
		mends(t, h, "ip link show "+k.Veth(), "master "+n.Bridge)
	})
	byNotice("an interface that went", func(try int) {
		k, _ := plug(t, a, h, n, fmt.Sprint("goes", try))
		h.MustRun(t, "ip", "link", "set", k.Veth(), "nomaster")
		mends(t, h, "ip link show "+k.Veth(), "master "+n.Bridge) // so it was looked at, and is there
		h.MustRun(t, "ip", "link", "del", k.Veth())
		a.until("it is released", func(s ctl.Status) bool {
			return !slices.ContainsFunc(s.Attachments, func(at ctl.Attachment) bool { return at.Veth == k.Veth() })
		})
	})
}

func TestNetworksAreSuspectedByTheirDevices(t *testing.T) {
	id := func(digit string) string { return strings.Repeat(digit, 64) }
	all := []ledger.Network{
		{Name: DefaultNetwork, ID: id("a"), Driver: ctl.DriverWeave},
		{Name: "red", ID: id("b"), Driver: ctl.DriverWeave},
		{Name: "here", ID: id("c"), Driver: ctl.DriverSimpleBridge},
	}
	for devices, want := range map[string]string{
		"": "", DefaultBridge: DefaultNetwork, DefaultDevice: DefaultNetwork, deviceName(all[1]): "red", bridgeName(all[2]): "here",
		bridgeName(all[1]) + " " + deviceName(all[1]) + " " + DefaultBridge: DefaultNetwork + " red",
	} {
		touched := map[string]bool{}
		for _, d := range strings.Fields(devices) {
			touched[d] = true
		}
		var got []string
		for _, n := range touchedOf(all, touched) {
			got = append(got, n.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", devices, got, want)
		}
	}
}

func TestEverythingIsLookedAtNowAndThenAndNotByAllHostsTogether(t *testing.T) {
	now := time.Now()
	times := map[time.Time]bool{}
	for range 20 {
		var l lookout
		if !l.due(now) || l.due(now) {
			t.Fatal("the first look is not due, or due twice")
		}
		if l.due(now.Add(wholeLook-1)) || !l.due(now.Add(wholeLook+wholeLook/2)) {
			t.Error("the second look does not come in its time")
		}
		l = lookout{}
		l.due(now)
		times[l.whole] = true
	}
	if len(times) < 10 {
		t.Errorf("twenty hosts look at %d times", len(times))
	}
}
