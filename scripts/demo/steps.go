package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// demo is what the steps share.
type demo struct {
	config
	lab        *netlab.Lab
	out        *printer
	before     netlab.Worlds // of all hosts, when routers ran and no container was there
	containers []*container  // in the order in which they were attached
}

// step is one thing that is shown. What did not hold is its error.
type step struct {
	title string
	do    func(*demo, context.Context) error
}

func (d *demo) steps() []step {
	return []step{
		{"Three hosts, in namespaces of their own", (*demo).showHosts},
		{"One secret, three routers", (*demo).startRouters},
		{"The network list, fitted to the plugins that are installed", (*demo).installConflist},
		{"Six containers, attached with cnitool", (*demo).attach},
		{"Who reaches whom", (*demo).reach},
		{"What a router says", (*demo).showStatus},
		{"All routers killed -9 under traffic, and started again", (*demo).outlive},
		{"Addresses and names afterwards", (*demo).reachAgain},
		{"The containers removed", (*demo).remove},
		{"What is left of them on the hosts", (*demo).compare},
	}
}

// walk does the steps one after another, up to the first that does not hold.
func (d *demo) walk(ctx context.Context) error {
	for i, s := range d.steps() {
		d.out.step(i+1, s.title)
		if err := s.do(d, ctx); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("step %d, %q, did not hold: %w", i+1, s.title, err)
		}
	}
	return nil
}

func (d *demo) showHosts(context.Context) error {
	var hosts []string
	for _, h := range d.lab.Hosts() {
		hosts = append(hosts, h.Name()+" "+h.Addr().String())
	}
	d.out.line("%s", strings.Join(hosts, "    "))
	return nil
}

func (d *demo) installConflist(ctx context.Context) error {
	const dir, plugins = "/etc/cni/net.d", "/opt/cni/bin"
	d.out.command("weave conflist --out %s --plugin-dir %s %s", dir, plugins, filepath.Base(d.conflist))
	var first string
	for _, h := range d.lab.Hosts() {
		said, err := d.on(ctx, h, "weave", "conflist", "--out", dir, "--plugin-dir", plugins, d.conflist)
		if err != nil {
			return err
		}
		list, err := h.ReadFile(filepath.Join(dir, filepath.Base(d.conflist)))
		if err != nil {
			return err
		}
		if first == "" {
			first = list
			d.out.line("%s", strings.TrimSpace(said))
		}
		if list != first {
			return fmt.Errorf("%s got another list than %s", h.Name(), d.lab.Host(0).Name())
		}
	}
	l, err := parseList(first)
	if err != nil {
		return err
	}
	d.out.line("asked for their VERSION: %s", strings.Join(l.plugins(), ", "))
	if !l.speaks("1.1.0") {
		return fmt.Errorf("the list is at CNI %v, and every plugin here speaks 1.1.0", l.CNIVersions)
	}
	d.before, err = d.lab.World(worldOptions())
	return err
}

func (d *demo) attach(ctx context.Context) error {
	for i, name := range []string{"web", "api", "db", "cache", "mail", "queue"} {
		h := d.lab.Host(i / 2)
		ns, err := h.NewContainer(name)
		if err != nil {
			return err
		}
		if i == 0 {
			d.out.command("CNI_ARGS=%s cnitool add %s %s", podName(name), network, ns.Path())
		}
		c, err := d.add(ctx, ns)
		if err != nil {
			return fmt.Errorf("attach %s on %s: %w", name, h.Name(), err)
		}
		d.containers = append(d.containers, c)
	}
	d.out.table(attachments(d.containers))
	return nil
}

func (d *demo) reach(ctx context.Context) error {
	m := d.matrix(ctx, 5*time.Second)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d.out.table(m.rows())
	d.out.line("1st mark: ping by address, 2nd: by name, as in `ping db`; %s", m.count())
	return m.err()
}

func (d *demo) showStatus(ctx context.Context) error {
	h := d.lab.Host(0)
	d.out.command("weave status")
	said, err := d.on(ctx, h, "weave", "status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(said) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			d.out.line("%s", line)
		}
	}
	return d.keepPicture(ctx, h)
}

func (d *demo) outlive(ctx context.Context) error {
	f, err := d.startFlows()
	if err != nil {
		return err
	}
	defer f.close()
	d.out.line("%s: %s datagrams/s together, each to be answered", f.names(), grouped(rate))
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	d.out.command("kill -9 of weaver on %s", strings.Join(d.hostNames(), ", "))
	f.phase("killed and dead")
	if err := d.eachHost(func(h *netlab.Host) error { return h.Router().Kill() }); err != nil {
		return err
	}
	dead := time.Now()
	if err := d.sayDead(ctx); err != nil {
		return err
	}
	if err := pause(ctx, d.dead-time.Since(dead)); err != nil {
		return err
	}
	f.phase("started again")
	restart := time.Now()
	if err := d.eachHost(func(h *netlab.Host) error { return h.Router().Restart() }); err != nil {
		return err
	}
	if err := d.waitCluster(ctx); err != nil {
		return err
	}
	d.out.line("started again: %d of %d ready after %s", len(d.lab.Hosts()), len(d.lab.Hosts()), seconds(time.Since(restart)))
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	got := f.stop(ctx)
	d.out.table(got.rows())
	return got.err()
}

func (d *demo) reachAgain(ctx context.Context) error {
	for _, c := range d.containers {
		if err := c.keptAddress(ctx); err != nil {
			return err
		}
	}
	m := d.matrix(ctx, 5*time.Second)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d.out.line("%d of %d containers have their address; pings again: %s", len(d.containers), len(d.containers), m.count())
	return m.err()
}

func (d *demo) remove(ctx context.Context) error {
	d.out.command("cnitool del %s %s", network, d.containers[0].Path())
	for _, c := range d.containers {
		if err := d.del(ctx, c); err != nil {
			return fmt.Errorf("remove %s from %s: %w", c.Name(), c.Host().Name(), err)
		}
	}
	d.out.line("%d of %d, and their namespaces", len(d.containers), len(d.containers))
	return nil
}
