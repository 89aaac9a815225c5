package meshlink

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weaveworks/mesh"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// lookEvery is how often mesh is asked who is reachable, besides when it says
// that its routes have changed.
const lookEvery = time.Second

// doubtFor is how long a peer whose connection with us broke is left out of Peers
// although mesh says that others reach it. mesh's topology is up to 1.1 s late, and
// mostly the others have lost it too. Messages are sent that way all the same.
const doubtFor = 1500 * time.Millisecond

// lostLately is how long after that its name in mesh's topology is no proof that it lives.
const lostLately = 5 * time.Second

// doubts are the peers whose connection with us has just broken.
type doubts struct {
	mu   sync.Mutex
	lost map[mesh.PeerName]time.Time
}

func (d *doubts) add(m mesh.PeerName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost == nil {
		d.lost = map[mesh.PeerName]time.Time{}
	}
	maps.DeleteFunc(d.lost, func(_ mesh.PeerName, when time.Time) bool { return time.Since(when) > lostLately })
	d.lost[m] = time.Now()
}

// about reports whether the connection with a peer broke within the last while.
func (d *doubts) about(m mesh.PeerName, while time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	when, ok := d.lost[m]
	return ok && time.Since(when) <= while
}

// lose is what the carrier calls when a connection broke.
func (l *Link) lose(p gossip.Peer) {
	l.doubts.add(meshName(p))
	l.stir()
}

// view is who is reachable, as mesh last told. It never changes once it is stored.
type view struct {
	uid        map[mesh.PeerName]mesh.PeerUID // of every reachable host, named or not
	peers      []gossip.Peer                  // those with a name, sorted
	neighbours []gossip.Peer
}

func (v *view) reaches(m mesh.PeerName) bool {
	_, ok := v.uid[m]
	return ok
}

// bell wakes whoever waits for a change.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

// heard is closed at the next ring.
func (b *bell) heard() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// watch keeps the view true until ctx ends.
func (l *Link) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	asked := map[mesh.PeerName]time.Time{}
	for {
		l.look()
		l.askNames(asked)
		select {
		case <-ctx.Done():
			l.publish(&view{})
			return
		case <-tick.C:
		case <-l.stirred:
		}
	}
}

// stir makes watch look again. It is what mesh calls when its routes change, from
// inside its locks, and so does nothing else.
func (l *Link) stir() {
	select {
	case l.stirred <- struct{}{}:
	default:
	}
}

// look asks mesh who is reachable.
func (l *Link) look() {
	for _, s := range l.carrier.Status() {
		if s.Hello.Name != "" {
			m := meshName(s.Hello.Name)
			l.names.met(m, s.Hello.Name)
			l.names.told(m, s.Hello.MemberID)
		}
	}
	v := &view{uid: map[mesh.PeerName]mesh.PeerUID{}}
	for _, d := range l.router.Peers.Descriptions() {
		hop, ok := l.router.Routes.UnicastAll(d.Name)
		if d.Self || !ok || hop == mesh.UnknownPeerName {
			continue
		}
		v.uid[d.Name] = d.UID
		k, named := l.names.seen(d.Name, d.UID)
		direct := hop == d.Name
		if !named || !direct && l.doubts.about(d.Name, doubtFor) {
			continue
		}
		v.peers = append(v.peers, k.name)
		if direct {
			v.neighbours = append(v.neighbours, k.name)
		}
	}
	slices.Sort(v.peers)
	slices.Sort(v.neighbours)
	l.names.keep(v.reaches)
	l.publish(v)
}

func (l *Link) publish(v *view) {
	old := l.view.Swap(v)
	if !slices.Equal(old.peers, v.peers) || !slices.Equal(old.neighbours, v.neighbours) {
		l.changed.ring()
	}
}

// askNames asks the reachable hosts that have no name yet, or that have
// restarted, who they are; each once a second until it answers.
func (l *Link) askNames(asked map[mesh.PeerName]time.Time) {
	now, v := time.Now(), l.view.Load()
	for m := range v.uid {
		if k, ok := l.names.get(m); ok && k.memberID != 0 {
			continue
		}
		if now.Sub(asked[m]) >= lookEvery {
			asked[m] = now
			l.announce(m, true)
		}
	}
	maps.DeleteFunc(asked, func(m mesh.PeerName, _ time.Time) bool { return !v.reaches(m) })
}
