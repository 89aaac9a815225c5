package runtimes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Podman asks podman's own command: it has no daemon, and its files are its own.
type Podman struct {
	Program string // "" is podman in the PATH
}

// connectIn bounds podman network connect, which does an ADD.
const connectIn = 18 * time.Second

// Name is "podman".
func (Podman) Name() string { return NamePodman }

func (p Podman) run(ctx context.Context, args ...string) ([]byte, error) {
	program := p.Program
	if program == "" {
		program = NamePodman
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, absent(err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = 100 * time.Millisecond // for a child of it that holds our end of the pipe
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("podman %s did not answer in time: %w", args[0], ctx.Err())
	case err != nil && saysGone(lastLine(stderr.String()), args[len(args)-1]):
		return nil, fmt.Errorf("%w: %s", ErrGone, lastLine(stderr.String()))
	case err != nil:
		return nil, fmt.Errorf("podman %s: %w: %s", strings.Join(args, " "), err, lastLine(stderr.String()))
	}
	return out, nil
}

// saysGone reports whether podman's error says that it has no container of that
// id: with the id in it, so that a file that is missing on this host is no proof.
func saysGone(text, id string) bool {
	return (strings.Contains(text, "no such container") || strings.Contains(text, "no such object")) && strings.Contains(text, id)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// Looked reports whether podman ever looked into a directory of network lists: it leaves
// a lock there. Where it did not, no container of it is on a network of that directory,
// and to ask would leave the lock.
func (Podman) Looked(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cni.lock"))
	return err == nil
}

// List is podman ps.
func (p Podman) List(ctx context.Context) ([]Container, error) {
	out, err := p.run(ctx, "ps", "--all", "--no-trunc", "--format", "json")
	if err != nil {
		return nil, err
	}
	return podmanList(out)
}

func podmanList(text []byte) ([]Container, error) {
	var list []struct {
		ID       string   `json:"Id"`
		Names    []string `json:"Names"`
		State    string   `json:"State"`
		PID      int      `json:"Pid"`
		Networks []string `json:"Networks"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("podman ps: %w", err)
	}
	var all []Container
	for _, e := range list {
		all = append(all, Container{Runtime: NamePodman, ID: e.ID, CNI: e.ID, Names: e.Names, PID: e.PID, State: podmanState(e.State, e.PID), Networks: e.Networks})
	}
	return all, nil
}

func podmanState(state string, pid int) State {
	switch {
	case pid > 0: // running, paused, or initialized: its namespace is there
		return Running
	case state == "created" || state == "configured":
		return Created
	}
	return Stopped
}

// Look is podman inspect.
func (p Podman) Look(ctx context.Context, c Container) (Container, error) {
	out, err := p.run(ctx, "inspect", "--type", "container", c.ID)
	if err != nil {
		return Container{}, err
	}
	d, err := podmanInspected(out)
	return d.Container, err
}

// podmanDetail is what podman says of a container, and of its networks.
type podmanDetail struct {
	Container
	nets map[string]podmanNet
}

type podmanNet struct {
	IPAddress           string
	IPPrefixLen         int
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	Gateway             string
	IPv6Gateway         string
	MacAddress          string
}

func podmanInspected(text []byte) (podmanDetail, error) {
	var list []struct {
		ID    string `json:"Id"`
		Name  string
		State struct {
			Status string
			Pid    int
		}
		NetworkSettings struct {
			SandboxKey string
			Networks   map[string]podmanNet
		}
		HostConfig struct{ NetworkMode string }
		Config     struct{ CreateCommand []string }
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return podmanDetail{}, fmt.Errorf("podman inspect: %w", err)
	}
	if len(list) != 1 {
		return podmanDetail{}, fmt.Errorf("podman inspect: it tells of %d containers", len(list))
	}
	e := list[0]
	c := Container{Runtime: NamePodman, ID: e.ID, CNI: e.ID, Names: []string{e.Name}, PID: e.State.Pid, State: podmanState(e.State.Status, e.State.Pid)}
	mode := e.HostConfig.NetworkMode
	c.HostNet = mode == "host"
	if id, ok := strings.CutPrefix(mode, "container:"); ok {
		c.Shares = NamePodman + ":" + id
	}
	if c.State == Running {
		c.NetNS = e.NetworkSettings.SandboxKey
		if c.NetNS == "" {
			c.NetNS = fmt.Sprintf("/proc/%d/ns/net", c.PID)
		}
	}
	for name := range e.NetworkSettings.Networks {
		c.Networks = append(c.Networks, name)
	}
	c.Taken = interfaceNames(e.Config.CreateCommand)
	return podmanDetail{c, e.NetworkSettings.Networks}, nil
}

// interfaceNames finds what --network NAME:interface_name=IF has said.
func interfaceNames(command []string) (names []string) {
	for _, word := range command {
		for option := range strings.FieldsFuncSeq(word, func(r rune) bool { return r == ':' || r == ',' }) {
			if name, ok := strings.CutPrefix(option, "interface_name="); ok {
				names = append(names, name)
			}
		}
	}
	return names
}

// Knows reports whether podman itself can attach containers to the network; an error when
// it could not be asked. It has the time of a connect: podman asks each plugin of each list first.
func (p Podman) Knows(ctx context.Context, network string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, connectIn)
	defer cancel()
	_, err := p.run(ctx, "network", "exists", network)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // 125 is podman's own trouble
		return false, nil
	}
	return err == nil, err
}

// Wish is what an attachment by the runtime itself is to have.
type Wish struct {
	IP      netip.Addr
	MAC     string
	Aliases []string
}

// Connect has podman attach the container: at once if it runs, and at every start.
func (p Podman) Connect(ctx context.Context, c Container, network string, w Wish) error {
	ctx, cancel := context.WithTimeout(ctx, connectIn)
	defer cancel()
	args := []string{"network", "connect"}
	switch {
	case w.IP.Is4():
		args = append(args, "--ip", w.IP.String())
	case w.IP.Is6():
		args = append(args, "--ip6", w.IP.String())
	}
	if w.MAC != "" {
		args = append(args, "--mac-address", w.MAC)
	}
	for _, a := range w.Aliases {
		args = append(args, "--alias", a)
	}
	_, err := p.run(ctx, append(args, network, c.ID)...)
	return err
}

// Disconnect takes that back. A container that is gone, or not connected, is
// success. podman is not asked before: after a connect that failed half-way
// inspect fails, and just this cures it.
func (p Podman) Disconnect(ctx context.Context, c Container, network string) error {
	ctx, cancel := context.WithTimeout(ctx, connectIn)
	defer cancel()
	_, err := p.run(ctx, "network", "disconnect", network, c.ID)
	switch {
	case err == nil, errors.Is(err, ErrGone), strings.Contains(err.Error(), "is not connected to network"):
		return nil
	case strings.Contains(err.Error(), notFound):
		if e := p.disconnectGone(ctx, c, network); e != nil {
			return fmt.Errorf("%w; podman keeps the container on a network that it has no more (%v): make %s again, or podman rm %s", err, e, network, c.ID)
		}
		return nil
	}
	return err
}

// notFound is podman's word for a network of which it has no list.
const notFound = "network not found"

// disconnectGone is for a network of which the list is gone, without which podman neither
// starts the container nor disconnects it. It is shown a list of that name, for this once,
// of a plugin that a container on such a network had: there is nothing to take down.
func (p Podman) disconnectGone(ctx context.Context, c Container, network string) error {
	dir, err := os.MkdirTemp("", "weave-podman")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	list, err := json.Marshal(map[string]any{"cniVersion": "0.4.0", "name": network, "plugins": []any{map[string]string{"type": "weave-net"}}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "gone.conflist"), list, 0o600); err != nil {
		return err
	}
	_, err = p.run(ctx, "--network-config-dir="+dir, "network", "disconnect", network, c.ID)
	if errors.Is(err, ErrGone) || err != nil && strings.Contains(err.Error(), "is not connected to ") {
		return nil
	}
	return err
}

// Joined is what podman says of a container's place on a network.
type Joined struct {
	Addresses []netip.Prefix
	Gateways  []netip.Addr
	MAC       string
}

// Joined asks for it; nothing in it before the container has started.
func (p Podman) Joined(ctx context.Context, c Container, network string) (Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	out, err := p.run(ctx, "inspect", "--type", "container", c.ID)
	if err != nil {
		return Joined{}, err
	}
	d, err := podmanInspected(out)
	if err != nil {
		return Joined{}, err
	}
	return d.nets[network].joined(), nil
}

func (n podmanNet) joined() (j Joined) {
	for _, a := range []struct {
		ip, gateway string
		bits        int
	}{{n.IPAddress, n.Gateway, n.IPPrefixLen}, {n.GlobalIPv6Address, n.IPv6Gateway, n.GlobalIPv6PrefixLen}} {
		ip, err := netip.ParseAddr(a.ip)
		if err != nil {
			continue
		}
		j.Addresses = append(j.Addresses, netip.PrefixFrom(ip, a.bits))
		if g, err := netip.ParseAddr(a.gateway); err == nil {
			j.Gateways = append(j.Gateways, g)
		}
	}
	j.MAC = n.MacAddress
	return j
}
