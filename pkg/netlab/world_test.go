package netlab_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestEachChangeOfAHostShowsInTheDiffAndItsUndoingEndsIt(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Underlay: netlab.Both})
	h := lab.Host(0)
	sh := func(script string) { t.Helper(); h.MustRun(t, "sh", "-e", "-c", script) }
	sh(`mkdir /run/mount # umount makes it
		ip link add weave type bridge; ip link set weave address 02:42:0a:20:00:01 up; ip addr add 10.32.0.1/12 dev weave
		ip link add veth1 type veth peer name c1; ip link set veth1 master weave up; ip link set c1 up
		nft -f - <<-N
			table inet weave {
				set peers { type ipv4_addr; elements = { 192.0.2.11 comment "a, {b}" } }
				chain in { type filter hook input priority 0; ip saddr @peers counter accept; drop; }
			}
		N`)
	for _, c := range []struct{ section, do, undo, want string }{
		{"link", "ip link set veth1 alias 'wv1 x'", "ip link set veth1 alias ''", `+ link veth1 type veth mtu 1500 master weave`},
		{"link", "bridge link set dev veth1 locked on", "bridge link set dev veth1 locked off", " locked "},
		{"link", "bridge link set dev veth1 learning off", "bridge link set dev veth1 learning on", "port [flood "},
		{"link", "bridge link set dev veth1 neigh_suppress on", "bridge link set dev veth1 neigh_suppress off", " neigh_suppress"},
		{"link", "ip link set veth1 mtu 1400", "ip link set veth1 mtu 1500", "+ link veth1 type veth mtu 1400 "},
		{"link", "ip link set veth1 nomaster", "ip link set veth1 master weave", "- link veth1 type veth mtu 1500 master weave"},
		{"link", "ip link add vx type vxlan id 5 dstport 6784 nolearning local 192.0.2.10", "ip link del vx", "id 5 local 192.0.2.10 port 6784 udp_csum"},
		{"addr", "ip addr add 10.32.0.2/12 dev weave", "ip addr del 10.32.0.2/12 dev weave", "+ addr 10.32.0.2/12 dev weave scope global secondary\n"},
		{"addr", "ip addr add fd00::1/64 dev weave nodad", "ip addr del fd00::1/64 dev weave", "+ addr fd00::1/64 dev weave scope global\n"},
		{"route", "ip route add 10.99.0.0/16 via 192.0.2.254 mtu 1400", "ip route del 10.99.0.0/16", "+ route 10.99.0.0/16 gateway 192.0.2.254 dev eth0"},
		{"route", "ip route add blackhole 10.99.0.0/16 table 7", "ip route del blackhole 10.99.0.0/16 table 7", "+ route blackhole 10.99.0.0/16 table 7"},
		{"route", "ip route add fd99::/64 nexthop via 2001:db8::fe nexthop via 2001:db8::fd", "ip route del fd99::/64", "2001:db8::fd"},
		{"rule", "ip rule add from 10.32.0.0/12 table 7 priority 100", "ip rule del priority 100", "+ rule 100: src 10.32.0.0 srclen 12 table 7\n"},
		{"neigh", "ip neigh add 10.32.0.9 lladdr 02:42:0a:20:00:09 dev weave nud permanent", "ip neigh del 10.32.0.9 dev weave", "+ neigh 10.32.0.9 dev weave lladdr 02:42:0a:20:00:09 PERMANENT\n"},
		{"neigh", "ip neigh add proxy 10.32.0.8 dev weave", "ip neigh del proxy 10.32.0.8 dev weave", "+ neigh 10.32.0.8 dev weave proxy\n"},
		{"fdb", "bridge fdb add 02:42:0a:20:00:07 dev veth1 master static", "bridge fdb del 02:42:0a:20:00:07 dev veth1 master", "+ fdb 02:42:0a:20:00:07 dev veth1 master weave state static"},
		{"nft", "nft add element inet weave peers { 192.0.2.12 }", "nft delete element inet weave peers { 192.0.2.12 }", "+ nft table inet weave set peers element 192.0.2.12\n"},
		{"nft", "nft add table ip x", "nft delete table ip x", "+ nft table ip x\n"},
		{"sysctl", "echo 1 >/proc/sys/net/ipv4/ip_forward", "echo 0 >/proc/sys/net/ipv4/ip_forward", "+ sysctl ipv4/ip_forward = 1\n"},
		{"file", "echo x >/var/lib/weave/ledger", "rm /var/lib/weave/ledger", "+ file /var/lib/weave/ledger -rw-r--r-- 2 bytes "},
		{"file", "mkdir -m 700 /run/weave; echo 1 >/run/weave/a.log", "rm -r /run/weave", "+ file /run/weave/a.log -rw-r--r--\n"},
		{"file", "chmod 600 /run/netlab/hostname", "chmod 644 /run/netlab/hostname", "+ file /run/netlab/hostname -rw------- "},
		{"mount", "mkdir /run/m; mount -t tmpfs x /run/m; ip netns add a", "ip netns del a; umount /run/m; rmdir /run/m", "+ mount /run/m type tmpfs\n"},
		{"file", "ip netns add a", "ip netns del a", "+ file /run/netns/a namespace\n"},
	} {
		before, err := h.World(netlab.WorldOptions{})
		ok(t, err)
		sh(c.do)
		after, err := h.World(netlab.WorldOptions{})
		ok(t, err)
		if diff := before.Diff(after); !strings.Contains(diff, c.want) || !strings.Contains(diff, " "+c.section+" ") {
			t.Errorf("%s: diff lacks %q:\n%s", c.do, c.want, diff)
		}
		sh(c.undo)
		ok(t, netlab.Wait(patience, c.undo, func() error {
			now, err := h.World(netlab.WorldOptions{})
			if err != nil {
				return err
			}
			if diff := before.Diff(now); diff != "" {
				return fmt.Errorf("still differs:\n%s", diff)
			}
			return nil
		}))
	}
}

