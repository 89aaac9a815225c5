package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// A router writes into its network namespace, from all its threads: here each is a
// process in a host of a lab, this test binary run again with asRouter.
const asRouter = "run-router"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == asRouter {
		os.Exit(routerMain(os.Args[2]))
	}
	os.Exit(netlab.Main(m))
}

func routerMain(config string) int {
	var c Config
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	err := json.Unmarshal([]byte(config), &c)
	if err == nil {
		err = Run(ctx, c, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}
	if errors.Is(err, ErrAgain) && len(c.Bootstrap) > 0 { // the founder is one only then; other tests look at the end
		err = unix.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "weaver:", err)
		return 1
	}
	return 0
}

// lone is a router in a host of a lab.
type lone struct {
	*netlab.Daemon
	t      *testing.T
	config Config
}

// startOn starts a router in a host. Its control socket is where the test reaches
// it, not in the host's own /run.
func startOn(t *testing.T, h *netlab.Host, change func(*Config)) *lone {
	t.Helper()
	dir, err := os.MkdirTemp("", "wr") // t.TempDir can be longer than a socket's path may
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := Defaults()
	c.Name, c.Socket, c.Version = h.Name(), filepath.Join(dir, "s"), "test"
	change(&c)
	if len(c.Peers)+len(c.Bootstrap) == 0 {
		c.Init = InitNew // a lab's state directories are on a tmpfs
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d, err := h.Start(self, asRouter, string(text))
	if err != nil {
		t.Fatal(err)
	}
	return &lone{d, t, c}
}

func as(name string) func(*Config) { return func(c *Config) { c.Name = name } }

func (r *lone) status() (s ctl.Status, err error) {
	err = ctl.New(r.config.Socket, 0).Call(r.t.Context(), ctl.PathStatus, nil, &s)
	return s, err
}

// patience bounds waits for what takes a few seconds where nothing else runs.
const patience = time.Minute

// until waits for a status.
func (r *lone) until(what string, ok func(ctl.Status) bool) (last ctl.Status) {
	r.t.Helper()
	err := netlab.Wait(patience, what, func() (err error) {
		if last, err = r.status(); err != nil {
			return err
		}
		if !ok(last) {
			return fmt.Errorf("status %+v", last)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return last
}

func ready(s ctl.Status) bool { return s.Error == nil }

func peer(state, name, words string) func(ctl.Status) bool {
	return func(s ctl.Status) bool {
		return slices.ContainsFunc(s.Peers, func(p ctl.Peer) bool { return p.State == state && p.Name == name && strings.Contains(p.Detail, words) })
	}
}

func problem(words string) func(ctl.Status) bool {
	return func(s ctl.Status) bool {
		return slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, words) })
	}
}

// ends waits for the end of the router.
func (r *lone) ends() {
	r.t.Helper()
	select {
	case <-r.Done():
	case <-time.After(patience):
		r.t.Fatal("the router runs")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestASecondRouterInANetworkNamespaceIsRefused(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	first := startOn(t, h, func(*Config) {})
	first.until("the first is ready", ready)
	second := startOn(t, h, func(c *Config) {
		c.RunDir, c.StateDir, c.Port, c.MeshPort, c.VXLANPort = "/run/other", "/var/lib/weave/other", 7783, 7786, 7784
	})
	second.ends()
	for _, words := range []string{"another weaver runs in this network namespace", fmt.Sprint("process ", first.PID()), `--run-dir "/run/weave"`, "Stop that one"} {
		if !strings.Contains(second.Log(), words) {
			t.Errorf("it does not say %q:\n%s", words, second.Log())
		}
	}
	if out := h.MustRun(t, "ip", "-d", "link", "show", "weave-vx"); !strings.Contains(out, "dstport 6784") {
		t.Errorf("the device was changed:\n%s", out)
	}
	if out, err := h.Run("ls", "-d", "/run/other"); err == nil {
		t.Errorf("it leaves %s", out)
	}
	for range 3 {
		must(t, first.Signal(unix.SIGKILL)) // nobody waits for its end
		first = startOn(t, h, func(*Config) {})
		first.until("the next one is ready", ready)
	}
}

func TestAnotherVXLANPortIsRefusedWithBothNumbersAndStandsInTheStatusOfBoth(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	a := startOn(t, lab.Host(0), func(*Config) {})
	a.until("a is ready", ready)
	b := startOn(t, lab.Host(1), func(c *Config) { c.VXLANPort, c.Peers = 7784, []string{lab.Host(0).Addr().String()} })
	for r, other := range map[*lone]string{a: "h1", b: "h0"} {
		s := r.until("the refusal is shown", func(s ctl.Status) bool {
			return peer("refused", other, "6784")(s) && peer("refused", other, "7784")(s) && peer("refused", other, "--vxlan-port")(s)
		})
		if !problem(other + "; see `weave status peers`")(s) {
			t.Errorf("%s does not say so first: %q", r.config.Name, s.Problems)
		}
	}
	if s, err := a.status(); err != nil || s.Error != nil {
		t.Errorf("a cannot serve ADD for that: %v, %v", s.Error, err)
	}
	b.until("it waits for that and not for a peer to be reached", func(s ctl.Status) bool {
		return s.Error != nil && strings.Contains(s.Error.Details, "is reached, but") && strings.Contains(s.Error.Details, "--vxlan-port") && s.IPAM.Waiting == s.Error.Details
	})
}

func TestWhatAHostIsStartedWithWronglyIsSaid(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 4})
	nowhere := startOn(t, lab.Host(0), func(c *Config) { c.Advertise = netip.MustParseAddr("203.0.113.7") })
	itself := startOn(t, lab.Host(1), func(c *Config) { c.Peers = []string{lab.Host(1).Addr().String()} })
	founder := startOn(t, lab.Host(2), func(*Config) {})
	founder.until("it is ready", ready)
	other := startOn(t, lab.Host(3), func(c *Config) {
		c.Peers, c.MTU, c.Asked = []string{lab.Host(2).Addr().String()}, 1400, []string{"--range", "--mtu"}
	})
	nowhere.ends()
	if !strings.Contains(nowhere.Log(), "--advertise: no interface of this host has 203.0.113.7:") {
		t.Errorf("--advertise:\n%s", nowhere.Log())
	}
	itself.until("its only PEER is itself", func(s ctl.Status) bool {
		return problem(onlySelf)(s) && strings.Contains(s.IPAM.Waiting, onlySelf)
	})
	other.until("it has joined", ready)
	const words = "a flag of founding does not count"
	if log := other.Log(); strings.Count(log, words) != 1 || !strings.Contains(log, "flag=--mtu given=1400 cluster=1430") {
		t.Errorf("it does not say so once:\n%s", log)
	}
	if strings.Contains(founder.Log(), words) {
		t.Error("the founder says so")
	}
}

func TestARouterWithThePEERsNameSaysThatAndNotThatThePEERIsItself(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	at := lab.Host(0).Addr().String()
	first := startOn(t, lab.Host(0), as("h"))
	first.until("the first is ready", ready)
	second := startOn(t, lab.Host(1), func(c *Config) { c.Name, c.Peers = "h", []string{at} })
	taken := problem("another router, at " + at + ":6783, has this host's name")
	s := second.until("it says so", func(s ctl.Status) bool {
		return taken(s) && s.Error != nil && strings.Contains(s.Error.Details, "h is reached, but") && strings.Contains(s.Error.Details, "with another key")
	})
	if problem("leads to this host itself")(s) || problem("refuses us: h;")(s) || strings.Contains(second.Log(), "leads to this host itself") {
		t.Errorf("problems %q, log\n%s", s.Problems, second.Log())
	}
	first.until("the first says so too", problem("another router, at "+lab.Host(1).Addr().String()+", has this host's name"))
}

func TestAnotherVXLANPortIsRefusedWhereContainersWouldBeCutOff(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	a, h := startOn(t, lab.Host(0), as("a")), lab.Host(1)
	a.until("a is ready", ready)
	join := func(port uint16) *lone {
		return startOn(t, h, func(c *Config) { c.Name, c.Peers, c.VXLANPort = "b", []string{lab.Host(0).Addr().String()}, port })
	}
	b := join(6784)
	b.until("b knows a", func(s ctl.Status) bool { return len(s.Overlay) == 1 })
	must(t, netlab.Wait(patience, "that is in the kernel", func() error {
		if out := h.MustRun(t, "bridge", "fdb", "show", "dev", "weave-vx"); !strings.Contains(out, lab.Host(0).Addr().String()) {
			return fmt.Errorf("%s", out)
		}
		return nil
	}))
	k := key("c")
	alias, err := attachment.Alias{Hash: k.Hash(), Network: "weave", MAC: k.MAC(nil)}.Encode()
	must(t, err)
	h.MustRun(t, "ip", "link", "add", k.Veth(), "type", "veth", "peer", "name", "inside")
	h.MustRun(t, "ip", "link", "set", k.Veth(), "alias", alias, "master", "weave")
	must(t, b.Kill())
	refused := join(7784)
	refused.ends()
	for _, words := range []string{"--vxlan-port is 7784", "by port 6784", "Give --vxlan-port 6784 as before, or remove the containers"} {
		if !strings.Contains(refused.Log(), words) {
			t.Errorf("it does not say %q:\n%s", words, refused.Log())
		}
	}
	again := join(6784)
	again.until("with the old port it goes on", ready)
	must(t, again.Kill())
	h.MustRun(t, "ip", "link", "del", k.Veth())
	join(7784).until("without containers it may", func(ctl.Status) bool { return true })
}

func TestATwinIsShownAsRefusedWithTheReason(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 3})
	to := func(c *Config) { c.Peers = []string{lab.Host(0).Addr().String()} }
	a := startOn(t, lab.Host(0), as("a"))
	a.until("a is ready", ready)
	first := startOn(t, lab.Host(1), func(c *Config) { to(c); c.Name = "clone" })
	first.until("the first clone is ready", ready)
	second := startOn(t, lab.Host(2), func(c *Config) { to(c); c.Name = "clone" })
	s := a.until("a shows both", func(s ctl.Status) bool {
		return peer("connected", "clone", "")(s) && peer("refused", "clone", "with another key")(s)
	})
	if !problem("1 host is refused here: clone")(s) && !problem("1 peer refuses us: clone")(s) {
		t.Errorf("problems: %q", s.Problems)
	}
	second.until("the twin says why", peer("refused", "a", "with another key"))
}

