package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// keepPicture writes the cluster as a host sees it into the file that was asked for, once
// that host has heard of every link and every container.
func (d *demo) keepPicture(ctx context.Context, h *netlab.Host) error {
	if d.svg == "" {
		return nil
	}
	d.out.command("weave status topology --svg > %s", d.svg)
	err := wait(ctx, 20*time.Second, h.Name()+" knows the whole cluster", func() error {
		said, err := d.on(ctx, h, "weave", "status", "topology", "--json")
		if err != nil {
			return err
		}
		var t ctl.Topology
		if err := json.Unmarshal([]byte(said), &t); err != nil {
			return err
		}
		return whole(t, len(d.lab.Hosts()), len(d.containers))
	})
	if err != nil {
		return err
	}
	svg, err := d.on(ctx, h, "weave", "status", "topology", "--svg")
	if err != nil {
		return err
	}
	return os.WriteFile(d.svg, []byte(svg), 0o644)
}

// whole reports what a picture lacks: every two hosts are connected, and every container is there.
func whole(t ctl.Topology, hosts, containers int) error {
	connected, endpoints := 0, 0
	for _, l := range t.Links {
		if l.State == "connected" {
			connected++
		}
	}
	for _, n := range t.Networks {
		for _, h := range n.Hosts {
			endpoints += h.Endpoints
		}
	}
	if want := hosts * (hosts - 1) / 2; len(t.Hosts) != hosts || connected != want || endpoints != containers {
		return fmt.Errorf("it knows of %d hosts, %d connections and %d containers; there are %d, %d and %d", len(t.Hosts), connected, endpoints, hosts, want, containers)
	}
	return nil
}
