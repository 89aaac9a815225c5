package carrier

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/identity"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// Version is what this program speaks between routers, oldest the oldest that it
// still understands.
const (
	Version = 1
	oldest  = 1
)

// Hello is what a router says of itself to another before anything else, inside
// TLS, where both have shown that they hold the secret. The carrier fills in all
// but Cluster and VXLAN, and checks what it fills in against the sender's certificate.
type Hello struct {
	Version     int         `cbor:"1,keyasint"`
	Oldest      int         `cbor:"2,keyasint"` // the oldest version that it understands
	Name        gossip.Peer `cbor:"3,keyasint"`
	Incarnation uint64      `cbor:"4,keyasint"`
	MemberID    uint64      `cbor:"5,keyasint"`
	Cluster     string      `cbor:"6,keyasint"` // id, "" as long as the sender knows none

	// VXLAN is the UDP port of the sender's overlay, 0 of one that does not say.
	VXLAN uint16 `cbor:"7,keyasint,omitempty"`
}

// greeting is a Hello with its proof: the sender's certificate, and its
// signature over a value that only the two ends of this very connection know.
type greeting struct {
	Hello Hello  `cbor:"1,keyasint"`
	Cert  []byte `cbor:"2,keyasint"`
	Sig   []byte `cbor:"3,keyasint"`
}

// verdict is the answer to a greeting.
type verdict struct {
	Code  code   `cbor:"1,keyasint"`
	Words string `cbor:"2,keyasint"` // why not, for the other side's log
	Seq   uint64 `cbor:"3,keyasint"` // of two connections that were accepted, the higher one stays
}

type code uint8

const (
	welcome   code = iota
	refused        // by the router: other cluster, …
	conflict       // another host has this name
	mismatch       // of version, or of Hello and certificate
	duplicate      // there is a connection already: nothing is wrong
	myself         // the connection leads to the router that made it: nothing is wrong
	full           // as many peers as there may be
	twin           // another router that lives has the same state directory, or a copy
)

// Refusal is why two routers do not talk, in words for both operators.
type Refusal struct {
	Code   code
	Words  string
	Remote bool // the other side refused
	Peer   gossip.Peer
	Member uint64 // the peer's, 0 where it has not proven which
}

func (r *Refusal) Error() string {
	if r.Remote {
		return fmt.Sprintf("%s refuses us: %s", r.Peer, r.Words)
	}
	return fmt.Sprintf("we refuse %s: %s", r.Peer, r.Words)
}

// quiet reports a refusal that is part of normal life.
func (r *Refusal) quiet() bool { return r.Code == duplicate || r.Code == myself }

// passes reports a refusal for the sake of another session of that name. It ends
// with that session, within silence if the router at its far end is dead.
func (r *Refusal) passes() bool { return r.Code == twin || r.Code == conflict }

// maxWords bounds what a peer can put into our log, in bytes.
const maxWords = 512

// plain makes words of another host safe for a log line.
func plain(words string) string {
	if len(words) > maxWords {
		words = words[:maxWords] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(words, "?"))
}

const bindingLabel = "EXPORTER-weave-hello-1"

// proofOf is what a side signs to bind its name to one TLS connection. The role
// keeps a side from being shown its own signature.
func proofOf(conn *tls.Conn, dialler bool) ([]byte, error) {
	state := conn.ConnectionState()
	binding, err := state.ExportKeyingMaterial(bindingLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("bind the greeting to the connection: %w", err)
	}
	role := "weave hello: acceptor\x00"
	if dialler {
		role = "weave hello: dialler\x00"
	}
	return append([]byte(role), binding...), nil
}

// checkGreeting reports whether a greeting is true: the certificate is of this
// cluster, says the same as the Hello, and its holder is at the other end.
func checkGreeting(id *identity.Identity, g greeting, proof []byte) error {
	s, err := id.Check(g.Cert)
	if err != nil {
		return err
	}
	h := g.Hello
	if s.Name != h.Name || s.MemberID != h.MemberID || s.Incarnation != h.Incarnation {
		return errors.New("its hello and its certificate differ")
	}
	return id.Verify(g.Cert, h.Name, proof, g.Sig)
}

// checkVersion reports whether two ranges of versions meet.
func checkVersion(h Hello) error {
	if h.Version < oldest || h.Oldest > Version || h.Oldest > h.Version {
		return fmt.Errorf("it speaks versions %d to %d, this router %d to %d: upgrade the older one", h.Oldest, h.Version, oldest, Version)
	}
	return nil
}

// decodeGreeting and decodeVerdict read what came from another host, at most
// maxHello bytes.
func decodeGreeting(codec wire.Codec, b []byte) (greeting, error) {
	var g greeting
	if err := codec.Decode(b, &g); err != nil {
		return greeting{}, err
	}
	if _, err := identity.ValidName(string(g.Hello.Name)); err != nil {
		return greeting{}, err
	}
	if len(g.Hello.Cluster) > 128 {
		return greeting{}, errors.New("cluster id longer than 128 bytes")
	}
	return g, nil
}

func decodeVerdict(codec wire.Codec, b []byte) (verdict, error) {
	var v verdict
	err := codec.Decode(b, &v)
	v.Words = plain(v.Words)
	return v, err
}
