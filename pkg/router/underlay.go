package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// sourceAddr is this host's address on the way to the first PEER to whom it has
// one; without any, that of the default route.
func sourceAddr(ctx context.Context, peers []string, log *slog.Logger) (netip.Addr, error) {
	for _, p := range peers {
		addrs, err := peerAddrs(ctx, p)
		for _, a := range addrs {
			own, e := netdev.LocalAddrFor(a)
			if e == nil && !own.IsLoopback() { // /etc/hosts often gives this host's own name such a one
				return own, nil
			}
			err = errors.Join(err, e)
		}
		if err != nil {
			log.Warn("this host's own address is not chosen by this PEER", "peer", p, "reason", err)
		}
	}
	return netdev.DefaultSource()
}

// peerAddrs are where a PEER is, HOST or HOST:PORT. An address is not looked up.
func peerAddrs(ctx context.Context, peer string) ([]netip.Addr, error) {
	host := strings.TrimSpace(peer)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpWithin)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	var out []netip.Addr
	for _, a := range found {
		out = append(out, a.Unmap())
	}
	return out, nil
}
