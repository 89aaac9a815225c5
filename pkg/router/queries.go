package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/names"
)

// apiDNSLookup answers as the name server would answer a container of the network.
func (r *Router) apiDNSLookup(ctx context.Context, in ctl.LookupRequest) (ctl.LookupReply, error) {
	n, err := r.networkAsked(in.Network)
	if err != nil {
		return ctl.LookupReply{}, err
	}
	f, err := r.dns.Lookup(ctx, names.Listener{Network: n.Name, Internal: n.Internal}, in.Name, in.Type)
	if errors.Is(err, names.ErrUnreadable) {
		return ctl.LookupReply{}, ctl.Errorf(ctl.CodeTryAgain, "%v", err)
	}
	if err != nil {
		return ctl.LookupReply{}, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	out := ctl.LookupReply{Network: n.Name, Unserved: !r.config.DNS, Asked: f.Name, Status: f.Rcode, Source: string(f.Source), Records: []ctl.LookupRecord{}}
	for _, a := range f.Answer {
		out.Records = append(out.Records, ctl.LookupRecord(a))
	}
	return out, nil
}

// apiDNSTrace notes the queries of a container of this host, and tells those that came
// since the call before.
func (r *Router) apiDNSTrace(_ context.Context, in ctl.QueriesRequest) (ctl.Queries, error) {
	if !r.config.DNS {
		return ctl.Queries{}, ctl.Errorf(ctl.CodeInvalidConfig, "this host serves no names (--no-dns): what its containers ask goes elsewhere")
	}
	out, err := r.asker(in)
	if err != nil {
		return out, err
	}
	queries, last, missed, err := r.dns.Trace(out.Container, out.Addresses, in.After)
	if err != nil {
		return out, ctl.Errorf(ctl.CodeTryAgain, "%v", err)
	}
	out.Last, out.Missed, out.Queries = last, missed, []ctl.Query{}
	for _, q := range queries {
		out.Queries = append(out.Queries, ctl.Query(q))
	}
	return out, nil
}

// asker finds the container that is meant, and from where it asks.
func (r *Router) asker(in ctl.QueriesRequest) (out ctl.Queries, err error) {
	claims := slices.DeleteFunc(slices.Clone(r.ipam.Claims()), ipam.Claim.Host)
	id, err := r.meant(ctl.TraceRequest{Container: in.Container, NetNS: in.NetNS}, claims)
	if err != nil {
		return out, err
	}
	var ids []string
	by := map[string][]netip.Addr{}
	for _, c := range claims {
		of := c.Key.ContainerID
		if id == "" || of == "" || !strings.HasPrefix(of, id) {
			continue
		}
		if by[of] == nil {
			ids = append(ids, of)
		}
		by[of] = append(by[of], hosts(c.Addrs)...)
	}
	if slices.Contains(ids, id) {
		ids = []string{id}
	}
	switch {
	case len(ids) > 1:
		return out, &ctl.Error{Code: ctl.CodeAmbiguous, Msg: fmt.Sprintf("%d containers begin with %q", len(ids), in.Container), Details: someOf(ids)}
	case len(ids) == 0 || len(by[ids[0]]) == 0:
		return out, &ctl.Error{Code: ctl.CodeUnknownContainer, Msg: fmt.Sprintf("no container %q has an address on this host", in.Container), Details: "`weave ps` lists those of this host"}
	}
	return ctl.Queries{Container: ids[0], Addresses: by[ids[0]]}, nil
}