func TestTheWorldHoldsListenersAndProcessesOfTheHostAlone(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	a, b := lab.Host(0), lab.Host(1)
	before, err := lab.World(netlab.WorldOptions{})
	ok(t, err)
	d, err := a.Start("sh", "-c", "setsid -f unshare -n sleep 4321; exec sleep 1234")
	ok(t, err)
	ok(t, a.Do(func() error {
		l, err := net.Listen("tcp", "127.0.0.1:6783")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	var diff string
	ok(t, d.WaitFor(patience, "its children run", func() error {
		now, err := lab.World(netlab.WorldOptions{})
		if diff = before.Diff(now); !strings.Contains(diff, "h0 + process sleep 4321\n") {
			return fmt.Errorf("diff:\n%s %v", diff, err)
		}
		return err
	}))
	if !strings.Contains(diff, "h0 + socket tcp 127.0.0.1:6783\n") {
		t.Errorf("the listener does not show:\n%s", diff)
	}
	if strings.Contains(diff, "h1 ") {
		t.Errorf("it shows on %s too:\n%s", b.Name(), diff)
	}
	w, err := a.World(netlab.WorldOptions{Ignore: []string{"process sleep", "file /run/", "mount"}})
	ok(t, err)
	if s := w.String(); strings.Contains(s, "process sleep") || strings.Contains(s, "file /run/") || strings.Contains(s, "mount ") || !strings.Contains(s, "link eth0") {
		t.Errorf("Ignore left:\n%s", s)
	}
}

func TestDiffSaysWhatIsGoneWhatIsNewAndWhatMoved(t *testing.T) {
	a := netlab.World{"link": {"link a", "link b", "link b"}, "nft": {"nft x", "nft y", "nft z"}}
	for want, b := range map[string]netlab.World{
		"":                      {"link": {"link a", "link b", "link b"}, "nft": {"nft x", "nft y", "nft z"}},
		"- link b\n":            {"link": {"link a", "link b"}, "nft": {"nft x", "nft y", "nft z"}},
		"+ link c\n":            {"link": {"link a", "link b", "link b", "link c"}, "nft": {"nft x", "nft y", "nft z"}},
		"- link a\n+ link A\n":  {"link": {"link A", "link b", "link b"}, "nft": {"nft x", "nft y", "nft z"}},
		"+ socket s\n":          {"link": {"link a", "link b", "link b"}, "nft": {"nft x", "nft y", "nft z"}, "socket": {"socket s"}},
		"- nft y\n+ nft z    (": {"link": {"link a", "link b", "link b"}, "nft": {"nft x", "nft z", "nft y"}},
	} {
		if got := a.Diff(b); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("diff is %q, want %q", got, want)
		}
	}
}

// crowd makes a host with n containers on one bridge.
func crowd(t netlab.TB, n int) *netlab.Host {
	lab := netlab.New(t, netlab.Options{})
	h := lab.Host(0)
	var script strings.Builder
	script.WriteString("link add weave type bridge\nlink set weave up\n")
	for i := range n {
		if _, err := h.NewContainer(fmt.Sprintf("c%d", i)); err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Fprintf(&script, "link add veth%d master weave type veth peer name eth0 netns c%d\nlink set veth%d up alias wv1-%d\n", i, i, i, i)
	}
	if _, err := h.RunInput(script.String(), "ip", "-batch", "-"); err != nil {
		t.Fatalf("%v", err)
	}
	return h
}

// How long that takes is BenchmarkWorldOf200Containers' matter.
func TestTheWorldOfAHostWith200ContainersIsSeenWhole(t *testing.T) {
	h := crowd(t, 200)
	start := time.Now()
	w, err := h.World(netlab.WorldOptions{})
	ok(t, err)
	t.Logf("%v, %d links, %d lines", time.Since(start), len(w["link"]), strings.Count(w.String(), "\n"))
	if len(w["link"]) != 203 {
		t.Errorf("%d links, want 203", len(w["link"]))
	}
}

func BenchmarkWorldOf200Containers(b *testing.B) {
	h := crowd(b, 200)
	for b.Loop() {
		if _, err := h.World(netlab.WorldOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenAndCloseThreeHosts(b *testing.B) {
	for b.Loop() {
		lab, err := netlab.Open(netlab.Options{Hosts: 3, Underlay: netlab.Both, Outside: true})
		if err != nil {
			b.Skipf("%v", err)
		}
		if err := lab.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkContainer(b *testing.B) {
	h := netlab.New(b, netlab.Options{}).Host(0)
	for b.Loop() {
		c, err := h.NewContainer("c")
		if err == nil {
			err = c.Delete()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRunTrue(b *testing.B) {
	h := netlab.New(b, netlab.Options{}).Host(0)
	for b.Loop() {
		if _, err := h.Run("/bin/true"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDo(b *testing.B) {
	h := netlab.New(b, netlab.Options{}).Host(0)
	for b.Loop() {
		if err := h.Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
