package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
	"github.com/weave-cni/weave-cni/scripts/e2e/addresses"
)

// What scripts/e2e/addresses.sh sets.
const (
	durationVariable = "WEAVE_E2E_DURATION" // how long faults and calls go on
	seedVariable     = "WEAVE_E2E_SEED"     // of the faults and of what each host asks for
)

const (
	hostCount      = 5
	workersPerHost = 2
	mostContainers = 10 // of one host at a time
	convergeWithin = 2 * time.Second
	// A claim whose ADD was broken off ends at its deadline, 30 s; reconciliation follows.
	leaksWithin = 45 * time.Second
)

// The ranges are small, so that addresses are given again and again, by the
// host that had them and by others.
var smallRanges = []string{"--range", "10.32.0.0/24", "--range6", "fd00:32::/120"}

// routerArgs are by the seed. With a machine id, the host that loses its state
// proves to the others that it is the same one, and has its blocks back; without,
// where the hardware has none either, it is a new member beside its former life.
func routerArgs(seed uint64) []string {
	if seed%2 == 0 {
		return append(slices.Clone(smallRanges), "--machine-id", "the lab's")
	}
	return smallRanges
}

// worldAside is what grows or counts by itself, and libcni's own.
var worldAside = netlab.WorldOptions{Ignore: []string{
	"file /var/lib/weave/", "file /run/weave/witness", "file /run/weave/claims/resting", "file /var/lib/cni",
}}

// TestNoAddressHasTwoHoldersWhateverHappensToTheHosts adds and deletes
// containers on five hosts while routers are killed, the hosts are cut off from
// each other and one loses its state. What every call said is checked against
// what a set of addresses with one holder each could have said.
func TestNoAddressHasTwoHoldersWhateverHappensToTheHosts(t *testing.T) {
	length, err := time.ParseDuration(or(os.Getenv(durationVariable), "40s"))
	if err != nil || length < 40*time.Second {
		t.Fatalf("%s=%s: want a time of at least 40s", durationVariable, os.Getenv(durationVariable))
	}
	seed, err := strconv.ParseUint(or(os.Getenv(seedVariable), strconv.FormatUint(rand.Uint64N(1e9), 10)), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedVariable, err)
	}
	t.Logf("seed %d, %v", seed, length)
	o := newOrdeal(t, seed, length)
	before, err := o.c.lab.World(worldAside)
	if err != nil {
		t.Fatal(err)
	}
	o.run()
	o.settle()
	o.judge()
	o.nothingStays(before)
	o.summary()
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// ordeal is one run.
type ordeal struct {
	c       *cluster
	t       *testing.T
	seed    uint64
	length  time.Duration
	plan    []addresses.Fault
	start   time.Time
	hosts   []*subject
	history addresses.History
	over    atomic.Bool    // no more calls
	waiting sync.WaitGroup // for routers to be ready

	mu       sync.Mutex // guards what follows
	trouble  []string
	added    []time.Duration // what each ADD that succeeded took
	calm     []time.Duration // those whose router was up and ready all the time
	failed   map[string]int  // by why
	deleted  int
	recover  time.Duration // longest from a start of a router to its being ready
	converge time.Duration
	connect  time.Duration // from the last heal until all peers are connected
}

// subject is a host of the ordeal.
type subject struct {
	*netlab.Host
	index int
	names atomic.Int64

	process sync.Mutex // held while the router is killed and started

	mu    sync.Mutex // guards what follows
	life  int        // counts kills
	ready bool       // the router of this life has said so
	have  []*tenant  // containers that exist and are not being deleted
}

// tenant is a container with its addresses.
type tenant struct {
	*netlab.Container
	addrs []netip.Addr
}