func TestAfterARestartOnePeerThatIsAwayIsEnough(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 3})
	founder := lab.Host(0).Addr().String()
	a := startOn(t, lab.Host(0), as("a"))
	a.until("a is ready", ready)
	b := startOn(t, lab.Host(1), func(c *Config) { c.Name, c.Peers = "b", []string{founder} })
	c := startOn(t, lab.Host(2), func(c *Config) { c.Name, c.Peers = "c", []string{founder} })
	b.until("b knows c", peer("connected", "c", ""))
	c.until("c is ready", ready)
	const file = "/var/lib/weave/known-hosts"
	must(t, netlab.Wait(patience, "a and c are on file at b", func() error {
		out, err := lab.Host(1).Run("cat", file)
		if err != nil || !strings.Contains(out, founder+":6783") || !strings.Contains(out, lab.Host(2).Addr().String()+":6783") {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	}))
	if out := lab.Host(1).MustRun(t, "stat", "-c", "%a", file); strings.TrimSpace(out) != "600" {
		t.Errorf("mode %s", out)
	}
	must(t, a.Kill())
	must(t, b.Kill())
	must(t, c.Kill())
	must(t, c.Restart()) // it names a, which is away, and so does b
	must(t, b.Restart())
	s := b.until("b finds c", func(s ctl.Status) bool { return peer("connected", "c", "")(s) && problem("unreachable")(s) })
	if len(s.Problems) != 1 || s.Problems[0] != "1 of 2 peers unreachable: a" {
		t.Errorf("for one host that is down: %q", s.Problems)
	}
}

