package main

import (
	"fmt"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// shells are containers that somebody types into.
type shells interface {
	// createShell makes a container of a shell, and does not start it. It prints what the
	// runtime prints.
	createShell(h *netlab.Host, name, network string) (string, error)
	// typed starts such a container attached to its caller, types lines into its shell,
	// leaves that, and returns what it answered.
	typed(h *netlab.Host, name, lines string) (string, error)
	// state is what the runtime says of a container when it lists all.
	state(h *netlab.Host, name string) (string, error)
}

// leave ends a shell: ctr does not tell it that its input has ended.
const leave = "exit\n"

func (podman) createShell(h *netlab.Host, name, network string) (string, error) {
	out, err := h.Run("podman", "create", "-i", "--name", name, "--network", network, image, "/bin/sh")
	return strings.TrimSpace(out), err
}

func (podman) typed(h *netlab.Host, name, lines string) (string, error) {
	return h.RunInput(lines+leave, "podman", "start", "-a", "-i", name)
}

func (podman) state(h *netlab.Host, name string) (string, error) {
	return stateIn(h, name, "podman", "ps", "-a", "--format", "{{.Names}} {{.Status}}")
}

// createShell: nerdctl attaches no standard input without a terminal, so the shell is a
// second process of its containers.
func (nerdctl) createShell(h *netlab.Host, name, network string) (string, error) {
	out, err := h.Run("nerdctl", "create", "--name", name, "--net", network, image, "sleep", "100000")
	return strings.TrimSpace(out), err
}

func (n nerdctl) typed(h *netlab.Host, name, lines string) (out string, err error) {
	err = steps(
		func() error { return n.start(h, name) },
		func() error { out, err = h.RunInput(lines+leave, "nerdctl", "exec", "-i", name, "/bin/sh"); return err },
		func() error { return n.run(h, "stop", "--time", "0", name) },
	)
	return out, err
}

func (nerdctl) state(h *netlab.Host, name string) (string, error) {
	return stateIn(h, name, "nerdctl", "ps", "-a", "--format", "{{.Names}} {{.Status}}")
}

// createShell: ctr prints nothing, and a container's id is its name.
func (containerd) createShell(h *netlab.Host, name, _ string) (string, error) {
	return ctr(h, "container", "create", "--", image, name, "/bin/sh")
}

func (containerd) typed(h *netlab.Host, name, lines string) (string, error) {
	return h.RunInput(lines+leave, "ctr", "--namespace", namespace, "task", "start", name)
}

// state: ctr has tasks for what was started.
func (containerd) state(h *netlab.Host, name string) (string, error) {
	if _, err := ctr(h, "container", "info", name); err != nil {
		return "", err
	}
	tasks, err := ctr(h, "task", "ls")
	if err == nil && !strings.Contains(tasks, name+" ") {
		return created, nil
	}
	return tasks, err
}

// created is the state of a container that was never started.
const created = "Created"

// stateIn finds a container in a list of names and states, a line each.
func stateIn(h *netlab.Host, name, command string, args ...string) (string, error) {
	list, err := h.Run(command, args...)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(list) {
		if state, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			return state, nil
		}
	}
	return "", fmt.Errorf("%s does not list %s: %q", command, name, list)
}

// endpointRunner is a runtime that can be told by the way where a container is to be. The
// containers of others are created, plugged and started.
type endpointRunner interface {
	runAt(h *netlab.Host, name, network, endpoint, script string) error
}

// runAt: podman hands on the CNI_ARGS of its caller.
func (podman) runAt(h *netlab.Host, name, network, endpoint, script string) error {
	_, err := h.Run("env", "CNI_ARGS=WEAVE_ENDPOINT="+endpoint, "podman", "run", "-d", "--name", name, "--network", network, image, "sh", "-c", script)
	return err
}
