// Package overlay turns what the hosts say of themselves into what this host's
// kernel must hold to reach them.
//
// Every host publishes single-writer records: one Host, with the address of its
// VXLAN tunnel end, and one Endpoint for each attachment and for its own address
// on each network. View collects them; Plan is the outcome for one network:
// which MAC is behind which host, which address has which MAC, and which hosts
// want broadcasts. Writing it is the router's, by pkg/netdev.
//
//	records of peers ──> View.Apply ──> View.Plan(network) ──> FDB, neighbours
//	kernel at start  ──> View.Inherit ┘
//
// What the kernel held when the router started stays until the host that it
// leads to has spoken: a router that restarts knows nothing of its neighbours
// yet, and its ignorance must not cost a packet.
package overlay

import (
	"bytes"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Keys of the records: HostKey, and EndpointPrefix + attachment.Key.Hash.
const (
	HostKey        = "host"
	EndpointPrefix = "ep/"
)

// Host is what a host says of itself.
type Host struct {
	MemberID uint64           `cbor:"1,keyasint"`
	VTEP     netip.Addr       `cbor:"2,keyasint"`
	Gossip   []netip.AddrPort `cbor:"3,keyasint"`
}

// Endpoint is an attachment as other hosts see it.
type Endpoint struct {
	Network string           `cbor:"1,keyasint"` // the ledger's name
	MAC     net.HardwareAddr `cbor:"2,keyasint"` // empty: not on the network's bridge (another main plugin made it)
	Addrs   []netip.Addr     `cbor:"3,keyasint"`
	Names   []string         `cbor:"4,keyasint,omitempty"`
	Bridge  bool             `cbor:"5,keyasint,omitempty"` // the host's own address; it wants no broadcasts

	// Of each name. The name table leaves out what it cannot answer.
	Services []Service `cbor:"6,keyasint,omitempty"`
	Texts    []string  `cbor:"7,keyasint,omitempty"`
}

// Service is a port that an endpoint offers.
type Service struct {
	Name     string `cbor:"1,keyasint"` // "http"
	Protocol string `cbor:"2,keyasint"` // "tcp"
	Port     uint16 `cbor:"3,keyasint"`
}

// Limits on one endpoint, so that a faulty member cannot fill every kernel.
const (
	maxAddrs = 32
	// MaxNames is how many names an endpoint may have.
	MaxNames = 64
)

// Valid reports whether the endpoint may reach a kernel or a name table.
func (e Endpoint) Valid() bool {
	if len(e.Addrs) > maxAddrs || len(e.Names) > MaxNames || len(e.Network) == 0 || len(e.Network) > 255 {
		return false
	}
	if len(e.MAC) != 0 && (len(e.MAC) != 6 || e.MAC[0]&1 != 0) {
		return false
	}
	return !slices.ContainsFunc(e.Addrs, func(a netip.Addr) bool {
		return !a.IsValid() || a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.Zone() != "" || a.Is4In6()
	})
}

// Valid reports whether the host's tunnel end is an address that one can send to.
func (h Host) Valid() bool {
	a := h.VTEP
	return a.IsValid() && !a.IsMulticast() && !a.IsLoopback() && !a.IsUnspecified() && a.Zone() == "" && !a.Is4In6() &&
		len(h.Gossip) <= maxAddrs
}

// Remote is one endpoint elsewhere, resolved to its host's tunnel end.
type Remote struct {
	Host  gossip.Peer // "" when it is inherited and nobody has claimed it yet
	MAC   net.HardwareAddr
	VTEP  netip.Addr
	Addrs []netip.Addr
}

// Plan is what the kernel must hold for one network, in a stable order.
type Plan struct {
	Remotes []Remote
	Flood   []netip.Addr // the tunnel ends of hosts with members
}

// View is all hosts' records, less one's own. Its methods may be called from any goroutine.
type View struct {
	mu        sync.Mutex
	hosts     map[gossip.Peer]Host
	endpoints map[gossip.Peer]map[string]Endpoint // by record key
	on        map[string]map[teller]Endpoint      // the same by network
	inherited map[string]Plan                     // by network, from the kernel at start
	links     map[gossip.Peer]Links
	changed   Changed                        // since TakeChanged was called
	uses      map[gossip.Peer]map[string]int // by the network's id
}

// teller is a record: whose, and its key.
type teller struct {
	origin gossip.Peer
	key    string
}

// NewView returns an empty view.
func NewView() *View {
	return &View{
		hosts:     map[gossip.Peer]Host{},
		endpoints: map[gossip.Peer]map[string]Endpoint{},
		on:        map[string]map[teller]Endpoint{},
		inherited: map[string]Plan{},
		links:     map[gossip.Peer]Links{},
		uses:      map[gossip.Peer]map[string]int{},
	}
}

// Inherit notes what the kernel already holds for a network.
func (v *View) Inherit(network string, p Plan) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inherited[network] = p
	v.changed.touch(network)
}

// Disinherit drops what was inherited: every member has spoken, and what nobody
// claims is nobody's.
func (v *View) Disinherit() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for network := range v.inherited {
		v.changed.touch(network)
	}
	clear(v.inherited)
}

