package reaper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// kernel is a netdev.DeleteBatch that waits for the test.
type kernel struct {
	mu      sync.Mutex
	batches [][]netdev.Named
	groups  []uint32
	begun   chan struct{}
	go_     chan struct{}
	fail    map[string]error
}

func newKernel() *kernel {
	return &kernel{begun: make(chan struct{}, 100), go_: make(chan struct{}), fail: map[string]error{}}
}

func (k *kernel) delete(group uint32, links []netdev.Named) []error {
	k.mu.Lock()
	k.batches = append(k.batches, slices.Clone(links))
	k.groups = append(k.groups, group)
	k.mu.Unlock()
	k.begun <- struct{}{}
	<-k.go_
	errs := make([]error, len(links))
	for i, l := range links {
		errs[i] = k.fail[l.Name]
	}
	return errs
}

func newReaper(k *kernel, ports ...netdev.Port) *Reaper {
	r := New(slog.New(slog.DiscardHandler), k.delete)
	r.ports = func() ([]netdev.Port, error) { return ports, nil }
	return r
}

// running runs r until the returned function, which waits for the end, is called.
func running(r *Reaper) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

func TestWhoComesWhileABatchRunsIsTheNextBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		bad := errors.New("bad")
		k.fail["link3"] = bad
		r := newReaper(k)
		stop := running(r)
		answers := make([]error, 10)
		var callers sync.WaitGroup
		call := func(i int) {
			callers.Go(func() { answers[i] = r.Delete(context.Background(), fmt.Sprintf("link%d", i), "h") })
		}
		call(0)
		<-k.begun
		for i := 1; i < 10; i++ {
			call(i)
		}
		synctest.Wait() // all of them wait now
		k.go_ <- struct{}{}
		<-k.begun
		k.go_ <- struct{}{}
		callers.Wait()
		stop()
		if len(k.batches) != 2 || len(k.batches[0]) != 1 || len(k.batches[1]) != 9 {
			t.Errorf("batches: %v", k.batches)
		}
		for i, err := range answers {
			if want := k.fail[fmt.Sprintf("link%d", i)]; !errors.Is(err, want) {
				t.Errorf("caller %d: got %v, want %v", i, err, want)
			}
		}
		if k.groups[0] < firstGroup || k.groups[0] != k.groups[1] {
			t.Errorf("groups: %v", k.groups)
		}
	})
}

func TestEverybodyIsAnsweredWhenRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		r := newReaper(k)
		stop := running(r)
		answers := make(chan error, 10)
		go func() { answers <- r.Delete(context.Background(), "running", "h") }()
		<-k.begun
		go func() { answers <- r.Delete(context.Background(), "waiting", "h") }()
		synctest.Wait()
		go func() { k.go_ <- struct{}{} }()
		stop()
		got := []error{<-answers, <-answers}
		// The batch that had begun is finished and tells the truth.
		if !slices.Contains(got, nil) || !slices.ContainsFunc(got, func(e error) bool { return errors.Is(e, ErrStopped) }) {
			t.Errorf("got %v", got)
		}
		if err := r.Delete(context.Background(), "late", "h"); !errors.Is(err, ErrStopped) {
			t.Errorf("late caller: got %v", err)
		}
	})
}

func TestACallerMayGiveUpAndTheRestGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		r := newReaper(k)
		ctx, cancel := context.WithCancel(context.Background())
		answers := make(chan error, 2)
		go func() { answers <- r.Delete(ctx, "a", "h") }() // before Run
		synctest.Wait()
		cancel()
		if err := <-answers; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		go func() { answers <- r.Delete(context.Background(), "b", "h") }()
		synctest.Wait()
		stop := running(r)
		<-k.begun
		k.go_ <- struct{}{}
		if err := <-answers; err != nil {
			t.Error(err)
		}
		stop()
		if len(k.batches) != 1 || len(k.batches[0]) != 2 {
			t.Errorf("batches: %v", k.batches)
		}
	})
}

func TestALinkAskedForTwiceIsDeletedOnceAndBothAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		bad := errors.New("bad")
		k.fail["a"] = bad
		r := newReaper(k)
		answers := make(chan error, 2)
		for range 2 {
			go func() { answers <- r.Delete(context.Background(), "a", "h") }()
		}
		synctest.Wait()
		stop := running(r)
		<-k.begun
		k.go_ <- struct{}{}
		for range 2 {
			if err := <-answers; !errors.Is(err, bad) {
				t.Errorf("got %v", err)
			}
		}
		stop()
		if len(k.batches) != 1 || len(k.batches[0]) != 1 {
			t.Errorf("batches: %v", k.batches)
		}
		if got := r.Stats(); got != (Stats{Batches: 1, Links: 1, Failed: 1}) {
			t.Errorf("counted %+v", got)
		}
	})
}

