package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip/gossiptest"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ipam/claims"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/netlab"
	"github.com/weave-cni/weave-cni/pkg/reaper"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// How much there is, and how much comes and goes.
const (
	standing   = 48   // attachments that live throughout
	unfinished = 4    // of those: their ADD made the veth and never came to its end
	passing    = 100  // attachments that come and go
	movers     = 2    // goroutines that have them do so
	lingering  = 12   // attachments of each mover at a time
	others     = 1600 // another program's veths that come and go meanwhile
	together   = 40   // of them, made in a row and deleted together
	storm      = 1000 // more of them by each maker at the most, and none deleted meanwhile
	makers     = 3    // of a storm: where all else is busy too, one of them is on a processor
	mostStorms = 4    // then this kernel cannot be disturbed enough
)

// While hundreds of veths come and go in a second, a list of the links is interrupted now
// and then; in a storm in which some are made all the time it is 30 times in succession, so
// that rounds are skipped. The allocator's clock is AbsentFor ahead in each round: two
// wrong lists in succession are enough for a wrong release.
//
// An interrupted list of a newer kernel (6.18, say) lacks nothing that lives. So there it
// is by the rounds that are skipped that one sees whether the mark is obeyed; two in
// succession are tried for, and one is enough to see it.
func TestUnderChurnNoAttachmentThatLivesIsReleased(t *testing.T) {
	c := newChurn(t)
	stop := c.run(c.reconcileAlways)
	began := time.Now()
	took := c.comeAndGo()
	churned := c.seen()
	t.Logf("%d veths came and went in %v: %.0f/s; %v", passing+others, took.Round(time.Millisecond), (passing+others)/took.Seconds(), churned)
	for i := 0; i < mostStorms && c.seen().inARow < 2; i++ {
		must(t, c.storm())
	}
	stormed := c.seen()
	t.Logf("%v with the storms: %v", time.Since(began).Round(time.Millisecond), stormed)
	err := netlab.Wait(patience, "only what lives has addresses", c.onlyTheLivingHold)
	stop()

	for _, w := range c.wrong {
		t.Error(w)
	}
	must(t, err)
	switch {
	case stormed.interrupted == 0:
		t.Error("the kernel interrupted no list: nothing is shown")
	case stormed.skipped == 0:
		t.Error("lists that the kernel interrupts all the time are not given up: are they taken for whole?")
	case churned.skipped > churned.rounds/2:
		t.Error("most rounds are skipped: are the lists not read again?")
	}
}

// churn is a host, with the part of a router that reconciles.
type churn struct {
	*Router
	t      *testing.T
	host   *netlab.Host
	pod    *netlab.Container // in which all attachments are
	reaper *reaper.Reaper
	now    atomic.Int64 // the allocator's clock

	mu     sync.Mutex
	living map[string]string // the claims that must not end, by hash: whose
	wrong  []string
	counts
}

type counts struct {
	rounds, skipped, inARow int
	overtaken               int // ADDs
	looks, interrupted      int // lists beside those of the rounds
	lacking                 int // of the interrupted ones: without a veth that was there
}

func (c counts) String() string {
	return fmt.Sprintf("%d rounds, %d of them skipped, up to %d in succession, for lists that were interrupted 30 times; of %d single lists %d were interrupted, %d lacked what was there; %d ADDs were overtaken by their deadline",
		c.rounds, c.skipped, c.inARow, c.looks, c.interrupted, c.lacking, c.overtaken)
}

func newChurn(t *testing.T) *churn {
	t.Helper()
	h := netlab.New(t, netlab.Options{}).Host(0)
	pod, err := h.NewContainer("pod")
	must(t, err)
	r, _ := bare(t)
	c := &churn{Router: r, t: t, host: h, pod: pod, living: map[string]string{}}
	r.log = slog.New(skips{c})
	c.reaper = reaper.New(quiet(), netdev.DeleteBatch)
	c.found()
	files, err := claims.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { files.Close() })
	r.ipam, err = ipam.New(ipam.Config{
		Self: 1, Ledger: r.replica, Claims: files, Offers: noOffers{}, BootID: "boot", Log: quiet(), Linked: netdev.Attached,
		Now: func() time.Duration { return time.Duration(c.now.Load()) },
	})
	must(t, err)
	must(t, r.ipam.Adopt(nil))
	c.run(func(ctx context.Context) error { return h.Do(func() error { return c.reaper.Run(ctx) }) })
	must(t, c.inPod(c.standAll))
	return c
}

