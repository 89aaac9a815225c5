// Package hostfw keeps the host's firewall rules of the overlay.
//
// The rules are one nftables table, "inet weave", written by netlink and never
// by a program. Everything that varies is in sets, so the number of rules is the
// same for one network as for a hundred, and a packet of anybody else costs one
// failed lookup. A change replaces the whole table in one transaction: the kernel
// goes from the old rules to the new without a moment of neither. What was
// written is read back and compared, each time.
//
// What the rules do:
//   - traffic of a network that leaves it is masqueraded; what stays in it, what
//     leaves by a bridge of ours and multicast are not;
//   - containers on our bridges reach none of the overlay's own ports, on this
//     host or through it on any other, where masquerade would make them look like
//     this host;
//   - nothing is forwarded out of an internal network, or into it;
//   - VXLAN is taken from peers only;
//   - the gossip library's port on loopback is open to the router's uid only.
//
// They can match nobody else's bridge. They only ever drop: an accept in one
// table does not overrule a drop in another. Where the host drops forwarded
// packets by iptables (Docker does), accepts are therefore put into iptables, and
// only there does this package execute a program.
package hostfw

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
)

// Network is one network of this host, as the firewall sees it.
type Network struct {
	Bridge  string         // the interface's name
	Subnets []netip.Prefix // both families, in any order

	// Internal: nothing is forwarded out of it or into it, and so nothing masqueraded.
	Internal bool
}

// Rules is all that the firewall needs to know. Order and repetition do not matter.
type Rules struct {
	Networks []Network
	Peers    []netip.Addr // underlay addresses that VXLAN may come from

	// The overlay's ports on each host: gossip is TCP, the others UDP. MeshPort is
	// TCP on loopback. 0: there is no such port.
	GossipPort, VXLANPort, TunnelPort, MeshPort uint16

	UID uint32 // the only user that may connect to MeshPort
}

// ErrMismatch says that the kernel holds something else than was written.
var ErrMismatch = errors.New("kernel holds other rules than were written")

// attempts is how often one Apply tries, each time over a new connection.
const attempts = 3

// Firewall writes and watches the rules. Its methods may be called from any
// goroutine; they run one at a time. The rules outlive it: only Remove takes
// them away.
type Firewall struct {
	log *slog.Logger
	ipt *forwarding

	mu   sync.Mutex
	link *link  // nil: to be dialled
	want *Rules // normalised; nil: nothing applied yet
	told Rules  // the same as it was given
	plan plan   // of want
	gen  uint32 // the kernel's generation at which the rules were last seen intact

	repairs uint64
	closed  bool
}

// New opens the connection to nftables in the network namespace of the calling
// thread. It fails where the kernel has no nf_tables or the right is missing.
func New(log *slog.Logger) (*Firewall, error) {
	f := &Firewall{log: log, ipt: newForwarding(log)}
	if _, err := f.dialled(); err != nil {
		return nil, err
	}
	return f, nil
}

