package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// walk goes through the walkthrough that the project began with, line by line: networks
// by name, containers plugged into them before they start, over three hosts.
type walk struct {
	lab   *netlab.Lab
	hosts []*netlab.Host
	rt    pluggable
	net   weave

	local    ctl.Net // of driver simplebridge, on the first host
	hopping  string  // hopper's endpoint on it
	endpoint string  // and mate's
	left     string  // the endpoints of the containers that talk across hosts
	second   string
	right    string
}

func newWalk(lab *netlab.Lab, rt pluggable, net weave) *walk {
	return &walk{lab: lab, hosts: lab.Hosts(), rt: rt, net: net}
}

// The containers, and the networks that have no random name.
const (
	hopper    = "backstabbing_hopper" // as the walkthrough has it
	mate      = "mate"                // on hopper's host
	leftName  = "left"
	rightName = "right"
	blueNet   = "blue"
)

// entrypoint says first of all what interfaces it has, and then serves that as a page.
func entrypoint(name string) string {
	return "ifconfig -a >/tmp/first; echo '" + pageOf(name) + "' >/tmp/index.html; exec httpd -f -p 80 -h /tmp"
}

var (
	fullID       = regexp.MustCompile(`^[0-9a-f]{64}$`)
	readableName = regexp.MustCompile(`^[a-z]+-[a-z]+[0-9]*$`)
)

// told is a step with what is printed of it.
type told struct {
	what string
	do   func() error
}

func inTurn(all ...told) error {
	for _, t := range all {
		if err := step(t.what, t.do); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) all() error {
	err := inTurn(
		told{"three routers, one cluster; the runtime and attachd on each host", w.prepare},
	)
	if err != nil {
		return err
	}
	same, err := watch(w.lab, runtimeFiles)
	if err != nil {
		return err
	}
	return steps(w.oneHost, w.manyHosts, w.parted, w.attachCall, func() error {
		return step("containers and networks are gone, and the hosts as they were", func() error { return steps(w.clear, same) })
	})
}

func (w *walk) prepare() error {
	return steps(
		func() error { return w.net.up(w.hosts) },
		func() error { return prepareAll(w.hosts, w.rt, w.net) },
		func() error {
			return each(w.hosts, func(h *netlab.Host) error { return plugs{on: h, weave: w.net.program()}.startAttachd() })
		},
	)
}

// on runs a command of weave's on a host; a plug once, since each gives another endpoint
// and one that was not answered in time may have been done.
func (w *walk) on(i int, args ...string) (string, error) {
	run := patiently
	if len(args) > 1 && args[0] == "net" && args[1] == "plug" {
		run = (*netlab.Host).Run
	}
	out, err := run(w.hosts[i], w.net.program(), args...)
	return strings.TrimSpace(out), err
}

// refused runs a command that must fail with these words.
func (w *walk) refused(i int, words string, args ...string) error {
	out, err := w.on(i, args...)
	switch {
	case err == nil:
		return fmt.Errorf("weave %s did not fail, and said %q", strings.Join(args, " "), out)
	case !strings.Contains(err.Error(), words):
		return fmt.Errorf("%w\nwant: %q", err, words)
	}
	return nil
}

// networks are what `weave net list` says on a host, by name.
func (w *walk) networks(i int) (map[string]ctl.Net, error) {
	nets, err := netsOf(w.hosts[i], w.net.program())
	return byName(nets), err
}

func netsOf(h *netlab.Host, program string) (nets []ctl.Net, err error) {
	out, err := patiently(h, program, "net", "list", "--format", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &nets)
	}
	return nets, err
}

func byName(nets []ctl.Net) map[string]ctl.Net {
	out := map[string]ctl.Net{}
	for _, n := range nets {
		out[n.Name] = n
	}
	return out
}