func alias(t *testing.T, k attachment.Key) string {
	s, err := attachment.Alias{Hash: k.Hash(), Network: k.Network, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAStartingReaperFinishesWhatIsMarkedAndOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours := attachment.Key{Network: "weave", ContainerID: "a", IfName: "eth0"}
		k := newKernel()
		r := newReaper(k,
			netdev.Port{Name: "living", Alias: alias(t, ours)},
			netdev.Port{Name: "marked", Alias: alias(t, ours), Group: 1 << 31},
			netdev.Port{Name: "low", Alias: alias(t, ours), Group: 1<<31 - 1},
			netdev.Port{Name: "foreign", Alias: "uplink", Group: 1<<32 - 1},
			netdev.Port{Name: "nameless", Group: 1<<32 - 1},
		)
		stop := running(r)
		<-k.begun
		k.go_ <- struct{}{}
		stop()
		want := []netdev.Named{{Name: "marked", Hash: ours.Hash()}}
		if len(k.batches) != 1 || !slices.Equal(k.batches[0], want) {
			t.Errorf("got %v, want %v", k.batches, want)
		}
	})
}

func TestNothingOutlivesRun(t *testing.T) {
	defer goleak.VerifyNone(t)
	k := newKernel()
	close(k.go_)
	r := newReaper(k)
	stop := running(r)
	var callers sync.WaitGroup
	for i := range 500 {
		callers.Go(func() {
			if err := r.Delete(context.Background(), fmt.Sprint(i), "h"); err != nil && !errors.Is(err, ErrStopped) {
				t.Error(err)
			}
		})
	}
	go func() {
		for range k.begun {
		}
	}()
	callers.Wait()
	stop()
	close(k.begun)
}

func TestWithTheRealKernel250DeletionsShareAFewWaits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces and devices")
	}
	inNewNamespace(t, func() {
		const n = 250
		links := attachMany(t, n)
		var mu sync.Mutex
		batches := 0
		r := New(slog.New(slog.DiscardHandler), nil)
		work := make(chan func())
		// The reaper runs where it likes; the kernel is asked on this thread, which is in the namespace.
		r.delete = func(group uint32, links []netdev.Named) (errs []error) {
			done := make(chan struct{})
			work <- func() { errs = netdev.DeleteBatch(group, links); close(done) }
			<-done
			mu.Lock()
			batches++
			mu.Unlock()
			return errs
		}
		r.ports = func() ([]netdev.Port, error) { return nil, nil }
		stop := running(r)
		var callers sync.WaitGroup
		for _, l := range links {
			callers.Go(func() {
				if err := r.Delete(context.Background(), l.Name, l.Hash); err != nil {
					t.Error(err)
				}
			})
		}
		go func() { callers.Wait(); stop(); close(work) }()
		for f := range work {
			f()
		}
		if ports, err := netdev.Ports(); err != nil || len(ports) != 0 {
			t.Errorf("left: %v, %v", ports, err)
		}
		t.Logf("%d deletions in %d batches", n, batches)
		if batches > n/5 {
			t.Errorf("%d batches for %d deletions", batches, n)
		}
	})
}

// inNewNamespace runs f on a thread in a namespace of its own. The thread ends
// with it; the process's first thread cannot end and is left alone.
func inNewNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			inNewNamespace(t, f)
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace: %v", err)
			return
		}
		f()
	}()
	<-done
}

func attachMany(t *testing.T, n int) []netdev.Named {
	if err := netdev.EnsureBridge(netdev.Bridge{Name: "weave"}); err != nil {
		t.Fatal(err)
	}
	inside := containerNS(t)
	defer inside.Close()
	links := make([]netdev.Named, n)
	for i := range links {
		k := attachment.Key{Network: "weave", ContainerID: "c", IfName: fmt.Sprintf("e%d", i)}
		err := netdev.Attach(netdev.Veth{
			Host: k.Veth(), Bridge: "weave", Alias: alias(t, k), NS: inside, IfName: k.IfName,
			MAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)},
		})
		if err != nil {
			t.Fatal(err)
		}
		links[i] = netdev.Named{Name: k.Veth(), Hash: k.Hash()}
	}
	return links
}

func containerNS(t *testing.T) (ns *netdev.NS) {
	inNewNamespace(t, func() {
		var err error
		if ns, err = netdev.OpenNS("/proc/thread-self/ns/net"); err != nil {
			t.Error(err)
		}
	})
	return ns
}
