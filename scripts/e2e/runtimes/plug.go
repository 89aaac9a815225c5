package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// pluggable is a runtime whose containers `weave net plug` is tried on.
type pluggable interface {
	runtime
	shells
	// namesNetworks reports whether create heeds its network; else the container has none.
	namesNetworks() bool
	// create makes a container on a network, and does not start it.
	create(h *netlab.Host, name, network, script string) error
	// listed are the names of all containers, those that do not run too, a line each.
	listed(h *netlab.Host) (string, error)
	start(h *netlab.Host, name string) error
	// restart ends the container's life and begins a new one.
	restart(h *netlab.Host, name string) error
	// destroy removes a container that create made.
	destroy(h *netlab.Host, name string) error
}

// plugs tries `weave net plug` on the containers of one host.
type plugs struct {
	rt    pluggable
	weave string
	on    *netlab.Host // where it plugs
	from  *netlab.Host // whose container is to see it
}

const (
	idle   = "idle"                                                   // the container that is created and plugged before it starts
	firsts = "ip -o -4 addr >/tmp/first; exec httpd -f -p 80 -h /tmp" // what a first process sees
	plugIn = 60 * time.Second                                         // bounds what comes by itself
)

func (p plugs) all() error {
	return steps(p.running, p.created, p.attachd)
}

// run is a command of weave's on the host.
func (p plugs) run(args ...string) (string, error) {
	out, err := p.on.Run(p.weave, args...)
	return strings.TrimSpace(out), err
}

// attachments are those that the router knows of an endpoint.
func (p plugs) attachment(id string) (ctl.Attachment, error) {
	s, err := routerStatus(p.on, p.weave)
	if err != nil {
		return ctl.Attachment{}, err
	}
	for _, t := range s.Attachments {
		if t.Key.EndpointID() == id {
			return t, nil
		}
	}
	return ctl.Attachment{}, fmt.Errorf("the router has no endpoint %s: %+v", id, s.Attachments)
}

// running plugs a container that runs and is on the network already, and unplugs it.
func (p plugs) running() error {
	var id string
	return steps(
		func() error {
			return step("weave net plug gives "+web(p.on)+" a second endpoint on its network", func() (err error) {
				if id, err = p.run("net", "plug", "--name", "second", "--alias", "other", web(p.on), "weave"); err != nil {
					return err
				}
				t, err := p.attachment(id)
				if err == nil && t.Key.IfName != "eth1" {
					err = fmt.Errorf("endpoint %s is %+v", id, t)
				}
				return err
			})
		},
		func() error { return p.seen("other", pageOf(web(p.on))) },
		func() error {
			return step("weave net unplug takes it away and leaves the first", func() error {
				if _, err := p.run("net", "unplug", web(p.on), id[:12]); err != nil {
					return err
				}
				links, err := p.rt.exec(p.on, web(p.on), "ip", "-o", "link")
				if err == nil && (strings.Contains(links, "eth1") || !strings.Contains(links, "eth0")) {
					err = fmt.Errorf("interfaces are %s", links)
				}
				if _, known := p.attachment(id); err == nil && known == nil {
					err = errors.New("the router still has it")
				}
				return err
			})
		},
	)
}

// seen fetches a page by name from the other host.
func (p plugs) seen(name, page string) error {
	return step(fmt.Sprintf("%s fetches http://%s/", web(p.from), name), func() error {
		return fetch(func(url string) (string, error) { return p.rt.exec(p.from, web(p.from), "wget", "-qO-", url) }, name, page)
	})
}

// created plugs a container that was not started: its first process sees the interface.
func (p plugs) created() error {
	var out ctl.Attached
	return steps(
		func() error {
			return step("weave net plug takes a container that is only created", func() error {
				if err := p.rt.create(p.on, idle, "simplebridge", firsts); err != nil {
					return err
				}
				text, err := p.run("net", "plug", "--json", "--mac", "02:42:00:00:be:ef", "--alias", "idle-one", idle, "weave")
				if err != nil {
					return err
				}
				return json.Unmarshal([]byte(text), &out)
			})
		},
		func() error {
			return step("its first process has the interface", func() error {
				return steps(func() error { return p.rt.start(p.on, idle) }, func() error { return p.first(out) })
			})
		},
		func() error {
			return step("and so it is in its next life", func() error {
				return steps(p.restart, func() error { return p.first(out) })
			})
		},
		func() error {
			return step("weave net unplug takes it away for good", func() error {
				if _, err := p.run("net", "unplug", idle, out.EndpointID); err != nil {
					return err
				}
				if err := p.restart(); err != nil {
					return err
				}
				saw, err := p.read()
				if err == nil && strings.Contains(saw, out.IfName) {
					err = fmt.Errorf("its first process saw %s", saw)
				}
				return err
			})
		},
	)
}

