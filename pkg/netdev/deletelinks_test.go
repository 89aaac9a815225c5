package netdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// tunnels makes n bridges with a VXLAN device each, and gives all their names.
func tunnels(h space, n int) (names []string) {
	for i := range n {
		bridge, device := fmt.Sprintf("br%d", i), fmt.Sprintf("vx%d", i)
		h.must("ip link add " + bridge + " type bridge")
		h.must(fmt.Sprintf("ip link add %s type vxlan id %d dstport 4789 local 127.0.0.1", device, 100+i))
		h.must("ip link set " + device + " master " + bridge + " up")
		names = append(names, device, bridge)
	}
	return names
}

func deleteLinks(h space, names ...string) (errs []error) {
	h.in(func() error { errs = DeleteLinks(names...); return nil })
	return errs
}

func TestBridgesGoTogetherWithTheirTunnelsAndNothingElseDoes(t *testing.T) {
	h := newSpace(t)
	names := tunnels(h, 5)
	h.must("ip link add stays type veth peer name stays1")
	h.must("ip link set stays master br0") // a port is set free, not deleted
	some := append(slices.Clone(names[:8]), "notthere", "vx0")
	if err := errors.Join(deleteLinks(h, some...)...); err != nil {
		t.Error(err)
	}
	out := h.must("ip -o link")
	for i, name := range append(names, "stays") {
		if there := strings.Contains(out, " "+name); there != (i >= 8) {
			t.Errorf("%s is there: %v\n%s", name, there, out)
		}
	}
	if err := errors.Join(deleteLinks(h, "vx4")...); err != nil {
		t.Error(err)
	}
	if out := h.must("ip -o link"); strings.Contains(out, "vx4:") || !strings.Contains(out, "br4:") {
		t.Errorf("alone\n%s", out)
	}
	if err := errors.Join(deleteLinks(h)...); err != nil {
		t.Error(err)
	}
}

func TestADeviceThatCannotBeDeletedKeepsNoOtherFromIt(t *testing.T) {
	h := newSpace(t)
	names := append([]string{"lo"}, tunnels(h, 2)...)
	for i, err := range deleteLinks(h, names...) {
		if (err != nil) != (i == 0) {
			t.Errorf("%s: %v", names[i], err)
		}
	}
	if out := h.must("ip -o link"); strings.Contains(out, "br") && strings.Contains(out, "vx") {
		t.Errorf("left: %s", out)
	}
}

func TestAGroupWithAStrangerInItIsNotDeleted(t *testing.T) {
	h := newSpace(t)
	names := tunnels(h, 1)
	h.must("ip link add stranger type veth peer name stranger1")
	h.setGroup("stranger", testGroup)
	h.in(func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.close()
		found := map[int]bool{}
		for _, name := range names {
			i, err := c.index(name)
			if err != nil {
				return err
			}
			found[i] = true
		}
		if err := c.deleteGroup(testGroup, found); !errors.Is(err, errCrowded) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	if out := h.must("ip -o link"); !strings.Contains(out, "stranger@") || !strings.Contains(out, "br0:") {
		t.Errorf("deleted: %s", out)
	}
}
