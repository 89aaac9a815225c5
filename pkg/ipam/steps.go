package ipam

import (
	"net/netip"
	"time"

	"github.com/weave-cni/weave-cni/pkg/calllog"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
)

// clocked are claim files that note how long they took to be written. They are used
// under the allocator's lock.
type clocked struct {
	allot.Files
	now  func() time.Duration
	took time.Duration // since it was set to 0
	done bool          // something was written since it was set to false
}

// Save is allot.Files'.
func (f *clocked) Save(c allot.Claim) error {
	start := f.now()
	err := f.Files.Save(c)
	f.took, f.done = f.took+f.now()-start, true
	return err
}

// queued is how long a call waits for the others before that is a step of its own.
const queued = time.Millisecond

// tried is try for a call, told to whoever listens to its steps.
func (a *Allocator) tried(call *calllog.Open, o allot.Order) ([]netip.Prefix, *allot.Lack, <-chan struct{}, error) {
	if call == nil {
		return a.try(o)
	}
	start := a.config.Now()
	a.mu.Lock()
	turn := a.config.Now()
	a.files.took, a.files.done = 0, false
	got, l, ended, err := a.tryLocked(o)
	wrote, did := a.files.took, a.files.done
	took := a.config.Now() - turn - wrote
	a.mu.Unlock()
	if waited := turn - start; waited >= queued {
		call.Took("waited for calls before it", waited)
	}
	what := "looked for an address here: none yet"
	if len(got) > 0 {
		what = "allocated from this host's blocks"
	}
	call.Took(what, took)
	if did {
		call.Took("claim written", wrote)
	}
	return got, l, ended, err
}

// words are what a step that waits for others is called.
func words(l *allot.Lack) string {
	if l.Command != nil {
		return "asked the ledger: " + l.Why
	}
	return "waited for the ledger: " + l.Why
}
