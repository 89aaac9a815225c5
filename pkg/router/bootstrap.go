package router

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/weave-cni/weave-cni/pkg/founding"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

const (
	foundingNote  = "founding" // among the notes of the state directory
	foundingTick  = time.Second / 10
	foundingQueue = 256 // messages
)

// founders is this host's part in founding a cluster together with others. After
// the cluster stands it goes on answering those who were away.
type founders struct {
	core  *founding.Core
	inbox chan foundingMessage
	aside string // why this host takes no part; "" where it does

	waiting string // guarded by Router.mu
}

type foundingMessage struct {
	from gossip.Peer
	msg  []byte
}

// openFounders reads how far the founding had come. It is nil on a host that was not
// told to found together with others.
func (r *Router) openFounders() (*founders, error) {
	if len(r.config.Bootstrap) == 0 {
		return nil, nil
	}
	c := founding.Config{
		Self:    founding.Host{Name: r.id.Name(), ID: ledger.MemberID(r.id.MemberID())},
		Cluster: rand.Text(),
		Network: r.firstNetwork(),
	}
	for _, name := range r.config.Bootstrap {
		c.Hosts = append(c.Hosts, gossip.Peer(name))
	}
	note, err := r.store.Get(foundingNote)
	if err == nil && note != nil {
		err = r.codec.Decode(note, &c.Saved)
	}
	if err != nil {
		return nil, fmt.Errorf("read how far the founding had come: %w", err)
	}
	core, err := founding.New(c)
	if err != nil {
		return nil, err
	}
	return &founders{core: core, inbox: make(chan foundingMessage, foundingQueue)}, nil
}

// checkFounding refuses to offer a range that cannot be had here, and keeps a host out
// whose kernel says that it has lost its membership of a cluster: that one may stand.
// It is for a router whose ledger is open.
func (r *Router) checkFounding() error {
	f := r.founders
	if f == nil || f.core.Decided() != nil || r.replica.State().Cluster() != "" {
		return nil
	}
	if err := r.checkRanges(r.config.Ranges); err != nil {
		return err
	}
	leads, n, err := leadsElsewhere()
	if leads {
		f.aside = notTakingPart(n)
	}
	return err
}

// notTakingPart says why a host has no part in founding, and what to do.
func notTakingPart(endpoints int) string {
	return fmt.Sprintf("this host takes no part in founding: it was in a cluster, its kernel still leads to %d endpoints on other hosts, and it waits to join them again; "+
		"if no host has a cluster any more, run `ip link del %s` on all that are to found, and start their routers again", endpoints, DefaultDevice)
}

// decided is the command that founds the cluster, when it was decided that this host
// does; nil else.
func (f *founders) decided(self ledger.MemberID) *ledger.Command {
	if f == nil || f.core.Decided() == nil || f.core.Decided().Founder.ID != self {
		return nil
	}
	v := f.core.Decided()
	return &ledger.Command{Found: &ledger.Found{Cluster: v.Cluster, Network: *v.Network}}
}

// receive runs on the carrier's goroutine: it only queues. Who is not heard asks again.
func (f *founders) receive(from gossip.Peer, msg []byte) {
	select {
	case f.inbox <- foundingMessage{from, append([]byte(nil), msg...)}:
	default:
	}
}

// hear takes a message. A host that has a cluster, or has been in one, does not take part
// in founding another; what was decided it goes on telling.
func (f *founders) hear(m foundingMessage, stands bool) {
	if f.core.Decided() != nil || !stands && f.aside == "" {
		f.core.Receive(m.from, m.msg)
	}
}

// tick is a tenth of a second.
func (f *founders) tick(stands bool) {
	if !stands && f.aside == "" {
		f.core.Tick()
	}
}

// bootstrap takes part in the founding. When it was decided that this host founds, it
// ends the router's life: the next one does.
func (r *Router) bootstrap(ctx context.Context) error {
	f := r.founders
	if f == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(foundingTick)
	defer tick.Stop()
	for {
		if err := r.settleFounding(f); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case m := <-f.inbox:
			f.hear(m, r.replica.State().Cluster() != "")
		case <-tick.C:
			f.tick(r.replica.State().Cluster() != "")
		}
	}
}

// settleFounding makes durable what must be, and sends.
func (r *Router) settleFounding(f *founders) error {
	for f.core.Pending() {
		saved, changed := f.core.Begin()
		if changed {
			note, err := r.codec.Encode(saved)
			if err == nil {
				err = r.store.Put(foundingNote, note)
			}
			if err != nil {
				return fmt.Errorf("note how far the founding has come: %w", err)
			}
		}
		for _, o := range f.core.Finish() {
			if err := r.link.Send(o.To, gossip.Founding, o.Msg); err != nil {
				r.log.Debug("founding: not sent", "to", o.To, "error", err)
			}
		}
	}
	if r.replica.State().Cluster() == "" && f.decided(ledger.MemberID(r.id.MemberID())) != nil {
		return errFounds
	}
	r.mu.Lock()
	f.waiting = cmp.Or(f.aside, f.core.Waiting())
	r.mu.Unlock()
	return nil
}

// andJoins adds what joining waits for, once somebody is there to join.
func andJoins(founding string, s replica.Status) string {
	if s.Alone || s.Waiting == "" {
		return founding
	}
	return founding + "; if a cluster stands already: " + s.Waiting
}

// foundingWaits says what the founding waits for; "" when there is none, or a cluster stands.
func (r *Router) foundingWaits() string {
	if r.founders == nil || r.replica.State().Cluster() != "" {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.founders.waiting
}
