package carrier

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

func TestDoorKeepsAFewOfEachAddressAndAlwaysTheNewest(t *testing.T) {
	closed := map[string]bool{}
	enter := func(d *door, from, name string) *caller {
		c, _ := d.enter(netip.MustParseAddr(from), func() { closed[name] = true })
		return c
	}
	d := &door{known: func(a netip.Addr) bool { return a == netip.MustParseAddr("10.9.9.9") }}
	enter(d, "10.9.9.9", "known")
	d.knock(enter(d, "10.6.6.6", "member"))
	enter(d, "10.0.0.1", "honest")
	for i := range 500 {
		enter(d, "10.6.6.6", fmt.Sprint("one address ", i))
	}
	if len(d.pending) != 2+maxPendingA || closed["honest"] || closed["member"] || closed["one address 499"] || !closed["one address 0"] {
		t.Errorf("%d pending, closed: honest %v, member %v", len(d.pending), closed["honest"], closed["member"])
	}
	for i := range 500 {
		enter(d, fmt.Sprintf("fd00:0:0:%x::1", i), fmt.Sprint("many addresses ", i))
	}
	if len(d.pending) != maxPending || closed["known"] || closed["member"] || closed["many addresses 499"] || !closed["many addresses 0"] {
		t.Errorf("%d pending, closed: known %v, member %v", len(d.pending), closed["known"], closed["member"])
	}
	for i := range 500 { // one /64 counts as one address
		enter(d, fmt.Sprintf("fd01::%x", i), fmt.Sprint("one prefix ", i))
	}
	if n := len(d.pending); n != maxPending || closed["many addresses 499"] {
		t.Errorf("%d pending", n)
	}
	late := enter(d, "10.0.0.2", "late")
	d.leave(late)
	d.leave(late) // twice is fine
	for i := range 500 {
		enter(d, fmt.Sprintf("fd02:0:0:%x::1", i), "")
	}
	if closed["late"] || len(d.pending) != maxPending {
		t.Errorf("%d pending; one that had left is closed: %v", len(d.pending), closed["late"])
	}
}

func TestDoorFullOfMembersTurnsTheNewestAwayForAMoment(t *testing.T) {
	d := &door{known: func(netip.Addr) bool { return false }}
	for i := range maxPending {
		c, shed := d.enter(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), func() { t.Error("a member is closed") })
		if d.knock(c); shed {
			t.Fatal("shed too early")
		}
	}
	gone := false
	if _, shed := d.enter(netip.MustParseAddr("10.0.2.1"), func() { gone = true }); !shed || !gone || len(d.pending) != maxPending {
		t.Error("the newcomer is not turned away")
	}
	first := d.pending[0]
	first.since, first.close = first.since.Add(-spared), func() {}
	if _, shed := d.enter(netip.MustParseAddr("10.0.2.2"), func() { t.Error("the newcomer is closed") }); !shed || d.pending[0] == first {
		t.Error("one that takes too long stays")
	}
}

func peersNamed(n int) (out []gossip.Peer) {
	for i := range n {
		out = append(out, gossip.Peer(fmt.Sprint("host-", i)))
	}
	return out
}

func TestSmallClusterIsAFullMesh(t *testing.T) {
	all := peersNamed(30)
	got := choose(all[0], all[1:], "salt", func(gossip.Peer) bool { return false })
	if len(got) != 29 {
		t.Errorf("calls %d of 29", len(got))
	}
}

// reached counts the hosts that one can reach when everybody's calls stand.
func reached(all []gossip.Peer, calls map[gossip.Peer]map[gossip.Peer]bool) (count, depth, degree int) {
	links := map[gossip.Peer]map[gossip.Peer]bool{}
	link := func(a, b gossip.Peer) {
		if links[a] == nil {
			links[a] = map[gossip.Peer]bool{}
		}
		links[a][b] = true
	}
	for a, bs := range calls {
		for b := range bs {
			link(a, b)
			link(b, a)
		}
	}
	for _, l := range links {
		degree = max(degree, len(l))
	}
	seen, front := map[gossip.Peer]bool{all[0]: true}, all[:1]
	for len(front) > 0 {
		var next []gossip.Peer
		for _, a := range front {
			for b := range links[a] {
				if !seen[b] {
					seen[b] = true
					next = append(next, b)
				}
			}
		}
		if front = next; len(next) > 0 {
			depth++
		}
	}
	return len(seen), depth, degree
}

func TestLargeClusterIsOneShallowGraphOfFewCalls(t *testing.T) {
	all := peersNamed(500)
	dead := map[gossip.Peer]bool{}
	for _, p := range all[400:] {
		dead[p] = true
	}
	calls := map[gossip.Peer]map[gossip.Peer]bool{}
	for i, p := range all[:400] {
		known := slices.DeleteFunc(slices.Clone(all), func(q gossip.Peer) bool { return p == q })
		calls[p] = choose(p, known, fmt.Sprint("salt", i), func(q gossip.Peer) bool { return dead[q] })
		if len(calls[p]) != 1+randomCalls {
			t.Fatalf("%s calls %d", p, len(calls[p]))
		}
	}
	n, depth, degree := reached(all, calls)
	if n != 400 || depth > 8 || degree > 20 {
		t.Errorf("%d of 400 reached in %d steps, largest degree %d", n, depth, degree)
	}
}