func newOrdeal(t *testing.T, seed uint64, length time.Duration) *ordeal {
	o := &ordeal{t: t, seed: seed, length: length, plan: addresses.Plan(seed, hostCount, length), failed: map[string]int{}}
	o.c = newCluster(t, hostCount, netlab.Options{RouterArgs: routerArgs(seed)})
	for i, h := range o.c.lab.Hosts() {
		o.hosts = append(o.hosts, &subject{Host: h, index: i, ready: true})
	}
	// The founder too is to find the others when it has lost its state.
	if err := o.hosts[0].Router().Stop(); err != nil {
		t.Fatal(err)
	}
	var others []string
	for _, h := range o.hosts[1:] {
		others = append(others, h.Addr().String())
	}
	if _, err := o.hosts[0].StartRouter(others...); err != nil {
		t.Fatal(err)
	}
	o.c.waitReady(0)
	o.c.waitPeers()
	o.c.waitVoters(hostCount)
	return o
}

// now is the time of the history.
func (o *ordeal) now() time.Duration { return time.Since(o.start) }

// wrong notes a violation; the run goes on, to see what else is wrong.
func (o *ordeal) wrong(format string, args ...any) {
	text := fmt.Sprintf("at %.2f s: ", o.now().Seconds()) + fmt.Sprintf(format, args...)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.trouble = append(o.trouble, text); len(o.trouble) <= 20 {
		o.t.Errorf("%s", text)
	}
}

// run plays the plan with calls from all hosts, until the last heal.
func (o *ordeal) run() {
	o.start = time.Now()
	var workers, faults sync.WaitGroup
	for i, h := range o.hosts {
		for w := range workersPerHost {
			workers.Go(func() { o.work(h, rand.New(rand.NewPCG(o.seed, uint64(100+10*i+w)))) })
		}
	}
	for _, network := range []bool{true, false} {
		faults.Go(func() {
			for _, f := range o.plan {
				if f.Kind.Network() == network {
					time.Sleep(f.At - o.now()) // the plan's own time
					o.inflict(f)
				}
			}
		})
	}
	faults.Wait()
	o.over.Store(true)
	o.measure() // at once: calls that are under way end meanwhile
	workers.Wait()
	o.waiting.Wait()
}

func (o *ordeal) inflict(f addresses.Fault) {
	o.t.Logf("%v", f)
	var err error
	switch f.Kind {
	case addresses.Partition:
		err = o.c.lab.Partition(f.Hosts...)
	case addresses.OneWay:
		err = o.each(f.Hosts, func(i int) error {
			return o.each(f.Other(hostCount), func(j int) error { return o.c.lab.Cut(i, j) })
		})
	case addresses.Lossy:
		err = o.each(f.Hosts, func(i int) error { return o.c.lab.Loss(i, 20) })
	default:
		err = o.crash(f)
	}
	if err == nil && f.Kind.Network() {
		err = o.outlast(f)
	}
	if err != nil {
		o.wrong("%v: %v", f, err)
	}
}

func (o *ordeal) each(hosts []int, f func(int) error) error {
	var all errgroup.Group
	for _, i := range hosts {
		all.Go(func() error { return f(i) })
	}
	return all.Wait()
}

// outlast lets a fault of the underlay last, looks that each side has given
// addresses, and heals.
func (o *ordeal) outlast(f addresses.Fault) error {
	since := o.now()
	time.Sleep(f.At + f.For - o.now()) // the fault is the time itself
	if f.Kind != addresses.Lossy {
		for _, side := range [][]int{f.Hosts, f.Other(hostCount)} {
			o.goesOn(f, side, since)
		}
	}
	return o.c.lab.Heal()
}

// goesOn looks that a side of a partition has allocated. A side none of whose
// routers is ready cannot; one without a call asks now.
func (o *ordeal) goesOn(f addresses.Fault, side []int, since time.Duration) {
	for _, op := range o.history.Ops() {
		if op.Kind == addresses.Add && op.Call >= since && slices.Contains(side, op.Host) {
			return
		}
	}
	tried := false
	for _, i := range side {
		if ready, _ := o.hosts[i].state(); ready {
			tried = true
			if o.add(o.hosts[i], wish{}) == nil {
				return
			}
		}
	}
	if tried {
		o.wrong("%v: hosts %v allocated nothing in it", f, side)
	}
}