// Apply makes the kernel hold exactly these rules. It returns when they are in
// force and have been read back. When only Peers differ from the last call, only
// set elements change; when nothing does and nobody touched the table, nothing.
// After an error the kernel holds the old rules or the new, never a mixture.
func (f *Firewall) Apply(r Rules) error {
	if f.stands(r) {
		return nil
	}
	n, err := normalise(r)
	if err != nil {
		return fmt.Errorf("firewall rules: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = Rules{} // until all of it is in force
	if err := f.applyTable(n, planFor(n)); err != nil {
		return fmt.Errorf("apply table %q: %w", tableName, err)
	}
	if err := f.applyForwarding(n); err != nil {
		return err
	}
	f.told = r
	f.told.Networks, f.told.Peers = slices.Clone(r.Networks), slices.Clone(r.Peers)
	return nil
}

// stands reports whether the very same was applied last, and nobody changed it since.
func (f *Firewall) stands(r Rules) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.want == nil || !reflect.DeepEqual(f.told, r) {
		return false
	}
	intact, err := f.intact()
	return intact && err == nil
}

// applyTable writes what differs, and the whole table when in doubt.
func (f *Firewall) applyTable(n Rules, p plan) error {
	repairs := f.want != nil && reflect.DeepEqual(*f.want, n)
	if f.want != nil {
		if done, err := f.update(n, p); done {
			return nil
		} else if err != nil {
			f.log.Debug("firewall: replacing the table instead of updating it", "err", err)
		}
	}
	var err error
	for range attempts {
		if err = f.commit(p, (*link).replace); err == nil {
			f.want, f.plan = &n, p
			if repairs {
				f.repairs++
			}
			return nil
		}
	}
	return err
}

// update tries the cheap ways. done is true when the kernel holds p now.
func (f *Firewall) update(n Rules, p plan) (done bool, err error) {
	old := f.plan
	switch {
	case reflect.DeepEqual(*f.want, n):
		return f.intact()
	case !onlyPeersDiffer(*f.want, n):
		return false, nil
	}
	err = f.commit(p, func(l *link, p plan) error { return l.updatePeers(old, p) })
	if err != nil {
		return false, err
	}
	f.want, f.plan = &n, p
	return true, nil
}

// commit writes by the given way, reads back and remembers the generation.
func (f *Firewall) commit(p plan, write func(*link, plan) error) error {
	l, err := f.dialled()
	if err != nil {
		return err
	}
	if err := write(l, p); err != nil {
		f.hangUp() // answers may be left in the socket
		return err
	}
	return f.verify(l, p)
}

// verify compares the kernel's table with p. The generation is asked for before
// the comparison, so a change during it is found by the next one.
func (f *Firewall) verify(l *link, p plan) error {
	for range attempts {
		gen, err := l.generation()
		if err != nil {
			f.hangUp()
			return err
		}
		err = l.compare(p)
		if err == nil {
			f.gen = gen
			return nil
		}
		now, genErr := l.generation()
		if genErr != nil || !errors.Is(err, ErrMismatch) {
			f.hangUp()
			return err
		}
		if now == gen { // nobody committed meanwhile: it really differs
			return err
		}
	}
	return fmt.Errorf("%w: or they change faster than they can be read", ErrMismatch)
}

// Intact reports whether the kernel still holds what the last Apply wrote. While
// nobody has changed any nftables rule on the host it costs one netlink message;
// the rules in iptables, where there are any, are looked at when the generation
// changed, or after some seconds where they are kept outside nftables. Before the
// first Apply and after Remove the answer is false.
func (f *Firewall) Intact() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.intact()
}

func (f *Firewall) intact() (bool, error) {
	if f.want == nil {
		return false, nil
	}
	l, err := f.dialled()
	if err != nil {
		return false, err
	}
	gen, err := l.generation()
	if err != nil {
		f.hangUp()
		return false, fmt.Errorf("nftables generation: %w", err)
	}
	changed := gen != f.gen
	if changed {
		if err := f.verify(l, f.plan); errors.Is(err, ErrMismatch) {
			f.log.Warn("firewall: somebody changed our rules", "table", tableName, "err", err)
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return f.ipt.intact(l, f.want.bridges(), changed)
}

// Remove takes away every rule of ours, also those of an earlier process.
func (f *Firewall) Remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want = nil
	l, err := f.dialled()
	if err != nil {
		return err
	}
	err = l.remove()
	if err != nil {
		f.hangUp()
		err = fmt.Errorf("remove table %q: %w", tableName, err)
	}
	l, dialErr := f.dialled()
	if dialErr != nil {
		return errors.Join(err, dialErr)
	}
	return errors.Join(err, f.ipt.sync(l, nil))
}

// Close ends the connection and leaves the rules.
func (f *Firewall) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.hangUp()
}

func (f *Firewall) applyForwarding(n Rules) error {
	l, err := f.dialled()
	if err != nil {
		return err
	}
	if err := f.ipt.sync(l, n.bridges()); err != nil {
		return fmt.Errorf("accept our bridges in iptables: %w", err)
	}
	return nil
}

func (f *Firewall) dialled() (*link, error) {
	if f.closed {
		return nil, errors.New("firewall is closed")
	}
	if f.link == nil {
		l, err := dial()
		if err != nil {
			return nil, fmt.Errorf("open nftables: %w", err)
		}
		f.link = l
	}
	return f.link, nil
}

func (f *Firewall) hangUp() {
	if f.link != nil {
		f.link.close()
		f.link = nil
	}
}
