package overlay

import (
	"maps"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// LinksKey is the key of the record of a host's links. A host that does not know of it
// passes it over.
const LinksKey = "links"

// MaxLinks bounds what one host tells of its links.
const MaxLinks = 64

// Links is what a host says of its connections to others, so that each host can show a
// picture of all of them. Nothing is decided by it.
type Links struct {
	To []Link `cbor:"1,keyasint"`
}

// Link is how things stand with one other host.
type Link struct {
	Peer  string    `cbor:"1,keyasint"`
	State LinkState `cbor:"2,keyasint"`
}

// LinkState is the state of a link; of two that differ the lower is the better one.
type LinkState uint8

// The states. Others may come: they are shown as Dialling.
const (
	LinkConnected LinkState = 1
	LinkRelayed   LinkState = 2 // reached through others
	LinkRefused   LinkState = 3
	LinkDialling  LinkState = 4
)

// Valid reports whether the record is one that a host writes: of bounded size, with
// names that can be printed.
func (l Links) Valid() bool {
	if len(l.To) > MaxLinks {
		return false
	}
	for _, to := range l.To {
		if len(to.Peer) == 0 || len(to.Peer) > gossip.MaxPeer || strings.ContainsFunc(to.Peer, unprintable) {
			return false
		}
	}
	return true
}

// unprintable is what would do something to a terminal, and what is no text.
func unprintable(r rune) bool { return !strconv.IsPrint(r) || r == utf8.RuneError }

// SetLinks notes what a host says of its links; nil says that it says nothing any more.
func (v *View) SetLinks(origin gossip.Peer, l *Links) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l == nil || !l.Valid() {
		delete(v.links, origin)
		return
	}
	v.links[origin] = *l
}

// Links are what the hosts say of their links. The lists are not to be changed.
func (v *View) Links() map[gossip.Peer]Links {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.links)
}

// Members counts the containers' endpoints of each network, by host.
func (v *View) Members() map[string]map[gossip.Peer]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[string]map[gossip.Peer]int{}
	for origin, endpoints := range v.endpoints {
		for _, e := range endpoints {
			if e.Bridge {
				continue
			}
			if out[e.Network] == nil {
				out[e.Network] = map[gossip.Peer]int{}
			}
			out[e.Network][origin]++
		}
	}
	return out
}
