package record

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"pgregory.net/rapid"
)

// testKeys signs with a key that follows from the name, as a certificate would bind them.
type testKeys gossip.Peer

func (k testKeys) Cert() []byte { return []byte(k) }

func (k testKeys) Sign(msg []byte) []byte {
	h := hmac.New(sha256.New, []byte(k))
	h.Write(msg)
	return h.Sum(nil)
}

func (k testKeys) Verify(cert []byte, name gossip.Peer, msg, sig []byte) error {
	if string(cert) != string(name) {
		return errors.New("certificate of another")
	}
	if !hmac.Equal(testKeys(name).Sign(msg), sig) {
		return errors.New("wrong signature")
	}
	return nil
}

func started(name gossip.Peer, incarnation uint64) *Store {
	s := unannounced(name, incarnation)
	s.Announce()
	return s
}

func unannounced(name gossip.Peer, incarnation uint64) *Store {
	k := testKeys(name)
	return New(name, incarnation, k.Sign, k.Cert(), k.Verify)
}

func mustPut(t testing.TB, s *Store, key, value string) {
	t.Helper()
	if err := s.Put(key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

// sync brings to everything that from has, in messages of about max bytes, and
// collects the changes.
func sync(t testing.TB, to, from *Store, max int) (all []Change) {
	t.Helper()
	for range 10000 {
		ds := from.Delta(to.Digest(), max)
		if len(ds) == 0 {
			return all
		}
		for _, d := range ds {
			cs, err := to.Merge(d)
			if err != nil {
				t.Fatalf("merge at %s: %v", to.Self(), err)
			}
			all = append(all, cs...)
		}
	}
	t.Fatalf("%s does not catch up with %s: %v, %v", to.Self(), from.Self(), to.Digest(), from.Digest())
	return nil
}

func text(m map[string][]byte) string {
	var b bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=%s ", k, m[k])
	}
	return b.String()
}

func show(cs []Change) (s []string) {
	for _, c := range cs {
		f := func(b []byte) string {
			if b == nil {
				return "-"
			}
			return string(b)
		}
		s = append(s, fmt.Sprintf("%s/%s:%s>%s", c.Origin, c.Key, f(c.Old), f(c.New)))
	}
	return s
}

func TestAWriteReachesAnotherHostThroughAThird(t *testing.T) {
	a, b, c := started("a", 1), started("b", 1), started("c", 1)
	mustPut(t, a, "k", "1")
	sync(t, b, a, 1<<16)
	got := show(sync(t, c, b, 1<<16))
	if want := []string{"a/k:->1"}; !slices.Equal(got, want) {
		t.Fatalf("c saw %v, want %v", got, want)
	}
	mustPut(t, a, "k", "2")
	if err := a.Delete("none"); err != nil {
		t.Fatal(err)
	}
	if got, want := show(sync(t, b, a, 1<<16)), []string{"a/k:1>2"}; !slices.Equal(got, want) {
		t.Fatalf("b saw %v, want %v", got, want)
	}
	if err := a.Delete("k"); err != nil {
		t.Fatal(err)
	}
	if got, want := show(sync(t, c, a, 1<<16)), []string{"a/k:1>-"}; !slices.Equal(got, want) {
		t.Fatalf("c saw %v, want %v", got, want)
	}
	if c.Get("a", "k") != nil || len(c.Records("a")) != 0 {
		t.Error("the deleted record is still visible")
	}
}

func TestNothingIsToldBeforeTheAnnouncement(t *testing.T) {
	a, b := unannounced("a", 1), started("b", 1)
	mustPut(t, a, "k", "1")
	if cs := sync(t, b, a, 1<<16); len(cs) != 0 || len(b.Origins()) != 0 {
		t.Fatalf("b heard %v", show(cs))
	}
	if _, ok := a.DeltaSelf(0, 1<<16); ok {
		t.Fatal("a delta of what is not announced")
	}
}

func TestARestartFlapsNothing(t *testing.T) {
	a, b := started("a", 1), started("b", 1)
	for i := range 50 {
		mustPut(t, a, fmt.Sprintf("k%02d", i), "same")
	}
	sync(t, b, a, 1<<16)

	again := started("a", 2)
	for i := range 50 {
		if i != 7 { // gone while the router was away
			mustPut(t, again, fmt.Sprintf("k%02d", i), "same")
		}
	}
	mustPut(t, again, "k50", "new")
	// One small message at a time: nothing may show before all of it has arrived.
	var changes []Change
	for n := 0; ; n++ {
		ds := again.Delta(b.Digest(), 600)
		if len(ds) == 0 {
			if n < 5 {
				t.Fatalf("arrived in %d messages; the test wants many", n)
			}
			break
		}
		cs, err := b.Merge(ds[0])
		if err != nil {
			t.Fatal(err)
		}
		if changes = append(changes, cs...); len(changes) == 0 && len(b.Records("a")) != 50 {
			t.Fatalf("after message %d b sees %d records", n, len(b.Records("a")))
		}
	}
	if got, want := show(changes), []string{"a/k07:same>-", "a/k50:->new"}; !slices.Equal(got, want) {
		t.Fatalf("b saw %v, want %v", got, want)
	}
}

func TestTheFirstRecordsOfAHostShowTogetherAndByKey(t *testing.T) {
	a, b, c := started("a", 1), started("b", 1), started("c", 1)
	mustPut(t, a, "host", "first written")
	for i := range 50 {
		mustPut(t, a, fmt.Sprintf("ep/%02d", i), "v")
	}
	hint, _ := a.DeltaSelf(30, 1<<16) // overtakes the answers
	if cs, err := b.Merge(hint); err != nil || len(cs) != 0 {
		t.Fatalf("a hint showed %v, %v", show(cs), err)
	}
	var all []Change
	for n := 0; ; n++ {
		ds := a.Delta(b.Digest(), 600)
		if len(ds) == 0 {
			if n < 5 {
				t.Fatalf("arrived in %d messages; the test wants many", n)
			}
			break
		}
		if len(b.Origins()) != 0 || len(b.Records("a")) != 0 || b.Get("a", "host") != nil {
			t.Fatalf("after %d messages b shows %q", n, text(b.Records("a")))
		}
		if len(all) != 0 {
			t.Fatal("changes came apart")
		}
		var err error
		if all, err = b.Merge(ds[0]); err != nil {
			t.Fatal(err)
		}
		sync(t, c, b, 1<<16) // what b cannot show yet it tells all the same
	}
	byKey := func(x, y Change) int { return strings.Compare(x.Key, y.Key) }
	if len(all) != 51 || all[50].Key != "host" || !slices.IsSortedFunc(all, byKey) {
		t.Errorf("b saw %v", show(all))
	}
	if got, want := text(c.Records("a")), text(a.Records("a")); got != want {
		t.Errorf("c sees %q", got)
	}
	if b.Stats().Swapped != 0 {
		t.Errorf("a first set counts as a replaced one: %+v", b.Stats())
	}
}

func TestAHostThatForgotItsIncarnationHearsOfItAndJumps(t *testing.T) {
	a, b := started("a", 57), started("b", 1)
	mustPut(t, a, "k", "name")
	sync(t, b, a, 1<<16)

	again := unannounced("a", 1)
	if again.Overtaken() != 0 {
		t.Fatal("overtaken before it heard anything")
	}
	sync(t, again, b, 1<<16)
	if got := again.Overtaken(); got != 57 {
		t.Fatalf("overtaken by %d, want 57", got)
	}
	if m, complete := again.Former(); text(m) != "k=name " || !complete {
		t.Fatalf("former records %q, complete %v", text(m), complete)
	}
	mustPut(t, again, "k", "name")
	mustPut(t, again, "l", "x")
	if got := again.Jump(0); got != 58 || again.Incarnation() != 58 {
		t.Fatalf("jumped to %d", got)
	}
	again.Announce()
	if got, want := show(sync(t, b, again, 1<<16)), []string{"a/l:->x"}; !slices.Equal(got, want) {
		t.Fatalf("b saw %v, want %v", got, want)
	}
	sync(t, again, b, 1<<16)
	if again.Overtaken() != 0 {
		t.Error("overtaken by its own echo")
	}
}

func TestOneBadEntryIsRefusedAloneAndAskedForAgain(t *testing.T) {
	a, b := started("a", 1), started("b", 1)
	mustPut(t, a, "w", "w")
	sync(t, b, a, 1<<16) // the first set shows only as a whole
	for _, k := range []string{"x", "y", "z"} {
		mustPut(t, a, k, k)
	}
	d := a.Delta(b.Digest(), 1<<16)[0]
	d.Entries = slices.Clone(d.Entries)
	d.Entries[1].Value = []byte("forged")
	_, err := b.Merge(d)
	var refused *Refused
	if !errors.As(err, &refused) || refused.Count != 1 || !errors.Is(err, ErrForged) {
		t.Fatalf("error %v", err)
	}
	if got := text(b.Records("a")); got != "w=w x=x z=z " {
		t.Fatalf("b has %q", got)
	}
	if b.Stats().Refused != 1 {
		t.Errorf("stats %+v", b.Stats())
	}
	sync(t, b, a, 1<<16)
	if got := text(b.Records("a")); got != "w=w x=x y=y z=z " {
		t.Fatalf("after another round b has %q", got)
	}
	if b.Stats().Refetch != 0 {
		t.Error("the refused entry counted as received")
	}
}

func TestRecordsOfAnotherNameAreRefused(t *testing.T) {
	a, b := started("a", 1), started("b", 1)
	mustPut(t, a, "k", "v")
	d := a.Delta(b.Digest(), 1<<16)[0]
	d.Origin = "c"
	if _, err := b.Merge(d); !errors.Is(err, ErrForged) {
		t.Fatalf("error %v", err)
	}
	if len(b.Origins()) != 0 {
		t.Fatalf("origins %v", b.Origins())
	}
}

func TestAHostThatMissedForgottenDeletionsTakesAFullCopy(t *testing.T) {
	a, b := started("a", 1), started("b", 1)
	mustPut(t, a, "stays", "1")
	mustPut(t, a, "goes", "1")
	sync(t, b, a, 1<<16)
	if err := a.Delete("goes"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * keepDeleted {
		k := fmt.Sprint("churn", i)
		mustPut(t, a, k, "1")
		if err := a.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.own.entries); n > 2*keepDeleted+1 {
		t.Fatalf("the writer keeps %d entries for one record", n)
	}
	if n := len(a.own.order); n > 4*keepDeleted+200 {
		t.Fatalf("the writer keeps %d places for one record", n)
	}
	sync(t, b, a, 1<<16)
	if got := text(b.Records("a")); got != "stays=1 " {
		t.Fatalf("b has %q", got)
	}
	if b.Stats().Refetch == 0 {
		t.Error("b never noticed that it had missed a deletion; the test proves nothing")
	}
}

func TestAGapIsNotTakenForReceived(t *testing.T) {
	a, b := started("a", 1), started("b", 1)
	mustPut(t, a, "w", "1")
	sync(t, b, a, 1<<16) // the first set shows only as a whole
	mustPut(t, a, "x", "1")
	mustPut(t, a, "y", "1")
	second, _ := a.DeltaSelf(2, 1<<16)
	if cs, err := b.Merge(second); err != nil || len(cs) != 1 {
		t.Fatalf("the hint after the gap showed %v, %v", show(cs), err)
	}
	sync(t, b, a, 1<<16)
	if got := text(b.Records("a")); got != "w=1 x=1 y=1 " || b.Stats().Refetch != 0 {
		t.Errorf("b has %q, %+v", got, b.Stats())
	}
}

func TestALateRepetitionDoesNotBringADeletedRecordBack(t *testing.T) {
	a, b := started("a", 1), started("b", 1)
	a.own.keep, b.own.keep = 0, 0 // neither remembers the deletion
	mustPut(t, a, "k", "v")
	late, _ := a.DeltaSelf(0, 1<<16)
	sync(t, b, a, 1<<16)
	if err := a.Delete("k"); err != nil {
		t.Fatal(err)
	}
	sync(t, b, a, 1<<16)
	if cs, err := b.Merge(late); err != nil || len(cs) != 0 || b.Get("a", "k") != nil {
		t.Errorf("it showed %v, %v", show(cs), err)
	}
}

func TestAForgottenHostDoesNotComeBackFromThePeers(t *testing.T) {
	a, b, c := started("a", 3), started("b", 1), started("c", 1)
	mustPut(t, a, "k", "v")
	sync(t, b, a, 1<<16)
	sync(t, c, a, 1<<16)
	if got, want := show(b.Forget("a")), []string{"a/k:v>-"}; !slices.Equal(got, want) {
		t.Fatalf("forgetting showed %v", got)
	}
	if ds := c.Delta(b.Digest(), 1<<16); slices.ContainsFunc(ds, func(d Delta) bool { return d.Origin == "a" }) {
		t.Error("c tells b of a again")
	}
	if got, want := b.Mark("a"), (Mark{Incarnation: 3, Gone: true}); got != want {
		t.Errorf("its mark is %+v, want %+v", got, want)
	}
	for _, d := range a.Delta(Digest{}, 1<<16) {
		if cs, err := b.Merge(d); err != nil || len(cs) != 0 {
			t.Errorf("merged %v, %v", show(cs), err)
		}
	}
	if b.bytes != b.own.bytes {
		t.Errorf("b still counts %d bytes", b.bytes)
	}
	// A host that lives again but forgot its incarnations hears that it was forgotten.
	reborn := started("a", 1)
	mustPut(t, reborn, "k", "v1")
	if cs := sync(t, b, reborn, 1<<16); len(cs) != 0 {
		t.Fatalf("the forgotten life showed %v", show(cs))
	}
	if reborn.Heard(b.Digest()); reborn.Overtaken() != 3 {
		t.Errorf("overtaken by %d, want 3", reborn.Overtaken())
	}
	back := started("a", 4)
	mustPut(t, back, "k", "v2")
	if got, want := show(sync(t, b, back, 1<<16)), []string{"a/k:->v2"}; !slices.Equal(got, want) {
		t.Fatalf("the next life showed %v", got)
	}
}

func TestLimitsHoldForTheWriterAndForABadMember(t *testing.T) {
	a, b := started("a", 1), started("b", 1)
	if err := a.Put("k", make([]byte, MaxValue+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large value: %v", err)
	}
	if err := a.Put(string(make([]byte, MaxKey+1)), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("long key: %v", err)
	}
	if err := a.Put("", nil); err == nil {
		t.Error("empty key taken")
	}
	for i := 0; ; i++ {
		if err := a.Put(fmt.Sprint(i), make([]byte, MaxValue)); err != nil {
			if !errors.Is(err, ErrTooLarge) || i < 400 {
				t.Fatalf("put %d: %v", i, err)
			}
			break
		}
	}
	// A member whose own code has no limits.
	bad := started("a", 2)
	bad.own = newSet(2, bad.own.cert, keepDeleted)
	for i := uint64(1); i < 1200; i++ {
		e := Entry{Seq: i, Key: fmt.Sprint(i), Value: make([]byte, MaxValue)}
		e.Sig = bad.sign(signedEntry("a", 2, e))
		bad.own.put(e)
		bad.own.have = i
	}
	d := Digest{}
	for {
		ds := bad.Delta(d, 1<<20)
		if len(ds) == 0 {
			break
		}
		for _, x := range ds {
			b.Merge(x)
		}
		d.Advance(ds)
	}
	if n := b.origins["a"].next.bytes; n > MaxBytes || n < MaxBytes/2 {
		t.Errorf("b keeps %d bytes of one origin", n)
	}
	if len(b.Origins()) != 0 {
		t.Error("b shows a part of what is too large to be shown as a whole")
	}
	for i := range MaxOrigins + 10 {
		o := started(gossip.Peer(fmt.Sprint("o", i)), 1)
		mustPut(t, o, "k", "v")
		for _, x := range o.Delta(Digest{}, 1<<16) {
			b.Merge(x)
		}
	}
	if n := len(b.Origins()); n > MaxOrigins {
		t.Errorf("b keeps %d origins", n)
	}
}

func TestDeltaRespectsItsBudgetAndGoesOnWhereItStopped(t *testing.T) {
	a, b := started("a", 1), started("b", 1)
	for i := range 2000 {
		mustPut(t, a, fmt.Sprintf("key%04d", i), "some value of a length that adds up")
	}
	d := b.Digest()
	messages := 0
	for {
		ds := a.Delta(d, 20<<10)
		if len(ds) == 0 {
			break
		}
		size := 0
		for _, x := range ds {
			size += x.size()
			if _, err := b.Merge(x); err != nil {
				t.Fatal(err)
			}
		}
		if messages++; size > 20<<10 {
			t.Errorf("message of %d bytes", size)
		}
		d.Advance(ds)
	}
	if messages < 10 || len(b.Records("a")) != 2000 {
		t.Errorf("%d messages, %d records", messages, len(b.Records("a")))
	}
}

// TestAnyFateOfMessagesConverges is the join property: whatever happened to the
// messages, and however often hosts restarted, rounds of digests and deltas end
// with every host seeing what each writer has, and nothing more.
func TestAnyFateOfMessagesConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"put":     w.put,
			"delete":  w.delete,
			"restart": w.restart,
			"hint":    w.hint,
			"answer":  w.answer,
			"deliver": w.deliver,
			"":        w.check,
		})
		w.converge(t)
	})
}

