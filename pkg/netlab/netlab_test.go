package netlab_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }

// patience bounds waits for what happens in milliseconds where nothing else runs.
const patience = 30 * time.Second

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pings fails unless an answer comes back in 0.3 s.
func pings(s *netlab.Space, to netip.Addr) error {
	_, err := s.Run("ping", "-n", "-c1", "-W0.3", to.String())
	return err
}

func wantPings(t *testing.T, s *netlab.Space, to netip.Addr, want bool) {
	t.Helper()
	err := pings(s, to)
	if want && err != nil { // the machine may be slow
		err = netlab.Wait(patience, s.Name()+" reaches "+to.String(), func() error { return pings(s, to) })
	}
	if (err == nil) != want {
		t.Errorf("%s reaches %s: %v, want %v (%v)", s.Name(), to, err == nil, want, err)
	}
}

func TestHostsReachEachOtherTheGatewayAndWhatIsBeyond(t *testing.T) {
	for name, family := range map[string]netlab.Underlay{"v4": netlab.V4, "v6": netlab.V6, "both": netlab.Both} {
		t.Run(name, func(t *testing.T) {
			lab := netlab.New(t, netlab.Options{Hosts: 3, Underlay: family, Outside: true})
			h0, h2, out := lab.Host(0), lab.Host(2), lab.Outside()
			for _, pair := range [][2]netip.Addr{{h2.Addr4(), out.Addr4()}, {h2.Addr6(), out.Addr6()}} {
				for _, a := range pair {
					if a.IsValid() {
						wantPings(t, h0.Space, a, true)
					}
				}
			}
			wantPings(t, h0.Space, lab.Gateway(), true)
			if h0.Addr4().IsValid() != (family != netlab.V6) || h0.Addr6().IsValid() != (family != netlab.V4) {
				t.Errorf("addresses %v and %v on %s", h0.Addr4(), h0.Addr6(), name)
			}
		})
	}
}

func TestAHostIsAMachineForItself(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2, Private: []string{"/var/lib/lab-private-test"}})
	a, b := lab.Host(0), lab.Host(1)
	ids := map[string]bool{}
	for _, h := range []*netlab.Host{a, b} {
		for _, dir := range []string{"/run/weave", "/var/lib/weave", "/var/lib/cni", "/etc/cni/net.d", "/etc/netns/x", "/opt/cni/bin", "/var/lib/lab-private-test"} {
			if _, err := h.ReadFile(dir + "/mine"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s on %s before anybody wrote: %v", dir, h.Name(), err)
			}
			ok(t, h.WriteFile(dir+"/mine", h.Name(), 0o600))
			got, err := h.ReadFile(dir + "/mine")
			ok(t, err)
			if got != h.Name() {
				t.Errorf("%s on %s holds %q", dir, h.Name(), got)
			}
		}
		if got := strings.TrimSpace(h.MustRun(t, "hostname")); got != h.Name() {
			t.Errorf("host name of %s is %q", h.Name(), got)
		}
		if got := h.MustRun(t, "cat", "/etc/resolv.conf"); got != "nameserver "+lab.Gateway().String()+"\n" {
			t.Errorf("resolv.conf is %q", got)
		}
		if got := strings.Fields(h.MustRun(t, "ls", "/sys/class/net")); fmt.Sprint(got) != "[eth0 lo]" {
			t.Errorf("devices in /sys: %q", got)
		}
		groups, err := exec.Command("ls", "/sys/fs/cgroup").Output()
		ok(t, err)
		if got := h.MustRun(t, "ls", "/sys/fs/cgroup"); got != string(groups) {
			t.Errorf("cgroups on %s: %q, the machine has %q", h.Name(), got, groups)
		}
		ids[h.MustRun(t, "cat", "/etc/machine-id")] = true
	}
	if len(ids) != 2 {
		t.Errorf("machine ids %v", ids)
	}
	if _, err := os.Stat("/run/weave"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the program sees a host's /run: %v", err)
	}
}

