package ipam_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ipam/claims"
	"github.com/weave-cni/weave-cni/pkg/ipam/offers"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// theLedger is one ledger that several hosts' allocators share. While down, no
// proposal is answered.
type theLedger struct {
	mu      sync.Mutex
	state   *ledger.State
	changed chan struct{}
	index   uint64
	down    bool
	slow    time.Duration // what a proposal takes
	asked   int
	kept    sync.Map // by host, its notes
}

// notes are those of one host's state directory; the ledger of the tests keeps them,
// since it outlives the hosts' restarts.
func (l *theLedger) notes(host string) *sync.Map {
	kept, _ := l.kept.LoadOrStore(host, new(sync.Map))
	return kept.(*sync.Map)
}

type notes struct{ *sync.Map }

func (n notes) Get(name string) ([]byte, error) {
	note, _ := n.Load(name)
	b, _ := note.([]byte)
	return b, nil
}

func (n notes) Put(name string, note []byte) error {
	n.Store(name, note)
	return nil
}

func newLedger() *theLedger {
	return &theLedger{state: ledger.New(), changed: make(chan struct{})}
}

func (l *theLedger) State() *ledger.State     { l.mu.Lock(); defer l.mu.Unlock(); return l.state }
func (l *theLedger) Ready() bool              { return true }
func (l *theLedger) Changed() <-chan struct{} { l.mu.Lock(); defer l.mu.Unlock(); return l.changed }

func (l *theLedger) Propose(ctx context.Context, c ledger.Command) (ledger.Result, error) {
	l.mu.Lock()
	l.asked++
	down := l.down
	l.mu.Unlock()
	if down {
		<-ctx.Done()
		return ledger.Result{}, fmt.Errorf("no leader: %w", ctx.Err())
	}
	time.Sleep(l.slow)
	return l.apply(c), nil
}

func (l *theLedger) apply(c ledger.Command) ledger.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.state.Clone()
	l.index++
	res := next.Apply(l.index, c)
	l.state = next
	close(l.changed)
	l.changed = make(chan struct{})
	return res
}

func (l *theLedger) setDown(down bool) { l.mu.Lock(); defer l.mu.Unlock(); l.down = down }

// found makes a cluster of the members 1, 2, … with a network.
func (l *theLedger) found(t testing.TB, members int, subnets ...string) {
	t.Helper()
	n := ledger.Network{Name: "weave", Driver: "weave", MTU: 1400}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	if err := l.apply(ledger.Command{Found: &ledger.Found{Cluster: "c", Network: n}}).Error(); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= members; i++ {
		l.join(t, i)
	}
}

func (l *theLedger) join(t testing.TB, i int) {
	t.Helper()
	m := ledger.Member{ID: ledger.MemberID(i), Name: fmt.Sprint("host", i)}
	if err := l.apply(ledger.Command{Join: &ledger.Join{Member: m}}).Error(); err != nil {
		t.Fatal(err)
	}
}

// host is an allocator on its own directory.
type host struct {
	*ipam.Allocator
	t         testing.TB
	dir       string
	now       time.Duration
	elsewhere map[netip.Addr]bool // what other hosts are known to use
	links     map[string]error    // of claims whose veth the kernel has, by hash; not nil: that cannot be read
}

func start(t testing.TB, l *theLedger, id int, dir string, kernel ...ipam.Kernel) *host {
	t.Helper()
	return startLogging(t, l, id, dir, io.Discard, kernel...)
}

