package router

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/weave-cni/weave-cni/pkg/founding"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
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
			f.core.Receive(m.from, m.msg)
		case <-tick.C:
			if r.replica.State().Cluster() == "" {
				f.core.Tick()
			}
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
	f.waiting = f.core.Waiting()
	r.mu.Unlock()
	return nil
}

// foundingWaits says what the founding waits for; "" when there is none, or it is over.
func (r *Router) foundingWaits() string {
	if r.founders == nil || r.replica.State().Cluster() != "" {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.founders.waiting
}
