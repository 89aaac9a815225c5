package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// The networks of the part in which the hosts are parted, and a container of it.
const (
	spareNet  = "spare"     // removed while the hosts are parted
	duringNet = "meanwhile" // made by the majority
	lonelyNet = "lonely"    // which the host on its own may not make
	lateName  = "late"      // created on the host on its own
)

// parted cuts the third host off. It may define nothing, the two others may, and what
// there is works on both sides.
func (w *walk) parted() error {
	lone := w.hosts[2].Name()
	return inTurn(
		told{"two networks, and a container of each host on " + blueNet, w.beforeParting},
		told{lone + " is cut off: create, label and rm are refused there", w.loneRefused},
		told{"the two others create, label and remove", w.othersChange},
		told{"on both sides containers go on, by address and by name", w.bothSides},
		told{lone + " plugs and unplugs a new container meanwhile", w.plugLate},
		told{"the cut ends: the same networks everywhere, and all reach all", w.rejoined},
		told{"unplug, and rm of all from " + lone + ": they are nowhere", w.afterParting},
	)
}

func (w *walk) beforeParting() (err error) {
	for _, name := range []string{blueNet, spareNet} {
		if _, err := w.on(0, "net", "create", name); err != nil {
			return err
		}
	}
	if _, err := w.same(); err != nil {
		return err
	}
	return steps(
		func() error { w.endpoint, err = w.plug(0, mate, blueNet); return err },
		func() error { w.left, err = w.plug(1, leftName, blueNet); return err },
		func() error { w.right, err = w.plug(2, rightName, blueNet); return err },
		w.bothWays,
	)
}

func (w *walk) loneRefused() error {
	if err := w.lab.Partition(2); err != nil {
		return err
	}
	err := netlab.Wait(fetchIn, "it has noticed", func() error {
		return unchanged(w.hosts[2], w.net.program(), "net", "label", blueNet, "noticed-")
	})
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"create", lonelyNet}, {"label", blueNet, "side=lone"}, {"rm", spareNet}, {"rm", "--force", blueNet}} {
		if err := unchanged(w.hosts[2], w.net.program(), append([]string{"net"}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) othersChange() error {
	err := netlab.Wait(fetchIn, "the others have a leader", func() error {
		_, err := w.on(1, "net", "label", blueNet, "side=most")
		return err
	})
	if err != nil {
		return err
	}
	return steps(
		func() error { _, err := w.on(1, "net", "create", duringNet); return err },
		func() error { _, err := w.on(0, "net", "rm", spareNet); return err },
	)
}

func (w *walk) bothSides() error {
	return steps(
		func() error { return w.reaches(0, mate, 1, w.left, leftName) },
		func() error { return w.reaches(1, leftName, 0, w.endpoint, mate) },
	)
}

func (w *walk) plugLate() error {
	if err := w.createOn(2, lateName); err != nil {
		return err
	}
	id, err := w.plug(2, lateName, blueNet)
	if err != nil {
		return err
	}
	return steps(
		func() error { return w.rt.start(w.hosts[2], lateName) },
		func() error { return w.reaches(2, rightName, 2, id, lateName) },
		func() error { return w.reaches(2, lateName, 2, w.right, rightName) },
		func() error { _, err := w.on(2, "net", "unplug", lateName, id); return err },
		func() error { return w.without(2, lateName, "eth1") },
		func() error { return w.rt.destroy(w.hosts[2], lateName) },
	)
}

func (w *walk) rejoined() error {
	if err := w.lab.Heal(); err != nil {
		return err
	}
	nets, err := w.same()
	if err != nil {
		return err
	}
	if err := sameWords("networks", slices.Collect(maps.Keys(nets)), []string{"weave", blueNet, duringNet}); err != nil {
		return err
	}
	if l := nets[blueNet].Labels; len(l) != 1 || l["side"] != "most" {
		return fmt.Errorf("the labels of %s are %v", blueNet, l)
	}
	return steps(w.bothWays, func() error { return w.reaches(2, rightName, 0, w.endpoint, mate) })
}

// same are the networks, once all hosts have the same.
func (w *walk) same() (map[string]ctl.Net, error) {
	nets, err := sameOn(w.hosts, w.net.program(), func(*netlab.Host, []ctl.Net) error { return nil })
	return byName(nets), err
}

func (w *walk) afterParting() error {
	for _, u := range []struct {
		host           int
		name, endpoint string
	}{{0, mate, w.endpoint}, {1, leftName, w.left}, {2, rightName, w.right}} {
		if _, err := w.on(u.host, "net", "unplug", u.name, u.endpoint); err != nil {
			return err
		}
	}
	for _, name := range []string{blueNet, duringNet} {
		err := netlab.Wait(fetchIn, name+" is removed", func() error { _, err := w.on(2, "net", "rm", name); return err })
		if err != nil {
			return err
		}
	}
	return w.noNetworks()
}