// SetHost notes a host's record; a nil h says that it has none any more.
func (v *View) SetHost(origin gossip.Peer, h *Host) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.changed.all = true
	if h == nil || !h.Valid() {
		delete(v.hosts, origin)
		return
	}
	v.hosts[origin] = *h
}

// SetEndpoint notes an endpoint's record; a nil e says that it is gone.
func (v *View) SetEndpoint(origin gossip.Peer, key string, e *Endpoint) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if was, there := v.endpoints[origin][key]; there {
		v.changed.touch(was.Network)
		delete(v.endpoints[origin], key)
		if delete(v.on[was.Network], teller{origin, key}); len(v.on[was.Network]) == 0 {
			delete(v.on, was.Network)
		}
	}
	if e == nil || !e.Valid() {
		return
	}
	v.changed.touch(e.Network)
	if v.endpoints[origin] == nil {
		v.endpoints[origin] = map[string]Endpoint{}
	}
	v.endpoints[origin][key] = *e
	if v.on[e.Network] == nil {
		v.on[e.Network] = map[teller]Endpoint{}
	}
	v.on[e.Network][teller{origin, key}] = *e
}

// Hosts lists the hosts that have spoken.
func (v *View) Hosts() map[gossip.Peer]Host {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.hosts)
}

// HolderOfMAC is the host that has an endpoint of that MAC on a network.
func (v *View) HolderOfMAC(network string, mac net.HardwareAddr) (host gossip.Peer, taken bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for from, e := range v.on[network] {
		if bytes.Equal(e.MAC, mac) {
			return from.origin, true
		}
	}
	return "", false
}

// HoldersOf finds, of some addresses of a network, those that a host says it has, and
// that host: of several the first by name.
func (v *View) HoldersOf(network string, addrs map[netip.Addr]bool) map[netip.Addr]gossip.Peer {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[netip.Addr]gossip.Peer{}
	for from, e := range v.on[network] {
		for _, a := range e.Addrs {
			if had, ok := out[a]; addrs[a] && (!ok || from.origin < had) {
				out[a] = from.origin
			}
		}
	}
	return out
}

// VTEPs lists the tunnel ends that may send to us: those of all hosts that have
// spoken and those inherited, sorted.
func (v *View) VTEPs() []netip.Addr {
	v.mu.Lock()
	defer v.mu.Unlock()
	seen := map[netip.Addr]bool{}
	for _, h := range v.hosts {
		seen[h.VTEP] = true
	}
	for _, p := range v.inherited {
		for _, a := range p.Flood {
			seen[a] = true
		}
		for _, r := range p.Remotes {
			seen[r.VTEP] = true
		}
	}
	return sorted(seen)
}

// Plan works out one network.
func (v *View) Plan(network string) Plan {
	v.mu.Lock()
	defer v.mu.Unlock()
	var p Plan
	flood := map[netip.Addr]bool{}
	spoken := map[netip.Addr]bool{}
	known := map[string]bool{} // MACs that somebody claims, as bytes
	for _, h := range v.hosts {
		spoken[h.VTEP] = true
	}
	for from, e := range v.on[network] {
		h, told := v.hosts[from.origin]
		if !told || len(e.MAC) == 0 {
			continue
		}
		p.Remotes = append(p.Remotes, Remote{from.origin, e.MAC, h.VTEP, e.Addrs})
		known[string(e.MAC)] = true
		if !e.Bridge {
			flood[h.VTEP] = true
		}
	}
	v.inherit(network, &p, flood, spoken, known)
	p.Flood = sorted(flood)
	slices.SortFunc(p.Remotes, func(a, b Remote) int {
		if c := strings.Compare(string(a.MAC), string(b.MAC)); c != 0 {
			return c
		}
		return strings.Compare(string(a.Host), string(b.Host))
	})
	// One MAC has one place: of two hosts that claim it, the first by name.
	p.Remotes = slices.CompactFunc(p.Remotes, func(a, b Remote) bool { return string(a.MAC) == string(b.MAC) })
	return p
}

// inherit adds what the kernel held and leads to tunnel ends that have not spoken.
func (v *View) inherit(network string, p *Plan, flood, spoken map[netip.Addr]bool, known map[string]bool) {
	was := v.inherited[network]
	for _, r := range was.Remotes {
		if !spoken[r.VTEP] && !known[string(r.MAC)] {
			p.Remotes = append(p.Remotes, r)
		}
	}
	for _, a := range was.Flood {
		if !spoken[a] {
			flood[a] = true
		}
	}
}

// Endpoints lists an origin's endpoints by record key.
func (v *View) Endpoints(origin gossip.Peer) map[string]Endpoint {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.endpoints[origin])
}

// EndpointsOn lists a network's endpoints of the hosts that have spoken.
func (v *View) EndpointsOn(network string) map[gossip.Peer][]Endpoint {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[gossip.Peer][]Endpoint{}
	for from, e := range v.on[network] {
		if _, told := v.hosts[from.origin]; told {
			out[from.origin] = append(out[from.origin], e)
		}
	}
	return out
}

func sorted(set map[netip.Addr]bool) []netip.Addr {
	out := make([]netip.Addr, 0, len(set))
	for a := range set {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