func (w *walk) createLocal() error {
	id, err := w.on(0, "net", "create", "--driver", "simplebridge")
	if err == nil && !fullID.MatchString(id) {
		err = fmt.Errorf("it printed %q", id)
	}
	w.local.ID = id
	return err
}

func (w *walk) listLocal() error {
	for _, h := range w.hosts {
		var n ctl.Net
		err := netlab.Wait(fetchIn, h.Name()+" knows it", func() error {
			nets, err := netsOf(h, w.net.program())
			at := slices.IndexFunc(nets, func(n ctl.Net) bool { return n.ID == w.local.ID })
			if err == nil && at < 0 {
				return fmt.Errorf("there are %+v", nets)
			}
			if err == nil {
				n = nets[at]
			}
			return err
		})
		switch {
		case err != nil:
			return err
		case !readableName.MatchString(n.Name), n.Driver != "simplebridge", n.Host != w.hosts[0].Name(), len(n.Labels) > 0, len(n.Subnets) != 1:
			return fmt.Errorf("on %s it is %+v", h.Name(), n)
		}
		w.local = n
	}
	text, err := w.on(0, "net", "list")
	if err != nil {
		return err
	}
	whole, err := w.on(0, "net", "list", "--no-trunc")
	if err != nil {
		return err
	}
	return errors.Join(
		contains(text, "NETWORK ID", "NAME", "DRIVER", "LABELS", w.local.ID[:12], w.local.Name, "simplebridge", "host "+w.hosts[0].Name()),
		contains(whole, w.local.ID+" ", w.local.Name+" "),
	)
}

// contains is an error for each word that is not in the text.
func contains(text string, words ...string) error {
	var errs []error
	for _, word := range words {
		if !strings.Contains(text, word) {
			errs = append(errs, fmt.Errorf("%q is not in:\n%s", word, text))
		}
	}
	return errors.Join(errs...)
}

// createOn makes a container that is on the network weave by its eth0, as containers are
// that were not plugged: where the runtime cannot do that itself it is plugged.
func (w *walk) createOn(i int, name string) error {
	h := w.hosts[i]
	if err := w.rt.create(h, name, "weave", entrypoint(name)); err != nil {
		return err
	}
	list, err := w.rt.listed(h)
	if err == nil {
		err = contains(list, name)
	}
	if err == nil && !w.rt.namesNetworks() {
		_, err = w.on(i, "net", "plug", name, "weave")
	}
	return err
}

// plug gives a container an endpoint and returns its id.
func (w *walk) plug(i int, args ...string) (string, error) {
	id, err := w.on(i, append([]string{"net", "plug"}, args...)...)
	if err == nil && !fullID.MatchString(id) {
		err = fmt.Errorf("it printed %q", id)
	}
	return id, err
}

func (w *walk) startLocal() error {
	if err := w.rt.start(w.hosts[0], mate); err != nil {
		return err
	}
	saw, err := w.first(0, mate)
	if err != nil {
		return err
	}
	t, err := w.attachment(0, w.endpoint)
	if err != nil {
		return err
	}
	if len(t.Addresses) != 1 || t.Key.IfName != "eth1" {
		return fmt.Errorf("the endpoint is %+v", t)
	}
	return contains(saw, "eth0 ", "eth1 ", "lo ", "inet addr:"+t.Addresses[0].Addr().String()+" ", "HWaddr "+strings.ToUpper(t.MAC))
}

// first is what the container's entrypoint said that it had when it began.
func (w *walk) first(i int, name string) (saw string, err error) {
	err = netlab.Wait(plugIn, "the entrypoint of "+name+" has said what it has", func() error {
		if saw, err = w.rt.exec(w.hosts[i], name, "cat", "/tmp/first", "/tmp/index.html"); err == nil && !strings.Contains(saw, pageOf(name)) {
			err = fmt.Errorf("got %q", saw)
		}
		return err
	})
	return saw, err
}

func (w *walk) attachment(i int, id string) (ctl.Attachment, error) {
	return plugs{on: w.hosts[i], weave: w.net.program()}.attachment(id)
}

