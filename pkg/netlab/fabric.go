package netlab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Addresses of the underlay and of the network beyond its gateway: ranges that
// are set aside for documentation, so no overlay has them.
var (
	gateway4 = netip.MustParseAddr("192.0.2.254")
	gateway6 = netip.MustParseAddr("2001:db8::fe")
	beyond4  = netip.MustParseAddr("198.51.100.254")
	beyond6  = netip.MustParseAddr("2001:db8:1::fe")
	outside4 = netip.MustParseAddr("198.51.100.1")
	outside6 = netip.MustParseAddr("2001:db8:1::1")
)

// firstHost is the last byte of host 0's addresses.
const firstHost = 10

// addr is the address of the host of an index; MaxHosts stands for the outside one.
func (l *Lab) addr(index int, family Underlay) netip.Addr {
	switch {
	case l.opts.Underlay&family == 0:
		return netip.Addr{}
	case index == MaxHosts && family == V4:
		return outside4
	case index == MaxHosts:
		return outside6
	case family == V4:
		b := gateway4.As4()
		b[3] = firstHost + byte(index)
		return netip.AddrFrom4(b)
	default:
		b := gateway6.As16()
		b[14], b[15] = 1, firstHost+byte(index)
		return netip.AddrFrom16(b)
	}
}

// newFabric makes the underlay's namespace with a bridge that has the gateway's addresses.
func (l *Lab) newFabric() (*Space, error) {
	fabric, err := l.newSpace("fabric", unix.CLONE_NEWNET, func() error { return nil })
	if err != nil {
		return nil, fmt.Errorf("make the fabric: %w", err)
	}
	var script strings.Builder
	script.WriteString("link set lo up\nlink add under mtu 1500 type bridge mcast_snooping 0 forward_delay 0\n")
	for _, gw := range l.addrs(gateway4, gateway6) {
		fmt.Fprintf(&script, "addr add %s dev under%s\n", gw, nodad(gw))
	}
	script.WriteString("link set under up\n")
	err = fabric.Do(func() error {
		return errors.Join(
			sysctl("net/ipv4/ip_forward", "1"),
			sysctl("net/ipv6/conf/all/forwarding", "1"),
			sysctl("net/ipv6/conf/default/accept_dad", "0"),
		)
	})
	if err == nil {
		_, err = fabric.RunInput(script.String(), "ip", "-batch", "-")
	}
	if err != nil {
		fabric.close()
		return nil, fmt.Errorf("make the fabric: %w", err)
	}
	return fabric, nil
}

// addrs are those of a pair of addresses whose family the underlay has, with their prefix lengths.
func (l *Lab) addrs(v4, v6 netip.Addr) (list []netip.Prefix) {
	if l.opts.Underlay&V4 != 0 {
		list = append(list, netip.PrefixFrom(v4, 24))
	}
	if l.opts.Underlay&V6 != 0 {
		list = append(list, netip.PrefixFrom(v6, 64))
	}
	return list
}

func nodad(p netip.Prefix) string {
	if p.Addr().Is6() {
		return " nodad"
	}
	return ""
}

// sysctl writes a file below /proc/sys for the calling thread's namespaces.
func sysctl(path, value string) error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) }