// restart has the container forget what its first process saw before.
func (p plugs) restart() error {
	if _, err := p.rt.exec(p.on, idle, "rm", "/tmp/first"); err != nil {
		return err
	}
	return p.rt.restart(p.on, idle)
}

// first looks that the first process saw the endpoint, and that its id is the one of its key.
func (p plugs) first(out ctl.Attached) error {
	saw, err := p.read()
	if err != nil {
		return err
	}
	t, err := p.attachment(out.EndpointID)
	switch {
	case err != nil:
		return err
	case len(t.Addresses) != 1 || !strings.Contains(saw, out.IfName+"    inet "+t.Addresses[0].String()):
		return fmt.Errorf("the endpoint is %+v, the first process saw %s", t, saw)
	case t.MAC != "02:42:00:00:be:ef":
		return fmt.Errorf("the endpoint is %+v", t)
	case (attachment.Key{Network: "weave", ContainerID: t.Key.ContainerID, IfName: out.IfName}).EndpointID() != out.EndpointID:
		return fmt.Errorf("the endpoint is %+v and was printed as %+v", t, out)
	}
	return nil
}

// read gives what the container's first process wrote at its start.
func (p plugs) read() (saw string, err error) {
	err = netlab.Wait(plugIn, "the first process wrote what it sees", func() error {
		if saw, err = p.rt.exec(p.on, idle, "cat", "/tmp/first"); err == nil && !strings.Contains(saw, "lo ") {
			err = fmt.Errorf("got %q", saw)
		}
		return err
	})
	return saw, err
}

// attachd keeps the endpoint of a container that runs, and forgets it with the container.
func (p plugs) attachd() error {
	var id string
	return steps(
		func() error {
			return step("weave attachd plugs a running container", func() error {
				if err := p.startAttachd(); err != nil {
					return err
				}
				var err error
				// Twice: of podman's containers the second is not podman's to bring back.
				if _, err = p.run("net", "plug", idle, "weave"); err != nil {
					return err
				}
				id, err = p.run("net", "plug", "--name", "kept", idle, "weave")
				return err
			})
		},
		func() error {
			return step("the endpoint comes back when the container restarts", func() error {
				if err := p.rt.restart(p.on, idle); err != nil {
					return err
				}
				return netlab.Wait(plugIn, "the endpoint is there", func() error {
					t, err := p.attachment(id)
					if err != nil {
						return err
					}
					_, err = p.rt.exec(p.on, idle, "ip", "link", "show", "dev", t.Key.IfName)
					return err
				})
			})
		},
		func() error {
			return step("and is forgotten when the container is removed", func() error {
				if err := p.rt.destroy(p.on, idle); err != nil {
					return err
				}
				return netlab.Wait(plugIn, "no intent is left", p.noIntents)
			})
		},
	)
}

func (p plugs) startAttachd() error {
	d, err := p.on.Start(p.weave, "attachd", "--log-level", "debug")
	if err != nil {
		return err
	}
	return d.WaitFor(plugIn, "attachd listens", func() error {
		_, err := p.on.Run("test", "-S", "/run/weave/attach.sock")
		return err
	})
}

func (p plugs) noIntents() error {
	out, err := p.on.Run("find", "/var/lib/weave/plugs", "-name", "*.json")
	if err == nil && out != "" {
		err = fmt.Errorf("intents: %s", out)
	}
	return err
}

// plug tries it where weave is the network.
func plug(rt pluggable, hosts []*netlab.Host, net network) error {
	w, ok := net.(weave)
	if !ok {
		return nil
	}
	return plugs{rt, filepath.Join(w.bin, "weave"), hosts[0], hosts[1]}.all()
}
