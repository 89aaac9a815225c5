package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const forever = "sleep 100000"

// lodge: podman has the resolver from CNI's result, and hands its aliases on. The servers of
// the host, which it puts behind, are where no resolver looks.
func (podman) lodge(h *netlab.Host, resolver string) (*resident, error) {
	name, gateway := "pod-"+h.Name(), strings.Fields(resolver)[1]
	r, err := podmanWith(h, name, "CNI_ARGS=", "--network-alias", "Pea-"+h.Name())
	if err != nil {
		return nil, err
	}
	r.names = []string{name, "pea-" + h.Name()}
	has, err := servers(r.in)
	if want := slices.Repeat([]string{gateway}, 3); err == nil && !slices.Equal(has[:min(len(has), 3)], want) {
		err = fmt.Errorf("its servers are %q, and the first three not %q", has, want)
	}
	return r, err
}

// podmanWith runs a container with more flags, and a variable that podman hands on.
func podmanWith(h *netlab.Host, name, variable string, flags ...string) (*resident, error) {
	args := append([]string{variable, "podman", "run", "-d", "--name", name, "--network", "weave"}, flags...)
	if _, err := h.Run("env", append(args, image, "sh", "-c", forever)...); err != nil {
		return nil, err
	}
	p := podman{}
	r := &resident{
		names:   []string{name},
		in:      func(script string) (string, error) { return p.exec(h, name, "sh", "-c", script) },
		destroy: func() error { return p.remove(h, name) },
	}
	var err error
	r.addr, err = r.address()
	return r, err
}

// lodge: ctr says no name, and writes no resolv.conf; one is mounted.
func (c containerd) lodge(h *netlab.Host, _ string) (*resident, error) {
	name := "ct-" + h.Name()
	return &resident{
		names:   []string{c.known(name)},
		in:      func(script string) (string, error) { return c.exec(h, name, "sh", "-c", script) },
		destroy: func() error { return c.remove(h, name) },
	}, c.serve(h, name, forever)
}

// lodge: nerdctl says the host name.
func (n nerdctl) lodge(h *netlab.Host, _ string) (*resident, error) {
	name := "nerd-" + h.Name()
	return &resident{
		names:   []string{name},
		in:      func(script string) (string, error) { return n.exec(h, name, "sh", "-c", script) },
		destroy: func() error { return n.remove(h, name) },
	}, n.serve(h, name, forever)
}

// lodgeNamespace is a namespace that a person made, with a resolv.conf that weavedns writes
// into. cnitool hands aliases on.
func lodgeNamespace(h *netlab.Host, _ string) (*resident, error) {
	name := "ns-" + h.Name()
	cni := func(verb string) error {
		_, err := h.Run("env", "CNI_PATH=/opt/cni/bin", "NETCONFPATH=/etc/cni/net.d", `CAP_ARGS={"aliases":["`+name+`","spring-`+h.Name()+`"]}`,
			"/opt/cni/bin/cnitool", verb, "weave", "/run/netns/"+name)
		return err
	}
	return &resident{
			names: []string{name, "spring-" + h.Name()},
			in:    func(script string) (string, error) { return h.Run("ip", "netns", "exec", name, "sh", "-c", script) },
			destroy: func() error {
				return steps(
					func() error { return cni("del") },
					func() error { return asItWas(h, namespaceConf(name)) },
					func() error { _, err := h.Run("ip", "netns", "del", name); return err },
				)
			},
		}, steps(
			func() error { _, err := h.Run("ip", "netns", "add", name); return err },
			func() error { return h.WriteFile(namespaceConf(name), usual, 0o644) },
			func() error { return cni("add") },
		)
}

// usual is what a person has in the resolv.conf of a namespace.
const usual = "search example.com\nnameserver 192.0.2.254\noptions timeout:1\n"

func namespaceConf(name string) string { return "/etc/netns/" + name + "/resolv.conf" }

// asItWas looks that DEL has put a person's file back.
func asItWas(h *netlab.Host, file string) error {
	text, err := h.ReadFile(file)
	if err == nil && text != usual {
		err = fmt.Errorf("%s is %q after DEL, and was %q", file, text, usual)
	}
	return err
}

const (
	criSpace  = "k8s.io" // containerd's namespace of pods
	podGroup  = "/e2epods"
	podFile   = "/run/e2e/pod.json"
	ctrFile   = "/run/e2e/container.json"
	podSpace  = "prod"
	criSocket = "unix:///run/containerd/containerd.sock"
)

func crictl(h *netlab.Host, args ...string) (string, error) {
	return h.Run("crictl", append([]string{"--runtime-endpoint", criSocket, "--image-endpoint", criSocket}, args...)...)
}

// preparePods gives the image to the pods' namespace; containerd runs already.
func (c containerd) preparePods(h *netlab.Host, _ string) error {
	_, err := h.Run("ctr", "--namespace", criSpace, "image", "import", c.tar)
	return err
}

// lodgePod is a pod, whose resolver the kubelet says: here the network's.
func lodgePod(h *netlab.Host, resolver string) (*resident, error) {
	name := "web-" + h.Name()
	var dns struct {
		Servers  []string `json:"servers,omitempty"`
		Searches []string `json:"searches,omitempty"`
	}
	for line := range strings.Lines(resolver) {
		switch word := strings.Fields(line); {
		case len(word) == 2 && word[0] == "nameserver":
			dns.Servers = append(dns.Servers, word[1])
		case len(word) == 2 && word[0] == "search":
			dns.Searches = append(dns.Searches, word[1])
		}
	}
	pod := map[string]any{
		"metadata": map[string]any{"name": name, "namespace": podSpace, "uid": name, "attempt": 1}, "hostname": name,
		"log_directory": "/run/e2e", "dns_config": dns, "linux": map[string]any{"cgroup_parent": podGroup},
	}
	container := map[string]any{
		"metadata": map[string]any{"name": "c"}, "image": map[string]any{"image": image},
		"command": []string{"sh", "-c", forever}, "log_path": "c.log", "linux": map[string]any{},
	}
	for file, what := range map[string]any{podFile: pod, ctrFile: container} {
		text, err := json.Marshal(what)
		if err == nil {
			err = h.WriteFile(file, string(text), 0o644)
		}
		if err != nil {
			return nil, err
		}
	}
	id, err := crictl(h, "run", "--no-pull", ctrFile, podFile)
	if err != nil {
		return nil, err
	}
	id = strings.TrimSpace(id)
	return &resident{
		names: []string{name + "." + podSpace},
		in:    func(script string) (string, error) { return crictl(h, "exec", "-s", id, "sh", "-c", script) },
		destroy: func() error {
			_, err := crictl(h, "rmp", "-f", "-a")
			return err
		},
	}, err
}
