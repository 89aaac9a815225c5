package carrier

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// greet turns a new connection into a session, within greetWithin: TLS, then who
// we are, then whether we will talk. It closes nothing. Its error is a *Refusal
// where the two have understood each other and one will not.
func (c *Carrier) greet(ctx context.Context, gate *meter, conn *tls.Conn, dialled bool, addr netip.AddrPort) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, greetWithin)
	defer cancel()
	defer context.AfterFunc(ctx, func() { gate.SetDeadline(time.Unix(1, 0)) })()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	gate.opened = true
	told := c.Self()
	h, err := c.introduce(conn, dialled, told)
	if err != nil {
		return nil, err
	}
	s := newSession(h, conn, dialled, addr)
	s.told = told
	s.hooks = c.hooks(s)
	if err := c.agree(s); err != nil {
		return nil, err
	}
	gate.SetDeadline(time.Time{})
	return s, nil
}

// introduce tells the peer who we are and hears who it is.
func (c *Carrier) introduce(conn *tls.Conn, dialled bool, told Hello) (Hello, error) {
	mine, err := proofOf(conn, dialled)
	if err != nil {
		return Hello{}, err
	}
	body, err := c.codec.Encode(greeting{told, c.cfg.ID.Cert(), c.cfg.ID.Sign(mine)})
	if err != nil {
		return Hello{}, fmt.Errorf("encode our hello: %w", err)
	}
	if len(body) > maxHello {
		return Hello{}, fmt.Errorf("our hello has %d bytes: at most %d", len(body), maxHello)
	}
	if _, err := conn.Write(frame(kindHello, body)); err != nil {
		return Hello{}, err
	}
	body, err = c.expect(conn, kindHello)
	if err != nil {
		return Hello{}, err
	}
	g, err := decodeGreeting(c.codec, body)
	if err != nil {
		return Hello{}, fmt.Errorf("its hello: %w", err)
	}
	theirs, err := proofOf(conn, !dialled)
	if err != nil {
		return Hello{}, err
	}
	if err := checkGreeting(c.cfg.ID, g, theirs); err != nil {
		return Hello{}, c.tell(conn, &Refusal{Code: mismatch, Words: err.Error(), Peer: g.Hello.Name})
	}
	return g.Hello, nil
}

// agree exchanges verdicts. The side with the lower name speaks last, and what it
// says is the decision; of two with the same name, which will never agree, the
// one that was called.
func (c *Carrier) agree(s *session) error {
	self, peer := c.cfg.ID.Name(), s.hello.Name
	if self < peer || self == peer && !s.dialled {
		if err := c.hearVerdict(s, new(verdict)); err != nil {
			return err
		}
		no := c.judge(s.hello)
		var replaced *session
		if no == nil {
			replaced, no = c.table.decide(s, time.Now())
		}
		return c.conclude(s, replaced, no, s.seqOf)
	}
	no := c.judge(s.hello)
	if no != nil {
		return c.tell(s.conn, no)
	}
	if err := c.tellVerdict(s.conn, verdict{}); err != nil {
		return err
	}
	var v verdict
	if err := c.hearVerdict(s, &v); err != nil {
		return err
	}
	replaced, no := c.table.settle(s, v.Seq)
	return c.conclude(s, replaced, no, nil)
}

func (s *session) seqOf() uint64 { return s.seq }

// conclude ends an agreement: it closes the session that this one replaces and
// waits until that has let go of its inner stream. say gives the number to tell
// the peer; nil: the peer has spoken and hears no more.
func (c *Carrier) conclude(s, replaced *session, no *Refusal, say func() uint64) error {
	if no != nil {
		no.Peer, no.Member = s.hello.Name, s.hello.MemberID
		if say == nil {
			return no
		}
		return c.tell(s.conn, no)
	}
	if say != nil {
		if err := c.tellVerdict(s.conn, verdict{Seq: say()}); err != nil {
			c.table.remove(s)
			s.abandon(err)
			return err
		}
	}
	if replaced != nil {
		replaced.close(errReplaced)
		<-replaced.ended
	}
	return nil
}

