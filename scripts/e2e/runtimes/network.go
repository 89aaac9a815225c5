package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// network is what containers are attached to. It is called "weave" on every
// host; a second one, "simplebridge", joins containers of one host.
type network interface {
	up(hosts []*netlab.Host) error
	// partner is the host that host i's container talks to.
	partner(hosts []*netlab.Host, i int) *netlab.Host
	// address is what a container is called by, from its partner.
	address(rt runtime, h *netlab.Host, container string) (string, error)
	// resolvConf is what a container on the host asks for names with.
	resolvConf(h *netlab.Host) (string, error)
	// more makes another network, uses and removes it.
	more(hosts []*netlab.Host, rt runtime) error
	// empty is an error that names the attachments there are.
	empty(h *netlab.Host) error
}

// weave is our network: one router on each host, the second joins the first.
type weave struct{ bin, lists string }

func (w weave) program() string { return filepath.Join(w.bin, "weave") }

func (w weave) up(hosts []*netlab.Host) error {
	args := []string{"--init", "new"} // a lab's state directories are on a tmpfs
	var peers []string
	for _, h := range hosts {
		if _, err := h.StartRouter(args...); err != nil {
			return err
		}
		peers = append(peers, h.Addr().String())
		args = peers
		_, err := h.Run(w.program(), "conflist", "--plugin-dir", "/opt/cni/bin", "--out", "/etc/cni/net.d",
			filepath.Join(w.lists, "10-weave.conflist"), filepath.Join(w.lists, "20-simplebridge.conflist"))
		if err != nil {
			return err
		}
	}
	err := each(hosts, func(h *netlab.Host) error {
		return h.Router().WaitFor(time.Minute, "weave status says that ADD can be served", func() error {
			_, err := h.Run(w.program(), "status")
			return err
		})
	})
	if err != nil {
		return err
	}
	return w.meshed(hosts)
}

// meshed waits until each host reaches each other one over the network, so that none
// learns of another later.
func (w weave) meshed(hosts []*netlab.Host) error {
	return each(hosts, func(to *netlab.Host) error {
		gateway, err := gatewayOf(to, w.program(), "weave")
		if err != nil {
			return err
		}
		return each(hosts, func(from *netlab.Host) error {
			return from.Router().WaitFor(time.Minute, from.Name()+" reaches "+to.Name(), func() error {
				_, err := from.Run("busybox", "ping", "-c", "1", "-W", "1", gateway)
				return err
			})
		})
	})
}

// gatewayOf is a host's own address in a network.
func gatewayOf(h *netlab.Host, program, network string) (string, error) {
	s, err := routerStatus(h, program)
	if err != nil {
		return "", err
	}
	for _, n := range s.Networks {
		if n.Name == network && len(n.Gateways) > 0 {
			return n.Gateways[0].String(), nil
		}
	}
	return "", fmt.Errorf("%s has no address on %s: %+v", h.Name(), network, s.Networks)
}

func (w weave) partner(hosts []*netlab.Host, i int) *netlab.Host { return hosts[(i+1)%len(hosts)] }

func (w weave) address(rt runtime, _ *netlab.Host, container string) (string, error) {
	return rt.known(container), nil
}

// resolvConf names the bridge's address on this host, as the router says it.
func (w weave) resolvConf(h *netlab.Host) (string, error) {
	gateway, err := gatewayOf(h, w.program(), "weave")
	if err != nil {
		return "", err
	}
	s, err := routerStatus(h, w.program())
	return fmt.Sprintf("nameserver %s\nsearch %s\n", gateway, s.DNS.Domain), err
}

func (w weave) empty(h *netlab.Host) error {
	s, err := routerStatus(h, w.program())
	if err != nil {
		return err
	}
	for _, t := range s.Attachments {
		if !strings.HasPrefix(t.Key.ContainerID, ".") { // that is the host's own address on the bridge
			return fmt.Errorf("the router still has %+v", t)
		}
	}
	return nil
}

// routerStatus is what the router of a host says of itself.
func routerStatus(h *netlab.Host, weave string) (s ctl.Status, err error) {
	out, err := patiently(h, weave, "status", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// bridge is the reference plugins' network, each host for itself.
type bridge struct{}

func (bridge) up(hosts []*netlab.Host) error {
	for i, h := range hosts {
		for j, name := range []string{"weave", "simplebridge"} {
			list := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [
				{"type": "bridge", "bridge": "br%d", "isGateway": true, "ipMasq": true, "hairpinMode": true,
				 "ipam": {"type": "host-local", "subnet": "10.%d.%d.0/24", "routes": [{"dst": "0.0.0.0/0"}]}},
				{"type": "portmap", "capabilities": {"portMappings": true}}]}`, name, j, 20+j, i)
			if err := h.WriteFile(fmt.Sprintf("/etc/cni/net.d/%d0-%s.conflist", j+1, name), list, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func (bridge) partner(hosts []*netlab.Host, i int) *netlab.Host { return hosts[i] }

func (bridge) address(rt runtime, h *netlab.Host, container string) (string, error) {
	return addressIn(rt, h, container, "eth0")
}

func (bridge) resolvConf(*netlab.Host) (string, error) { return "", nil }

func (bridge) empty(*netlab.Host) error { return nil }

// addressIn is the IPv4 address of an interface, as the container sees it.
func addressIn(rt runtime, h *netlab.Host, container, ifname string) (string, error) {
	out, err := rt.exec(h, container, "ip", "-4", "-o", "addr", "show", "dev", ifname)
	if err != nil {
		return "", err
	}
	for _, word := range strings.Fields(out) {
		if p, err := netip.ParsePrefix(word); err == nil {
			return p.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("%s of %s has no IPv4 address: %q", ifname, container, out)
}

// patiently runs a command of weave's, and runs it again if it says that the router or a
// runtime did not answer within the two seconds that they have.
func patiently(h *netlab.Host, weave string, args ...string) (out string, err error) {
	patience := netlab.Wait(plugIn, "weave answers", func() error {
		if out, err = h.Run(weave, args...); busy(err) {
			return err
		}
		return nil
	})
	return out, errors.Join(err, patience)
}

// busy reports that somebody did not answer in time, which is what a machine with too much
// else to do says.
func busy(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "context deadline exceeded") || strings.Contains(err.Error(), "router does not answer"))
}