func startLogging(t testing.TB, l *theLedger, id int, dir string, log io.Writer, kernel ...ipam.Kernel) *host {
	t.Helper()
	files, err := claims.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	h := &host{t: t, dir: dir, links: map[string]error{}}
	h.Allocator, err = ipam.New(ipam.Config{
		Self: ledger.MemberID(id), Ledger: l, Claims: files, Offers: offers.New(notes{l.notes(fmt.Sprint(dir, id))}), BootID: "boot1", Log: slog.New(slog.NewTextHandler(log, nil)),
		Now:    func() time.Duration { return h.now },
		Linked: func(_, hash string) (bool, error) { err, there := h.links[hash]; return there, err },
		Unused: func(_ string, of []netip.Addr) (netip.Addr, bool) {
			i := slices.IndexFunc(of, func(a netip.Addr) bool { return !h.elsewhere[a] })
			if i < 0 {
				return netip.Addr{}, false
			}
			return of[i], true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Adopt(kernel); err != nil {
		t.Fatal(err)
	}
	return h
}

func key(i int) attachment.Key {
	return attachment.Key{Network: "weave", ContainerID: fmt.Sprint("c", i), IfName: "eth0"}
}

func request(i int, addrs ...string) ctl.AllocateRequest {
	return ctl.AllocateRequest{Key: key(i), Network: "weave", Requested: addrs, Decider: ctl.DecidedByVeth}
}

func (h *host) give(in ctl.AllocateRequest) []netip.Prefix {
	h.t.Helper()
	got, err := h.Allocate(h.t.Context(), in)
	if err != nil {
		h.t.Fatalf("allocate for %s: %v", in.Key.ContainerID, err)
	}
	return got
}

func (h *host) refuse(in ctl.AllocateRequest, code uint) *ctl.Error {
	h.t.Helper()
	got, err := h.Allocate(h.t.Context(), in)
	var e *ctl.Error
	if !errors.As(err, &e) || e.Code != code {
		h.t.Fatalf("allocate for %s, %v: got %v, error %v; want code %d", in.Key.ContainerID, in.Requested, got, err, code)
	}
	return e
}

func (h *host) commit(i int, addrs []netip.Prefix) {
	h.t.Helper()
	if _, err := h.Commit(ipam.Commit{Key: key(i), Network: "weave", MAC: key(i).MAC(addrs), Addrs: addrs}); err != nil {
		h.t.Fatal(err)
	}
}

func veth(i int, addrs ...netip.Prefix) ipam.Kernel {
	k := key(i)
	return ipam.Kernel{Alias: attachment.Alias{Hash: k.Hash(), Network: k.Network, MAC: k.MAC(addrs), Addrs: addrs}, Veth: k.Veth(), Network: "weave"}
}

func text(ps []netip.Prefix) string { return strings.Trim(fmt.Sprint(ps), "[]") }

func TestAnAddressOfEachFamilyWithItsNetworksLength(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12", "fd00:1::/64")
	h := start(t, l, 1, t.TempDir())
	got := h.give(request(1))
	if text(got) != "10.32.0.1/12 fd00:1::1/64" {
		t.Errorf("gave %v", got)
	}
	if again := h.give(request(1)); !slices.Equal(again, got) {
		t.Errorf("asked again: %v", again)
	}
	if err := h.Holds(key(1), []netip.Addr{got[1].Addr(), got[0].Addr()}); err != nil {
		t.Error(err)
	}
	for _, addrs := range [][]netip.Addr{nil, {got[0].Addr()}, {got[0].Addr(), netip.MustParseAddr("10.32.0.2")}} {
		if err := h.Holds(key(1), addrs); err == nil {
			t.Errorf("holds just %v", addrs)
		}
	}
	if err := h.Release(key(1)); err != nil {
		t.Fatal(err)
	}
	if err := h.Release(key(1)); err != nil {
		t.Errorf("released twice: %v", err)
	}
	if other := h.give(request(2)); slices.Contains(other, got[0]) {
		t.Errorf("%v does not rest", got[0])
	}
	if again := h.give(request(1)); !slices.Equal(again, got) {
		t.Errorf("after a restart of the container: %v, had %v", again, got)
	}
}

func TestRequestedAddresses(t *testing.T) {
	l := newLedger()
	l.found(t, 2, "10.32.0.0/12", "fd00:1::/64")
	h, other := start(t, l, 1, t.TempDir()), start(t, l, 2, t.TempDir())
	theirs := other.give(request(100))

	// Repeats, with and without a length, several of a family; own block or pool.
	got := h.give(request(1, "10.40.0.7", "10.40.0.7/12", " 10.40.0.8/24 ", "fd00:1::9999", "::ffff:10.40.0.7"))
	if text(got) != "10.40.0.7/12 10.40.0.8/12 fd00:1::9999/64" {
		t.Errorf("gave %v", got)
	}
	if again := h.give(request(1, "10.40.0.7")); !slices.Equal(again, got) {
		t.Errorf("asked for what it has: %v", again)
	}
	if e := h.refuse(request(2, "10.40.0.7"), ctl.CodeAddressTaken); !strings.Contains(e.Msg, "c1") {
		t.Errorf("error %q does not say whose it is", e)
	}
	if e := h.refuse(request(2, theirs[0].Addr().String()), ctl.CodeAddressTaken); !strings.Contains(e.Msg, "host2") {
		t.Errorf("error %q does not say whose it is", e)
	}
	for _, bad := range []string{"192.168.0.1", "10.32.0.0", "10.47.255.255", "fd00:1::", "10.32.0.1/40", "web", "", "fd00:1::1%eth0"} {
		h.refuse(request(2, bad), ctl.CodeInvalidConfig)
	}
	h.refuse(request(1, "10.40.0.9"), ctl.CodeInvalidConfig) // it has others already
	if c, ok := h.Claim(key(2).Hash()); ok {
		t.Errorf("a refused request left %+v", c)
	}
	if err := h.Release(key(1)); err != nil {
		t.Fatal(err)
	}
	if got := h.give(request(3, "10.40.0.7")); text(got) != "10.40.0.7/12" {
		t.Errorf("a requested address need not rest: %v", got)
	}
}

func TestASubnetOfTheRange(t *testing.T) {
	l := newLedger()
	l.found(t, 2, "10.32.0.0/12", "fd00:1::/64")
	h := start(t, l, 1, t.TempDir())
	h.give(request(1))
	in := request(2)
	in.Subnet = "10.45.6.0/24"
	if got := h.give(in); text(got) != "10.45.6.0/12 fd00:1::2/64" {
		t.Errorf("gave %v", got)
	}
	in.Key = key(3)
	in.Subnet = "10.48.0.0/24"
	h.refuse(in, ctl.CodeInvalidConfig)
	in.Subnet = "10.32.0.0/8"
	h.refuse(in, ctl.CodeInvalidConfig)
	in.Subnet = "fd00:1::5/127"
	if got := h.give(in); !strings.HasSuffix(text(got), "fd00:1::4/64") {
		t.Errorf("gave %v", got)
	}
}

func TestTwoHostsThatChooseTheSameAddressOfASubnetBothGetOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 4, "10.32.0.0/12")
		l.slow = 10 * time.Millisecond // so that all propose before one is served
		seen := make([]netip.Prefix, 4)
		var wg sync.WaitGroup
		for i := range seen {
			h := start(t, l, i+1, t.TempDir())
			wg.Go(func() {
				in := request(i)
				in.Subnet = "10.45.6.0/24"
				got, err := h.Allocate(t.Context(), in)
				if err != nil {
					t.Errorf("host %d: %v", i+1, err)
					return
				}
				seen[i] = got[0]
			})
		}
		wg.Wait()
		slices.SortFunc(seen, netip.Prefix.Compare)
		if len(slices.Compact(seen)) != 4 {
			t.Errorf("gave %v", seen)
		}
	})
}