// plug joins the hosts to the fabric and waits until each can send.
func (l *Lab) plug() error {
	var script strings.Builder
	for i, h := range l.hosts {
		fmt.Fprintf(&script, "link add p%d mtu 1500 master under type veth peer name eth0 mtu 1500 netns /proc/%d/fd/%d\n", i, os.Getpid(), h.net.Fd())
		fmt.Fprintf(&script, "link set p%d addrgenmode none\nlink set p%d up\n", i, i)
	}
	if l.outside != nil {
		fmt.Fprintf(&script, "link add beyond mtu 1500 type veth peer name eth0 mtu 1500 netns /proc/%d/fd/%d\n", os.Getpid(), l.outside.net.Fd())
		for _, a := range l.addrs(beyond4, beyond6) {
			fmt.Fprintf(&script, "addr add %s dev beyond%s\n", a, nodad(a))
		}
		script.WriteString("link set beyond up\n")
	}
	if _, err := l.fabric.RunInput(script.String(), "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("join the hosts: %w", err)
	}
	var all errgroup.Group
	for _, h := range l.everyone() {
		all.Go(h.configure)
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return Wait(l.opts.Timeout, "the underlay forwards", l.forwards)
}

// forwards fails until every port of the bridge forwards: it gets its carrier later than its host does.
func (l *Lab) forwards() error {
	answers, err := l.fabric.show("link show\n", "bridge", "-j", "-batch", "-")
	if err != nil {
		return err
	}
	for _, port := range answers[0] {
		if port.str("state") != "forwarding" {
			return fmt.Errorf("port %s is %s", port.str("ifname"), port.str("state"))
		}
	}
	return nil
}

// configure gives eth0 its addresses and routes and waits for its carrier.
func (h *Host) configure() error {
	l := h.lab
	gateways := map[bool]netip.Addr{false: gateway4, true: gateway6}
	if h == l.outside {
		gateways = map[bool]netip.Addr{false: beyond4, true: beyond6}
	}
	var script strings.Builder
	addrs := l.addrs(h.Addr4(), h.Addr6())
	for _, a := range addrs {
		fmt.Fprintf(&script, "addr add %s dev eth0%s\n", a, nodad(a))
	}
	script.WriteString("link set eth0 up\n")
	for _, a := range addrs {
		fmt.Fprintf(&script, "route add default via %s dev eth0\n", gateways[a.Addr().Is6()])
	}
	err := h.Do(func() error {
		return errors.Join(
			sysctl("net/ipv6/conf/eth0/accept_dad", "0"),
			sysctl("net/ipv6/conf/eth0/accept_ra", "0"),
			sysctl("net/ipv6/conf/eth0/router_solicitations", "0"),
		)
	})
	if err == nil {
		_, err = h.RunInput(script.String(), "ip", "-batch", "-")
	}
	if err == nil {
		err = Wait(h.limit, "eth0 of "+h.name+" has a carrier", h.ready)
	}
	return err
}

// ready fails until eth0 is up with everything that the kernel adds by itself.
func (h *Host) ready() error {
	return h.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if eth0.Flags&net.FlagRunning == 0 {
			return errors.New("not running")
		}
		addrs, err := eth0.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.IsLinkLocalUnicast() {
				return nil
			}
		}
		return errors.New("no link-local address yet")
	})
}

// Wait calls cond every few milliseconds until it returns nil. When that takes
// longer than limit it returns an error that holds what it waited for and
// cond's last one.
func Wait(limit time.Duration, what string, cond func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %s: %w", limit, what, err)
		case <-tick.C:
		}
	}
}

// faults are what is wrong with the underlay at present. The keys are indices of hosts.
type faults struct {
	cut  map[[2]int]bool // from, to
	loss map[int]float64 // percent
	down map[int]bool
}

// LinkDown takes the carrier from host i's eth0, as a pulled cable does.
func (l *Lab) LinkDown(i int) error { return l.setLink(i, true) }

// LinkUp plugs the cable in again.
func (l *Lab) LinkUp(i int) error { return l.setLink(i, false) }

// Cut drops what host from sends to host to; the other direction stays.
func (l *Lab) Cut(from, to int) error {
	return l.fault(func(f *faults) { f.cut[[2]int{from, to}] = true }, from, to)
}

// Partition cuts both directions between each host of one side and each other
// host of the lab; all of them can still reach the gateway.
func (l *Lab) Partition(side ...int) error {
	return l.fault(func(f *faults) {
		for _, i := range side {
			for j := range l.hosts {
				if !slices.Contains(side, j) {
					f.cut[[2]int{i, j}], f.cut[[2]int{j, i}] = true, true
				}
			}
		}
	}, side...)
}

