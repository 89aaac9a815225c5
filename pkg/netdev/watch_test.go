package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watched is a host with a network as it should be.
type watched struct {
	space
	bridge Bridge
	vxlan  VXLAN
	want   Forwarding
}

func newWatched(t *testing.T) watched {
	w := watched{newSpace(t), testBridge, testVXLAN(hostA), Forwarding{
		Remotes: []Remote{{MAC: net.HardwareAddr{2, 0x42, 10, 32, 1, 5}, VTEP: hostB, Addrs: []netip.Addr{netip.MustParseAddr("10.32.1.5"), netip.MustParseAddr("fd00::5")}}},
		Flood:   []netip.Addr{hostB},
	}}
	w.bridge.Cluster = "c1"
	w.ensure()
	w.must("ip link add p1 type veth peer name p2") // a container's
	w.must("ip link set p1 up")
	w.must("ip link set p2 up")
	w.must("ip link set p1 master weave")
	return w
}

func (w watched) ensure() {
	w.t.Helper()
	w.in(func() error {
		if err := EnsureBridge(w.bridge); err != nil {
			return err
		}
		if err := EnsureVXLAN(w.vxlan); err != nil {
			return err
		}
		_, err := SyncForwarding(w.bridge.Name, w.vxlan.Name, w.want)
		return err
	})
}

// mend undoes one of the damages.
func (w watched) mend() {
	w.t.Helper()
	w.run("ip", "link", "del", "other")                                       // it has the VNI
	w.run("bridge", "fdb", "del", "02:42:0a:20:01:05", "dev", "p1", "master") // what is here goes first
	w.ensure()
	w.must("ip link set p1 master weave")
}

// shown reports what one picture says of bridge, tunnel and forwarding.
func (w watched) shown() string {
	w.t.Helper()
	var p *Picture
	w.in(func() (err error) { p, err = Look(); return err })
	return fmt.Sprint(p.Bridge(w.bridge), p.VXLAN(w.vxlan), p.Forwarding(w.bridge.Name, w.vxlan.Name, w.want))
}

// damages are what somebody may do to a network, with what a picture then says of it, and
// whether the kernel has a notice of it.
var damages = []struct {
	line, shown string
	silent      bool
}{
	{line: "ip link set weave down", shown: "false true false"}, // it takes the neighbours along, as the next one does
	{line: "ip link set weave address 02:42:01:02:03:04", shown: "false true false"},
	{line: "ip link set weave mtu 1400", shown: "false true true"},
	{line: "ip addr del 10.32.0.1/12 dev weave", shown: "false true false"},
	{line: "ip addr del fd00::1/64 dev weave", shown: "false true true"},
	{line: "sysctl -qw net.ipv6.conf.weave.accept_ra=1", shown: "false true true", silent: true},
	{line: "sysctl -qw net.ipv6.conf.weave.autoconf=1", shown: "false true true", silent: true},
	{line: "sysctl -qw net.ipv6.conf.weave.accept_dad=1", shown: "false true true", silent: true},
	{line: "ip link set weave-vx nomaster", shown: "true false false"},
	{line: "ip link set weave-vx down", shown: "true false true"},
	{line: "ip link set weave-vx mtu 1400", shown: "true false true"},
	{line: "bridge link set dev weave-vx learning on", shown: "true false true"},
	{line: "bridge link set dev weave-vx neigh_suppress off", shown: "true false true"},
	{line: "bridge link set dev weave-vx flood off", shown: "true false true"},
	{line: "sysctl -qw net.ipv6.conf.weave-vx.disable_ipv6=0", shown: "true false true", silent: true},
	{line: "ip link del weave-vx", shown: "true false false"},
	{line: "ip link set weave-vx name other", shown: "true false false"},
	{line: "bridge fdb del 02:42:0a:20:01:05 dev weave-vx self", shown: "true true false"},
	{line: "bridge fdb del 02:42:0a:20:01:05 dev weave-vx master", shown: "true true false"},
	{line: "bridge fdb del 00:00:00:00:00:00 dst 192.168.9.2 dev weave-vx self", shown: "true true false"},
	{line: "bridge fdb replace 02:42:0a:20:01:05 dst 192.0.2.99 dev weave-vx self", shown: "true true false"},
	{line: "ip neigh del 10.32.1.5 dev weave", shown: "true true false"},
	{line: "ip neigh replace 10.32.1.5 lladdr 02:42:00:00:00:09 nud reachable dev weave", shown: "true true false"},
	{line: "ip neigh flush dev weave nud permanent", shown: "true true false"},
	{line: "ip neigh replace 10.32.1.5 lladdr 02:42:00:00:00:09 nud reachable protocol static dev weave", shown: "true true false"},
	{line: "bridge fdb replace 02:42:0a:20:01:05 dev p1 master static", shown: "true true false"},
	{line: "ip link del weave", shown: "false false false"},
}

