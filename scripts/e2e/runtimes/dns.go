package main

import (
	"cmp"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// resident is a container of one of the runtimes, in the part about names.
type resident struct {
	on      *netlab.Host
	what    string   // runtime and host, for people
	names   []string // what it is called: by its runtime, and aliases
	addr    string   // of eth0, once it is known
	in      func(script string) (string, error)
	destroy func() error
}

// lodging makes a resident on a host. resolver is a resolv.conf, for those whose runtime
// does not heed the one in CNI's result.
type lodging struct {
	runtime string
	prepare func(h *netlab.Host, resolver string) error
	lodge   func(h *netlab.Host, resolver string) (*resident, error)
}

// census is the part about names: containers of all the runtimes on two hosts.
type census struct {
	net       weave
	hosts     []*netlab.Host
	lodgings  []lodging
	residents []*resident
}

// countryside has containers of every runtime that there is.
func (o options) countryside() error {
	if err := makeImage(o.tar); err != nil {
		return err
	}
	ctrd := containerd{o.tar, map[string]*netlab.Daemon{}}
	nerd := nerdctl{ctrd}
	p := podman{o.tar}
	c := &census{net: weave{abs(o.bin), abs(o.lists)}}
	c.lodgings = []lodging{
		{"podman", p.prepare, p.lodge},
		{"ctr", ctrd.prepare, ctrd.lodge},
		{"ip netns", nil, lodgeNamespace},
	}
	if have("crictl") {
		c.lodgings = append(c.lodgings, lodging{"crictl", ctrd.preparePods, lodgePod})
	} else {
		fmt.Println("    no crictl in the path: without containerd's CRI")
	}
	if have("nerdctl") {
		c.lodgings = append(c.lodgings, lodging{"nerdctl", nerd.configure, nerd.lodge})
	} else {
		fmt.Println("    no nerdctl in the path: without it")
	}
	defer removeCgroups(append(ctrd.cgroups(), append(p.cgroups(), podGroup[1:], criSpace)...))
	return o.inLab(2, nerd.dirs(), func(lab *netlab.Lab) error {
		c.hosts = lab.Hosts()
		return c.all()
	})
}

func have(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

func (c *census) all() error {
	return steps(
		func() error {
			return step("the network is up on both hosts", func() error { return c.net.up(c.hosts) })
		},
		c.moveIn,
		c.resolveAll,
		func() error { return c.optOut(c.hosts[0]) },
		func() error { return c.ownServer(c.hosts[0]) },
		func() error { return c.ownUpstream(c.hosts[0]) },
		c.moveOut,
		func() error {
			return step("nothing stays behind", func() error {
				return each(c.hosts, func(h *netlab.Host) error { return nothingLeft(h, c.net) })
			})
		},
	)
}

func (c *census) moveIn() error {
	for _, l := range c.lodgings {
		for _, h := range c.hosts {
			err := step(l.runtime+" starts a container on "+h.Name(), func() error {
				resolver, err := c.net.resolvConf(h)
				if err == nil && l.prepare != nil {
					err = l.prepare(h, resolver)
				}
				if err != nil {
					return err
				}
				r, err := l.lodge(h, resolver)
				if err != nil {
					return err
				}
				r.on, r.what = h, l.runtime+" on "+h.Name()
				c.residents = append(c.residents, r)
				r.addr, err = r.address()
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *resident) address() (string, error) {
	out, err := r.in("busybox ip -4 -o addr show dev eth0")
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(out, "inet ")
	addr, _, ok := strings.Cut(rest, "/")
	if !ok {
		return "", fmt.Errorf("eth0 has %q", out)
	}
	return addr, nil
}

// resolveAll has each container ask its own resolver for each other one, by all its names
// and in each form.
func (c *census) resolveAll() error {
	for _, r := range c.residents {
		want := map[string]string{}
		for _, other := range c.residents {
			for _, n := range other.names {
				if other != r {
					want[n], want[n+".weave.local"], want[n+".weave.weave.local"] = other.addr, other.addr, other.addr
				}
			}
		}
		err := step(fmt.Sprintf("%s resolves the others: %d names", r.what, len(want)), func() error { return r.resolves(want) })
		if err != nil {
			return err
		}
	}
	return nil
}

// resolves looks up names with the C library, as programs do, and tries again while one is
// not known yet. "" is for one that is not to be had.
func (r *resident) resolves(want map[string]string) error {
	var names []string
	for n := range want {
		names = append(names, n)
	}
	slices.Sort(names)
	return netlab.Wait(fetchIn, r.what+" resolves them", func() error {
		out, err := r.in("for n in " + strings.Join(names, " ") + "; do echo \"$n $(busybox ping -c 1 -W 2 $n 2>/dev/null | busybox sed -n 's/^PING [^(]*(\\([^)]*\\)).*/\\1/p')\"; done")
		if err != nil {
			return err
		}
		got := map[string]string{}
		for line := range strings.Lines(out) {
			name, addr, _ := strings.Cut(strings.TrimSpace(line), " ")
			got[name] = addr
		}
		var errs []error
		for _, n := range names {
			if got[n] != want[n] {
				errs = append(errs, fmt.Errorf("%s is %q, not %q", n, got[n], want[n]))
			}
		}
		return errors.Join(errs...)
	})
}

// servers are the name servers in a container's resolv.conf.
func servers(in func(string) (string, error)) ([]string, error) {
	out, err := in("busybox sed -n 's/^nameserver //p' /etc/resolv.conf")
	return strings.Fields(out), err
}

// optOut has podman run a container without the resolver, and one without names.
func (c *census) optOut(h *netlab.Host) error {
	gateway, err := gatewayOf(h, c.net.program(), "weave")
	if err != nil {
		return err
	}
	return steps(
		func() error {
			return step("WEAVE_DNS=off: no resolver of ours, and a name for the others", func() error {
				r, err := podmanWith(h, "no-resolver", "CNI_ARGS=WEAVE_DNS=off")
				if err != nil {
					return err
				}
				if has, err := servers(r.in); err != nil || slices.Contains(has, gateway) {
					return fmt.Errorf("its servers are %q (%w)", has, cmp.Or(err, errors.New("ours is one")))
				}
				return errors.Join(c.residents[1].resolves(map[string]string{"no-resolver": r.addr}), r.destroy())
			})
		},
		func() error {
			return step("an endpoint with dns=no: no resolver, and no name for anybody", func() error {
				r, err := podmanWith(h, "nameless", "CNI_ARGS=WEAVE_ENDPOINT=weave://weave?dns=no")
				if err != nil {
					return err
				}
				if has, err := servers(r.in); err != nil || slices.Contains(has, gateway) {
					return fmt.Errorf("its servers are %q (%w)", has, cmp.Or(err, errors.New("ours is one")))
				}
				return errors.Join(c.residents[0].resolves(map[string]string{"nameless": ""}), c.residents[1].resolves(map[string]string{"nameless": ""}), r.destroy())
			})
		},
	)
}

// ownServer has podman run a container with the user's own server, which stays.
func (c *census) ownServer(h *netlab.Host) error {
	const own = "192.0.2.53"
	return step("podman run --dns: the user's server is in the container, and it has a name", func() error {
		r, err := podmanWith(h, "own-server", "CNI_ARGS=", "--dns", own)
		if err != nil {
			return err
		}
		if has, err := servers(r.in); err != nil || !slices.Contains(has, own) {
			return fmt.Errorf("its servers are %q (%w)", has, cmp.Or(err, errors.New("the user's is none")))
		}
		return errors.Join(c.residents[1].resolves(map[string]string{"own-server": r.addr}), r.destroy())
	})
}

// ownUpstream has nerdctl run a container with the user's own server, which the network's
// resolver asks for that container.
func (c *census) ownUpstream(h *netlab.Host) error {
	if !have("nerdctl") {
		return nil
	}
	const own = "192.0.2.53"
	gateway, err := gatewayOf(h, c.net.program(), "weave")
	if err != nil {
		return err
	}
	n, name := nerdctl{}, "own-upstream"
	in := func(script string) (string, error) { return n.exec(h, name, "sh", "-c", script) }
	return step("nerdctl run --dns: ours resolves, and asks the user's server for the rest", func() error {
		err := n.run(h, "run", "-d", "--name", name, "--hostname", name, "--net", "weave", "--dns", own, image, "sh", "-c", forever)
		if err != nil {
			return err
		}
		if has, err := servers(in); err != nil || !slices.Equal(has, []string{gateway}) {
			return fmt.Errorf("its servers are %q, not %s (%w)", has, gateway, err)
		}
		r := &resident{what: "nerdctl --dns", in: in}
		text, err := in("busybox cat /etc/resolv.conf")
		if err == nil && !strings.Contains(text, own) {
			err = fmt.Errorf("resolv.conf has forgotten %s: %q", own, text)
		}
		return errors.Join(err, r.resolves(map[string]string{c.residents[1].names[0]: c.residents[1].addr}), n.remove(h, name))
	})
}

// moveOut removes all, and looks that the last that is left resolves none of the others.
func (c *census) moveOut() error {
	last, rest := c.residents[0], c.residents[1:]
	gone := map[string]string{}
	for _, r := range rest {
		for _, n := range r.names {
			gone[n] = ""
		}
	}
	return steps(
		func() error {
			return step("they are removed", func() error {
				for _, r := range slices.Backward(rest) { // nerdctl's are in one list with ctr's
					if err := r.destroy(); err != nil {
						return fmt.Errorf("%s: %w", r.what, err)
					}
				}
				return nil
			})
		},
		func() error {
			return step(last.what+" resolves none of them any more", func() error { return last.resolves(gone) })
		},
		last.destroy,
	)
}
