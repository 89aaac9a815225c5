package netdev

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestAMACHasOneLocalPort(t *testing.T) {
	h := newBridge(t, "10.32.0.1/12")
	a, b, c := newSpace(t), newSpace(t), newSpace(t)
	va := vethFor(5, a.NS, "10.32.0.5/12")
	h.in(func() error { return Attach(va) })
	h.settled()
	before := h.world()
	vb := vethFor(6, b.NS, "10.32.0.6/12")
	for _, taken := range []string{va.MAC.String(), "02:42:0a:20:ff:01"} { // another container's, the bridge's
		vb.MAC = macOf(taken)
		if err := h.do(func() error { return Attach(vb) }); !errors.Is(err, ErrExists) {
			t.Errorf("MAC %s: got %v", taken, err)
		}
		if after := h.world(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}
	if has, _ := HasLink(b.NS, "eth0"); has {
		t.Error("something is left in the container")
	}
	vc := vethFor(7, c.NS, "10.32.0.7/12")
	h.in(func() error { return Attach(vc) })
	if !c.reaches("10.32.0.5") {
		t.Error("a third container does not reach the first")
	}
}

func TestPortsComeBackAfterTheirBridgeWasDeleted(t *testing.T) {
	h := newBridge(t, "10.32.0.1/12")
	a := newSpace(t)
	v := vethFor(5, a.NS, "10.32.0.5/12")
	h.in(func() error { return Attach(v) })
	ensure := func() error { return EnsurePort(v.Host, "weave", v.MAC, true) }
	h.settled()
	quiet(t, h, ensure)
	state := func() string {
		_, flags, _ := strings.Cut(h.must("bridge -d link show dev "+v.Host), ": <")
		_, flags, _ = strings.Cut(flags, "\n")
		return flags + strings.Join(slices.Sorted(strings.Lines(h.must("bridge fdb show dev "+v.Host))), "")
	}
	want := state()
	for _, damage := range []string{
		"ip link del weave",
		"ip link set " + v.Host + " nomaster",
		"ip link set " + v.Host + " down",
		"bridge link set dev " + v.Host + " locked off learning on",
		"bridge fdb del " + v.MAC.String() + " dev " + v.Host + " master",
	} {
		h.must(damage)
		h.in(func() error {
			return EnsureBridge(Bridge{Name: "weave", MAC: macOf("02:42:0a:20:ff:01"), MTU: 1450, Addrs: prefixes("10.32.0.1/12")})
		})
		h.in(ensure)
		if !a.reaches("10.32.0.1") {
			t.Errorf("%s: the container does not reach its host", damage)
		}
		if got := state(); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", damage, got, want)
		}
	}
	for _, names := range [][2]string{{"nolink", "weave"}, {v.Host, "nobridge"}} {
		if err := h.do(func() error { return EnsurePort(names[0], names[1], v.MAC, true) }); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: got %v", names, err)
		}
	}
}
