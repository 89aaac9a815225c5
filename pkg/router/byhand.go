package router

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/record"
)

// handNote is the name of the note, in the state directory, with the names by hand.
const handNote = "names-by-hand"

// mostHandAddrs bounds the addresses of one name.
const mostHandAddrs = 16

// byHand are the names that were added by hand on this host. They are on disk before
// anybody is answered with them, and go with their network.
type byHand struct {
	mu   sync.Mutex
	list []handName
	told map[string]string // by key: the records as the table and the others have them
}

// handName is one of them, as on disk. The network is known by its id: another of its
// name is another one.
type handName struct {
	NetID string       `cbor:"1,keyasint"`
	Name  string       `cbor:"2,keyasint"`
	Addrs []netip.Addr `cbor:"3,keyasint"`
}

func (h handName) key() string {
	sum := sha256.Sum256([]byte(h.NetID + "\x00" + h.Name))
	return overlay.HandPrefix + hex.EncodeToString(sum[:16])
}

// is reports whether it is the one of that name on a network.
func (h handName) is(netID, name string) bool { return h.NetID == netID && h.Name == name }

// loadByHand reads them. That it cannot is no reason not to start.
func (r *Router) loadByHand() {
	note, err := r.store.Get(handNote)
	if err == nil && note != nil {
		err = r.codec.Decode(note, &r.byHand.list)
	}
	if err != nil {
		r.byHand.list = nil
		r.log.Error("names that were added by hand are forgotten: add them again with `weave dns add`", "error", err)
	}
}

// keepByHand puts another list in the place of this one, on disk first. r.byHand.mu is held.
func (r *Router) keepByHand(next []handName) error {
	note, err := r.codec.Encode(next)
	if err == nil {
		err = r.store.Put(handNote, note)
	}
	if err != nil {
		return &ctl.Error{Code: ctl.CodeInternal, Msg: "the names stay as they were", Details: err.Error()}
	}
	r.byHand.list = next
	return nil
}