func TestAFreedAddressRestsWhileThePoolHasOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 2, "10.32.0.0/20") // asked for in blocks of 256
		h := start(t, l, 1, t.TempDir())
		free := func(i int) netip.Prefix {
			t.Helper()
			p := h.give(request(i))[0]
			if err := h.Release(key(i)); err != nil {
				t.Fatal(err)
			}
			return p
		}
		first, n := free(0), 1
		for ; n < 255; n++ {
			free(n)
		}
		if p := free(n); l.asked != 2 || !netip.MustParsePrefix("10.32.1.0/24").Contains(p.Addr()) {
			t.Fatalf("gave %v, having asked the ledger %d times", p, l.asked)
		}
		l.setDown(true) // what rests is better than nothing
		for n++; n < 511; n++ {
			free(n)
		}
		began := time.Now()
		if p := free(n); p != first || time.Since(began) != time.Second {
			t.Errorf("without the ledger: gave %v after %v, want %v", p, time.Since(began), first)
		}
		l.setDown(false)
		h.now += 31 * time.Second
		asked := l.asked
		if p := free(n + 1); l.asked != asked || p.Addr() != first.Addr().Next() {
			t.Errorf("when all had rested: gave %v, asked %d times", p, l.asked-asked)
		}
		// This host takes its share, not all, for the comfort of rest.
		for i := range 2000 {
			free(1000 + i)
		}
		if u := h.Usage()[0]; u.Pool < 1024 || u.Hosts[0].Owned > 2048 {
			t.Errorf("a host that holds nothing owns %d, leaves %d", u.Hosts[0].Owned, u.Pool)
		}
	})
}

func TestRunAsksForMoreWhenWhatIsFreeOnlyRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/12")
		h := start(t, l, 1, t.TempDir())
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { h.Run(ctx) })
		seen := map[netip.Prefix]bool{}
		for i := range 700 {
			p := h.give(request(i))[0]
			if seen[p] {
				t.Fatalf("%v did not rest", p)
			}
			seen[p] = true
			if err := h.Release(key(i)); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				synctest.Wait()
				l.slow = time.Millisecond
			}
			began := time.Now()
			h.give(request(0))
			if time.Since(began) != 0 {
				t.Fatalf("allocation %d waited for the ledger", i)
			}
			synctest.Wait()
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
		}
		stop()
		wg.Wait()
	})
}

func TestNothingIsGivenBeforeALedgerIsLearntAndThenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		h := start(t, l, 1, t.TempDir())
		if h.Waiting() == "" {
			t.Error("waits for nothing")
		}
		began := time.Now()
		if e := h.refuse(request(1), ctl.CodeTryAgain); !strings.Contains(e.Details, "ledger") {
			t.Errorf("error %q", e)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.Allocate(ctx, request(1)); err == nil || time.Since(began) != 6*time.Second {
			t.Errorf("error %v after %v, want the caller's bound", err, time.Since(began))
		}
		go func() {
			time.Sleep(2 * time.Second)
			l.found(t, 0, "10.32.0.0/12")
			time.Sleep(time.Second)
			l.join(t, 1)
		}()
		began = time.Now()
		h.give(request(1))
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		if w := h.Waiting(); w != "" {
			t.Errorf("waits for %q", w)
		}
	})
}

func TestAPartitionedHostGoesOnFromItsBlocksAndThenSaysWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/12")
		h := start(t, l, 1, t.TempDir())
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { h.Run(ctx) })
		h.give(request(0))
		synctest.Wait() // Run has asked early
		l.setDown(true)
		given := 1
		for ; ; given++ {
			if _, err := h.Allocate(t.Context(), request(given)); err != nil {
				break
			}
		}
		if given < 256 {
			t.Errorf("only %d addresses in a partition", given)
		}
		if e := h.refuse(request(given), ctl.CodeTryAgain); !strings.Contains(e.Error(), "no leader") {
			t.Errorf("error %q", e)
		}
		time.Sleep(10 * time.Second)
		if w := h.Waiting(); !strings.Contains(w, "no leader") {
			t.Errorf("waiting %q", w)
		}
		l.setDown(false)
		h.give(request(given))
		time.Sleep(10 * time.Second)
		if w := h.Waiting(); w != "" {
			t.Errorf("waiting %q", w)
		}
		stop()
		wg.Wait()
	})
}

func TestRunKeepsAsMuchFreeAsIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/12")
		h := start(t, l, 1, t.TempDir())
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { h.Run(ctx) })
		for i := range 2000 {
			h.give(request(i))
			if i%100 == 99 {
				synctest.Wait()
				self := h.Usage()[0].Hosts[0]
				if free := self.Owned - self.Used - 1; free < max(self.Used, 256) {
					t.Fatalf("after %d: %+v, %d free", i+1, self.Used, free)
				}
			}
		}
		if l.asked > 30 {
			t.Errorf("asked %d times for 2000 addresses", l.asked)
		}
		stop()
		wg.Wait()
	})
}

func TestAFullNetworkIsRefusedWithNumbersAndNoAddressIsGivenTwice(t *testing.T) {
	l := newLedger()
	l.found(t, 3, "10.9.0.0/24")
	hosts := []*host{start(t, l, 1, t.TempDir()), start(t, l, 2, t.TempDir()), start(t, l, 3, t.TempDir())}
	seen := map[netip.Addr]int{}
	full := 0
	for i := 0; full < 3; i++ {
		h := hosts[i%3]
		got, err := h.Allocate(t.Context(), request(i))
		var e *ctl.Error
		if errors.As(err, &e) {
			if e.Code != ctl.CodeNetworkFull || !strings.Contains(e.Details, "of 254 addresses") {
				t.Fatalf("error %v", e)
			}
			full++
			continue
		}
		if before, twice := seen[got[0].Addr()]; twice {
			t.Fatalf("%v given to %d and %d", got[0], before, i)
		}
		seen[got[0].Addr()] = i
	}
	if len(seen) != 254 {
		t.Errorf("%d addresses of a /24 could be given", len(seen))
	}
}

func TestAHundredParallelAsksMakeOneProposal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/12")
		l.slow = 10 * time.Millisecond
		h := start(t, l, 1, t.TempDir())
		var wg sync.WaitGroup
		got := make([]netip.Addr, 100)
		for i := range got {
			wg.Go(func() {
				a, err := h.Allocate(t.Context(), request(i))
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = a[0].Addr()
			})
		}
		wg.Wait()
		slices.SortFunc(got, netip.Addr.Compare)
		if n := len(slices.Compact(got)); n != 100 {
			t.Errorf("%d different addresses", n)
		}
		if l.asked != 1 {
			t.Errorf("%d proposals", l.asked)
		}
	})
}

func TestARestartKeepsEveryClaimWithItsNames(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	dir := t.TempDir()
	h := start(t, l, 1, dir)
	addrs := h.give(request(1))
	h.commit(1, addrs)
	if _, err := h.SetNames(key(1), ipam.Naming{Names: []string{"web"}}); err != nil {
		t.Fatal(err)
	}
	claimOnly := request(2)
	claimOnly.Decider = ctl.DecidedByClaim
	h.give(claimOnly)
	freed := h.give(request(3))
	if err := h.Release(key(3)); err != nil {
		t.Fatal(err)
	}

	again := start(t, l, 1, dir, veth(1, addrs...))
	c, ok := again.Claim(key(1).Hash())
	if !ok || c.Key != key(1) || !slices.Equal(c.Names, []string{"web"}) || !c.Live() || !slices.Equal(c.Addrs, addrs) {
		t.Errorf("claim %+v", c)
	}
	if c, ok := again.Claim(key(2).Hash()); !ok || !c.Live() {
		t.Errorf("claim %+v, %v", c, ok)
	}
	if got := again.give(request(4)); got[0] == freed[0] {
		t.Errorf("%v was freed just before the restart and does not rest", freed)
	}
	if got := again.give(request(3)); got[0] != freed[0] {
		t.Errorf("its former holder got %v, had %v", got, freed)
	}
}

func TestStateAndRunDirectoryLostEveryKernelAddressIsRecovered(t *testing.T) {
	l := newLedger()
	l.found(t, 2, "10.32.0.0/16")
	h := start(t, l, 1, t.TempDir())
	var kernel []ipam.Kernel
	held := map[netip.Addr]bool{}
	for i := range 200 {
		a := h.give(request(i))
		kernel = append(kernel, veth(i, a...))
		held[a[0].Addr()] = true
	}
	// The same host, as a new member of the same cluster; and as the founder of another.
	fresh := newLedger()
	fresh.found(t, 2, "10.32.0.0/16")
	for name, l := range map[string]*theLedger{"same cluster": l, "ledger lost": fresh} {
		began := time.Now()
		reborn := start(t, l, 2, t.TempDir(), kernel...)
		if took := time.Since(began); len(reborn.Claims()) != 200 || took > time.Second {
			t.Fatalf("%s: %d claims after %v", name, len(reborn.Claims()), took)
		}
		for i := range 200 {
			if a := reborn.give(request(1000 + i)); held[a[0].Addr()] {
				t.Fatalf("%s: %v given twice", name, a)
			}
		}
		if got := reborn.give(request(7)); got[0] != kernel[7].Alias.Addrs[0] {
			t.Errorf("%s: an attachment known by its hash got %v, has %v", name, got, kernel[7].Alias.Addrs)
		}
		if err := reborn.Release(key(8)); err != nil {
			t.Fatal(err)
		}
		if _, ok := reborn.Claim(key(8).Hash()); ok {
			t.Errorf("%s: DEL did not find the attachment by its hash", name)
		}
	}
}

func TestForeignAddressesThatComeBackToThePoolAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 2, "10.32.0.0/12")
		p := netip.MustParsePrefix("10.41.0.9/12")
		h := start(t, l, 1, t.TempDir(), veth(1, p))
		h.give(request(2))
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { h.Run(ctx) })
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if owner, ok := l.State().Owner("weave", p.Addr()); !ok || owner != 1 {
			t.Errorf("owner %v, %v", owner, ok)
		}
		stop()
		wg.Wait()
	})
}

func TestFilesOfAnotherBootAreDroppedUnlessTheKernelShowsTheVeth(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	dir := t.TempDir()
	h := start(t, l, 1, dir)
	a1, a2 := h.give(request(1)), h.give(request(2))
	for i, a := range [][]netip.Prefix{a1, a2} {
		h.commit(i+1, a)
	}
	for _, k := range []attachment.Key{key(1), key(2)} {
		path := filepath.Join(dir, k.Hash())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(b), "boot1", "boot0", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := start(t, l, 1, dir, veth(2, a2...))
	if cs := again.Claims(); len(cs) != 1 || cs[0].Key != key(2) || cs[0].BootID != "boot1" {
		t.Errorf("claims %+v", cs)
	}
}

func TestAClaimIsOnFileBeforeItIsAnswered(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	dir := t.TempDir()
	h := start(t, l, 1, dir)
	h.give(request(1))
	if _, err := os.Stat(filepath.Join(dir, key(1).Hash())); err != nil {
		t.Error(err)
	}
	// A directory where the file should go: it cannot be written, so nothing is given.
	if err := os.Mkdir(filepath.Join(dir, key(2).Hash()), 0o700); err != nil {
		t.Fatal(err)
	}
	h.refuse(request(2), ctl.CodeInternal)
	if _, ok := h.Claim(key(2).Hash()); ok {
		t.Error("claimed without a file")
	}
}

func TestReconcileFreesWhatTheKernelLost(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	dir := t.TempDir()
	h := start(t, l, 1, dir)
	a1 := h.give(request(1))
	h.commit(1, a1)
	h.give(request(2)) // an ADD under way
	if _, err := h.HostAddr(t.Context(), "weave", nil); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		at   time.Duration
		want int
	}{{0, 0}, {2 * time.Second, 1}, {30 * time.Second, 0}, {32 * time.Second, 1}, {time.Hour, 0}} {
		h.now = step.at
		if got, _ := h.Reconcile(nil); len(got) != step.want {
			t.Fatalf("at %v released %v, want %d", step.at, got, step.want)
		}
	}
	if _, err := h.Commit(ipam.Commit{Key: key(2), Network: "weave", Addrs: []netip.Prefix{netip.MustParsePrefix("10.32.0.2/12")}}); err == nil {
		t.Error("a reservation that had ended was committed")
	}
	if _, err := os.Stat(filepath.Join(dir, key(1).Hash())); err == nil {
		t.Error("its file is still there")
	}
}

func TestADetachedAttachmentIsNotLiveAndABorrowedOneIsForgotten(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	h := start(t, l, 1, t.TempDir())
	h.commit(1, h.give(request(1)))
	borrowed := []netip.Prefix{netip.MustParsePrefix("192.168.7.2/24")}
	c, err := h.Commit(ipam.Commit{Key: key(2), MAC: key(2).MAC(borrowed), Addrs: borrowed})
	if err != nil || !c.Borrowed || !c.Live() || c.OnBridge {
		t.Fatalf("claim %+v, %v", c, err)
	}
	if _, err := h.Commit(ipam.Commit{Key: key(3), Addrs: borrowed}); err == nil {
		t.Error("one address, two attachments")
	}
	for i := 1; i <= 3; i++ {
		if err := h.Detached(key(i)); err != nil {
			t.Fatal(err)
		}
	}
	if c, ok := h.Claim(key(1).Hash()); !ok || c.Live() {
		t.Errorf("claim %+v, %v; want it reserved until it is released", c, ok)
	}
	if _, ok := h.Claim(key(2).Hash()); ok {
		t.Error("the borrowed one is still there")
	}
}

