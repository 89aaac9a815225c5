package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const network = "weave" // as the list names it

// container is a namespace with what its ADD returned.
type container struct {
	*netlab.Container
	addr netip.Prefix
	dns  dns
	took time.Duration // the ADD
}

// dns is what a CNI result says of names.
type dns struct {
	Nameservers []string
	Domain      string
	Search      []string
	Options     []string
}

// resolvConf is the file that a runtime makes of it.
func (d dns) resolvConf() string {
	var b strings.Builder
	for _, n := range d.Nameservers {
		fmt.Fprintln(&b, "nameserver", n)
	}
	if d.Domain != "" {
		fmt.Fprintln(&b, "domain", d.Domain)
	}
	if len(d.Search) > 0 {
		fmt.Fprintln(&b, "search", strings.Join(d.Search, " "))
	}
	if len(d.Options) > 0 {
		fmt.Fprintln(&b, "options", strings.Join(d.Options, " "))
	}
	return b.String()
}

// parseResult takes from an ADD's result what a runtime would use.
func parseResult(out string) (addr netip.Prefix, d dns, err error) {
	var r struct {
		IPs []struct{ Address netip.Prefix }
		DNS dns
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return addr, d, fmt.Errorf("the result of ADD: %w", err)
	}
	if len(r.IPs) != 1 {
		return addr, d, fmt.Errorf("the result of ADD has %d addresses, want one", len(r.IPs))
	}
	if len(r.DNS.Nameservers) == 0 {
		return addr, d, errors.New("the result of ADD names no resolver")
	}
	return r.IPs[0].Address, r.DNS, nil
}

// podName passes a container's name as a kubelet does.
func podName(name string) string { return "K8S_POD_NAME=" + name }

// cnitool does one call for a container.
func (d *demo) cnitool(ctx context.Context, verb string, c *netlab.Container) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := c.Host().Command(ctx, filepath.Join(d.bin, "cnitool"), verb, network, c.Path())
	cmd.Env = append(os.Environ(), "CNI_PATH=/opt/cni/bin", "NETCONFPATH=/etc/cni/net.d", "CNI_ARGS="+podName(c.Name()))
	out, err := cmd.Output()
	return string(out), err
}

// add attaches a container and gives it the resolv.conf of the result.
func (d *demo) add(ctx context.Context, ns *netlab.Container) (*container, error) {
	start := time.Now()
	out, err := d.cnitool(ctx, "add", ns)
	if err != nil {
		return nil, err
	}
	c := &container{Container: ns, took: time.Since(start)}
	if c.addr, c.dns, err = parseResult(out); err != nil {
		return nil, err
	}
	for _, other := range d.containers {
		if other.addr.Addr() == c.addr.Addr() {
			return nil, fmt.Errorf("it was given %v, which %s has", c.addr, other.Name())
		}
	}
	return c, ns.Host().WriteFile(filepath.Join(c.files(), "resolv.conf"), c.dns.resolvConf(), 0o644)
}

// files is the directory whose files the container sees in place of those of /etc.
func (c *container) files() string { return "/etc/netns/" + c.Name() }

// del detaches a container and ends it.
func (d *demo) del(ctx context.Context, c *container) error {
	if _, err := d.cnitool(ctx, "del", c.Container); err != nil {
		return err
	}
	// A router clears up after a namespace that just goes away: that DEL did its work is seen only before.
	err := c.Do(func() error {
		if _, err := net.InterfaceByName("eth0"); err == nil {
			return errors.New("eth0 is still there after DEL")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.Delete(); err != nil {
		return err
	}
	return c.Host().Do(func() error { return os.RemoveAll(c.files()) })
}

// run runs a command in the container for at most so long.
func (c *container) run(ctx context.Context, limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := c.Command(ctx, name, args...).Output()
	return string(out), err
}

// keptAddress fails unless the container's interface has the address of its ADD, and no other.
func (c *container) keptAddress(ctx context.Context) error {
	out, err := c.run(ctx, 10*time.Second, "ip", "-o", "-4", "addr", "show", "dev", "eth0", "scope", "global")
	if err != nil {
		return err
	}
	fields := strings.Fields(out)
	i := slices.Index(fields, "inet")
	if i < 0 || i+1 == len(fields) || fields[i+1] != c.addr.String() || strings.Count(out, "\n") != 1 {
		return fmt.Errorf("%s had %v and has now: %s", c.Name(), c.addr, strings.TrimSpace(out))
	}
	return nil
}

// attachments is the table of who is where.
func attachments(all []*container) [][]cell {
	rows := [][]cell{header("host", "container", "address", ">ADD took", "resolv.conf")}
	for _, c := range all {
		conf := strings.ReplaceAll(strings.TrimSpace(c.dns.resolvConf()), "\n", "; ")
		rows = append(rows, []cell{text(c.Host().Name()), text(c.Name()), text(c.addr.String()), toTheRight(millis(c.took)), text(conf)})
	}
	return rows
}