func TestTheFirstPacketAfterNewArrives(t *testing.T) {
	for range 5 {
		lab := netlab.New(t, netlab.Options{Hosts: 3, Underlay: netlab.Both})
		h := lab.Host(0)
		for _, v := range []string{"ipv4", "ipv6"} { // a neighbour solicitation that is lost is repeated too late
			h.MustRun(t, "sh", "-c", "echo 60000 >/proc/sys/net/"+v+"/neigh/eth0/retrans_time_ms")
		}
		for _, a := range []netip.Addr{lab.Host(2).Addr6(), lab.Host(2).Addr4()} {
			if _, err := h.Run("ping", "-n", "-c1", "-W10", a.String()); err != nil {
				t.Errorf("the first packet to %s: %v", a, err)
			}
		}
		ok(t, lab.Close())
	}
}

func TestEveryFaultTakesEffectAndHealEndsThemAll(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 3, Underlay: netlab.Both})
	h := lab.Hosts()
	unchanged := lab.Watch(t, netlab.WorldOptions{})

	ok(t, lab.LinkDown(1))
	wantPings(t, h[0].Space, h[1].Addr4(), false)
	wantPings(t, h[0].Space, h[2].Addr4(), true)
	ok(t, lab.LinkUp(1))
	wantPings(t, h[0].Space, h[1].Addr4(), true)

	ok(t, lab.Partition(2))
	wantPings(t, h[0].Space, h[2].Addr4(), false)
	wantPings(t, h[2].Space, h[1].Addr6(), false)
	wantPings(t, h[0].Space, h[1].Addr6(), true)
	wantPings(t, h[2].Space, lab.Gateway(), true)
	ok(t, lab.LinkDown(0))
	ok(t, lab.Loss(1, 100))
	wantPings(t, h[1].Space, lab.Gateway(), false)
	ok(t, lab.Heal())
	for _, from := range h {
		for _, to := range h {
			for _, a := range []netip.Addr{to.Addr4(), to.Addr6(), lab.Gateway()} {
				wantPings(t, from.Space, a, true)
			}
		}
	}
	unchanged()
	for _, err := range []error{lab.Cut(0, 3), lab.LinkDown(-1), lab.Loss(0, 101)} {
		if err == nil {
			t.Error("a fault that cannot be was taken")
		}
	}
}

func TestACutIsOneWay(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	a, b := lab.Host(0), lab.Host(1)
	wantPings(t, a.Space, b.Addr(), true)
	ok(t, lab.Cut(0, 1))
	received := func() int {
		var n int
		out := a.MustRun(t, "ip", "netns", "list") // also: the tool works where nothing is bound
		if out != "" {
			t.Errorf("namespaces %q", out)
		}
		_, err := fmt.Sscan(a.MustRun(t, "cat", "/sys/class/net/eth0/statistics/rx_packets"), &n)
		ok(t, err)
		return n
	}
	before := received()
	wantPings(t, b.Space, a.Addr(), false) // its request arrives, the answer does not
	if received() == before {
		t.Error("the open direction is closed too")
	}
}

func TestLossIsAsMuchAsAskedFor(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	ok(t, lab.Loss(1, 20))
	var to, from net.Conn
	ok(t, lab.Host(1).Do(func() (err error) {
		to, err = net.ListenUDP("udp", &net.UDPAddr{Port: 9})
		return err
	}))
	defer to.Close()
	ok(t, lab.Host(0).Do(func() (err error) {
		from, err = net.Dial("udp", netip.AddrPortFrom(lab.Host(1).Addr(), 9).String())
		return err
	}))
	defer from.Close()
	const sent = 2000
	got, buf := 0, make([]byte, 16)
	for range sent { // one at a time: nothing may be lost for want of a buffer
		_, err := from.Write([]byte("x"))
		ok(t, err)
		to.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		if _, err := to.Read(buf); err == nil {
			got++
		}
	}
	for { // what a busy machine brings later
		to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := to.Read(buf); err != nil {
			break
		}
		got++
	}
	if got < 1510 || got > 1690 { // five standard deviations
		t.Errorf("%d of %d arrived at 20 %% loss, want 1600 ± 90", got, sent)
	}
}