// TestAReleaseTakesNoAddressWhoseVethIsThere: the release may come from a call that
// was broken off, long after another one of the same attachment has succeeded.
func TestAReleaseTakesNoAddressWhoseVethIsThere(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	h := start(t, l, 1, t.TempDir())
	for i := 1; i <= 3; i++ {
		in := request(i)
		if i == 3 {
			in.Decider = ctl.DecidedByClaim // its link says nothing
		}
		addrs := h.give(in)
		if i == 1 {
			h.commit(i, addrs) // 2 has its veth already, too
		}
		h.links[key(i).Hash()] = nil
	}
	for _, err := range []error{nil, errors.New("the kernel cannot be read")} {
		for i := 1; i <= 2; i++ {
			h.links[key(i).Hash()] = err
			var e *ctl.Error
			if got := h.Release(key(i)); !errors.As(got, &e) || !strings.Contains(e.Error(), key(i).Veth()) {
				t.Errorf("c%d: got %v", i, got)
			}
			if _, ok := h.Claim(key(i).Hash()); !ok {
				t.Errorf("c%d: its address is free, and its veth there", i)
			}
		}
	}
	clear(h.links)
	h.links[key(3).Hash()] = nil
	for i := range 4 { // 0 has never been there
		if err := h.Release(key(i)); err != nil {
			t.Errorf("c%d: %v", i, err)
		}
	}
	if left := h.Claims(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestCollectTakesOnlyWhatIsUnlistedOldAndUninhabited(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	h := start(t, l, 1, t.TempDir())
	for i := range 4 {
		in := request(i)
		in.NetNS = attachment.NSID{Dev: 4, Ino: uint64(100 + i)}
		in.Decider = ctl.DecidedByClaim
		h.give(in)
	}
	collect := func(in ctl.CollectRequest) (ids []string) {
		in.Inhabited, in.Held = []attachment.NSID{{Dev: 4, Ino: 101}}, []attachment.NSID{{Dev: 4, Ino: 102}}
		for _, c := range h.Collect(in) {
			ids = append(ids, c.Key.ContainerID)
		}
		slices.Sort(ids)
		return ids
	}
	list := ctl.CollectRequest{Network: "weave", Valid: []attachment.Key{key(0)}}
	if got := collect(list); len(got) != 0 {
		t.Errorf("collected the young: %v", got)
	}
	h.now = time.Minute
	if got := collect(list); !slices.Equal(got, []string{"c2", "c3"}) {
		t.Errorf("with a list: %v", got)
	}
	if got := collect(ctl.CollectRequest{Network: "weave"}); !slices.Equal(got, []string{"c0", "c2", "c3"}) {
		t.Errorf("with an empty list: %v", got)
	}
	if got := collect(ctl.CollectRequest{Network: "weave", Absent: true}); !slices.Equal(got, []string{"c0", "c3"}) {
		t.Errorf("without a list: %v", got)
	}
	if got := collect(ctl.CollectRequest{Network: "other"}); len(got) != 0 {
		t.Errorf("of another network: %v", got)
	}
}

func TestTheBridgesAddressIsKeptAdoptedOrMade(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12", "fd00:1::/64")
	dir := t.TempDir()
	h := start(t, l, 1, dir)
	host := func(h *host, has ...netip.Prefix) []netip.Prefix {
		t.Helper()
		got, err := h.HostAddr(t.Context(), "weave", has)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	made := host(h)
	if text(made) != "10.32.0.1/12 fd00:1::1/64" {
		t.Errorf("made %v", made)
	}
	if got := h.give(request(1)); slices.Contains(got, made[0]) {
		t.Errorf("a container got the bridge's %v", got)
	}
	if got := host(start(t, l, 1, dir)); !slices.Equal(got, made) {
		t.Errorf("after a restart: %v", got)
	}
	// The claim file is lost, the bridge is not; it also has an address of somebody else's.
	lost := start(t, l, 1, t.TempDir())
	foreign := netip.MustParsePrefix("10.44.4.4/12")
	if got := host(lost, foreign, netip.MustParsePrefix("172.17.0.1/16")); text(got) != "10.44.4.4/12 fd00:1::1/64" {
		t.Errorf("adopted %v", got)
	}
	lost.refuse(request(5, "10.44.4.4"), ctl.CodeAddressTaken)
	for _, c := range lost.Claims() {
		if c.Live() {
			t.Errorf("the bridge would be told to others as a container: %+v", c)
		}
	}
}

func TestABridgesAddressOfAnotherHostIsGivenUp(t *testing.T) {
	p := netip.MustParsePrefix("10.32.0.1/12")
	for name, c := range map[string]struct {
		owner ledger.MemberID // of p, before this host starts
		keeps bool
	}{"nobody's": {0, true}, "its own": {2, true}, "its predecessor's": {3, true}, "another's": {1, false}} {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/12")
		was := ledger.Member{ID: 3, Name: "host2"} // an earlier life of member 2
		for _, m := range []ledger.Member{was, {ID: 2, Name: "host2"}} {
			if c.owner == m.ID {
				l.apply(ledger.Command{Join: &ledger.Join{Member: m}})
				l.apply(ledger.Command{TakeAddr: &ledger.TakeAddr{ID: m.ID, Network: "weave", Addr: p.Addr()}})
			}
		}
		if c.owner == 1 {
			l.apply(ledger.Command{TakeAddr: &ledger.TakeAddr{ID: 1, Network: "weave", Addr: p.Addr()}})
		}
		own := newLedger() // the cluster that it had founded
		own.found(t, 2, "10.32.0.0/12")
		dir := t.TempDir()
		if got, err := start(t, own, 2, dir).HostAddr(t.Context(), "weave", nil); err != nil || got[0] != p {
			t.Fatal(got, err)
		}
		l.apply(ledger.Command{Join: &ledger.Join{Member: ledger.Member{ID: 2, Name: "host2"}}})
		for how, has := range map[string][]netip.Prefix{"claim file": nil, "bridge": {p}} {
			from := dir
			if has != nil {
				from = t.TempDir()
			}
			var log strings.Builder
			h := startLogging(t, l, 2, from, &log)
			got, err := h.HostAddr(t.Context(), "weave", has)
			if err != nil {
				t.Fatal(err)
			}
			if owner, ok := l.State().Owner("weave", got[0].Addr()); (got[0] == p) != c.keeps || !c.keeps && (!ok || owner != 2) {
				t.Errorf("%s, from the %s: the bridge got %v", name, how, got)
			}
			if said := strings.Contains(log.String(), "level=ERROR") && strings.Contains(log.String(), "host1"); said == c.keeps {
				t.Errorf("%s, from the %s: log %q", name, how, log.String())
			}
			if again, err := h.HostAddr(t.Context(), "weave", append(has, got...)); err != nil || !slices.Equal(again, got) {
				t.Errorf("%s, from the %s: asked again: %v, %v", name, how, again, err)
			}
		}
	}
}

// TestABridgesAddressThatIsNobodysIsUsedOnceItIsOwned: it is what a host had in the
// cluster that it left, or before its state was lost.
func TestABridgesAddressThatIsNobodysIsUsedOnceItIsOwned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 2, "10.32.0.0/28")
		dir := t.TempDir()
		before := start(t, l, 1, dir).bridge()
		l.apply(ledger.Command{Leave: &ledger.Leave{ID: 1}})
		l.join(t, 3)
		a, b := start(t, l, 3, dir), start(t, l, 2, t.TempDir())
		l.setDown(true)
		for how, has := range map[string][]netip.Prefix{"the claim file": nil, "the bridge": before} {
			if got, err := a.HostAddr(t.Context(), "weave", has); err == nil {
				t.Errorf("by %s it has %v, which nobody gave it", how, got)
			}
		}
		l.setDown(false)
		if got := a.bridge(); !slices.Equal(got, before) {
			t.Errorf("got %v, had %v", got, before)
		}
		if owner, _ := l.State().Owner("weave", before[0].Addr()); owner != 3 {
			t.Errorf("it belongs to %d", owner)
		}
		l.apply(ledger.Command{Leave: &ledger.Leave{ID: 3}})
		l.join(t, 4)
		l.slow = time.Second // b is quicker
		a = start(t, l, 4, dir)
		got := make(chan []netip.Prefix)
		go func() { got <- a.bridge() }()
		synctest.Wait()
		l.apply(ledger.Command{TakeAddr: &ledger.TakeAddr{ID: 2, Network: "weave", Addr: before[0].Addr()}})
		b.give(request(1, before[0].Addr().String()))
		after := <-got
		if owner, _ := l.State().Owner("weave", after[0].Addr()); slices.Equal(after, before) || owner != 4 {
			t.Errorf("the bridge has %v, of host %d; another host has %v", after, owner, before)
		}
	})
}

func TestWhatBecomesOfABridgesAddressIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := hoarded(t, 2, "10.32.0.0/24")
		var log strings.Builder
		h := startLogging(t, l, 2, t.TempDir(), &log)
		for range 5 { // as the router does, which gets none: nothing is left
			_, err := h.HostAddr(t.Context(), "weave", []netip.Prefix{netip.MustParsePrefix("10.32.0.1/24")})
			if err == nil {
				t.Fatal("it has an address of nowhere")
			}
		}
		if n := strings.Count(log.String(), "is given up"); n != 1 {
			t.Errorf("said %d times:\n%s", n, log.String())
		}
	})
}

// TestAClaimWhoseFileStaysDoesNotEnd: after a restart it would hold its address for good.
func TestAClaimWhoseFileStaysDoesNotEnd(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	dir := t.TempDir()
	h := start(t, l, 1, dir)
	in := request(1)
	in.Decider = ctl.DecidedByClaim
	had := h.give(in)
	inTheWay := filepath.Join(dir, "resting-"+key(1).Hash())
	if err := os.MkdirAll(filepath.Join(inTheWay, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	var e *ctl.Error
	if err := h.Release(key(1)); !errors.As(err, &e) || e.Code != ctl.CodeTryAgain {
		t.Fatalf("got %v", err)
	}
	if err := h.Holds(key(1), []netip.Addr{had[0].Addr()}); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	if err := h.Release(key(1)); err != nil { // the runtime's next DEL
		t.Fatal(err)
	}
	if left := start(t, l, 1, dir).Claims(); len(left) != 0 {
		t.Errorf("after a restart: %+v", left)
	}
}

func TestReconcileAnswersWithWhatItTookOver(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	h := start(t, l, 1, t.TempDir())
	k := veth(1, netip.MustParsePrefix("10.32.0.9/12"))
	if _, adopted := h.Reconcile([]ipam.Kernel{k}); len(adopted) != 0 {
		t.Fatalf("at the first sighting: %+v", adopted)
	}
	h.now = 2 * time.Second
	released, adopted := h.Reconcile([]ipam.Kernel{k})
	if len(released) != 0 || len(adopted) != 1 || adopted[0].Hash != key(1).Hash() || !adopted[0].Live() {
		t.Errorf("released %+v, adopted %+v", released, adopted)
	}
}

func TestNamesLostWithTheFilesAreGivenBackOnce(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/12")
	p := netip.MustParsePrefix("10.32.0.9/12")
	h := start(t, l, 1, t.TempDir(), veth(1, p))
	if c, ok := h.Restore(key(1).Hash(), ipam.Naming{Names: []string{"web"}}); !ok || !slices.Equal(c.Names, []string{"web"}) {
		t.Errorf("claim %+v, %v", c, ok)
	}
	if _, ok := h.Restore(key(1).Hash(), ipam.Naming{Names: []string{"other"}}); ok {
		t.Error("names that are there were replaced")
	}
	if _, ok := h.Restore(key(2).Hash(), ipam.Naming{Names: []string{"other"}}); ok {
		t.Error("an attachment that is not there got names")
	}
}

func TestARetiredHostGivesNothingAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/12")
		h := start(t, l, 1, t.TempDir())
		a := h.give(request(1))
		l.apply(ledger.Command{Leave: &ledger.Leave{ID: 1}})
		if e := h.refuse(request(2), ctl.CodeTryAgain); !strings.Contains(e.Details, "retired") {
			t.Errorf("error %q", e)
		}
		if again := h.give(request(1)); !slices.Equal(again, a) {
			t.Errorf("what it holds: %v, had %v", again, a)
		}
		if u := h.Usage()[0].Hosts[0]; u.Foreign != 1 || u.Owned != 0 {
			t.Errorf("use %+v", u)
		}
	})
}

