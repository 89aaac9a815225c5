// Package reaper deletes links in batches, the way a database commits in groups.
//
// The kernel makes whoever deletes a link wait for 15 to 20 ms, and for hardly
// longer when it deletes hundreds in one message. So the first caller's link is
// deleted at once, alone; whoever comes while that runs is collected, and all of
// them together are the next batch. Nobody waits for a timer, and nobody for
// more than the batch that is running and the one after it.
package reaper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// ErrStopped answers callers whose links were not deleted because Run has
// ended: they may delete them themselves.
var ErrStopped = errors.New("reaper has stopped")

// firstGroup is the lowest device group that a reaper draws. People and other
// programs number their groups from below.
const firstGroup = 1 << 31

// Reaper collects deletions and carries them out. Make it with New.
type Reaper struct {
	log    *slog.Logger
	delete func(group uint32, links []netdev.Named) []error
	ports  func() ([]netdev.Port, error)
	group  uint32

	mu      sync.Mutex
	waiting []*request
	stopped bool
	work    chan struct{} // holds one token while waiting is not empty
	stats   Stats
}

// Stats counts since New.
type Stats struct {
	Batches uint64 `json:"batches"` // deletions carried out in one go
	Links   uint64 `json:"links"`   // that they were about
	Failed  uint64 `json:"failed"`  // of those
}

// Stats gives the counts.
func (r *Reaper) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

func (r *Reaper) count(errs []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Batches++
	r.stats.Links += uint64(len(errs))
	for _, err := range errs {
		if err != nil {
			r.stats.Failed++
		}
	}
}

type request struct {
	link   netdev.Named
	answer chan error // with room for the one answer
}

// New makes a reaper with a device group of its own, drawn at random, so that
// no two of them share one. delete is netdev.DeleteBatch: it deletes the links
// and answers for each, in their order.
func New(log *slog.Logger, delete func(group uint32, links []netdev.Named) []error) *Reaper {
	return &Reaper{
		log:    log,
		delete: delete,
		ports:  netdev.Ports,
		group:  firstGroup + rand.Uint32N(firstGroup),
		work:   make(chan struct{}, 1),
	}
}

// Delete deletes a link that belongs to the attachment with that Key.Hash, and
// returns when the kernel has done so: nil also when there is no such link,
// netdev.ErrNotOurs when it is another's, ErrStopped when Run ended first. It may
// be called from any goroutine, before Run too. When ctx ends, so does the wait;
// the link may be deleted all the same.
func (r *Reaper) Delete(ctx context.Context, name, hash string) error {
	q := &request{netdev.Named{Name: name, Hash: hash}, make(chan error, 1)}
	if !r.enqueue(q) {
		return ErrStopped
	}
	select {
	case err := <-q.answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("delete link %s: %w", name, ctx.Err())
	}
}

func (r *Reaper) enqueue(q *request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	r.waiting = append(r.waiting, q)
	select {
	case r.work <- struct{}{}:
	default: // the token is there already
	}
	return true
}

// Run first finishes what a predecessor had marked, then deletes what Delete
// asks for, until ctx ends. A batch that has begun is finished; whoever waits
// after it gets ErrStopped, and so does every later caller. Run is called once.
// Its error is always nil: what fails is told to the one who asked.
func (r *Reaper) Run(ctx context.Context) error {
	defer r.stop()
	r.finishLeftovers()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-r.work:
			r.run(r.collect())
		}
	}
	return nil
}

// collect takes everybody who waits.
func (r *Reaper) collect() []*request {
	r.mu.Lock()
	defer r.mu.Unlock()
	batch := r.waiting
	r.waiting = nil
	return batch
}

// run deletes one batch. A link asked for twice is deleted once, and both are told.
func (r *Reaper) run(batch []*request) {
	var links []netdev.Named
	place := make(map[netdev.Named]int, len(batch))
	for _, q := range batch {
		if _, known := place[q.link]; !known {
			place[q.link] = len(links)
			links = append(links, q.link)
		}
	}
	if len(links) == 0 {
		return
	}
	errs := r.delete(r.group, links)
	r.count(errs)
	for _, q := range batch {
		if i := place[q.link]; i < len(errs) {
			q.answer <- errs[i]
		} else {
			q.answer <- errors.New("delete link " + q.link.Name + ": no answer")
		}
	}
}

// stop turns everybody away, those who wait and those who come.
func (r *Reaper) stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	for _, q := range r.collect() {
		q.answer <- ErrStopped
	}
}

// finishLeftovers deletes links that a predecessor had marked and not come to.
// They are never adopted: somebody was told, or would have been, that they are gone.
func (r *Reaper) finishLeftovers() {
	ports, err := r.ports()
	if err != nil {
		r.log.Error("reaper: cannot look for links left by a predecessor", "error", err)
		return
	}
	links := Leftovers(ports)
	if len(links) == 0 {
		return
	}
	r.log.Info("reaper: finishing deletions of a predecessor", "links", len(links))
	for i, err := range r.delete(r.group, links) {
		if err != nil {
			r.log.Error("reaper: link left by a predecessor stays", "link", links[i].Name, "error", err)
		}
	}
}

// Marked reports whether a link of that device group is doomed: a reaper, maybe
// of an earlier life of the router, will delete it.
func Marked(group uint32) bool { return group >= firstGroup }

// Leftovers are those ports that are doomed: marked with a reaper's group, and
// attachments by their alias. Who lists the kernel's attachments leaves them out.
func Leftovers(ports []netdev.Port) []netdev.Named {
	var links []netdev.Named
	for _, p := range ports {
		a, err := attachment.ParseAlias(p.Alias)
		if err == nil && Marked(p.Group) {
			links = append(links, netdev.Named{Name: p.Name, Hash: a.Hash})
		}
	}
	return links
}