// crash kills routers, waits and starts them again; one that loses its state too.
func (o *ordeal) crash(f addresses.Fault) error {
	return o.each(f.Hosts, func(i int) error {
		h := o.hosts[i]
		h.process.Lock()
		defer h.process.Unlock()
		life := h.dies()
		o.survived(h)
		if err := h.Router().Kill(); err != nil {
			return err
		}
		if f.Kind == addresses.Lose {
			if _, err := h.Run("sh", "-c", "rm -rf /var/lib/weave/*"); err != nil {
				return err
			}
		}
		time.Sleep(f.For) // the fault is the time itself
		if err := h.Router().Restart(); err != nil {
			return err
		}
		o.waiting.Go(func() { o.awaitReady(h, life) })
		return nil
	})
}

// survived notes it when the router has ended by itself.
func (o *ordeal) survived(h *subject) {
	if state := h.Router().State(); state != nil {
		o.wrong("the router of h%d ended by itself, with %v:\n%s", h.index, state, h.Router().Log())
	}
}

// dies counts a life, of which nothing is expected before it is ready.
func (h *subject) dies() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = false
	h.life++
	return h.life
}

func (h *subject) state() (ready bool, life int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready, h.life
}

// awaitReady waits until the router of that life is ready. A partition may keep
// it from that, until the run ends.
func (o *ordeal) awaitReady(h *subject, life int) {
	start := time.Now()
	err := netlab.Wait(o.length-o.now()+30*time.Second, "it is ready", func() error {
		if _, now := h.state(); now != life {
			return nil
		}
		s, err := o.ask(h)
		if err == nil && s.Error != nil {
			err = s.Error
		}
		return err
	})
	if err != nil {
		o.wrong("the router of h%d: %v\n%s", h.index, err, h.Router().Log())
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life == life {
		h.ready = true
		o.mu.Lock()
		defer o.mu.Unlock()
		o.recover = max(o.recover, time.Since(start))
	}
}

// ask gets the status without a process, which would take as long as what is measured.
func (o *ordeal) ask(h *subject) (s ctl.Status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = h.Do(func() error { return ctl.New("", 0).Call(ctx, ctl.PathStatus, nil, &s) })
	return s, err
}

// wish is how an ADD differs from a plain one.
type wish struct {
	addr     netip.Addr    // the one that is asked for
	breakOff time.Duration // the runtime kills it then; 0: never
}

// work adds and deletes on a host, as its dice say.
func (o *ordeal) work(h *subject, dice *rand.Rand) {
	for !o.over.Load() {
		h.mu.Lock()
		var victim *tenant
		if n := len(h.have); n > 0 && dice.IntN(mostContainers) < n {
			i := dice.IntN(n)
			victim = h.have[i]
			h.have = slices.Delete(h.have, i, i+1)
		}
		h.mu.Unlock()
		if victim != nil {
			o.del(h, victim, true)
		} else {
			o.add(h, draw(dice))
		}
		time.Sleep(time.Duration(dice.IntN(200)) * time.Millisecond) // the pace of the load
	}
}

func draw(dice *rand.Rand) (w wish) {
	switch dice.IntN(16) {
	case 0:
		w.addr = netip.AddrFrom4([4]byte{10, 32, 0, byte(1 + dice.IntN(254))})
	case 1:
		w.breakOff = time.Duration(10+dice.IntN(300)) * time.Millisecond
	}
	return w
}

// add attaches a new container, or undoes what is left when that fails.
func (o *ordeal) add(h *subject, w wish) error {
	name := fmt.Sprintf("c%d-%d", h.index, h.names.Add(1))
	ns, err := h.NewContainer(name)
	if err != nil {
		o.wrong("%v", err)
		return err
	}
	readyBefore, life := h.state()
	call := o.now()
	r, err := o.plugin(ns, "ADD", w)
	end := o.now()
	_, lifeAfter := h.state()
	steady := readyBefore && life == lifeAfter
	if err != nil {
		o.addFailed(h, ns, w, steady, end-call, err)
		return err
	}
	t := &tenant{Container: ns}
	for _, ip := range r.IPs {
		t.addrs = append(t.addrs, ip.Address.Addr())
		o.history.Record(addresses.Op{Kind: addresses.Add, Host: h.index, Holder: name, Addr: ip.Address.Addr(), Call: call, Return: end})
	}
	if seen, err := inside(ns); err != nil || !same(seen, t.addrs) {
		o.wrong("ADD of %s on h%d said %v, the container has %v (%v)", name, h.index, t.addrs, seen, err)
	}
	if w.addr.IsValid() && !slices.Contains(t.addrs, w.addr) {
		o.wrong("ADD of %s on h%d asked for %v and got %v", name, h.index, w.addr, t.addrs)
	}
	h.mu.Lock()
	h.have = append(h.have, t)
	h.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.added = append(o.added, end-call)
	if steady && !w.addr.IsValid() {
		o.calm = append(o.calm, end-call)
	}
	return nil
}

// addFailed counts why, and does what a runtime then does: DEL. A plain ADD on a
// host whose router was ready all the time has no reason to fail.
func (o *ordeal) addFailed(h *subject, ns *netlab.Container, w wish, steady bool, took time.Duration, cause error) {
	why := "router not there or not ready"
	switch {
	case w.breakOff != 0:
		why = "broken off by the caller"
	case w.addr.IsValid():
		why = "that address is not to be had"
	case steady:
		why = "no reason"
		s, err := o.ask(h)
		own, _ := json.Marshal(s.IPAM)
		o.wrong("ADD of %s on h%d failed after %v, its router was ready: %v\nnow: %s (%v)", ns.Name(), h.index, took, cause, own, err)
	}
	o.mu.Lock()
	o.failed[why]++
	o.mu.Unlock()
	if seen, err := inside(ns); w.breakOff == 0 && (err != nil || len(seen) != 0) {
		o.wrong("ADD of %s on h%d failed and left %v in the container (%v): %v", ns.Name(), h.index, seen, err, cause)
	}
	o.del(h, &tenant{Container: ns}, false)
}

// del detaches and deletes a container, again and again until it succeeds.
func (o *ordeal) del(h *subject, t *tenant, counts bool) {
	call := o.now()
	var last error
	err := netlab.Wait(30*time.Second, "DEL of "+t.Name(), func() error {
		_, last = o.plugin(t.Container, "DEL", wish{})
		return last
	})
	end := o.now()
	if err != nil {
		o.wrong("DEL on h%d: %v", h.index, err)
		end = addresses.Never
	} else if seen, err := inside(t.Container); err != nil || len(seen) != 0 {
		o.wrong("DEL of %s on h%d left %v in the container (%v)", t.Name(), h.index, seen, err)
	}
	for _, a := range t.addrs {
		o.history.Record(addresses.Op{Kind: addresses.Del, Host: h.index, Holder: t.Name(), Addr: a, Call: call, Return: end})
	}
	if err := t.Delete(); err != nil {
		o.wrong("%v", err)
	}
	if counts {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.deleted++
	}
}

// plugin calls weave-net, which calls weave-ipam, as a runtime does.
func (o *ordeal) plugin(ns *netlab.Container, verb string, w wish) (r result, err error) {
	limit := 30 * time.Second
	if w.breakOff != 0 {
		limit = w.breakOff
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := ns.Host().Command(ctx, "/opt/cni/bin/weave-net")
	cmd.Path = bin + "/weave-net"
	cmd.Stdin = strings.NewReader(`{"cniVersion":"1.1.0","name":"weave","type":"weave-net","ipam":{"type":"weave-ipam"}}`)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+ns.Name(), "CNI_NETNS="+ns.Path(), "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin")
	if w.addr.IsValid() {
		cmd.Env = append(cmd.Env, "CNI_ARGS=IgnoreUnknown=1;IP="+w.addr.String())
	}
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("%s%w", out, err)
	}
	if verb != "ADD" {
		return r, nil
	}
	if err = json.Unmarshal(out, &r); err == nil && len(r.IPs) == 0 {
		err = errors.New("result without addresses")
	}
	return r, err
}