func TestAContainerIsANamespaceBoundOnItsHost(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	h := lab.Host(0)
	unchanged := lab.Watch(t, netlab.WorldOptions{})
	c, err := h.NewContainer("web")
	ok(t, err)
	if got := strings.TrimSpace(c.MustRun(t, "ip", "-o", "link")); !strings.HasPrefix(got, "1: lo: <LOOPBACK> ") || strings.Contains(got, "\n") {
		t.Errorf("links of a new container: %q", got)
	}
	if got := h.MustRun(t, "nsenter", "--net="+c.Path(), "readlink", "/proc/self/ns/net"); got != fmt.Sprintf("net:[%d]\n", c.NSID().Ino) {
		t.Errorf("bound is %q, the container %v", got, c.NSID())
	}
	if _, err := h.NewContainer("web"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second one of the name: %v", err)
	}
	other, err := lab.Host(1).NewContainer("web")
	ok(t, err)
	h.MustRun(t, "ip", "link", "add", "c0", "type", "veth", "peer", "name", "eth0", "netns", "web")
	c.MustRun(t, "ip", "addr", "add", "10.1.1.2/24", "dev", "eth0")
	world, err := c.World(netlab.WorldOptions{})
	ok(t, err)
	if !strings.Contains(world.String(), "addr 10.1.1.2/24 dev eth0 scope global\n") {
		t.Errorf("world of the container:\n%s", world)
	}
	ok(t, h.WriteFile("/etc/netns/web/resolv.conf", "nameserver 10.1.1.1\n", 0o644))
	if got := c.MustRun(t, "cat", "/etc/resolv.conf"); got != "nameserver 10.1.1.1\n" {
		t.Errorf("the container's resolv.conf is %q", got)
	}
	h.MustRun(t, "rm", "-r", "/etc/netns/web")
	sleep, err := c.Start("sleep", "1000")
	ok(t, err)
	ok(t, c.Delete())
	ok(t, c.Delete())
	ok(t, other.Delete())
	if sleep.State() == nil {
		<-sleep.Done()
	}
	unchanged()
}

func TestACommandEndsAtItsDeadlineWithItsChildren(t *testing.T) {
	lab := netlab.New(t, netlab.Options{})
	unchanged := lab.Watch(t, netlab.WorldOptions{})
	var err error
	limit := 100 * time.Millisecond
	for err == nil || !strings.Contains(err.Error(), "trouble") { // a busy machine may not come that far in time
		if limit *= 2; limit > patience {
			break
		}
		_, err = lab.Host(0).WithLimit(limit).Run("sh", "-c", "echo trouble >&2; sleep 1000 & sleep 1000")
	}
	if err == nil || !strings.Contains(err.Error(), "trouble") || !strings.Contains(err.Error(), "not done after "+limit.String()) || !strings.HasPrefix(err.Error(), "h0: ") {
		t.Errorf("error %v", err)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("its child kept it: %v", err)
	}
	unchanged()
}

func TestACommandThatEndsAtItsDeadlineByItselfIsNoError(t *testing.T) {
	lab := netlab.New(t, netlab.Options{})
	cmd := lab.Host(0).Command(t.Context(), "true")
	ok(t, cmd.Run())
	// Where the deadline comes between the process' end and Run's, this is called.
	if err := cmd.Cancel(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("cancel after the end: %v", err)
	}
}