// found makes a cluster of this host alone.
func (c *churn) found() {
	c.t.Helper()
	n := ledger.Network{Name: DefaultNetwork, Driver: "weave", MTU: 1450, Subnets: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12")}}
	var err error
	c.replica, err = replica.New(replica.Config{
		Self: ledger.Member{ID: 1, Name: "self"}, Net: gossiptest.New(1, "self").Node("self"), Store: new(replica.MemStore),
		Found: &ledger.Command{Found: &ledger.Found{Cluster: "c", Network: n}}, Log: quiet(), Tick: time.Millisecond,
	})
	must(c.t, err)
	c.run(c.replica.Run)
}

// run runs what ends with the test.
func (c *churn) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	})
	c.t.Cleanup(stop)
	return stop
}

// inPod runs f on a thread of the host, with the namespace of all the containers.
func (c *churn) inPod(f func(*netdev.NS) error) error {
	return c.host.Do(func() error {
		ns, err := netdev.OpenNS(c.pod.Path())
		if err != nil {
			return err
		}
		defer ns.Close()
		return f(ns)
	})
}

func (c *churn) standAll(ns *netdev.NS) error {
	err := netdev.EnsureBridge(netdev.Bridge{Name: DefaultBridge, MAC: net.HardwareAddr{2, 0x42, 10, 32, 0xff, 1}, MTU: 1450})
	for i := 0; i < standing && err == nil; i++ {
		err = c.stand(i, ns)
	}
	return err
}

// stand makes an attachment that lives to the end.
func (c *churn) stand(i int, ns *netdev.NS) error {
	k := key(fmt.Sprint("standing", i))
	addrs, err := c.allocate(k)
	if err == nil {
		err = c.attach(k, addrs, ns, fmt.Sprint("s", i))
	}
	if err == nil && i >= unfinished {
		err = c.commit(k, addrs, ns)
	}
	c.live(k)
	return err
}

func (c *churn) allocate(k attachment.Key) ([]netip.Prefix, error) {
	return c.ipam.Allocate(context.Background(), ctl.AllocateRequest{Key: k, Network: DefaultNetwork, Decider: ctl.DecidedByVeth})
}

func (c *churn) attach(k attachment.Key, addrs []netip.Prefix, ns *netdev.NS, ifname string) error {
	alias, err := attachment.Alias{Hash: k.Hash(), Network: k.Network, MAC: k.MAC(addrs), Addrs: addrs}.Encode()
	if err != nil {
		return err
	}
	return netdev.Attach(netdev.Veth{Host: k.Veth(), Bridge: DefaultBridge, MTU: 1450, Alias: alias, NS: ns, IfName: ifname, MAC: k.MAC(addrs), Addrs: addrs, Lock: true})
}

func (c *churn) commit(k attachment.Key, addrs []netip.Prefix, ns *netdev.NS) error {
	_, err := c.ipam.Commit(ipam.Commit{Key: k, Network: DefaultNetwork, MAC: k.MAC(addrs), Addrs: addrs, NetNS: ns.ID()})
	return err
}

// comeAndGo is the churn, in full; it says how long that took.
func (c *churn) comeAndGo() time.Duration {
	c.t.Helper()
	began := time.Now()
	var work errgroup.Group
	for i := range movers {
		work.Go(func() error { return c.pass(i) })
		work.Go(func() error { return c.passOthers(i) })
	}
	must(c.t, work.Wait())
	return time.Since(began)
}

// live says that from now on the attachment's claim must not end; dies takes it back.
func (c *churn) live(k attachment.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.living[k.Hash()] = k.ContainerID
}

func (c *churn) dies(k attachment.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.living, k.Hash())
}

