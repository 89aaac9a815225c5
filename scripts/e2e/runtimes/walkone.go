package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// oneHost is the walkthrough itself, on the first host, and what it leads to there.
func (w *walk) oneHost() error {
	return inTurn(
		told{"weave net create --driver simplebridge prints its id", w.createLocal},
		told{"weave net list shows it, with a readable name of its own", w.listLocal},
		told{hopper + " is created; it is listed, and does not run", w.createHopper},
		told{"weave net plug prints the id of the endpoint", w.plugHopper},
		told{"it starts; ifconfig -a in its shell: eth0, eth1, lo", w.startHopper},
		told{mate + " is plugged likewise; its entrypoint sees eth1", w.plugMate},
		told{hopper + " starts again and reaches it by address and name", w.againHopper},
		told{"weave net label; ps, net list and net inspect show it all", w.showLabelled},
		told{"weave net unplug takes both away", w.unplugLocal},
	)
}

func (w *walk) createHopper() error {
	id, err := w.rt.createShell(w.hosts[0], hopper, "weave")
	if err == nil && w.rt.namesNetworks() && !fullID.MatchString(id) {
		err = fmt.Errorf("the runtime printed %q", id)
	}
	if err != nil {
		return err
	}
	state, err := w.rt.state(w.hosts[0], hopper)
	if err == nil && state != created {
		err = fmt.Errorf("it is %q, want %q", state, created)
	}
	if err == nil && !w.rt.namesNetworks() {
		_, err = w.plug(0, hopper, "weave")
	}
	return err
}

func (w *walk) plugHopper() (err error) {
	w.hopping, err = w.plug(0, hopper, w.local.Name)
	return err
}

// startHopper looks at each part of what the walkthrough shows.
func (w *walk) startHopper() error {
	out, err := w.rt.typed(w.hosts[0], hopper, "ifconfig -a\n")
	if err != nil {
		return err
	}
	links := ifconfig(out)
	ethernet := []string{"Link encap:Ethernet", "HWaddr ", "inet addr:", "UP BROADCAST RUNNING", "MTU:", "RX packets:", "TX packets:"}
	return errors.Join(
		sameWords("interfaces", slices.Collect(maps.Keys(links)), []string{"eth0", "eth1", "lo"}),
		contains(links["eth0"], ethernet...),
		contains(links["eth1"], ethernet...),
		contains(links["lo"], "inet addr:127.0.0.1", "UP LOOPBACK RUNNING"),
		w.onLocal(links["eth1"]),
	)
}

var inetAddr = regexp.MustCompile(`inet addr:(\S+)`)

// onLocal is nil if what ifconfig says of an interface has an address of the network.
func (w *walk) onLocal(link string) error {
	m := inetAddr.FindStringSubmatch(link)
	if m == nil {
		return fmt.Errorf("no address in %q", link)
	}
	ip, err := netip.ParseAddr(m[1])
	if err == nil && !w.local.Subnets[0].Contains(ip) {
		err = fmt.Errorf("%v is not of %v", ip, w.local.Subnets)
	}
	return err
}

// ifconfig has each interface's part of what `ifconfig -a` writes, by name.
func ifconfig(text string) map[string]string {
	parts := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if name, _, ok := strings.Cut(part, " "); ok {
			parts[name] = part
		}
	}
	return parts
}

func (w *walk) plugMate() (err error) {
	return steps(
		func() error { return w.createOn(0, mate) },
		func() error { w.endpoint, err = w.plug(0, mate, w.local.Name); return err },
		w.startLocal,
	)
}

// againHopper: what was plugged is there in the next life too.
func (w *walk) againHopper() error {
	t, err := w.attachment(0, w.endpoint)
	if err != nil {
		return err
	}
	gateway, err := w.gateway(0, w.local.Name)
	if err != nil {
		return err
	}
	out, err := w.rt.typed(w.hosts[0], hopper, strings.Join([]string{
		"printf 'nameserver " + gateway + "\\nsearch weave.local\\n' >/etc/resolv.conf",
		"ping -c 1 -W 5 -I eth1 " + t.Addresses[0].Addr().String(),
		"wget -qO- http://" + t.Addresses[0].Addr().String() + "/",
		"wget -qO- http://" + mate + "/", ""}, "\n"))
	if err == nil && (strings.Count(out, pageOf(mate)) != 2 || !strings.Contains(out, " 0% packet loss")) {
		err = fmt.Errorf("its shell answered %q", out)
	}
	return err
}

func (w *walk) showLabelled() error {
	if _, err := w.on(0, "net", "label", w.local.ID[:12], "of=walk"); err != nil {
		return err
	}
	return w.showLocal()
}
