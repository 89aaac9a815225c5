package main

import (
	"os"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// nerdctl is nerdctl 2 over containerd 1.6. It makes a container long before it
// starts it, and keeps it when it stops.
type nerdctl struct{ containerd }

const (
	nerdctlConf = "/run/e2e/nerdctl.toml"   // of each host
	nerdctlList = "nerdctl-bridge.conflist" // it writes that whatever it is asked
)

func (n nerdctl) dirs() []string { return append(n.containerd.dirs(), "/var/lib/nerdctl") }

func (nerdctl) known(name string) string { return name }

func (n nerdctl) run(h *netlab.Host, args ...string) error {
	_, err := h.Run("nerdctl", args...)
	return err
}

// configure tells nerdctl where everything is.
func (nerdctl) configure(h *netlab.Host, _ string) error {
	conf := "namespace = \"" + namespace + "\"\ncgroup_manager = \"cgroupfs\"\ncni_path = \"/opt/cni/bin\"\ncni_netconfpath = \"/etc/cni/net.d\"\n"
	if err := h.WriteFile(nerdctlConf, conf, 0o644); err != nil {
		return err
	}
	return os.Setenv("NERDCTL_TOML", nerdctlConf)
}

func (n nerdctl) prepare(h *netlab.Host, resolver string) error {
	if err := n.configure(h, resolver); err != nil {
		return err
	}
	return n.containerd.prepare(h, resolver)
}

// serve names no resolver: nerdctl takes none from a plugin's result, and weavedns writes it
// into the file that nerdctl has bound.
func (n nerdctl) serve(h *netlab.Host, name, script string) error {
	return n.run(h, "run", "-d", "--name", name, "--hostname", name, "--net", "weave", image, "sh", "-c", script)
}

func (nerdctl) exec(h *netlab.Host, name string, command ...string) (string, error) {
	return h.Run("nerdctl", append([]string{"exec", name}, command...)...)
}

func (nerdctl) namesNetworks() bool { return true }

func (n nerdctl) create(h *netlab.Host, name, network, script string) error {
	return n.run(h, "create", "--name", name, "--net", network, image, "sh", "-c", script)
}

func (nerdctl) listed(h *netlab.Host) (string, error) {
	return h.Run("nerdctl", "ps", "-a", "--format", "{{.Names}}")
}

func (n nerdctl) start(h *netlab.Host, name string) error { return n.run(h, "start", name) }

func (n nerdctl) restart(h *netlab.Host, name string) error {
	return n.run(h, "restart", "--time", "0", name)
}

func (n nerdctl) destroy(h *netlab.Host, name string) error { return n.run(h, "rm", "-f", name) }

func (n nerdctl) remove(h *netlab.Host, name string) error { return n.run(h, "rm", "-f", name) }
