// Package netlab makes hosts in network namespaces, for tests, benchmarks and
// the demonstration.
//
// A Lab is a few hosts on one underlay. A host is a network namespace with a
// mount namespace and a host name of its own; it has private run, state and
// CNI directories, so that a router and a CNI runtime in it see a machine for
// themselves. A container is one more network namespace, bound under
// /run/netns of its host. The underlay is a bridge in yet another namespace,
// where links are cut and made lossy, and which is every host's gateway:
//
//	           outside (behind the gateway; it has no route to any overlay)
//	              |
//	fabric:  [ gateway = bridge "under" ]   MTU 1500, faults by nft
//	           | p0     | p1     | p2
//	hosts:    eth0     eth0     eth0        each with /run, /etc/cni, … of its own
//	           |
//	containers: /run/netns/NAME
//
// The program that uses a lab runs in private namespaces itself: TestMain calls
// Main, a plain program calls Isolate. As root or as nobody, whatever way it
// ends, nothing stays behind.
//
//	func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }
//
//	func TestTrafficOutlivesTheRouter(t *testing.T) {
//		lab := netlab.New(t, netlab.Options{Hosts: 3, Bin: bin})
//		unchanged := lab.Watch(t, netlab.WorldOptions{})
//		r, err := lab.Host(0).StartRouter(lab.Host(1).Addr().String())
//		…
//		r.Kill()
//		lab.Cut(0, 1)
//		lab.Heal()
//		unchanged()
//	}
//
// It uses the tools ip, bridge, nft and ss, as an operator would.
package netlab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Underlay says which address families the underlay has.
type Underlay uint8

// The families of an underlay. Zero is V4.
const (
	V4   Underlay = 1
	V6   Underlay = 2
	Both Underlay = V4 | V6
)

// MaxHosts is the largest lab.
const MaxHosts = 200

// Options says what a lab is made of.
type Options struct {
	Hosts    int      // 1 to MaxHosts; 0 means 1
	Underlay Underlay // 0 means V4

	// Outside adds a host beyond the gateway, on a network of its own. It and the
	// gateway have no route to any overlay, so that only masqueraded packets get an answer.
	Outside bool

	// Bin is the directory of our own binaries: StartRouter runs weaver from it,
	// and all of it is linked into each host's /opt/cni/bin, before what is in the
	// PluginDirs (a name that is there twice is taken from the first). "" has neither.
	Bin        string
	PluginDirs []string

	// RouterArgs come after --name and before a call's own arguments in StartRouter.
	RouterArgs []string

	// Private are more directories that each host has for itself, empty at first.
	// One that the machine does not have must be below /etc, /opt or /var/lib.
	Private []string

	Timeout time.Duration // bound of a command run by Run; 0 means 30 s
	Log     *slog.Logger  // what is done to the lab, at debug level; nil is silence
}

// Lab is a set of hosts on one underlay. Close ends it. Its methods may be
// called from several goroutines.
type Lab struct {
	opts    Options
	log     *slog.Logger
	dir     string // daemons' logs; on the program's private tmpfs
	fabric  *Space
	hosts   []*Host
	outside *Host

	mu      sync.Mutex // guards what follows
	faults  faults
	daemons []*Daemon
	closed  bool
}

// privateDirs are each a tmpfs of every host. /run comes first: others may lie in it.
var privateDirs = [...]string{"/run", "/var/lib/weave", "/var/lib/cni", "/etc/cni", "/etc/netns", "/opt/cni"}

// Open makes a lab. It fails with ErrNotIsolated in a program that has not
// called Isolate (or Main), or could not. On any error nothing remains.
func Open(o Options) (*Lab, error) {
	if !isolated() {
		return nil, fmt.Errorf("netlab: %w: call netlab.Main in TestMain, or netlab.Isolate first of all in main; needs root or user namespaces", ErrNotIsolated)
	}
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("netlab: %w", err)
	}
	l := &Lab{opts: o, log: o.Log}
	if err := l.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("netlab: %w", err), l.Close())
	}
	return l, nil
}

func (o *Options) complete() error {
	if o.Hosts == 0 {
		o.Hosts = 1
	}
	if o.Hosts < 1 || o.Hosts > MaxHosts {
		return fmt.Errorf("%d hosts: want 1 to %d", o.Hosts, MaxHosts)
	}
	if o.Underlay == 0 {
		o.Underlay = V4
	}
	if o.Underlay&^Both != 0 {
		return fmt.Errorf("underlay %d: want V4, V6 or Both", o.Underlay)
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	if o.Bin != "" {
		o.Bin, err = filepath.Abs(o.Bin)
	}
	return err
}

// build makes the fabric and the hosts, and joins them.
func (l *Lab) build() (err error) {
	if l.dir, err = os.MkdirTemp("/run", "netlab-"); err != nil {
		return err
	}
	if l.fabric, err = l.newFabric(); err != nil {
		return err
	}
	l.hosts = make([]*Host, l.opts.Hosts)
	var all errgroup.Group
	for i := range l.hosts {
		all.Go(func() (err error) {
			l.hosts[i], err = l.newHost(fmt.Sprintf("h%d", i), i)
			return err
		})
	}
	if l.opts.Outside {
		all.Go(func() (err error) {
			l.outside, err = l.newHost("outside", MaxHosts)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return l.plug()
}

// Host is the host of that index, from 0.
func (l *Lab) Host(i int) *Host { return l.hosts[i] }

// Hosts are all hosts, without the outside one, in order.
func (l *Lab) Hosts() []*Host { return l.hosts }

// Outside is the host beyond the gateway; nil unless Options.Outside asked for it.
func (l *Lab) Outside() *Host { return l.outside }

// Fabric is the namespace of the underlay: the bridge "under" with a port
// p<i> for host i. Here one looks at what is on the wire.
func (l *Lab) Fabric() *Space { return l.fabric }

// Gateway is the gateway's address on the underlay; the IPv4 one where there are both.
func (l *Lab) Gateway() netip.Addr {
	if l.opts.Underlay&V4 != 0 {
		return gateway4
	}
	return gateway6
}

// everyone is each host that was made, the outside one included.
func (l *Lab) everyone() []*Host {
	var all []*Host
	for _, h := range append(l.hosts[:len(l.hosts):len(l.hosts)], l.outside) {
		if h != nil {
			all = append(all, h)
		}
	}
	return all
}

// Close kills every process in the lab, waits for their end, and lets go of
// the namespaces, with which the kernel removes all that is in them. It is
// safe to call twice. An error says what would not go.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	daemons := l.daemons
	l.mu.Unlock()

	errs := []error{l.killAll(ctx)}
	for _, d := range daemons {
		errs = append(errs, d.end(ctx))
	}
	for _, h := range l.everyone() {
		h.close()
	}
	if l.fabric != nil {
		l.fabric.close()
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("netlab: close: %w", err)
	}
	return nil
}

// killAll kills what runs in any space of the lab until nothing does.
func (l *Lab) killAll(ctx context.Context) error {
	return killUntilGone(ctx, func() (all []process, err error) {
		in := map[string]bool{}
		for _, h := range l.everyone() {
			if err := h.addNamespaces(in); err != nil {
				return nil, err
			}
		}
		if l.fabric != nil {
			in[nsLink(l.fabric.net)] = true
		}
		return processesIn(in)
	})
}
