package doctor

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// Options say where to look, besides what the host itself says.
type Options struct {
	Router     Router
	Ask        func(context.Context) Router `json:"-"` // asks for Router while the rest is looked at, bounded by itself; nil: it was asked
	ConfDirs   []string                     // look into these alone
	PluginDirs []string                     // of every runtime; none: each runtime's own
}

// devices are two dumps of the kernel, however many there are.
func devices() []Device {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	addrs, _ := netdev.Addresses() // without any it goes on: they are left out
	var out []Device
	for _, i := range all {
		d := Device{Index: i.Index, Name: i.Name, MTU: i.MTU}
		for _, p := range addrs[i.Index] {
			d.Addrs = append(d.Addrs, p.Addr().Unmap())
		}
		out = append(out, d)
	}
	return out
}

// defaultDevice is that of the best default route, of IPv4 before IPv6.
func defaultDevice() string {
	best, metric := "", uint64(1<<63)
	for f := range fieldsOf("/proc/self/net/route") {
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		if m, err := strconv.ParseUint(f[6], 10, 63); err == nil && m < metric {
			best, metric = f[0], m
		}
	}
	if best != "" {
		return best
	}
	for f := range fieldsOf("/proc/self/net/ipv6_route") {
		if len(f) == 10 && strings.Trim(f[0], "0") == "" && f[1] == "00" && f[9] != "lo" {
			return f[9]
		}
	}
	return ""
}

// fieldsOf gives the words of each line of a file, none of one that cannot be read.
func fieldsOf(file string) func(func([]string) bool) {
	text, _ := os.ReadFile(file)
	return func(yield func([]string) bool) {
		for line := range strings.Lines(string(text)) {
			if !yield(strings.Fields(line)) {
				return
			}
		}
	}
}

// sources asks the kernel from which address it would send to each other host. Nothing
// is sent: a UDP socket is connected.
func sources(t *ctl.Topology) map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for host, a := range others(t) {
		conn, err := net.Dial("udp", netip.AddrPortFrom(a, vxlanPort).String())
		if err != nil {
			continue
		}
		if from, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
			out[host] = from.Addr().Unmap()
		}
		conn.Close()
	}
	return out
}

// others are the other hosts of the cluster whose addresses are known.
func others(t *ctl.Topology) map[string]netip.Addr {
	out := map[string]netip.Addr{}
	if t == nil {
		return out
	}
	for _, h := range t.Hosts {
		if h.Address.IsValid() && (h.State == ctl.HostUp || h.State == ctl.HostAway) {
			out[h.Name] = h.Address
		}
	}
	return out
}

func sysctls(device string) map[string]string {
	out := map[string]string{}
	for _, key := range []string{
		"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/" + device + "/rp_filter",
		bridgeFilter(false), bridgeFilter(true),
	} {
		if text, err := os.ReadFile(filepath.Join("/proc/sys", key)); err == nil {
			out[key] = strings.TrimSpace(string(text))
		}
	}
	return out
}

// managed reads what NetworkManager and systemd-networkd say of our links.
func managed(s Snapshot) []Managed {
	type manager struct {
		by, dir string
		say     []string
	}
	managers := slices.DeleteFunc([]manager{
		{"NetworkManager", "/run/NetworkManager/devices/", []string{"managed=true", "managed=1"}},
		{"systemd-networkd", "/run/systemd/netif/links/", []string{"ADMIN_STATE=configured", "ADMIN_STATE=configuring"}},
	}, func(m manager) bool { return !exists(m.dir) })
	var out []Managed
	bridges := map[string]bool{}
	for _, b := range s.bridges() {
		bridges[b] = true
	}
	for _, d := range s.Devices {
		if !isBridge(d.Name) && !isTunnel(d.Name) && !bridges[d.Name] {
			continue
		}
		for _, m := range managers {
			text, _ := os.ReadFile(m.dir + strconv.Itoa(d.Index))
			for line := range strings.Lines(string(text)) {
				if slices.Contains(m.say, strings.TrimSuffix(line, "\n")) {
					out = append(out, Managed{d.Name, m.by})
				}
			}
		}
	}
	return out
}

// takenPorts are those that somebody listens at in this network namespace.
func takenPorts() []Port {
	var out []Port
	inodes := map[string][]int{} // to places in out
	add := func(proto string, all []listener) {
		for _, l := range all {
			inodes[l.inode] = append(inodes[l.inode], len(out))
			out = append(out, Port{Proto: proto, Addr: l.at})
		}
	}
	for _, x := range []struct {
		table  string
		family uint8
	}{{"tcp", unix.AF_INET}, {"tcp6", unix.AF_INET6}} {
		all, err := listeners(x.family)
		if err != nil {
			all = listed(x.table)
		}
		add("tcp", all)
	}
	add("udp", listed("udp"))
	add("udp", listed("udp6"))
	delete(inodes, "0") // the kernel's
	owners(inodes, func(i, pid int, name string) { out[i].Owner, out[i].PID = name, pid })
	return out
}

// listed are the sockets of one of the kernel's tables that wait for others.
func listed(table string) (out []listener) {
	waits := map[bool]string{true: "0A", false: "07"}[strings.HasPrefix(table, "tcp")]
	for f := range fieldsOf("/proc/self/net/" + table) {
		if len(f) < 10 || f[3] != waits {
			continue
		}
		if a, err := hexAddr(f[1]); err == nil {
			out = append(out, listener{a, f[9]})
		}
	}
	return out
}

// hexAddr reads 0100007F:1A7F: each four bytes of the address are a number of this machine.
func hexAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", s)
	}
	for i := 0; i < len(b); i += 4 {
		word := native(b[i : i+4])
		copy(b[i:], word[:])
	}
	a, isAddr := netip.AddrFromSlice(b)
	if !isAddr {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", s)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// owners finds the processes that hold sockets, as far as they may be looked into.
func owners(inodes map[string][]int, is func(i, pid int, name string)) {
	processes, _ := os.ReadDir("/proc") // by name, as the text that a number is
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || len(inodes) == 0 {
			continue
		}
		open, _ := os.ReadDir("/proc/" + p.Name() + "/fd")
		for _, fd := range open {
			to, err := os.Readlink("/proc/" + p.Name() + "/fd/" + fd.Name())
			if err != nil || !strings.HasPrefix(to, "socket:[") {
				continue
			}
			for _, i := range inodes[strings.Trim(to, "socket:[]")] {
				is(i, pid, strings.TrimSpace(readText("/proc/"+p.Name()+"/comm")))
			}
		}
	}
}

func readKernel() Kernel {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	k := Kernel{Release: strings.TrimSpace(string(text)), Features: map[string]bool{}}
	builtin, errB := os.ReadFile("/lib/modules/" + k.Release + "/modules.builtin")
	loadable, errL := os.ReadFile("/lib/modules/" + k.Release + "/modules.dep")
	for _, f := range features {
		_, loaded := os.Stat("/sys/module/" + f)
		there := loaded == nil
		for _, list := range [][]byte{builtin, loadable} {
			there = there || strings.Contains(string(list), "/"+f+".ko")
		}
		if there || errB == nil && errL == nil {
			k.Features[f] = there
		}
	}
	return k
}