func TestTheFirewallStandsForANetworkThatDoesNot(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	r := startOn(t, h, func(*Config) {})
	r.until("it is ready", ready)
	must(t, r.Kill())
	h.MustRun(t, "sh", "-c", "ip link del weave-vx; ip link del weave; nft delete table inet weave; ip route add 10.40.0.0/16 dev eth0")
	must(t, r.Restart())
	s := r.until("the network cannot stand", func(s ctl.Status) bool { return s.Error != nil && s.Error.Code == ctl.CodeDegraded })
	if !strings.Contains(s.Error.Details, "10.40.0.0/16") || len(s.Networks) != 0 {
		t.Errorf("%+v", s.Error)
	}
	out := h.MustRun(t, "nft", "list", "table", "inet", "weave")
	for _, rule := range []string{"10.32.0.0/12", `"weave"`} {
		if !strings.Contains(out, rule) {
			t.Errorf("without %s:\n%s", rule, out)
		}
	}
}

func TestAPortOfDNSThatIsTakenDoesNotMakeAHostUnfit(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	must(t, h.Do(func() error { // held by the test itself, bound in the host
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		return unix.Bind(fd, &unix.SockaddrInet4{Port: 53})
	}))
	r := startOn(t, h, func(*Config) {})
	r.until("it is ready", ready)
	must(t, netlab.Wait(patience, "it says so in its log", func() error {
		if log := r.Log(); !strings.Contains(log, "address already in use") {
			return fmt.Errorf("%s", log)
		}
		return nil
	}))
	in := ctl.AllocateRequest{Key: key("a"), Network: DefaultNetwork, Decider: ctl.DecidedByClaim}
	var out ctl.AllocateReply
	if err := ctl.New(r.config.Socket, 0).Call(t.Context(), ctl.PathAllocate, in, &out); err != nil || len(out.Addresses) != 1 {
		t.Errorf("ADD: %v, %v", out, err)
	}
	s, err := r.status()
	if err != nil || s.Error != nil {
		t.Errorf("afterwards: %v, %v", s.Error, err)
	}
	if !problem("names are not served at 1 address here")(s) || len(s.DNS.Errors) != 1 || !strings.Contains(s.DNS.Errors[0], "address already in use") {
		t.Errorf("the status does not say so: %q, %q", s.Problems, s.DNS.Errors)
	}
}

