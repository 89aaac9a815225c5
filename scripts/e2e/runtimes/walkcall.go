package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// The attach call as the project's first notes have it, to the letter: so a container is called ca88a6e.
const (
	called     = "ca88a6e"
	attachBody = `{"Endpoint": "10.2.45.3/24", "ContainerID": "ca88a6e"}`
	directName = "direct"
	directAt   = "10.2.45.4/24"
)

// curl posts a body to a host's router, and returns the status and what was answered.
func curl(h *netlab.Host, path, body string, answer any) (status string, err error) {
	out, err := h.Run("curl", "-sS", "--max-time", "40", "--unix-socket", ctl.DefaultSocket, "-w", "\n%{http_code}", "-d", body, "http://weave"+path)
	if err != nil {
		return "", err
	}
	cut := strings.LastIndexByte(out, '\n')
	if err := json.Unmarshal([]byte(out[:cut]), answer); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return out[cut+1:], nil
}

// attachCall makes the calls of the other notes, and uses each form of an endpoint.
func (w *walk) attachCall() error {
	var at ctl.Attached
	return inTurn(
		told{"weave net create --subnet 10.2.45.0/24, and a container " + called, w.prepareCall},
		told{"curl /v1/net/attach with the very body of the notes", func() error { return w.attach(attachBody, &at) }},
		told{"it was answered 200, and the container has the address", func() error { return w.asAsked(at) }},
		told{"weave://10.2.45.0/24 on " + w.hosts[2].Name() + ": both fetch", func() error { return w.reachCalled(at) }},
		told{"a container is run at weave://" + directAt + " on " + w.hosts[1].Name() + ": both fetch", w.runDirect},
		told{"curl /v1/net/detach: it is gone", func() error { return w.detach(at) }},
		told{"weave://net1, weave://10.2.67.0/24, weave://", w.forms},
		told{"weave://192.0.2.7/24, which no network holds, is refused", w.noSuchRange},
		told{"weave net rm of all three", w.endCall},
	)
}

func (w *walk) prepareCall() error {
	for _, args := range [][]string{{"--subnet", "10.2.45.0/24"}, {"--subnet", "10.2.67.0/24"}, {"net1"}} {
		if _, err := w.on(0, append([]string{"net", "create"}, args...)...); err != nil {
			return err
		}
	}
	return steps(
		func() error { return w.createOn(0, called) },
		func() error { return w.rt.start(w.hosts[0], called) },
		func() error { _, err := w.first(0, called); return err },
	)
}

// attach makes a call that must succeed.
func (w *walk) attach(body string, at *ctl.Attached) error {
	return w.call(ctl.PathNetAttach, body, at)
}

