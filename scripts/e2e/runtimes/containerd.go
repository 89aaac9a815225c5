package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// containerd is containerd 1.6 with its client ctr.
type containerd struct {
	tar     string
	daemons map[string]*netlab.Daemon // by host
}

const (
	containerdConf = "/run/e2e/containerd.toml"
	resolvConf     = "/run/e2e/resolv.conf"
)

// containerdText: pods are of our image too; a machine without CAP_SYS_RESOURCE may not
// change oom scores.
const containerdText = `version = 2
[debug]
level = "debug"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "` + pauseImage + `"
restrict_oom_score_adj = true
disable_apparmor = true
`

// namespace is containerd's own kind: it keeps containers apart from others' on a machine.
const namespace = "e2e"

// dirs has podman's too: attachd asks whoever is there.
func (containerd) dirs() []string    { return append(podman{}.dirs(), "/var/lib/containerd") }
func (containerd) cgroups() []string { return []string{namespace} }

// known: ctr passes no name, so the container's id has to do, which begins with the namespace.
func (containerd) known(name string) string { return namespace + "-" + name }

func ctr(h *netlab.Host, args ...string) (string, error) {
	return h.Run("ctr", append([]string{"--namespace", namespace}, args...)...)
}

func (c containerd) prepare(h *netlab.Host, resolver string) error {
	if err := h.WriteFile(containerdConf, containerdText, 0o644); err != nil {
		return err
	}
	// ctr makes no resolv.conf and passes over what the plugins say of DNS: the file is mounted into each container.
	if err := h.WriteFile(resolvConf, resolver, 0o644); err != nil {
		return err
	}
	d, err := h.Start("/usr/bin/containerd", "-c", containerdConf)
	if err != nil {
		return err
	}
	c.daemons[h.Name()] = d
	err = d.WaitFor(time.Minute, "containerd answers", func() error {
		_, err := ctr(h, "version")
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, d.Log())
	}
	_, err = ctr(h, "image", "import", c.tar)
	return err
}

// serve leaves ctr running: with --detach it would never send DEL.
func (c containerd) serve(h *netlab.Host, name, script string) error {
	d, err := h.Start("/usr/bin/ctr", "--namespace", namespace, "run", "--rm", "--cni", "--mount", "type=bind,src="+resolvConf+",dst=/etc/resolv.conf,options=rbind:ro", image, name, "sh", "-c", script)
	if err != nil {
		return err
	}
	err = d.WaitFor(time.Minute, name+" runs", func() error {
		out, err := ctr(h, "task", "ls")
		if err == nil && !strings.Contains(out, "RUNNING") {
			err = fmt.Errorf("tasks: %s", out)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, d.Log())
	}
	return nil
}

func (containerd) exec(h *netlab.Host, name string, command ...string) (string, error) {
	id := fmt.Sprintf("e%d", time.Now().UnixNano())
	return ctr(h, append([]string{"task", "exec", "--exec-id", id, name}, command...)...)
}

func (containerd) extras([]*netlab.Host) error { return nil }

// remove kills the container's process; the ctr that waits for it does the rest.
func (containerd) remove(h *netlab.Host, name string) error {
	if _, err := ctr(h, "task", "kill", "-s", "KILL", name); err != nil {
		return err
	}
	return netlab.Wait(time.Minute, name+" is gone", func() error {
		out, err := ctr(h, "container", "ls", "-q")
		if err == nil && strings.TrimSpace(out) != "" {
			err = fmt.Errorf("containers: %s", out)
		}
		return err
	})
}

// namesNetworks: ctr puts a container that is only created on no network at all.
func (containerd) namesNetworks() bool { return false }

func (containerd) listed(h *netlab.Host) (string, error) { return ctr(h, "container", "ls", "-q") }

func (containerd) create(h *netlab.Host, name, _, script string) error {
	_, err := ctr(h, "container", "create", "--", image, name, "sh", "-c", script)
	return err
}

func (containerd) start(h *netlab.Host, name string) error {
	_, err := ctr(h, "task", "start", "--detach", name)
	return err
}

func (c containerd) restart(h *netlab.Host, name string) error {
	return steps(func() error { return c.end(h, name) }, func() error { return c.start(h, name) })
}

// end kills the container's process and waits until containerd has done with it.
func (containerd) end(h *netlab.Host, name string) error {
	if _, err := ctr(h, "task", "kill", "-s", "KILL", name); err != nil {
		return err
	}
	return netlab.Wait(time.Minute, "the task of "+name+" is gone", func() error {
		_, err := ctr(h, "task", "delete", name)
		return err
	})
}

func (c containerd) destroy(h *netlab.Host, name string) error {
	tasks, err := ctr(h, "task", "ls")
	if err == nil && strings.Contains(tasks, name+" ") {
		err = c.end(h, name)
	}
	if err != nil {
		return err
	}
	_, err = ctr(h, "container", "rm", name)
	return err
}
