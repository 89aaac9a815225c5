package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// podman is podman 4 with its CNI backend.
type podman struct{ tar string }

const (
	podmanConf = "/run/e2e/containers.conf" // of each host
	hostPort   = "8080"
)

func (podman) dirs() []string           { return []string{"/var/lib/containers", "/dev/shm"} } // shm has podman's locks
func (podman) cgroups() []string        { return []string{"libpod_parent"} }
func (podman) known(name string) string { return name }

func (p podman) prepare(h *netlab.Host, _ string) error {
	// The limits: podman's own defaults are above what a machine without CAP_SYS_RESOURCE may set.
	conf := `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
default_network = "weave"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
`
	if err := h.WriteFile(podmanConf, conf, 0o644); err != nil {
		return err
	}
	if err := os.Setenv("CONTAINERS_CONF", podmanConf); err != nil {
		return err
	}
	_, err := h.Run("podman", "load", "-q", "-i", p.tar)
	return err
}

func (podman) serve(h *netlab.Host, name, script string) error {
	_, err := h.Run("podman", "run", "-d", "--name", name, "--network", "weave", "-p", hostPort+":80", image, "sh", "-c", script)
	return err
}

func (podman) exec(h *netlab.Host, name string, command ...string) (string, error) {
	return h.Run("podman", append([]string{"exec", name}, command...)...)
}

func (podman) remove(h *netlab.Host, name string) error {
	_, err := h.Run("podman", "rm", "-f", "-t", "0", name)
	return err
}

func (p podman) extras(hosts []*netlab.Host) error {
	return steps(
		func() error { return p.published(hosts) },
		func() error {
			return each(hosts[:1], p.secondNetwork)
		},
	)
}

// published fetches the page of each host's container from the other host, by the host's address and port.
func (podman) published(hosts []*netlab.Host) error {
	for i, from := range hosts {
		to := hosts[(i+1)%len(hosts)]
		where := to.Addr().String() + ":" + hostPort
		err := step(fmt.Sprintf("%s fetches http://%s/, a published port", from.Name(), where), func() error {
			return fetch(func(url string) (string, error) { return from.Run("busybox", "wget", "-qO-", url) }, where, pageOf(web(to)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// secondNetwork connects a running container to another network, uses it and disconnects it.
func (p podman) secondNetwork(h *netlab.Host) error {
	const peer = "peer"
	return steps(
		func() error {
			return step("podman network connect gives "+web(h)+" a second network", func() error {
				if _, err := h.Run("podman", "run", "-d", "--name", peer, "--network", "simplebridge", image, "sleep", "1000"); err != nil {
					return err
				}
				_, err := h.Run("podman", "network", "connect", "simplebridge", web(h))
				return err
			})
		},
		func() error {
			return step(web(h)+" reaches a container there by its eth1", func() error {
				addr, err := addressIn(p, h, peer, "eth0")
				if err != nil {
					return err
				}
				_, err = p.exec(h, web(h), "ping", "-c", "1", "-W", "2", "-I", "eth1", addr)
				return err
			})
		},
		func() error {
			return step("podman network disconnect takes it away again", func() error {
				if _, err := h.Run("podman", "network", "disconnect", "simplebridge", web(h)); err != nil {
					return err
				}
				links, err := p.exec(h, web(h), "ip", "-o", "link")
				if err == nil && (strings.Contains(links, "eth1") || !strings.Contains(links, "eth0")) {
					err = fmt.Errorf("interfaces are %s", links)
				}
				return err
			})
		},
		func() error { return p.remove(h, peer) },
	)
}

func (podman) namesNetworks() bool { return true }

func (podman) create(h *netlab.Host, name, network, script string) error {
	_, err := h.Run("podman", "create", "--name", name, "--network", network, image, "sh", "-c", script)
	return err
}

func (podman) listed(h *netlab.Host) (string, error) {
	return h.Run("podman", "ps", "-a", "--format", "{{.Names}}")
}

func (podman) start(h *netlab.Host, name string) error {
	_, err := h.Run("podman", "start", name)
	return err
}

func (podman) restart(h *netlab.Host, name string) error {
	_, err := h.Run("podman", "restart", "-t", "0", name)
	return err
}

func (p podman) destroy(h *netlab.Host, name string) error { return p.remove(h, name) }
