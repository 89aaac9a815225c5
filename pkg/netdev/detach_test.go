package netdev

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

const testGroup = 0xdeadbeef

// attachMany makes n attachments, all in one container, and returns their names.
func attachMany(t testing.TB, h space, n int) []Named {
	t.Helper()
	c := newSpace(t)
	links := make([]Named, n)
	for i := range links {
		v := vethFor(i, c.NS)
		v.IfName = fmt.Sprintf("e%d", i)
		h.in(func() error { return Attach(v) })
		links[i] = Named{v.Host, hashOf(v)}
	}
	return links
}

func deleteBatch(h space, group uint32, links []Named) (errs []error) {
	h.in(func() error { errs = DeleteBatch(group, links); return nil })
	return errs
}

func TestABatchDeletesItsLinksAtThePriceOfAFew(t *testing.T) {
	h := newBridge(t)
	const many, few = 250, 25
	links := attachMany(t, h, many+few)
	h.must("ip link add stays type veth peer name stays1")
	start := time.Now()
	for _, l := range links[many:] {
		h.in(func() error { return Detach(l.Name, l.Hash) })
	}
	single := time.Since(start) / few
	links = links[:many]
	start = time.Now()
	errs := deleteBatch(h, testGroup, append(links, Named{"vethnotthere", links[0].Hash}))
	took := time.Since(start)
	for i, err := range errs {
		if err != nil {
			t.Errorf("link %d: %v", i, err)
		}
	}
	if out := h.must("ip -o link"); strings.Count(out, "\n") != 4 { // lo, bridge, stays, stays1
		t.Errorf("left: %s", out)
	}
	t.Logf("%d links in %v, one in %v", many, took, single)
	if took > many*single/2 { // a busy machine is busy for both
		t.Errorf("%d links took %v, one by one they take %v", many, took, many*single)
	}
}

func TestABatchNeverDeletesALinkThatIsNotOurs(t *testing.T) {
	h := newBridge(t)
	links := attachMany(t, h, 3)
	h.must("ip link add stranger type veth peer name stranger1")
	h.setGroup("stranger", testGroup) // by chance in the very group
	other := attachment.Key{Network: "weave", ContainerID: "other", IfName: "eth0"}.Hash()
	batch := []Named{links[0], {"stranger", links[0].Hash}, {links[1].Name, other}, {"weave", other}, links[2]}
	errs := deleteBatch(h, testGroup, batch)
	for i, want := range []error{nil, ErrNotOurs, ErrNotOurs, ErrNotOurs, nil} {
		if !errors.Is(errs[i], want) {
			t.Errorf("%v: got %v, want %v", batch[i], errs[i], want)
		}
	}
	out := h.must("ip -o link")
	for _, name := range []string{"stranger@", "stranger1@", links[1].Name + "@", "weave:"} {
		if !strings.Contains(out, name) {
			t.Errorf("%s was deleted", name)
		}
	}
	for _, l := range []Named{links[0], links[2]} {
		if strings.Contains(out, l.Name+"@") {
			t.Errorf("%s is still there", l.Name)
		}
	}
}

func TestABatchTakesWhatAPredecessorMarked(t *testing.T) {
	h := newBridge(t)
	links := attachMany(t, h, 4)
	h.setGroup(links[3].Name, testGroup)
	for i, err := range deleteBatch(h, testGroup, links[:3]) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if out := h.must("ip -o link"); strings.Contains(out, "veth") {
		t.Errorf("left: %s", out)
	}
}

func TestBatchesOfNoneOneAndTheDefaultGroup(t *testing.T) {
	h := newBridge(t)
	links := attachMany(t, h, 3)
	if errs := deleteBatch(h, testGroup, nil); len(errs) != 0 {
		t.Error(errs)
	}
	if errs := deleteBatch(h, testGroup, links[:1]); len(errs) != 1 || errs[0] != nil {
		t.Error(errs)
	}
	// Group 0 holds every link of the machine.
	if errs := deleteBatch(h, 0, links); len(errs) != 3 || errors.Join(errs...) != nil {
		t.Error(errs)
	}
	if out := h.must("ip -o link"); strings.Count(out, "\n") != 2 {
		t.Errorf("want lo and the bridge, got: %s", out)
	}
}

func TestPortsAreWholeWhileLinksComeAndGo(t *testing.T) {
	h := newBridge(t)
	links := attachMany(t, h, 60)
	var churn sync.WaitGroup
	stop := make(chan struct{})
	churn.Go(func() {
		c := newSpace(t)
		v := vethFor(1000, c.NS)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := h.do(func() error { return errors.Join(Attach(v), Detach(v.Host, hashOf(v))) }); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 100 {
		var ports []Port
		h.in(func() (err error) { ports, err = Ports(); return err })
		seen := map[string]bool{}
		for _, p := range ports {
			if seen[p.Name] {
				t.Fatalf("%s is listed twice", p.Name)
			}
			seen[p.Name] = true
		}
		for _, l := range links {
			if !seen[l.Name] {
				t.Fatalf("%s is missing", l.Name)
			}
		}
	}
	close(stop)
	churn.Wait()
}