// call is answered with 200, if need be when it is tried again.
func (w *walk) call(path, body string, answer any) error {
	var text json.RawMessage
	var status string
	err := netlab.Wait(plugIn, "the runtime answers", func() (err error) {
		if status, err = curl(w.hosts[0], path, body, &text); err == nil && status != "200" && busy(errors.New(string(text))) {
			err = errors.New(string(text))
		}
		return err
	})
	if err == nil && status != "200" {
		err = fmt.Errorf("%s %s: %s %s", path, body, status, text)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

func (w *walk) asAsked(at ctl.Attached) error {
	if at.IP != "10.2.45.3" || at.IfName != "eth1" || !fullID.MatchString(at.EndpointID) {
		return fmt.Errorf("the answer is %+v", at)
	}
	return w.has(0, called, at.IfName, "10.2.45.3/24")
}

// has looks that a running container has the address on the interface.
func (w *walk) has(i int, name, ifname, address string) error {
	out, err := w.rt.exec(w.hosts[i], name, "ip", "-4", "-o", "addr", "show", "dev", ifname)
	if err == nil {
		err = contains(out, " "+address+" ")
	}
	return err
}

// reachCalled plugs a container of another host by a range, and has each fetch the other's page.
func (w *walk) reachCalled(at ctl.Attached) error {
	var id string
	err := netlab.Wait(fetchIn, "the network is on "+w.hosts[2].Name(), func() (err error) {
		id, err = w.plug(2, rightName, "weave://10.2.45.0/24")
		return err
	})
	if err != nil {
		return err
	}
	return steps(
		func() error { return w.reaches(2, rightName, 0, at.EndpointID, called) },
		func() error { return w.reaches(0, called, 2, id, rightName) },
		func() error { _, err := w.on(2, "net", "unplug", rightName, id); return err },
	)
}

// runDirect runs a container at an endpoint: its entrypoint has the address.
func (w *walk) runDirect() error {
	h := w.hosts[1]
	var err error
	if r, ok := w.rt.(endpointRunner); ok {
		err = r.runAt(h, directName, "weave", "weave://"+directAt, entrypoint(directName))
	} else {
		err = steps(
			func() error { return w.createOn(1, directName) },
			func() error { _, err := w.plug(1, directName, "weave://"+directAt); return err },
			func() error { return w.rt.start(h, directName) },
		)
	}
	if err != nil {
		return err
	}
	saw, err := w.first(1, directName)
	if err != nil {
		return err
	}
	address, _, _ := strings.Cut(directAt, "/")
	for _, f := range []struct {
		host            int
		from, where, of string
	}{{0, called, address, directName}, {1, directName, "10.2.45.3", called}} {
		err := fetch(func(url string) (string, error) { return w.rt.exec(w.hosts[f.host], f.from, "wget", "-qO-", url) }, f.where, pageOf(f.of))
		if err != nil {
			return fmt.Errorf("%s: %w", f.from, err)
		}
	}
	return errors.Join(contains(saw, "inet addr:"+address+" ", "Mask:255.255.255.0"), w.rt.destroy(h, directName))
}

func (w *walk) detach(at ctl.Attached) error {
	var answer map[string]any
	if err := w.call(ctl.PathNetDetach, fmt.Sprintf(`{"EndpointID": %q}`, at.EndpointID), &answer); err != nil {
		return err
	}
	if len(answer) != 0 {
		return fmt.Errorf("%s answers %v, want nothing", ctl.PathNetDetach, answer)
	}
	return w.without(0, called, at.IfName)
}

// forms attaches by each way to say where, and looks where the container came to be.
func (w *walk) forms() error {
	for _, f := range []struct{ endpoint, within string }{
		{"weave://net1", "10.48.0.0/12"}, {"weave://10.2.67.0/24", "10.2.67.0/24"}, {"weave://", "10.32.0.0/12"},
	} {
		var at ctl.Attached // each a new one: what is not answered stays empty
		if err := w.attach(fmt.Sprintf(`{"Endpoint": %q, "ContainerID": %q}`, f.endpoint, called), &at); err != nil {
			return err
		}
		ip, err := netip.ParseAddr(at.IP)
		if err != nil || !netip.MustParsePrefix(f.within).Contains(ip) || len(at.Addresses) != 1 {
			return fmt.Errorf("%s: got %+v, want an address of %s", f.endpoint, at, f.within)
		}
		if err := w.has(0, called, at.IfName, at.Addresses[0].String()); err != nil {
			return err
		}
		if err := w.detach(at); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) noSuchRange() error {
	var answer ctl.Error
	status, err := curl(w.hosts[0], ctl.PathNetAttach, fmt.Sprintf(`{"Endpoint": "weave://192.0.2.7/24", "ContainerID": %q}`, called), &answer)
	if err != nil {
		return err
	}
	if status != "422" || answer.Code != ctl.CodeInvalidConfig {
		return fmt.Errorf("it was answered %s %+v", status, answer)
	}
	return contains(answer.Error(), "weave net create --subnet 192.0.2.0/24")
}

func (w *walk) endCall() error {
	if err := w.rt.destroy(w.hosts[0], called); err != nil {
		return err
	}
	nets, err := w.networks(0)
	if err != nil {
		return err
	}
	for name := range nets {
		if name == "weave" {
			continue
		}
		err := netlab.Wait(fetchIn, name+" is removed", func() error { _, err := w.on(1, "net", "rm", name); return err })
		if err != nil {
			return err
		}
	}
	return w.noNetworks()
}
