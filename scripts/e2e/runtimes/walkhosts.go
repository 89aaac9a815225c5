package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// manyHosts makes a network on the first host and uses it on the two others.
func (w *walk) manyHosts() error {
	return inTurn(
		told{"weave net create on " + w.hosts[0].Name() + ": every host has the network", w.createBlue},
		told{leftName + " is plugged on " + w.hosts[1].Name() + " before it starts", w.plugLeft},
		told{rightName + " is plugged on " + w.hosts[2].Name() + " while it runs", w.plugRight},
		told{"they reach each other by address and by name", w.bothWays},
		told{leftName + " is plugged a second time into the same network", w.plugTwice},
		told{"a network of simplebridge is refused on another host", w.wrongHost},
		told{"weave net rm is refused: the network is in use", w.inUse},
		told{"the router of " + w.hosts[1].Name() + " is killed: traffic goes on", w.killRouter},
		told{"it starts again: the endpoints are the same", w.startRouter},
		told{leftName + " restarts: its endpoints come back", w.restartLeft},
		told{"weave net unplug, and rm on another host: it is nowhere", w.removeBlue},
	)
}

func (w *walk) createBlue() error {
	id, err := w.on(0, "net", "create", "--label", "tier=web", blueNet)
	if err != nil {
		return err
	}
	for i := range w.hosts {
		err := netlab.Wait(fetchIn, w.hosts[i].Name()+" has it", func() error {
			nets, err := w.networks(i)
			if n := nets[blueNet]; err == nil && (n.ID != id || n.Driver != "weave" || n.Labels["tier"] != "web" || n.State != "ready") {
				err = fmt.Errorf("it is %+v", n)
			}
			return errors.Join(err, w.hasList(i, blueNet))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) hasList(i int, network string) error {
	_, err := w.hosts[i].Run("test", "-e", "/etc/cni/net.d/weave-"+network+".conflist")
	return err
}

func (w *walk) plugLeft() (err error) {
	return steps(
		func() error { return w.createOn(1, leftName) },
		func() error { w.left, err = w.plug(1, leftName, blueNet); return err },
		func() error { return w.rt.start(w.hosts[1], leftName) },
		func() error { return w.sawAtFirst(w.left) },
	)
}

// sawAtFirst looks that left's entrypoint has seen the endpoint.
func (w *walk) sawAtFirst(endpoint string) error {
	t, err := w.attachment(1, endpoint)
	if err != nil {
		return err
	}
	saw, err := w.first(1, leftName)
	if err == nil {
		err = contains(saw, t.Key.IfName+" ", "inet addr:"+t.Addresses[0].Addr().String()+" ")
	}
	return err
}

func (w *walk) plugRight() (err error) {
	return steps(
		func() error { return w.createOn(2, rightName) },
		func() error { return w.rt.start(w.hosts[2], rightName) },
		func() error { w.right, err = w.plug(2, rightName, blueNet); return err },
	)
}

// bothWays has each fetch the other's page over blue.
func (w *walk) bothWays() error {
	return steps(
		func() error { return w.reaches(2, rightName, 1, w.left, leftName) },
		func() error { return w.reaches(1, leftName, 2, w.right, rightName) },
	)
}

// reaches fetches the page of the container at an endpoint, by its address and by its
// name. Names of a network are asked of the host's address on it, as a runtime's --dns has it.
func (w *walk) reaches(i int, from string, at int, endpoint, name string) error {
	t, err := w.attachment(at, endpoint)
	if err != nil {
		return err
	}
	gateway, err := w.gateway(i, t.Key.Network)
	if err != nil {
		return err
	}
	_, err = w.rt.exec(w.hosts[i], from, "sh", "-c", "printf 'nameserver "+gateway+"\\nsearch weave.local\\n' >/etc/resolv.conf")
	if err != nil {
		return err
	}
	for _, where := range []string{t.Addresses[0].Addr().String(), name} {
		err := fetch(func(url string) (string, error) { return w.rt.exec(w.hosts[i], from, "wget", "-qO-", url) }, where, pageOf(name))
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
	}
	return nil
}

func (w *walk) gateway(i int, network string) (string, error) {
	return gatewayOf(w.hosts[i], w.net.program(), network)
}

func (w *walk) plugTwice() (err error) {
	if w.second, err = w.plug(1, leftName, blueNet); err != nil {
		return err
	}
	t, err := w.attachment(1, w.second)
	if err == nil && (w.second == w.left || t.Key.IfName != "eth2") {
		err = fmt.Errorf("the second endpoint is %+v", t)
	}
	if err != nil {
		return err
	}
	return w.reaches(2, rightName, 1, w.second, leftName)
}

func (w *walk) wrongHost() error {
	return w.refused(1, "of host "+w.hosts[0].Name(), "net", "plug", leftName, w.local.Name)
}

func (w *walk) inUse() error {
	return w.refused(0, "in use", "net", "rm", blueNet)
}

func (w *walk) killRouter() error {
	t, err := w.attachment(1, w.left) // while it can be asked
	if err != nil {
		return err
	}
	if err := w.hosts[1].Router().Kill(); err != nil {
		return err
	}
	_, err = w.rt.exec(w.hosts[2], rightName, "ping", "-c", "1", "-W", "5", t.Addresses[0].Addr().String())
	return err
}

func (w *walk) startRouter() error {
	before := []string{w.left, w.second}
	if err := w.hosts[1].Router().Restart(); err != nil {
		return err
	}
	err := w.hosts[1].Router().WaitFor(plugIn, "the router has its endpoints", func() error {
		if _, err := w.on(1, "status"); err != nil {
			return err
		}
		for _, id := range before {
			t, err := w.attachment(1, id)
			if err == nil && t.State != "attached" {
				err = fmt.Errorf("%+v", t)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.bothWays()
}

func (w *walk) restartLeft() error {
	if _, err := w.rt.exec(w.hosts[1], leftName, "rm", "/tmp/first", "/tmp/index.html"); err != nil { // of its first life
		return err
	}
	if err := w.rt.restart(w.hosts[1], leftName); err != nil {
		return err
	}
	if err := w.sawAtFirst(w.left); err != nil {
		return err
	}
	err := netlab.Wait(plugIn, "the second endpoint is there", func() error {
		t, err := w.attachment(1, w.second)
		if err != nil {
			return err
		}
		_, err = w.rt.exec(w.hosts[1], leftName, "ip", "link", "show", "dev", t.Key.IfName)
		return err
	})
	if err != nil {
		return err
	}
	return w.bothWays()
}

func (w *walk) removeBlue() error {
	for _, u := range []struct {
		host           int
		name, endpoint string
	}{{1, leftName, w.second}, {1, leftName, w.left}, {2, rightName, w.right}} {
		if _, err := w.on(u.host, "net", "unplug", u.name, u.endpoint); err != nil {
			return err
		}
	}
	if err := w.without(1, leftName, "eth1"); err != nil {
		return err
	}
	// The endpoints' end is gossip: the other hosts have heard of it a little later.
	err := netlab.Wait(fetchIn, "blue is removed", func() error { _, err := w.on(2, "net", "rm", blueNet); return err })
	if err != nil {
		return err
	}
	if _, err := w.on(0, "net", "rm", w.local.ID[:8]); err != nil {
		return err
	}
	return w.noNetworks()
}

// noNetworks waits until no host has a network, a bridge or a list besides those of weave.
func (w *walk) noNetworks() error {
	return each(w.hosts, func(h *netlab.Host) error {
		return netlab.Wait(fetchIn, "no network is left", func() error {
			nets, err := netsOf(h, w.net.program())
			if err != nil {
				return err
			}
			return errors.Join(sameWords("networks", namesOf(nets), []string{"weave"}), whole(h, nets))
		})
	})
}

func namesOf(nets []ctl.Net) (names []string) {
	for _, n := range nets {
		names = append(names, n.Name)
	}
	return names
}

// whole is nil if the host has the bridge and the list of each of its networks, and of no
// other.
func whole(h *netlab.Host, nets []ctl.Net) error {
	bridges, files := []string{"weave"}, []string{"10-weave.conflist", "20-simplebridge.conflist"}
	for _, n := range nets {
		if n.Name == "weave" || n.State == "elsewhere" {
			continue
		}
		if n.State != "ready" {
			return fmt.Errorf("%s is %s: %s", n.Name, n.State, n.Waiting)
		}
		bridges, files = append(bridges, n.Bridge), append(files, "weave-"+n.Name+".conflist")
	}
	links, err := h.Run("ip", "-o", "link", "show", "type", "bridge")
	if err != nil {
		return err
	}
	lists, err := h.Run("find", "/etc/cni/net.d", "-name", "*.conflist*", "!", "-name", nerdctlList, "-printf", "%f\n")
	if err != nil {
		return err
	}
	return errors.Join(sameWords("bridges", linkNames(links), bridges), sameWords("lists", strings.Fields(lists), files))
}

// linkNames reads what `ip -o link` writes.
func linkNames(text string) (names []string) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 {
			name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
			names = append(names, name)
		}
	}
	return names
}

func sameWords(what string, got, want []string) error {
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s are %q, want %q", what, got, want)
	}
	return nil
}