// pass has attachments come, and go when some more have come.
func (c *churn) pass(mover int) error {
	return c.inPod(func(ns *netdev.NS) error {
		for i := mover; i < passing+lingering*movers; i += movers {
			if i < passing {
				if err := c.come(i, ns); err != nil {
					return err
				}
			}
			if last := i - lingering*movers; last >= 0 {
				if err := c.goAway(last); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func passer(i int) attachment.Key { return key(fmt.Sprint("passing", i)) }

// come is an ADD; one of four gets no further than its addresses.
func (c *churn) come(i int, ns *netdev.NS) error {
	k := passer(i)
	addrs, err := c.allocate(k)
	if err != nil || i/movers%4 == 0 {
		return err
	}
	if err := c.attach(k, addrs, ns, fmt.Sprint("p", i)); err != nil {
		return err
	}
	err = c.commit(k, addrs, ns)
	var e *ctl.Error
	if errors.As(err, &e) && e.Code == ctl.CodeAddressTaken { // the clock runs fast
		c.mu.Lock()
		c.overtaken++
		c.mu.Unlock()
		return nil
	}
	c.live(k)
	return err
}

// goAway is the end of the veth; half of them have a DEL that says so.
func (c *churn) goAway(i int) error {
	k := passer(i)
	c.dies(k)
	if err := c.reaper.Delete(context.Background(), k.Veth(), k.Hash()); err != nil || i/movers%2 == 0 {
		return err
	}
	return c.ipam.Release(k)
}

func (c *churn) passOthers(mover int) error {
	for i := mover * together; i < others; i += movers * together {
		if err := c.othersComeAndGo(mover); err != nil {
			return err
		}
	}
	return nil
}

func (c *churn) othersComeAndGo(mover int) error {
	if err := c.ip(context.Background(), addOthers(mover, together)); err != nil {
		return err
	}
	return c.ip(context.Background(), delOthers(mover))
}

// storm makes veths until two rounds in succession were skipped, and deletes them.
func (c *churn) storm() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var made errgroup.Group
	for i := range makers {
		made.Go(func() error { return c.ip(ctx, addOthers(movers+i, storm)) })
	}
	all := make(chan error, 1)
	go func() { all <- made.Wait() }()
	err := netlab.Wait(patience, "two rounds are skipped, or all veths made", func() error {
		if c.seen().inARow > 1 || len(all) > 0 {
			return nil
		}
		return errors.New("neither")
	})
	cancel()
	if broken := <-all; broken != nil && c.seen().inARow < 2 {
		err = broken
	}
	for i := range makers {
		err = errors.Join(err, c.ip(context.Background(), delOthers(movers+i)))
	}
	return err
}

// addOthers has ip(8) make veths with nothing that says whose they are; delOthers has it delete them together.
func addOthers(mover, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "link add name other%d-%d group %d type veth peer name peer%d-%d netns pod\n", mover, i, 4711+mover, mover, i)
	}
	return b.String()
}

func delOthers(mover int) string { return fmt.Sprintf("link del group %d\n", 4711+mover) }

// ip has ip(8) carry out a batch in the host.
func (c *churn) ip(ctx context.Context, batch string) error {
	cmd := c.host.Command(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	_, err := cmd.Output()
	return err
}

// reconcileAlways reconciles, looks whether all that live have their claims, and looks
// what a list of the links is like now; again and again, until ctx ends.
func (c *churn) reconcileAlways(ctx context.Context) error {
	return c.host.Do(func() error {
		for inARow := 0; ctx.Err() == nil; {
			c.now.Add(int64(book.AbsentFor))
			before := c.seen().skipped
			c.reconcile()
			inARow++
			if c.seen().skipped == before {
				inARow = 0
			}
			c.check(inARow)
			if inARow > 0 {
				continue // the storm may end
			}
			if err := c.look(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *churn) check(inARow int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rounds++
	c.inARow = max(c.inARow, inARow)
	for hash, who := range c.living {
		if _, ok := c.ipam.Claim(hash); !ok {
			c.wrong = append(c.wrong, fmt.Sprintf("round %d: %s lives, and its claim is gone", c.rounds, who))
			delete(c.living, hash)
		}
	}
}

// look lists the links once, as the library does it that does not try again.
func (c *churn) look() error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looks++
	if err == nil {
		return nil
	}
	c.interrupted++
	there := map[string]bool{}
	for _, l := range links {
		there[l.Attrs().Name] = true
	}
	for i := range standing {
		if !there[key(fmt.Sprint("standing", i)).Veth()] {
			c.lacking++
			break
		}
	}
	return nil
}

func (c *churn) seen() counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// onlyTheLivingHold is nil when the claims are just those of the living.
func (c *churn) onlyTheLivingHold() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, have := range c.ipam.Claims() {
		if c.living[have.Hash] == "" {
			return fmt.Errorf("%s holds %v", have.Key.ContainerID, have.Addrs)
		}
	}
	return nil
}

// skips is a log in which nothing is kept but how many rounds were skipped.
type skips struct{ c *churn }

func (s skips) Enabled(context.Context, slog.Level) bool { return true }
func (s skips) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s skips) WithGroup(string) slog.Handler            { return s }

func (s skips) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		if ok && errors.Is(err, netlink.ErrDumpInterrupted) {
			s.c.mu.Lock()
			s.c.skipped++
			s.c.mu.Unlock()
		}
		return true
	})
	return nil
}