var errReplaced = errors.New("replaced by a newer connection with the same peer")

// judge reports why we will not talk with this peer at all.
func (c *Carrier) judge(h Hello) *Refusal {
	no := func(code code, words string) *Refusal {
		return &Refusal{Code: code, Words: words, Peer: h.Name, Member: h.MemberID}
	}
	if err := checkVersion(h); err != nil {
		return no(mismatch, err.Error())
	}
	if id := c.cfg.ID; h.Name == id.Name() && h.MemberID == id.MemberID() {
		if h.Incarnation == id.Incarnation() {
			return no(myself, "this is the router that called")
		}
		return no(twin, fmt.Sprintf("two routers run as %q with one state directory, or copies of one", h.Name))
	}
	if h.Name == c.cfg.ID.Name() {
		return no(conflict, fmt.Sprintf("another host is called %q too, with another key: "+
			"give one of the two a name of its own with --name (cloned machines share a machine-id)", h.Name))
	}
	if r := c.table.refuse(h); r != nil {
		r.Peer, r.Member = h.Name, h.MemberID
		return r
	}
	if err := c.cfg.Accept(h); err != nil {
		return no(refused, plain(err.Error()))
	}
	return nil
}

// tell says no to the peer and returns it.
func (c *Carrier) tell(conn *tls.Conn, no *Refusal) error {
	if err := c.tellVerdict(conn, verdict{Code: no.Code, Words: no.Words}); err != nil {
		c.cfg.Log.Debug("could not tell a peer why", "peer", no.Peer, "error", err)
	}
	return no
}

func (c *Carrier) tellVerdict(conn *tls.Conn, v verdict) error {
	v.Words = plain(v.Words)
	body, err := c.codec.Encode(v)
	if err != nil {
		return err
	}
	_, err = conn.Write(frame(kindVerdict, body))
	return err
}

// hearVerdict reads the peer's verdict into v; its no is an error.
func (c *Carrier) hearVerdict(s *session, v *verdict) error {
	body, err := c.expect(s.conn, kindVerdict)
	if err != nil {
		return err
	}
	if *v, err = decodeVerdict(c.codec, body); err != nil {
		return fmt.Errorf("its verdict: %w", err)
	}
	if v.Code != welcome {
		return &Refusal{Code: v.Code, Words: v.Words, Remote: true, Peer: s.hello.Name, Member: s.hello.MemberID}
	}
	return nil
}

// expect reads the one frame that may come now.
func (c *Carrier) expect(conn *tls.Conn, want kind) ([]byte, error) {
	k, body, err := readFrame(conn, make([]byte, maxBody))
	if err != nil {
		return nil, err
	}
	if k != want {
		return nil, fmt.Errorf("frame of kind %d where kind %d is due", k, want)
	}
	return body, nil
}

// hooks binds a session to its carrier.
func (c *Carrier) hooks(s *session) hooks {
	return hooks{
		open:   func(ctx context.Context) (net.Conn, error) { return c.cfg.Inner.Open(ctx, s.hello.Name, s.dialled) },
		hello:  c.encodeSelf,
		rehear: func(b []byte) (Hello, error) { return c.rehear(s.hello, b) },
		stats:  &c.stats,
	}
}

func (c *Carrier) encodeSelf() []byte {
	b, err := c.codec.Encode(greeting{Hello: c.Self()})
	if err != nil {
		c.cfg.Log.Error("encode our hello", "error", err)
	}
	return b
}

// rehear reads a Hello that a peer sends again and judges it. Only the cluster's
// id may have changed.
func (c *Carrier) rehear(first Hello, b []byte) (Hello, error) {
	g, err := decodeGreeting(c.codec, b)
	if err != nil {
		return Hello{}, err
	}
	first.Cluster = g.Hello.Cluster
	return first, c.cfg.Accept(first)
}

// livePeer reports whether there is a session with a peer.
func (c *Carrier) livePeer(p gossip.Peer) bool { return c.table.get(p) != nil }
