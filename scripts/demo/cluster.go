package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const secretFile = "/run/secret" // on each host

// on runs a program of ours on a host and returns what it wrote to its standard output.
func (d *demo) on(ctx context.Context, h *netlab.Host, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	out, err := h.Command(ctx, "/opt/cni/bin/"+name, args...).Output()
	return string(out), err
}

// wait is netlab.Wait that ends with ctx, too.
func wait(ctx context.Context, limit time.Duration, what string, cond func() error) error {
	err := netlab.Wait(limit, what, func() error {
		if ctx.Err() != nil {
			return nil
		}
		return cond()
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// pause lets time pass: that routers are dead for a while is what is shown.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func (d *demo) startRouters(ctx context.Context) error {
	first := d.lab.Host(0)
	d.out.command("weave secret new > %s", secretFile)
	secret, err := d.on(ctx, first, "weave", "secret", "new")
	if err != nil {
		return err
	}
	for _, h := range d.lab.Hosts() {
		if err := h.WriteFile(secretFile, secret, 0o600); err != nil {
			return err
		}
	}
	start := time.Now()
	d.out.command("weaver --secret-file %s --init new", secretFile) // a lab's state directories are on a tmpfs
	if _, err := first.StartRouter("--init", "new"); err != nil {
		return err
	}
	if err := d.waitReady(ctx, first); err != nil {
		return err
	}
	d.out.line("%s founded the cluster after %s", first.Name(), millis(time.Since(start)))
	d.out.command("weaver --secret-file %s %s", secretFile, first.Addr())
	for _, h := range d.lab.Hosts()[1:] {
		if _, err := h.StartRouter(first.Addr().String()); err != nil {
			return err
		}
	}
	if err := d.waitCluster(ctx); err != nil {
		return err
	}
	return d.showCluster(ctx, start)
}

func (d *demo) showCluster(ctx context.Context, start time.Time) error {
	s, err := d.status(ctx, d.lab.Host(0))
	if err != nil {
		return err
	}
	if !s.Secured {
		return fmt.Errorf("the router of %s knows of no secret", s.Name)
	}
	names := d.hostNames()
	d.out.line("%s joined; all ready after %s, cluster %.12s", strings.Join(names[1:], " and "), seconds(time.Since(start)), s.Cluster)
	return nil
}

func (d *demo) hostNames() (names []string) {
	for _, h := range d.lab.Hosts() {
		names = append(names, h.Name())
	}
	return names
}

func (d *demo) status(ctx context.Context, h *netlab.Host) (s ctl.Status, err error) {
	out, err := d.on(ctx, h, "weave", "status", "--json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// waitReady waits until a host's router can serve ADD.
func (d *demo) waitReady(ctx context.Context, h *netlab.Host) error {
	return wait(ctx, 20*time.Second, "the router of "+h.Name()+" is ready", func() error {
		select {
		case <-h.Router().Done():
			return fmt.Errorf("it has ended: %v", h.Router().State())
		default:
		}
		s, err := d.status(ctx, h)
		if err == nil && s.Error != nil {
			err = s.Error
		}
		return err
	})
}

// waitCluster waits until every router is ready and knows every other host.
func (d *demo) waitCluster(ctx context.Context) error {
	hosts := d.lab.Hosts()
	for _, h := range hosts {
		if err := d.waitReady(ctx, h); err != nil {
			return err
		}
		err := wait(ctx, 20*time.Second, h.Name()+" knows the other hosts", func() error {
			s, err := d.status(ctx, h)
			if err != nil {
				return err
			}
			return knowsOthers(s, len(hosts)-1)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func knowsOthers(s ctl.Status, others int) error {
	if len(s.Overlay) != others {
		return fmt.Errorf("%d of %d are in its overlay", len(s.Overlay), others)
	}
	near := slices.DeleteFunc(slices.Clone(s.Peers), func(p ctl.Peer) bool { return p.State != "connected" })
	if len(near) != others {
		return fmt.Errorf("%d of %d are connected", len(near), others)
	}
	return nil
}

// sayDead shows what `weave status` says without a router, which must be an error.
func (d *demo) sayDead(parent context.Context) error {
	for i, h := range d.lab.Hosts() {
		ctx, cancel := context.WithTimeout(parent, 15*time.Second)
		said, err := h.Command(ctx, "/opt/cni/bin/weave", "status").CombinedOutput()
		cancel()
		if parent.Err() != nil {
			return context.Cause(parent)
		}
		if err == nil {
			return fmt.Errorf("the router of %s answers although it was killed", h.Name())
		}
		if i == 0 {
			first, _, _ := strings.Cut(string(said), "\n")
			d.out.line("%s says: %s", h.Name(), strings.TrimPrefix(first, "weave: "))
		}
	}
	return nil
}

// eachHost does something to all hosts at the same time.
func (d *demo) eachHost(f func(*netlab.Host) error) error {
	hosts := d.lab.Hosts()
	results := make(chan error, len(hosts))
	for _, h := range hosts {
		go func() { results <- f(h) }()
	}
	var err error
	for range hosts {
		err = errors.Join(err, <-results)
	}
	return err
}

// showLogs shows the end of each router's log: after a failure only.
func (d *demo) showLogs() {
	for _, h := range d.lab.Hosts() {
		r := h.Router()
		if r == nil {
			continue
		}
		fmt.Fprintf(d.out.w, "\n%s\n", d.out.in(bold, "end of the router's log on "+h.Name()))
		for _, l := range tail(r.Log(), 12) {
			d.out.line("%s", l)
		}
	}
}