// Loss drops each frame from and to host i with a chance of so many percent,
// independently in each direction; 0 heals it. It resolves a hundredth of one percent.
func (l *Lab) Loss(i int, percent float64) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("loss of %v percent: want 0 to 100", percent)
	}
	return l.fault(func(f *faults) {
		if f.loss[i] = percent; percent == 0 {
			delete(f.loss, i)
		}
	}, i)
}

// Heal ends every fault: cuts, loss and links that are down. When it returns
// each host can send again.
func (l *Lab) Heal() error {
	l.mu.Lock()
	down := slices.Sorted(maps.Keys(l.faults.down))
	l.mu.Unlock()
	err := l.fault(func(f *faults) { f.cut, f.loss = nil, nil })
	for _, i := range down {
		err = errors.Join(err, l.LinkUp(i))
	}
	for _, i := range down {
		err = errors.Join(err, Wait(l.opts.Timeout, "the carrier is back on "+l.hosts[i].name, l.hosts[i].ready))
	}
	if err == nil && len(down) > 0 {
		err = Wait(l.opts.Timeout, "the underlay forwards", l.forwards)
	}
	return err
}

func (l *Lab) setLink(i int, down bool) error {
	if err := l.known(i); err != nil {
		return err
	}
	state := "up"
	if down {
		state = "down"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.fabric.Run("ip", "link", "set", fmt.Sprintf("p%d", i), state); err != nil {
		return err
	}
	l.log.Debug("link", "host", i, "state", state)
	if l.faults.down == nil {
		l.faults.down = map[int]bool{}
	}
	if down {
		l.faults.down[i] = true
	} else {
		delete(l.faults.down, i)
	}
	return nil
}

func (l *Lab) known(hosts ...int) error {
	for _, i := range hosts {
		if i < 0 || i >= len(l.hosts) {
			return fmt.Errorf("no host %d: the lab has %d", i, len(l.hosts))
		}
	}
	return nil
}

// fault changes the faults and puts them in force, all at once.
func (l *Lab) fault(change func(*faults), hosts ...int) error {
	if err := l.known(hosts...); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.faults.cut == nil {
		l.faults.cut = map[[2]int]bool{}
	}
	if l.faults.loss == nil {
		l.faults.loss = map[int]float64{}
	}
	change(&l.faults)
	rules := l.faults.rules()
	l.log.Debug("faults", "rules", rules)
	if _, err := l.fabric.RunInput(rules, "nft", "-f", "-"); err != nil {
		return fmt.Errorf("set faults: %w", err)
	}
	return nil
}

// rules is the nft script that replaces what was in force by these faults.
func (f *faults) rules() string {
	var forward, in, out strings.Builder
	for _, c := range slices.SortedFunc(maps.Keys(f.cut), func(a, b [2]int) int { return slices.Compare(a[:], b[:]) }) {
		fmt.Fprintf(&forward, "\t\tiifname \"p%d\" oifname \"p%d\" drop\n", c[0], c[1])
	}
	for _, i := range slices.Sorted(maps.Keys(f.loss)) {
		draw := ""
		if chance := int(f.loss[i]*100 + 0.5); chance < 10000 {
			draw = fmt.Sprintf(" numgen random mod 10000 < %d", chance)
		}
		fmt.Fprintf(&in, "\t\tiifname \"p%d\"%s drop\n", i, draw)
		fmt.Fprintf(&out, "\t\toifname \"p%d\"%s drop\n", i, draw)
	}
	return "table bridge faults\ndelete table bridge faults\ntable bridge faults {\n" +
		"\tchain forward {\n\t\ttype filter hook forward priority 0;\n" + forward.String() + "\t}\n" +
		"\tchain from {\n\t\ttype filter hook prerouting priority 0;\n" + in.String() + "\t}\n" +
		"\tchain to {\n\t\ttype filter hook postrouting priority 0;\n" + out.String() + "\t}\n}\n"
}
