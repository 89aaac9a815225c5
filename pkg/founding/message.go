package founding

import (
	"errors"
	"fmt"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// message is what hosts say to each other while they found.
type message struct {
	Kind     uint8           `cbor:"1,keyasint"`
	From     Host            `cbor:"2,keyasint"`
	Hosts    []gossip.Peer   `cbor:"3,keyasint"`           // the sender's list, sorted
	Met      ledger.MemberID `cbor:"4,keyasint,omitempty"` // the life of the receiver that the sender met first; 0 for none yet
	Ballot   Ballot          `cbor:"5,keyasint,omitzero"`
	Accepted Ballot          `cbor:"6,keyasint,omitzero"`  // promise: of Value
	Value    *Value          `cbor:"7,keyasint,omitempty"` // promise, accept, decided
}

const (
	kindHello    = 1 // here I am, and this is the life of yours that I met
	kindPrepare  = 2 // promise to take part in no ballot below this one
	kindPromise  = 3 // promised; and this is what was accepted here last
	kindAccept   = 4 // accept this
	kindAccepted = 5 // accepted
	kindDecided  = 6 // this was decided
)

// Limits of what is sent and accepted.
const (
	maxMessage = 16 << 10
	maxBallot  = 1 << 62 // beyond it somebody counts wrong
)

var errMessage = errors.New("malformed message of the founding")

// decode checks everything that can be checked without knowing the receiver. Any bytes are safe.
func decode(codec wire.Codec, b []byte) (*message, error) {
	if len(b) > maxMessage {
		return nil, fmt.Errorf("%w: %d bytes", errMessage, len(b))
	}
	m := new(message)
	if err := codec.Decode(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return m, nil
}

func (m *message) check() error {
	ballots := m.Kind >= kindPrepare && m.Kind <= kindAccepted
	value := m.Kind == kindAccept || m.Kind == kindDecided || m.Kind == kindPromise && m.Accepted != Ballot{}
	switch {
	case m.Kind < kindHello || m.Kind > kindDecided:
		return fmt.Errorf("kind %d", m.Kind)
	case !m.From.valid() || len(m.Hosts) == 0 || len(m.Hosts) > MaxHosts || !slices.IsSorted(m.Hosts):
		return fmt.Errorf("from %.80q with a list of %d", m.From.Name, len(m.Hosts))
	case ballots != m.Ballot.valid() || !ballots && m.Ballot != Ballot{}:
		return fmt.Errorf("ballot %d", m.Ballot.N)
	case m.Accepted != Ballot{} && (m.Kind != kindPromise || !m.Accepted.valid() || m.Accepted.Compare(m.Ballot) > 0):
		return fmt.Errorf("accepted in ballot %d", m.Accepted.N)
	case value != (m.Value != nil):
		return errors.New("a value where there should be none, or none where there should be one")
	}
	for _, h := range m.Hosts {
		if !validName(h) {
			return fmt.Errorf("name %.80q", h)
		}
	}
	if m.Value == nil {
		return nil
	}
	return m.Value.check()
}

func (v *Value) check() error {
	if v.Network == nil || !v.Founder.valid() || len(v.Cluster) == 0 || len(v.Cluster) > ledger.MaxName {
		return errors.New("the value is incomplete")
	}
	found := ledger.Command{Found: &ledger.Found{Cluster: v.Cluster, Network: *v.Network}}
	if res := ledger.New().Apply(1, found); res.Code != ledger.OK {
		return fmt.Errorf("the value founds nothing: %s", res.Err) // whoever decides it must be able to found with it
	}
	return nil
}

func (h Host) valid() bool { return h.ID != 0 && validName(h.Name) }

func validName(n gossip.Peer) bool { return len(n) > 0 && len(n) <= gossip.MaxPeer }

func (b Ballot) valid() bool { return b.N > 0 && b.N < maxBallot && validName(b.By) }