type world struct {
	names  []gossip.Peer
	hosts  map[gossip.Peer]*Store
	seen   map[gossip.Peer]map[gossip.Peer]map[string]string // replayed from the changes
	flight []Delta
	keep   int
	forgot bool // some host has taken an incarnation again
}

func newWorld(t *rapid.T) *world {
	w := &world{
		names: []gossip.Peer{"a", "b", "c"},
		hosts: map[gossip.Peer]*Store{},
		seen:  map[gossip.Peer]map[gossip.Peer]map[string]string{},
		keep:  rapid.SampledFrom([]int{0, 1, keepDeleted}).Draw(t, "deletions kept"),
	}
	for _, n := range w.names {
		w.hosts[n] = started(n, 1)
		w.hosts[n].own.keep = w.keep
		w.seen[n] = map[gossip.Peer]map[string]string{}
	}
	return w
}

func (w *world) host(t *rapid.T, label string) *Store {
	return w.hosts[rapid.SampledFrom(w.names).Draw(t, label)]
}

var someKeys = rapid.SampledFrom([]string{"p", "q", "r", "s"})

func (w *world) put(t *rapid.T) {
	s := w.host(t, "writer")
	if err := s.Put(someKeys.Draw(t, "key"), []byte(rapid.StringN(0, 2, -1).Draw(t, "value"))); err != nil {
		t.Fatal(err)
	}
}