// followByHand tells the others of the names by hand, whenever their networks become known,
// and drops those whose network is gone for good.
func (r *Router) followByHand(ctx context.Context) error {
	for {
		changed := r.replica.Changed()
		r.byHand.mu.Lock()
		if err := r.tellByHand(); err != nil {
			r.log.Error("names that were added by hand", "error", err)
		}
		r.byHand.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// tellByHand brings the records to what the list and the ledger say. r.byHand.mu is held.
func (r *Router) tellByHand() error {
	if len(r.byHand.list) == 0 || r.replica.State().Cluster() == "" {
		return nil
	}
	networks := map[string]ledger.Network{}
	for _, n := range r.replica.State().Networks() {
		networks[n.ID] = n
	}
	kept, err := r.tellEach(networks, r.replica.Ready())
	if len(kept) < len(r.byHand.list) {
		err = errors.Join(err, r.keepByHand(kept))
	}
	return err
}

// tellEach tells of each name whose network is known. all says that there are no other
// networks. It gives the names that stay; one that cannot be told hides no other.
func (r *Router) tellEach(networks map[string]ledger.Network, all bool) (kept []handName, err error) {
	for _, h := range r.byHand.list {
		n, known := networks[h.NetID]
		if !known && all {
			r.log.Info("a name that was added by hand is gone with its network", "name", h.Name)
			r.untellByHand(h)
			continue
		}
		kept = append(kept, h)
		if known {
			err = errors.Join(err, r.tellOne(n, h))
		}
	}
	return kept, err
}

// tellOne tells of a name where that is news. What cannot be told to the others is not
// answered here either.
func (r *Router) tellOne(n ledger.Network, h handName) error {
	told := overlay.HandName{Network: n.Name, Name: h.Name, Addrs: h.Addrs}
	b, err := r.codec.Encode(told)
	if err != nil {
		return err
	}
	if string(r.exchange.Get(r.id.Name(), h.key())) != string(b) {
		if err := r.exchange.Put(h.key(), b); err != nil {
			return fmt.Errorf("tell the other hosts of %s: %w", h.Name, err)
		}
	}
	if r.byHand.told[h.key()] == string(b) {
		return nil
	}
	if r.byHand.told == nil {
		r.byHand.told = map[string]string{}
	}
	r.byHand.told[h.key()] = string(b)
	r.table.PutSet(h.key(), handSet(r.id.Name(), told))
	return nil
}

func (r *Router) untellByHand(h handName) {
	delete(r.byHand.told, h.key())
	r.table.Drop(h.key())
	r.exchange.Delete(h.key())
}

func handSet(origin gossip.Peer, h overlay.HandName) names.Set {
	return names.Set{Network: h.Network, Host: string(origin), Names: []string{h.Name}, Addrs: h.Addrs, ByHand: true}
}

// handChanged hears of another host's names by hand.
func (r *Router) handChanged(c record.Change) {
	owner := nameOwner(c.Origin, c.Key)
	var h overlay.HandName
	if c.New == nil {
		r.table.Drop(owner)
		return
	}
	if err := r.codec.Decode(c.New, &h); err != nil || !h.Valid() {
		r.log.Warn("name by hand not understood", "host", c.Origin, "key", c.Key, "error", err)
		r.table.Drop(owner)
		return
	}
	r.table.PutSet(owner, handSet(c.Origin, h))
}

// apiDNSAdd adds addresses to a name.
func (r *Router) apiDNSAdd(_ context.Context, in ctl.HandName) (ctl.HandName, error) {
	n, name, err := r.handNamed(in)
	if err == nil {
		err = checkHandAddrs(in.Addresses)
	}
	if err != nil {
		return ctl.HandName{}, err
	}
	r.byHand.mu.Lock()
	defer r.byHand.mu.Unlock()
	before, next := r.byHand.list, slices.Clone(r.byHand.list)
	i := slices.IndexFunc(next, func(h handName) bool { return h.is(n.ID, name) })
	if i < 0 {
		i, next = len(next), append(next, handName{NetID: n.ID, Name: name})
	}
	next[i].Addrs = slices.Clone(next[i].Addrs)
	for _, a := range in.Addresses {
		if a = a.Unmap(); !slices.Contains(next[i].Addrs, a) {
			next[i].Addrs = append(next[i].Addrs, a)
		}
	}
	switch {
	case len(next) > ctl.MaxHandNames:
		return ctl.HandName{}, ctl.Errorf(ctl.CodeInvalidConfig, "%d names are added by hand on this host, more are not taken: `weave dns remove` some", ctl.MaxHandNames)
	case len(next[i].Addrs) > mostHandAddrs:
		return ctl.HandName{}, ctl.Errorf(ctl.CodeInvalidConfig, "%s would have %d addresses, at most %d are taken", name, len(next[i].Addrs), mostHandAddrs)
	}
	if err := r.keepByHand(next); err != nil {
		return ctl.HandName{}, err
	}
	if err := r.tellOne(n, next[i]); err != nil {
		return ctl.HandName{}, errors.Join(err, r.keepByHand(before))
	}
	return ctl.HandName{
		Name: name, Network: n.Name, Addresses: next[i].Addrs,
		Remarks: handRemarks(name, r.config.DNSDomain, n, r.sharing(n, name)),
	}, nil
}

// sharing are the records of one name that are not by hand on this host.
func (r *Router) sharing(n ledger.Network, name string) []names.Record {
	return slices.DeleteFunc(r.table.All(), func(rec names.Record) bool {
		return rec.Network != n.Name || rec.Name != name || rec.ByHand && rec.Host == string(r.id.Name())
	})
}

// handRemarks are what is said of a name that was added: that a resolver asks elsewhere
// first, and who is called so besides.
func handRemarks(name, domain string, n ledger.Network, sharing []names.Record) (out []string) {
	if strings.Contains(name, ".") && !n.Internal {
		out = append(out, fmt.Sprintf("%s has a dot, so resolvers ask the upstream servers first: for sure it is %s.%s", name, name, domain))
	}
	const most = 3
	for _, rec := range sharing[:min(len(sharing), most)] {
		who := "a container on host " + rec.Host
		switch {
		case rec.ByHand:
			who = "by hand on host " + rec.Host
		case rec.Name == strings.ToLower(rec.Host):
			who = "host " + rec.Host
		}
		out = append(out, fmt.Sprintf("%s is also %s (%s): who asks gets all addresses", name, rec.Addr, who))
	}
	if more := len(sharing) - most; more > 0 {
		out = append(out, fmt.Sprintf("and %s; see `weave status dns`", amount(more, "address more", "addresses more")))
	}
	return out
}

// apiDNSRemove takes addresses away from a name, or all of it.
func (r *Router) apiDNSRemove(_ context.Context, in ctl.HandName) (ctl.HandName, error) {
	n, name, err := r.handNamed(in)
	if err != nil {
		return ctl.HandName{}, err
	}
	r.byHand.mu.Lock()
	defer r.byHand.mu.Unlock()
	i := slices.IndexFunc(r.byHand.list, func(h handName) bool { return h.is(n.ID, name) })
	if i < 0 {
		return ctl.HandName{}, r.notByHand(n.Name, name)
	}
	was, left := r.byHand.list[i], []netip.Addr(nil)
	for _, a := range in.Addresses {
		if !slices.Contains(was.Addrs, a.Unmap()) {
			return ctl.HandName{}, ctl.Errorf(ctl.CodeInvalidConfig, "%s has no address %s by hand, it has %v", name, a, was.Addrs)
		}
	}
	if len(in.Addresses) > 0 {
		left = slices.DeleteFunc(slices.Clone(was.Addrs), func(a netip.Addr) bool {
			return slices.ContainsFunc(in.Addresses, func(x netip.Addr) bool { return x.Unmap() == a })
		})
	}
	out := ctl.HandName{Name: name, Network: n.Name, Addresses: left}
	next := slices.Clone(r.byHand.list)
	if next[i].Addrs = left; len(left) > 0 {
		if err := r.keepByHand(next); err != nil {
			return ctl.HandName{}, err
		}
		return out, r.tellOne(n, next[i])
	}
	if err := r.keepByHand(slices.Delete(next, i, i+1)); err != nil {
		return ctl.HandName{}, err
	}
	r.untellByHand(was)
	return out, nil
}

// notByHand says why a name cannot be removed here.
func (r *Router) notByHand(network, name string) error {
	for _, rec := range r.table.All() {
		switch {
		case rec.Network != network || rec.Name != name:
		case rec.ByHand:
			return ctl.Errorf(ctl.CodeWrongHost, "%s was added on host %s: remove it there", name, rec.Host)
		default:
			return ctl.Errorf(ctl.CodeInvalidConfig, "%s was not added by hand: it is the name of a container or host at %s, on host %s, and goes with that", name, rec.Addr, rec.Host)
		}
	}
	return ctl.Errorf(ctl.CodeInvalidConfig, "no name %s was added on network %s: `weave status dns` lists those that there are", name, network)
}

// handNamed finds the network and the name that a request means.
func (r *Router) handNamed(in ctl.HandName) (ledger.Network, string, error) {
	n, err := r.networkAsked(in.Network)
	if err != nil {
		return ledger.Network{}, "", err
	}
	name, err := handNameOf(in.Name, r.config.DNSDomain, n, r.replica.State().Networks())
	return n, name, err
}

// networkAsked is a network by what a person called it, the default one where nothing is said.
func (r *Router) networkAsked(ref string) (ledger.Network, error) {
	if r.replica.State().Cluster() == "" {
		return ledger.Network{}, &ctl.Error{Code: ctl.CodeTryAgain, Msg: "the networks are not known on this host yet", Details: r.waiting()}
	}
	if ref == "" {
		ref = DefaultNetwork
	}
	return resolve(r.replica.State().Networks(), ref)
}

// handNameOf is the name as the table is to have it: below the domain, in DNS' own form. It
// refuses what would mean something else to whoever asks.
func handNameOf(asked, domain string, n ledger.Network, networks []ledger.Network) (string, error) {
	refuse := func(format string, args ...any) (string, error) {
		return "", ctl.Errorf(ctl.CodeInvalidConfig, "name %.80q "+format, append([]any{asked}, args...)...)
	}
	if _, err := netip.ParseAddr(asked); err == nil {
		return refuse("is an address: want NAME, then its addresses")
	}
	name, err := names.ValidName(asked)
	if err != nil {
		return "", ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	label := func(n ledger.Network) string { return strings.ToLower(n.Name) }
	if whole, ok := strings.CutSuffix(name, "."+domain); ok {
		name = strings.TrimSuffix(whole, "."+label(n))
	}
	if name == domain || name == "localhost" {
		return refuse("is nobody's to give")
	}
	for _, other := range networks {
		if name == label(other) {
			return refuse("is that of a network: %s.%s stands for its names", name, domain)
		}
		if short, ok := strings.CutSuffix(name, "."+label(other)); ok {
			return refuse("reads as %s of network %s: want %s, with --network %s", short, other.Name, short, other.Name)
		}
	}
	if strings.HasPrefix(name, "_") || strings.Contains(name, "._") {
		return refuse("is that of a service: parts that begin with '_' are not taken")
	}
	return name, nil
}

// checkHandAddrs refuses what no name can lead to.
func checkHandAddrs(addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return ctl.Errorf(ctl.CodeInvalidConfig, "no address given")
	}
	for _, a := range addrs {
		if !(overlay.Endpoint{Network: "any", Addrs: []netip.Addr{a.Unmap()}}).Valid() {
			return ctl.Errorf(ctl.CodeInvalidConfig, "address %s: want one that a container can reach", fmt.Sprint(a))
		}
	}
	return nil
}
