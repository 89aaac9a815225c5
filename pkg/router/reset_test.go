package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func (r *lone) call(ctx context.Context, path string, in, out any) *ctl.Error {
	var coded *ctl.Error
	if err := ctl.New(r.config.Socket, 0).Call(ctx, path, in, out); err != nil && !errors.As(err, &coded) {
		return &ctl.Error{Code: ctl.CodeInternal, Msg: err.Error()}
	}
	return coded
}

func (r *lone) add(container string, addrs ...string) (out ctl.AllocateReply, err *ctl.Error) {
	in := ctl.AllocateRequest{Key: key(container), Network: DefaultNetwork, Requested: addrs, Decider: ctl.DecidedByClaim}
	err = r.call(r.t.Context(), ctl.PathAllocate, in, &out)
	return out, err
}

// bridgeAddrs are those of a host's bridge, as the kernel has them.
func bridgeAddrs(t *testing.T, h *netlab.Host) (out []netip.Addr) {
	t.Helper()
	for _, line := range strings.Split(h.MustRun(t, "ip", "-o", "-4", "addr", "show"), "\n") {
		if f := strings.Fields(line); len(f) > 3 && f[1] == DefaultBridge {
			out = append(out, netip.MustParsePrefix(f[3]).Addr())
		}
	}
	return out
}

// TestAHostThatLeavesHasNoAddressThatItGivesBack follows a reset that is refused, since
// the cluster cannot decide, and one that is not.
func TestAHostThatLeavesHasNoAddressThatItGivesBack(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	a := startOn(t, lab.Host(0), func(c *Config) { c.Name, c.Ranges = "a", []netip.Prefix{netip.MustParsePrefix("10.32.0.0/28")} })
	a.until("it founds", ready)
	h := lab.Host(1)
	b := startOn(t, h, func(c *Config) { c.Name, c.Peers = "b", []string{lab.Host(0).Addr().String()} })
	b.until("it joins", ready)
	before := bridgeAddrs(t, h)
	must(t, a.Kill())

	refused := make(chan *ctl.Error, 1)
	go func() { refused <- b.call(t.Context(), ctl.PathReset, ctl.ResetRequest{}, nil) }()
	must(t, netlab.Wait(patience, "the bridge has no address", func() error {
		if now := bridgeAddrs(t, h); len(now) > 0 {
			return fmt.Errorf("%v", now)
		}
		return nil
	}))
	if err := <-refused; err == nil || err.Code != ctl.CodeTryAgain || !strings.Contains(err.Msg, "serves no ADD") {
		t.Errorf("with no majority: %v", err)
	}
	if out, err := b.add("early"); err == nil || err.Code != ctl.CodeTryAgain {
		t.Errorf("ADD before the cluster has taken back what was offered: %+v, %v", out, err)
	}
	if now := bridgeAddrs(t, h); len(now) > 0 {
		t.Errorf("the bridge has %v, and had %v", now, before)
	}

	must(t, a.Restart())
	b.until("it goes on by itself", ready)
	after := bridgeAddrs(t, h)
	if _, err := b.add("late"); err != nil || len(after) != 1 {
		t.Errorf("the bridge has %v, ADD: %v", after, err)
	}
	if out, err := a.add("c", before[0].String()); err == nil && slices.Contains(after, before[0]) {
		t.Errorf("a container of another host has %+v, and the bridge %v", out, after)
	}
	if err := b.call(t.Context(), ctl.PathReset, ctl.ResetRequest{}, nil); err == nil || !strings.Contains(err.Msg, "late") {
		t.Errorf("with a container: %v", err)
	}
	if now := bridgeAddrs(t, h); !slices.Equal(now, after) {
		t.Errorf("a reset that does not begin changes the bridge from %v to %v", after, now)
	}

	if err := b.call(t.Context(), ctl.PathRelease, ctl.KeyRequest{Key: key("late")}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.call(t.Context(), ctl.PathReset, ctl.ResetRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	b.ends()
	if out, err := h.Run("ip", "link", "show", DefaultBridge); err == nil {
		t.Errorf("the bridge is there: %s", out)
	}
	if out := h.MustRun(t, "ls", "/run/weave/claims"); slices.Contains(strings.Fields(out), ipam.HostKey(DefaultNetwork).Hash()) {
		t.Errorf("its claim is there: %s", out)
	}
}