func (w *world) delete(t *rapid.T) {
	if err := w.host(t, "writer").Delete(someKeys.Draw(t, "key")); err != nil {
		t.Fatal(err)
	}
}

// restart begins a new life of a host with what its kernel still has; it may have
// forgotten its incarnation.
func (w *world) restart(t *rapid.T) {
	old := w.host(t, "restarted")
	inc := old.Incarnation() + 1
	if rapid.Bool().Draw(t, "forgot") {
		inc, w.forgot = 1, true
	}
	s := unannounced(old.Self(), inc)
	s.own.keep = w.keep
	for k, v := range old.Records(old.Self()) {
		if err := s.Put(k, v); err != nil {
			t.Fatal(err)
		}
	}
	if rapid.Bool().Draw(t, "announced") {
		s.Announce()
	}
	w.hosts[s.Self()] = s
	w.seen[s.Self()] = map[gossip.Peer]map[string]string{}
}

func (w *world) hint(t *rapid.T) {
	s := w.host(t, "writer")
	if d, ok := s.DeltaSelf(rapid.Uint64Range(0, s.own.have).Draw(t, "since"), 1<<16); ok {
		w.flight = append(w.flight, d)
	}
}

func (w *world) answer(t *rapid.T) {
	from, to := w.host(t, "from"), w.host(t, "to")
	w.flight = append(w.flight, from.Delta(to.Digest(), rapid.IntRange(1, 1500).Draw(t, "budget"))...)
}