// On a tmpfs, with the claim files, allocate and release one address beside others.
func BenchmarkAllocateRelease(b *testing.B) {
	for _, existing := range []int{0, 1000, 5000, 20000} {
		b.Run(fmt.Sprint(existing), func(b *testing.B) {
			dir, err := os.MkdirTemp("/dev/shm", "claims")
			if err != nil {
				b.Skip("no tmpfs: ", err)
			}
			defer os.RemoveAll(dir)
			l := newLedger()
			l.found(b, 1, "10.32.0.0/12")
			l.apply(ledger.Command{Take: &ledger.Take{ID: 1, Network: "weave", Subnet: netip.MustParsePrefix("10.32.0.0/12"), Want: 1 << 16}})
			h := start(b, l, 1, dir)
			ctx, stop := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			wg.Go(func() { h.Run(ctx) })
			for i := range existing {
				h.give(request(i))
			}
			var slowest time.Duration
			i := 0
			for b.Loop() {
				i++
				began := time.Now()
				h.give(request(math.MaxInt32 + i))
				if err := h.Release(key(math.MaxInt32 + i)); err != nil {
					b.Fatal(err)
				}
				slowest = max(slowest, time.Since(began))
				h.now += 10 * time.Millisecond // so that files are dropped, too
			}
			b.ReportMetric(float64(slowest.Microseconds()), "µs-slowest")
			stop()
			wg.Wait()
		})
	}
}

func TestNoMoreIsAskedForEarlyWhileSomebodysAskIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 3, "10.32.0.0/24")
		l.slow = 100 * time.Millisecond
		h := start(t, l, 1, t.TempDir())
		h.provide()
		synctest.Wait()                                              // Run waits
		time.AfterFunc(50*time.Millisecond, func() { l.join(t, 4) }) // the ledger moves, and Run looks
		if _, err := h.HostAddr(t.Context(), "weave", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if l.asked != 1 {
			t.Errorf("asked %d times", l.asked)
		}
		l.slow = 0
		for i := range 20 { // and once it is needed, it is asked for
			h.give(request(i))
		}
		synctest.Wait()
		if l.asked < 2 {
			t.Errorf("asked %d times", l.asked)
		}
	})
}

func TestOfANetworkThatIsNewAHostAsksTheLedgerOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 3, "10.32.0.0/24", "fd00::/64")
		h := start(t, l, 1, t.TempDir())
		if got, err := h.HostAddr(t.Context(), "weave", nil); err != nil || len(got) != 2 {
			t.Fatalf("got %v, %v", got, err)
		}
		h.provide()
		synctest.Wait()
		if l.asked != 2 {
			t.Errorf("asked %d times, want once for each family", l.asked)
		}
	})
}