func TestChoiceIsStableAsOthersComeAndGo(t *testing.T) {
	all := peersNamed(200)
	good := func(gossip.Peer) bool { return false }
	before := choose(all[0], all[1:], "salt", good)
	after := choose(all[0], all[1:190], "salt", good)
	same := 0
	for p := range before {
		if after[p] {
			same++
		}
	}
	if same < 2 {
		t.Errorf("%d of %d calls stay when 10 of 200 hosts leave", same, len(before))
	}
}

func sessionWith(name gossip.Peer, member, incarnation uint64, dialled bool, age time.Duration) *session {
	return &session{
		hello: Hello{Name: name, MemberID: member, Incarnation: incarnation}, dialled: dialled,
		since: time.Now().Add(-age), closed: make(chan struct{}), ended: make(chan struct{}),
	}
}

func TestTableDecidesOnceForTwoSides(t *testing.T) {
	old := sessionWith("p", 1, 5, false, time.Minute)
	for what, c := range map[string]struct {
		s       *session
		young   bool
		gone    bool
		want    code
		replace bool
	}{
		"the peer has lost it":            {sessionWith("p", 1, 5, false, 0), false, false, welcome, true},
		"both dialled at once":            {sessionWith("p", 1, 5, false, 0), true, false, duplicate, false},
		"we dialled though it stands":     {sessionWith("p", 1, 5, true, 0), false, false, duplicate, false},
		"the peer has restarted":          {sessionWith("p", 1, 6, true, 0), true, true, welcome, true},
		"a later start of one that lives": {sessionWith("p", 1, 6, true, 0), false, false, twin, false},
		"an older incarnation":            {sessionWith("p", 1, 4, false, 0), false, false, twin, false},
		"another host of that name":       {sessionWith("p", 2, 9, false, 0), false, false, conflict, false},
		"another host, the first is gone": {sessionWith("p", 2, 1, false, 0), false, true, welcome, true},
		"another peer":                    {sessionWith("q", 2, 1, false, 0), false, false, welcome, false},
	} {
		first := sessionWith("p", 1, 5, false, time.Minute)
		if c.young {
			first.since = time.Now()
		}
		if c.gone {
			close(first.closed)
		}
		tab := &table{live: map[gossip.Peer]*session{"p": first}}
		replaced, no := tab.decide(c.s, time.Now())
		got := welcome
		if no != nil {
			got = no.Code
		}
		if got != c.want || (replaced != nil) != c.replace {
			t.Errorf("%s: code %d, replaced %v", what, got, replaced != nil)
		}
	}
	tab := &table{live: map[gossip.Peer]*session{"p": old}}
	old.seq = 7
	if _, no := tab.settle(sessionWith("p", 1, 5, true, 0), 6); no == nil {
		t.Error("an earlier decision won")
	}
	if r, no := tab.settle(sessionWith("p", 1, 5, true, 0), 8); no != nil || r != old {
		t.Error("the later decision lost")
	}
}

func TestATwinOfAPeerThatHasFallenSilentIsTriedAgain(t *testing.T) {
	for silent, words := range map[time.Duration]string{0: "a name of its own", lateBeat + time.Second: "is tried again"} {
		old := sessionWith("p", 1, 5, false, time.Minute)
		old.heard.Store(int64(time.Minute - silent))
		tab := &table{live: map[gossip.Peer]*session{"p": old}}
		if no := tab.refuse(Hello{Name: "p", MemberID: 2}); no == nil || no.Code != conflict || !strings.Contains(no.Words, words) {
			t.Errorf("silent for %v: %+v, want %q", silent, no, words)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(frame(kindData, []byte("bytes")))
	f.Add(frame(kindBeat, nil))
	f.Add(frame(kindBye, []byte("words")))
	f.Add(put(kindData, 0xffff, nil))
	f.Add(put(kindHello, maxHello+1, make([]byte, maxHello+1)))
	f.Add(put(kindBeat, 1, []byte{0}))
	f.Add([]byte{0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		k, body, err := readFrame(r, make([]byte, maxBody))
		if err != nil {
			return
		}
		used := len(b) - r.Len()
		if again := frame(k, body); !bytes.Equal(again, b[:used]) {
			t.Fatalf("%x is read as %x", b[:used], again)
		}
	})
}

func FuzzHello(f *testing.F) {
	codec := wire.New()
	id := newIdentity(f, "a", loadSecret(f, secretFile(f)))
	seed := func(v any) []byte {
		b, err := codec.Encode(v)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(seed(greeting{Hello{1, 1, "a", 7, 9, "c", 6784}, id.Cert(), id.Sign([]byte("x"))}))
	f.Add(seed(verdict{refused, "words", 3}))
	f.Add([]byte{0xa1, 0x01, 0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0x81}, 4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := decodeVerdict(codec, b); err == nil && len(v.Words) > maxWords+10 {
			t.Fatal("words of any length")
		}
		g, err := decodeGreeting(codec, b)
		if err != nil {
			return
		}
		if g.Hello.Name == "" || len(g.Hello.Name) > gossip.MaxPeer {
			t.Fatalf("name %q", g.Hello.Name)
		}
		if checkGreeting(id, g, []byte("another proof")) == nil {
			t.Fatal("a greeting without proof is believed")
		}
	})
}

func TestTruncatedFrameIsAnError(t *testing.T) {
	whole := frame(kindData, []byte("bytes"))
	for n := range whole {
		if _, _, err := readFrame(bytes.NewReader(whole[:n]), make([]byte, maxBody)); err != io.EOF && err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