func (w *walk) showLocal() error {
	t, err := w.attachment(0, w.endpoint)
	if err != nil {
		return err
	}
	ps, err := w.on(0, "ps")
	if err != nil {
		return err
	}
	inspected, err := w.on(0, "net", "inspect", w.local.ID[:12])
	if err != nil {
		return err
	}
	var nets []ctl.Net
	if err := json.Unmarshal([]byte(inspected), &nets); err != nil {
		return err
	}
	if len(nets) != 1 || !slices.ContainsFunc(nets[0].Endpoints, func(e ctl.NetEndpoint) bool { return e.ID == w.endpoint && e.ContainerID == t.Key.ContainerID }) {
		return fmt.Errorf("net inspect: %s", inspected)
	}
	list, err := w.on(0, "net", "list")
	if err != nil {
		return err
	}
	return errors.Join(
		contains(ps, w.local.Name, "eth1", t.MAC, t.Addresses[0].String(), mate),
		contains(inspected, `"eth1"`, t.MAC, t.Addresses[0].String(), mate),
		contains(list, mate, "of=walk"),
	)
}

func (w *walk) unplugLocal() error {
	if _, err := w.on(0, "net", "unplug", hopper, w.hopping); err != nil {
		return err
	}
	if err := w.rt.destroy(w.hosts[0], hopper); err != nil {
		return err
	}
	if _, err := w.on(0, "net", "unplug", mate, w.endpoint[:12]); err != nil {
		return err
	}
	return w.without(0, mate, "eth1")
}

// without is nil if a running container does not have the interface, but has its eth0.
func (w *walk) without(i int, name, ifname string) error {
	links, err := w.rt.exec(w.hosts[i], name, "ip", "-o", "link")
	if err == nil && (strings.Contains(links, ifname) || !strings.Contains(links, "eth0")) {
		err = fmt.Errorf("its interfaces are %s", links)
	}
	return err
}

// clear removes what the walk has made.
func (w *walk) clear() error {
	for i, name := range []string{mate, leftName, rightName} {
		if err := w.rt.destroy(w.hosts[i], name); err != nil {
			return err
		}
	}
	return each(w.hosts, func(h *netlab.Host) error {
		return steps(
			func() error { return nothingLeft(h, w.net) },
			func() error { return netlab.Wait(plugIn, "no intent is left", plugs{on: h}.noIntents) },
		)
	})
}

// runtimeFiles are those that runtimes keep for themselves.
var runtimeFiles = []string{"file /var/lib/containers", "file /var/lib/containerd", "file /var/lib/nerdctl", "file /dev/shm",
	"file /run/containers", "file /run/containerd", "file /run/libpod", "file /run/runc", "file /etc/cni/net.d/cni.lock",
	"file /etc/cni/net.d/" + nerdctlList, "file /etc/cni/net.d/" + namespace, "file /etc/cni/net.d/.nerdctl.lock",
	"file /etc/cni/net.d/.cni-concurrency.lock",
	"mount /var/lib/containers/storage/overlay "}

// watch notes what all hosts look like; the function that it returns fails unless they
// come to look so again.
func watch(lab *netlab.Lab, besides []string) (func() error, error) {
	o := netlab.WorldOptions{Ignore: append([]string{
		"file /var/lib/weave/",           // a log that only grows, and a counter of starts
		"file /var/lib/cni",              // libcni's own
		"file /run/weave/claims/resting", // freed addresses, for 30 s
		"file /run/weave/witness",        // how often the state was changed
	}, besides...)}
	before, err := lab.World(o)
	if err != nil {
		return nil, err
	}
	return func() error {
		return netlab.Wait(time.Minute, "the hosts look as before", func() error {
			now, err := lab.World(o)
			if err != nil {
				return err
			}
			if diff := before.Diff(now); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
	}, nil
}
