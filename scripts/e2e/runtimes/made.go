package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// madeNet is a network that is made while the runtimes run.
const madeNet = "blue"

// more makes a network on one host, has the runtimes of all see it, use it if they can
// name one, and removes it on another host.
func (w weave) more(hosts []*netlab.Host, rt runtime) error {
	first, last := hosts[0], hosts[len(hosts)-1]
	on := func(h *netlab.Host, args ...string) error {
		_, err := h.Run(w.program(), append([]string{"net"}, args...)...)
		return err
	}
	return steps(
		func() error {
			return step("weave net create on "+first.Name()+": the runtime of each host sees it", func() error {
				if err := on(first, "create", madeNet); err != nil {
					return err
				}
				return each(hosts, func(h *netlab.Host) error {
					return netlab.Wait(fetchIn, "it is seen", func() error { return rt.sees(h, madeNet) })
				})
			})
		},
		func() error { return rt.use(hosts, madeNet) },
		func() error {
			return step("weave net rm on "+last.Name()+": no runtime sees it any more", func() error {
				if err := on(last, "rm", madeNet); err != nil {
					return err
				}
				return each(hosts, func(h *netlab.Host) error {
					return netlab.Wait(fetchIn, "it is gone", func() error { return rt.misses(h, madeNet) })
				})
			})
		},
	)
}

func (bridge) more([]*netlab.Host, runtime) error { return nil }

// sees goes by what podman shows of its networks.
func (p podman) sees(h *netlab.Host, network string) error {
	names, err := podmanNets(h)
	if err == nil && !slices.Contains(names, network) {
		err = fmt.Errorf("podman sees %q", names)
	}
	return err
}

func (p podman) misses(h *netlab.Host, network string) error {
	names, err := podmanNets(h)
	if err == nil && slices.Contains(names, network) {
		err = fmt.Errorf("podman sees %q", names)
	}
	return err
}

func podmanNets(h *netlab.Host) ([]string, error) {
	out, err := h.Run("podman", "network", "ls", "--format", "{{.Name}}")
	return strings.Fields(out), err
}

// use has a container of each host fetch a page from the one before by its name.
func (p podman) use(hosts []*netlab.Host, network string) error {
	name := func(h *netlab.Host) string { return network + "-" + h.Name() }
	return steps(
		func() error {
			return step("podman runs containers on it", func() error {
				return each(hosts, func(h *netlab.Host) error {
					_, err := h.Run("podman", "run", "-d", "--name", name(h), "--network", network, image, "sh", "-c", servePage(name(h)))
					return err
				})
			})
		},
		func() error {
			for i, h := range hosts {
				to := name(hosts[(i+1)%len(hosts)])
				err := step(name(h)+" fetches http://"+to+"/ over it", func() error {
					return fetch(func(url string) (string, error) { return p.exec(h, name(h), "wget", "-qO-", url) }, to, pageOf(to))
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
		func() error { return each(hosts, func(h *netlab.Host) error { return p.remove(h, name(h)) }) },
	)
}

// What containerd's watcher of the directory hears is in its log. It passes over files
// that are created there.
const heard = "receiving change event from cni conf dir: "

func (c containerd) sees(h *netlab.Host, network string) error {
	return c.heard(h, "RENAME", "/.weave-"+network+".conflist.")
}

func (c containerd) misses(h *netlab.Host, network string) error {
	return c.heard(h, "REMOVE", "/weave-"+network+".conflist")
}

func (c containerd) heard(h *netlab.Host, what, file string) error {
	log := c.daemons[h.Name()].Log()
	for line := range strings.Lines(log) {
		if _, event, ok := strings.Cut(line, heard); ok && strings.HasPrefix(event, what) && strings.Contains(event, file) {
			return nil
		}
	}
	return fmt.Errorf("containerd has heard of no %s of %s", what, file)
}

// use: ctr takes the first list only, and can name no network.
func (containerd) use([]*netlab.Host, string) error { return nil }