// inside are the addresses that a container has on eth0, less those that the kernel makes.
func inside(ns *netlab.Container) ([]netip.Addr, error) { return onLink(ns.Space, "eth0") }

func onLink(s *netlab.Space, name string) (list []netip.Addr, err error) {
	err = s.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return nil // it is not there
		}
		addrs, err := link.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil {
				return err
			}
			if !p.Addr().IsLinkLocalUnicast() {
				list = append(list, p.Addr())
			}
		}
		return nil
	})
	return list, err
}

func same(a, b []netip.Addr) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Addr.Compare)
	slices.SortFunc(b, netip.Addr.Compare)
	return slices.Equal(a, b)
}

// measure takes the time from the moment at which every host is connected to
// every other one until all have the same ledger.
func (o *ordeal) measure() {
	healed := time.Now()
	var connected time.Time
	err := netlab.Wait(time.Minute, "all hosts have the same ledger", func() error {
		all := make([]ctl.Status, len(o.hosts))
		var group errgroup.Group
		for i, h := range o.hosts {
			group.Go(func() (err error) { all[i], err = o.ask(h); return err })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		if err := meshed(all); err != nil && connected.IsZero() {
			return err
		} else if connected.IsZero() {
			connected = time.Now()
		}
		return agreed(all)
	})
	if err != nil {
		o.wrong("%v", err)
		return
	}
	o.connect, o.converge = connected.Sub(healed), time.Since(connected)
	if o.converge > convergeWithin {
		o.wrong("all hosts were connected %v after the last heal, and had the same ledger %v later", o.connect, o.converge)
	}
}

// meshed fails unless each host is connected to each other one.
func meshed(all []ctl.Status) error {
	for _, s := range all {
		peers := map[string]bool{}
		for _, p := range s.Peers {
			if p.State == "connected" {
				peers[p.Name] = true
			}
		}
		if len(peers) != hostCount-1 {
			return fmt.Errorf("%s has %d peers", s.Name, len(peers))
		}
	}
	return nil
}

// agreed fails unless all hosts are ready and have applied the same entries to the same effect.
func agreed(all []ctl.Status) error {
	first := ledgerOf(all[0])
	for _, s := range all {
		if s.Error != nil {
			return s.Error
		}
		if l := ledgerOf(s); l != first {
			return fmt.Errorf("%s has\n%s\nand %s has\n%s", all[0].Name, first, s.Name, l)
		}
	}
	return nil
}

// ledgerOf is what a host's ledger says, without what only the host itself knows.
func ledgerOf(s ctl.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %s entry %d voters %v\n", s.Cluster, s.IPAM.Index, slices.Sorted(slices.Values(s.IPAM.Voters)))
	for _, u := range s.IPAM.Subnets {
		fmt.Fprintf(&b, "%s %s pool %d\n", u.Network, u.Subnet, u.Pool)
		var lines []string
		for _, h := range u.Hosts {
			if h.Owned > 0 {
				lines = append(lines, fmt.Sprintf("  %s %v %d\n", h.Host, h.Blocks, h.Owned))
			}
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	return b.String()
}

// settle looks for leaks while containers live, deletes them all, and looks again.
func (o *ordeal) settle() {
	for _, h := range o.hosts {
		o.survived(h)
	}
	o.kernelsAgree()
	o.noLeaks()
	var all errgroup.Group
	for _, h := range o.hosts {
		all.Go(func() error {
			for _, t := range h.have {
				o.del(h, t, true)
			}
			h.have = nil
			return nil
		})
	}
	_ = all.Wait()
	o.noLeaks()
}

// kernelsAgree looks into every container and at every bridge: all that is there
// is what ADD said, and nothing is there twice.
func (o *ordeal) kernelsAgree() {
	holder := map[netip.Addr]string{}
	claim := func(who string, addrs []netip.Addr) {
		for _, a := range addrs {
			if other := holder[a]; other != "" {
				o.wrong("%v is the address of %s and of %s", a, other, who)
			}
			holder[a] = who
		}
	}
	for _, h := range o.hosts {
		own, err := onLink(h.Space, "weave")
		if err != nil || len(own) != 2 {
			o.wrong("the bridge of h%d has %v (%v)", h.index, own, err)
		}
		claim(fmt.Sprintf("h%d's bridge", h.index), own)
		for _, t := range h.have {
			seen, err := inside(t.Container)
			if err != nil || !same(seen, t.addrs) {
				o.wrong("%s on h%d was given %v and has %v (%v)", t.Name(), h.index, t.addrs, seen, err)
			}
			claim(t.Name(), seen)
		}
	}
}

// noLeaks waits until each host claims just the addresses of the containers that exist there.
func (o *ordeal) noLeaks() {
	var all errgroup.Group
	for _, h := range o.hosts {
		all.Go(func() error {
			err := netlab.Wait(leaksWithin, fmt.Sprintf("h%d claims what its containers have", h.index), func() error {
				time.Sleep(20 * time.Millisecond) // two cores have more to do than to answer this
				s, err := o.ask(h)
				if err != nil {
					return err
				}
				return leaks(h, s)
			})
			if err != nil {
				o.wrong("%v", err)
			}
			return nil
		})
	}
	_ = all.Wait()
}

func leaks(h *subject, s ctl.Status) error {
	want, have := []string{}, []string{}
	for _, t := range h.have {
		for _, a := range t.addrs {
			want = append(want, t.Name()+" "+a.String())
		}
	}
	for _, at := range s.Attachments {
		if at.Key.IfName != "eth0" {
			continue
		}
		for _, p := range at.Addresses {
			have = append(have, at.Key.ContainerID+" "+p.Addr().String())
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		return fmt.Errorf("containers: %v\nclaims:     %v", want, have)
	}
	return nil
}

// nothingStays looks that the hosts are as they were before the first call.
func (o *ordeal) nothingStays(before netlab.Worlds) {
	err := netlab.Wait(10*time.Second, "the world is as it was", func() error {
		now, err := o.c.lab.World(worldAside)
		if err == nil && before.Diff(now) != "" {
			err = errors.New("it differs:\n" + before.Diff(now))
		}
		return err
	})
	if err != nil {
		o.wrong("%v", err)
	}
}

// judge checks the history.
func (o *ordeal) judge() {
	start := time.Now()
	ops := o.history.Ops()
	bad := addresses.Check(ops)
	given := map[netip.Addr]int{}
	for _, op := range ops {
		if op.Kind == addresses.Add {
			given[op.Addr]++
		}
	}
	again := 0
	for _, n := range given {
		if n > 1 {
			again++
		}
	}
	o.t.Logf("history: %d calls for %d addresses, %d of which were given more than once; checked in %v", len(ops), len(given), again, time.Since(start).Round(time.Millisecond))
	for i, v := range bad {
		o.wrong("%v", v)
		if i == 0 {
			o.t.Errorf("the smallest history that is wrong: %v", v) // whatever else there was
			o.t.Logf("faults meanwhile:")
			for _, f := range o.plan {
				if f.At <= v.Ops[len(v.Ops)-1].Call && f.At+f.For+5*time.Second >= v.Ops[0].Call {
					o.t.Logf("\t%v", f)
				}
			}
		}
	}
}

func (o *ordeal) summary() {
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.Sort(o.added)
	slices.Sort(o.calm)
	failed := 0
	for why, n := range o.failed {
		failed += n
		o.t.Logf("%4d ADD failed: %s", n, why)
	}
	o.t.Logf("ADD of a ready host: median %v, 99%% %v, worst %v; a router was ready again within %v",
		part(o.calm, 50), part(o.calm, 99), part(o.calm, 100), o.recover.Round(time.Millisecond))
	o.t.Logf("seed %d: %d operations (%d ADD, %d ADD failed, %d DEL), %d faults, worst ADD %v, all connected %v after the last heal, converged %v later, %d violations",
		o.seed, len(o.added)+failed+o.deleted, len(o.added), failed, o.deleted, len(o.plan), part(o.added, 100),
		o.connect.Round(time.Millisecond), o.converge.Round(time.Millisecond), len(o.trouble))
}

// part is the time that so many percent of the sorted times do not exceed.
func part(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*percent/100].Round(time.Millisecond)
}
