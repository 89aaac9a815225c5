package attach

import (
	"context"
	"os"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// Life names a life of a container: its namespace and its first process.
type Life struct {
	NetNS   attachment.NSID `json:"netns,omitzero"`
	Made    int64           `json:"made,omitempty"` // of a namespace that is mounted: numbers are given again, see netdev.NS.Made
	Path    string          `json:"path,omitempty"` // of the namespace
	PID     int             `json:"pid,omitempty"`
	Started uint64          `json:"started,omitempty"` // clock ticks since the boot
	Boot    string          `json:"boot,omitempty"`    // the kernel's own id of that boot
}

// lifeOf notes what a running container's life is known by. It refuses the host's
// own namespace: by whatever road it was found, nothing is plugged there.
func lifeOf(c runtimes.Container) (Life, error) {
	l := Life{PID: c.PID, Path: c.NetNS, Boot: boot()}
	if c.PID > 0 {
		var err error
		if l.Started, err = runtimes.Started(c.PID); err != nil {
			return Life{}, ctl.Errorf(ctl.CodeTryAgain, "container %s has just ended: %v", c, err)
		}
	}
	ns, err := netdev.OpenNS(c.NetNS)
	if err != nil {
		return Life{}, ctl.Errorf(ctl.CodeTryAgain, "container %s: %v", c, err)
	}
	defer ns.Close()
	if ns.IsOwn() {
		return Life{}, ctl.Errorf(ctl.CodeInvalidConfig, "container %s uses the host's own network namespace and has no interfaces of its own", c)
	}
	l.NetNS, l.Made = ns.ID(), made(ns, c.NetNS)
	return l, nil
}

// made is 0 for a path into /proc, which holds nothing.
func made(ns *netdev.NS, path string) int64 {
	if strings.HasPrefix(path, "/proc/") {
		return 0
	}
	return ns.Made()
}

// boot is "" where the kernel does not say.
func boot() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
}

// lives reports whether the container is in the life in which its endpoint was
// made last, as far as can be seen without asking anybody.
func (i Intent) lives() bool {
	l := i.Life
	if l.Path == "" || !l.NetNS.Known() || l.Boot != boot() {
		return false
	}
	if l.PID > 0 {
		if at, err := runtimes.Started(l.PID); err != nil || at != l.Started {
			return false
		}
	}
	ns, err := netdev.OpenNS(l.Path)
	if err != nil {
		return false
	}
	defer ns.Close()
	return ns.ID() == l.NetNS && (l.Made == 0 || made(ns, l.Path) == l.Made) // 0 is an older weave's
}

func hasLink(netns, ifname string) (bool, error) {
	ns, err := netdev.OpenNS(netns)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	return netdev.HasLink(ns, ifname)
}

// ours reports whether an interface of the endpoint's name that a container has is the
// endpoint: the host has its other end, or the plugins that made it say so.
func (a *Attacher) ours(ctx context.Context, i Intent, netns string) (bool, error) {
	at, err := netdev.Attached(i.Key.Veth(), i.Key.Hash())
	if at || err != nil {
		return at, err
	}
	return a.CNI.check(ctx, i, netns) == nil, nil
}