func (w *world) deliver(t *rapid.T) {
	if len(w.flight) == 0 {
		t.Skip("nothing in flight")
	}
	i := rapid.IntRange(0, len(w.flight)-1).Draw(t, "message")
	w.merge(t, w.host(t, "to"), w.flight[i])
	if rapid.Bool().Draw(t, "last time") {
		w.flight = slices.Delete(w.flight, i, i+1)
	}
}

func (w *world) merge(t *rapid.T, to *Store, d Delta) {
	cs, err := to.Merge(d)
	if err != nil {
		t.Fatalf("honest delta refused: %v", err)
	}
	for _, c := range cs {
		m := w.seen[to.Self()]
		if m[c.Origin] == nil {
			m[c.Origin] = map[string]string{}
		}
		old, had := m[c.Origin][c.Key]
		if had != (c.Old != nil) || old != string(c.Old) || same(c.Old, c.New) {
			t.Fatalf("change %v, but the reader had %q, %v", show([]Change{c}), old, had)
		}
		if c.New == nil {
			delete(m[c.Origin], c.Key)
		} else {
			m[c.Origin][c.Key] = string(c.New)
		}
	}
}

// check: whoever follows the changes has what the store shows.
func (w *world) check(t *rapid.T) {
	for n, s := range w.hosts {
		total := s.own.bytes
		for o, x := range s.origins {
			total += x.cur.bytes
			if x.next != nil {
				total += x.next.bytes
			}
			if o == n {
				continue
			}
			got := s.Records(o)
			if len(got) != len(w.seen[n][o]) {
				t.Fatalf("%s sees %q of %s, by changes %v", n, text(got), o, w.seen[n][o])
			}
			for k, v := range got {
				if w.seen[n][o][k] != string(v) {
					t.Fatalf("%s sees %q of %s, by changes %v", n, text(got), o, w.seen[n][o])
				}
			}
		}
		if s.stats.Refetch > 0 && w.keep == keepDeleted && !w.forgot {
			t.Fatalf("%s fetched a copy anew although nobody forgot anything", n)
		}
		if total != s.bytes {
			t.Fatalf("%s counts %d bytes, has %d", n, s.bytes, total)
		}
	}
}

func (w *world) converge(t *rapid.T) {
	for _, s := range w.hosts {
		s.Announce()
	}
	for range 60 {
		for _, to := range w.names {
			for _, from := range w.names {
				s := w.hosts[to]
				s.Heard(w.hosts[from].Digest())
				for _, d := range w.hosts[from].Delta(s.Digest(), 1<<16) {
					w.merge(t, s, d)
				}
				if s.Overtaken() != 0 {
					s.Jump(0)
				}
			}
		}
	}
	w.check(t)
	for _, n := range w.names {
		for _, o := range w.names {
			if got, want := text(w.hosts[n].Records(o)), text(w.hosts[o].Records(o)); got != want {
				t.Fatalf("%s sees %q of %s, which has %q", n, got, o, want)
			}
		}
		if len(w.hosts[n].Delta(w.hosts["a"].Digest(), 1<<16)) != 0 {
			t.Fatalf("%s still has something to tell a", n)
		}
	}
}