func TestOutputThatIsLateIsWaitedFor(t *testing.T) {
	lab := netlab.New(t, netlab.Options{})
	// The shell ends at once; its child, which has the pipe too, plays a machine that is busy.
	out, err := lab.Host(0).Run("sh", "-c", "(sleep 1.5; echo late) &")
	if err != nil || out != "late\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestADaemonIsStoppedKilledPausedAndRestarted(t *testing.T) {
	lab := netlab.New(t, netlab.Options{})
	h := lab.Host(0)
	unchanged := lab.Watch(t, netlab.WorldOptions{})
	d, err := h.Start("sh", "-c", `trap 'echo bye; exit 0' TERM; echo up in $(hostname); while :; do read -t 0.01 x <>/dev/null || sleep 0.01; done`)
	ok(t, err)
	up := func(n int) error {
		if got := strings.Count(d.Log(), "up in h0\n"); got != n {
			return fmt.Errorf("up %d times", got)
		}
		return nil
	}
	ok(t, d.WaitFor(patience, "it is up", func() error { return up(1) }))
	ok(t, d.Pause())
	ok(t, d.Resume())
	ok(t, d.Restart())
	ok(t, d.WaitFor(patience, "it is up again", func() error { return up(2) }))
	if !strings.Contains(d.Log(), "bye\n") {
		t.Errorf("log %q", d.Log())
	}
	ok(t, d.Kill())
	if s := d.State(); s == nil || s.String() != "signal: killed" {
		t.Errorf("state %v", s)
	}
	ok(t, d.Kill())
	ok(t, d.Stop())
	ok(t, d.Restart())
	ok(t, d.WaitFor(patience, "it is up a third time", func() error { return up(3) }))
	ok(t, d.Pause())
	ok(t, d.Stop())
	if err := d.Signal(0); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to one that has ended: %v", err)
	}
	unchanged()
}

func TestWaitForEndsWithTheProcessItWaitsOn(t *testing.T) {
	lab := netlab.New(t, netlab.Options{})
	d, err := lab.Host(0).Start("sh", "-c", "echo no such flag; exit 3")
	ok(t, err)
	start := time.Now()
	err = d.WaitFor(time.Minute, "it is ready", func() error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such flag") {
		t.Errorf("error %v", err)
	}
	if time.Since(start) > patience { // half of what it was given
		t.Error("it waited on")
	}
	if err := d.Stop(); err != nil {
		t.Errorf("stop after the end: %v", err)
	}
}

func TestTheRouterIsStartedFromBinWithTheHostsName(t *testing.T) {
	bin := t.TempDir()
	ok(t, os.Chmod(bin, 0o755))
	ok(t, os.WriteFile(bin+"/weaver", []byte("#!/bin/sh\necho \"$@\"\nexec sleep 1000\n"), 0o755))
	lab := netlab.New(t, netlab.Options{Hosts: 2, Bin: bin, RouterArgs: []string{"--range", "10.40.0.0/16"}})
	d, err := lab.Host(1).StartRouter("192.0.2.10")
	ok(t, err)
	ok(t, d.WaitFor(patience, "it has said its arguments", func() error {
		if d.Log() != "--name h1 --range 10.40.0.0/16 192.0.2.10\n" {
			return fmt.Errorf("log %q", d.Log())
		}
		return nil
	}))
	if lab.Host(1).Router() != d || lab.Host(0).Router() != nil {
		t.Error("Router is another one")
	}
	if got := lab.Host(0).MustRun(t, "ls", "/opt/cni/bin"); got != "weaver\n" {
		t.Errorf("plugins %q", got)
	}
}

func TestDoPassesPanicsAndFailuresOn(t *testing.T) {
	lab := netlab.New(t, netlab.Options{})
	h := lab.Host(0)
	want := errors.New("mine")
	if err := h.Do(func() error { return want }); err != want {
		t.Errorf("error %v", err)
	}
	func() {
		defer func() {
			if v := recover(); !strings.Contains(fmt.Sprint(v), "boom") {
				t.Errorf("panic %v", v)
			}
		}()
		h.Do(func() error { panic("boom") })
	}()
	done := make(chan bool)
	go func() {
		defer close(done)
		h.Do(func() error { runtime.Goexit(); return nil })
		done <- true
	}()
	if <-done {
		t.Error("Goexit did not pass")
	}
}
