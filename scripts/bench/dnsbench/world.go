package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const (
	patience = time.Minute

	// forwardedNames fit into every contender's cache as it comes, but dnsmasq's,
	// which is told.
	forwardedNames = 1000

	upstreamAddr = "127.0.0.1:5300"
	deadUpstream = "127.0.0.1:5301" // bound, and silent
	clientAddr   = "10.48.255.2"
	flooderAddr  = "10.48.255.3"
)

// The files of what is asked for, in the plan's dir.
const (
	local  = "local"
	cached = "cached"
	misses = "misses" // names of others, each once
)

// world is the host with the bridge and its two containers.
type world struct {
	plan
	lab             *netlab.Lab
	host            *netlab.Host
	client, flooder *netlab.Container
}

func (p plan) open() (*world, error) {
	lab, err := netlab.Open(netlab.Options{Timeout: patience})
	if err != nil {
		return nil, err
	}
	w := &world{plan: p, lab: lab, host: lab.Host(0)}
	if err := w.furnish(); err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	return w, nil
}

func (w *world) furnish() (err error) {
	if _, err = w.host.Run("sh", "-ec", "ip link add br0 type bridge; ip link set br0 up"); err != nil {
		return err
	}
	for i := range 6 {
		if _, err = w.host.Run("ip", "addr", "add", serverAddr(i).String()+"/12", "dev", "br0"); err != nil {
			return err
		}
	}
	if w.client, err = w.container("client", clientAddr); err != nil {
		return err
	}
	if w.flooder, err = w.container("flooder", flooderAddr); err != nil {
		return err
	}
	if err = w.queries(misses, 200_000, "m%d.example.com A\n"); err != nil {
		return err
	}
	if err = w.queries(cached, forwardedNames, "h%d.example.com A\n"); err != nil {
		return err
	}
	_, err = w.start("upstream", upstreamAddr)
	return err
}

// container plugs a namespace into the bridge.
func (w *world) container(name, addr string) (*netlab.Container, error) {
	c, err := w.host.NewContainer(name)
	if err != nil {
		return nil, err
	}
	_, err = w.host.Run("sh", "-ec", fmt.Sprintf(`ip link add v-%s type veth peer name eth0 netns %s
		ip link set v-%s master br0 up
		ip -n %s addr add %s/12 dev eth0; ip -n %s link set eth0 up`, name, name, name, name, addr, name))
	return c, err
}

// start starts this program as one of its daemons.
func (w *world) start(daemon, arg string) (*netlab.Daemon, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return w.host.Start(exe, daemon, arg)
}

func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

// queries writes what dnsperf asks for, in no order.
func (w *world) queries(name string, n int, line string) error {
	var b bytes.Buffer
	for _, i := range rand.Perm(n) {
		fmt.Fprintf(&b, line, i)
	}
	return os.WriteFile(w.file(name), b.Bytes(), 0o600)
}

func serverAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 48, 255, byte(10 + i)}) }

// nameAddr is the address of name cI.
func nameAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 49 + byte(i>>16), byte(i >> 8), byte(i)})
}

// withServers starts the contenders with n names, has them take turns at the
// queries of that kind, and ends them.
func (w *world) withServers(n int, kind string) (results, error) {
	if err := w.queries(local, n, "c%d.weave.local A\n"); err != nil {
		return nil, err
	}
	if err := w.queries(local+"-podman", n, "c%d.dns.podman A\n"); err != nil {
		return nil, err
	}
	all, err := w.contenders(n)
	defer func() {
		for _, c := range all {
			_ = c.end()
		}
	}()
	if err != nil {
		return nil, err
	}
	return w.takeTurns(all, kind)
}

func (w *world) takeTurns(all []*contender, kind string) (results, error) {
	res := results{}
	for range w.rounds {
		for _, at := range rand.Perm(len(all)) {
			c := all[at]
			if kind == cached && (c.name == floor || c.name == aardvark) {
				continue // neither has a cache
			}
			if kind == cached { // the first time round fills the cache
				if _, err := w.perf(context.Background(), w.client, c, "-d", w.file(cached), "-n", "1"); err != nil {
					return nil, err
				}
			}
			r, err := w.perf(context.Background(), w.client, c, "-d", w.file(c.queries(kind)), "-l", seconds(w.length))
			if err == nil && r.rate == 0 && c.name == ours {
				err = errors.New("not one query was answered by us")
			}
			if err != nil {
				return nil, err
			}
			res[c.name] = append(res[c.name], r)
		}
		fmt.Fprint(os.Stderr, ".")
	}
	fmt.Fprintln(os.Stderr)
	return res, nil
}