func TestOurOwnAddressIsChosenByAPeerThatHasAName(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	h := lab.Host(0)
	h.MustRun(t, "ip", "link", "add", "second", "type", "veth", "peer", "name", "other")
	h.MustRun(t, "ip", "addr", "add", "203.0.113.1/24", "dev", "second")
	h.MustRun(t, "ip", "addr", "add", "2001:db8:9::1/64", "dev", "second", "nodad")
	h.MustRun(t, "sh", "-c", "ip link set other up; ip link set second up")
	h.MustRun(t, "sh", "-c", "echo '2001:db8:9::2 there\n203.0.113.2 there\n127.0.1.1 here' > /run/hosts; mount --bind /run/hosts /etc/hosts")
	for peer, want := range map[string]netip.Addr{
		"there": netip.MustParseAddr("203.0.113.1"), "there:7000": netip.MustParseAddr("203.0.113.1"), "203.0.113.2:7000": netip.MustParseAddr("203.0.113.1"),
		"here": h.Addr(), "": h.Addr(),
	} {
		r := startOn(t, h, func(c *Config) {
			if c.Peers = nil; peer != "" {
				c.Peers = []string{peer}
			}
			c.StateDir = "/var/lib/weave/" + strings.NewReplacer(":", "-", ".", "-").Replace("s"+peer)
		})
		must(t, netlab.Wait(patience, "its address is in the log", func() error {
			if log := r.Log(); !strings.Contains(log, "weave router is up") || !strings.Contains(log, "address="+want.String()+" ") {
				return fmt.Errorf("PEER %q, want %s:\n%s", peer, want, log)
			}
			return nil
		}))
		must(t, r.Kill())
	}
}