func TestAPictureShowsWhateverWasChangedAndOneOfAllThatIsInOrderShowsNothing(t *testing.T) {
	w := newWatched(t)
	const well = "true true true"
	for _, d := range damages {
		if got := w.shown(); got != well {
			t.Fatalf("before %q: %s", d.line, got)
		}
		w.must(d.line)
		if got := w.shown(); got != d.shown {
			t.Errorf("%s: bridge, tunnel and forwarding are shown as %s, want %s", d.line, got, d.shown)
		}
		w.mend()
	}
	w.vxlan.VNI++
	if got := w.shown(); got != "true false true" {
		t.Errorf("another VNI: %s", got)
	}
	w.bridge.Cluster = "c2"
	if got := w.shown(); got != "false false true" {
		t.Errorf("of another cluster: %s", got)
	}
}

func TestWhateverIsChangedIsNoticed(t *testing.T) {
	w := newWatched(t)
	watch := w.watch()
	if !watch.Take().All {
		t.Error("before anything was looked at, something is not touched")
	}
	for _, d := range damages {
		w.taken(watch)
		w.must(d.line)
		if !w.taken(watch) && !d.silent { // of what is silent the kernel may tell something else, later
			t.Errorf("%s: not noticed", d.line)
		}
		w.mend()
	}
	for _, line := range []string{"sysctl -qw net.ipv4.ip_forward=1", "sysctl -qw net.ipv6.conf.all.forwarding=1"} {
		w.taken(watch)
		w.must(line)
		w.passed(watch)
		if got := watch.Take(); !got.Settings {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

func TestWhatTheKernelDoesByItselfAndToOthersIsNotNoticed(t *testing.T) {
	w := newWatched(t)
	watch := w.watch()
	w.taken(watch)
	for _, line := range []string{
		"ip link add other type bridge", "ip addr add 10.9.0.1/24 dev other", "ip link set other up",
		"ip neigh add 10.9.0.2 lladdr 02:42:00:00:00:09 dev other", "ip link del other",
	} {
		w.must(line)
		w.passed(watch)
		if got := watch.Take(); got.Devices["other"] || got.Settings {
			t.Errorf("%s: %+v", line, got)
		}
	}
	for _, e := range []struct {
		entry
		family byte
		want   bool
	}{
		{entry{state: netlink.NUD_REACHABLE}, unix.AF_INET, false}, {entry{state: netlink.NUD_STALE}, unix.AF_INET6, false},
		{entry{state: netlink.NUD_REACHABLE, protocol: protocol}, unix.AF_INET, true}, {entry{state: netlink.NUD_STALE, protocol: unix.RTPROT_STATIC}, unix.AF_INET, true}, {entry{state: netlink.NUD_PERMANENT}, unix.AF_INET, true},
		{entry{state: netlink.NUD_NOARP}, unix.AF_BRIDGE, true},
	} {
		if written(e.entry, e.family) != e.want {
			t.Errorf("%+v: want %v", e, e.want)
		}
	}
}

func TestLostNoticesAreMadeGoodByALook(t *testing.T) {
	w := newWatched(t)
	var watch *Watch
	w.in(func() (err error) {
		watch, err = NewWatch(func(name string) bool { return name == "late" })
		return err
	})
	t.Cleanup(func() { watch.Close() })
	watch.Take()
	hold(t, watch, 1)
	for i := range 50 { // nobody reads
		w.must(fmt.Sprintf("ip link add many%d type bridge", i))
	}
	if _, err := watch.sock.Read(make([]byte, dumpBytes)); !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("the socket is not full: %v", err)
	}
	watch.lost(t.Context())
	if !watch.Take().All {
		t.Error("a loss is not told")
	}
	hold(t, watch, watchBuffer)
	// From here on all is told: what came before the socket was full is not in the way.
	w.must("ip link add late type bridge")
	run(t, watch)
	eventually(t, "a device that came after the loss is known", func() bool { return watch.Take().Devices["late"] })
	w.must("ip addr add 10.9.0.1/24 dev late") // this notice has its index alone
	eventually(t, "and by its index", func() bool { return watch.Take().Devices["late"] })
}

// hold gives a watch room for so many bytes of notices.
func hold(t *testing.T, watch *Watch, bytes int) {
	t.Helper()
	raw, err := watch.sock.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if e := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes); e != nil {
				t.Error(e)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// watch runs a watch of the network's devices, and of one called mark.
func (w watched) watch() *Watch {
	w.t.Helper()
	var watch *Watch
	w.in(func() (err error) {
		watch, err = NewWatch(func(name string) bool { return name == "weave" || name == "weave-vx" || name == "mark" })
		return err
	})
	w.t.Cleanup(func() { watch.Close() })
	run(w.t, watch)
	return watch
}

func run(t testing.TB, watch *Watch) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- watch.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// passed returns when whatever was done before has been noticed: notices have an order.
func (w watched) passed(watch *Watch) {
	w.t.Helper()
	w.must("ip link add mark type bridge")
	w.must("ip link del mark")
	eventually(w.t, "the notice that a link came and went", func() bool {
		watch.mu.Lock()
		defer watch.mu.Unlock()
		for _, name := range watch.names {
			if name == "mark" {
				return false
			}
		}
		was := watch.touched.Devices["mark"]
		delete(watch.touched.Devices, "mark")
		return was
	})
}

// taken reports whether the network was touched so far, and takes that.
func (w watched) taken(watch *Watch) bool {
	w.passed(watch)
	got := watch.Take()
	return got.Devices["weave"] || got.Devices["weave-vx"]
}
