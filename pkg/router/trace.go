package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/calllog"
	"github.com/weave-cni/weave-cni/pkg/control"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
)

// What is kept of calls about containers: an ADD and a DEL are six or so, of half a
// kilobyte each.
const (
	traceCalls = 8192
	traceBytes = 6 << 20
)

// watchCall is the control socket's watcher: every call is counted, and one that is
// about a container is kept with its steps.
func (r *Router) watchCall(ctx context.Context, c control.Call) (context.Context, func(any, error)) {
	start := time.Now()
	var open *calllog.Open
	traced, about := tracedOf(c)
	if about {
		open = r.calls.Begin(traced)
	}
	return calllog.With(ctx, open), func(out any, err error) {
		code, words := outcomeOf(err)
		r.metrics.called(callName(c.Path), code, time.Since(start), c.TraceID)
		if about {
			open.Say(saidOf(out, err))
			open.End(code, words)
			if code, took, ended := r.adds.after(traced, code, start, time.Now()); ended {
				r.metrics.added(code, took, c.TraceID)
			}
		}
	}
}

// callName is what a call is named in metrics and traces.
func callName(path string) string { return strings.TrimPrefix(path, "/v1/") }

// tracedOf is what a call says about a container; false when it is about none.
func tracedOf(c control.Call) (t ctl.TracedCall, about bool) {
	t = ctl.TracedCall{Call: callName(c.Path), TraceID: c.TraceID}
	switch in := c.In.(type) {
	case ctl.AllocateRequest:
		t.Key, t.Network, t.NoCommit = in.Key, in.Network, in.Decider == ctl.DecidedByClaim
		if asked := slices.Concat(optional(in.Endpoint), in.Requested, optional(in.Subnet)); len(asked) > 0 {
			t.Detail = "asked for " + strings.Join(asked, ", ")
		}
	case ctl.NetworkRequest:
		t.Key, t.Network, t.Detail = in.Key, in.Name, in.Endpoint
	case ctl.CommitRequest:
		t.Key, t.Network = in.Key, in.Network
		t.Detail = strings.Join(append(texts(in.Addresses), in.MAC), ", ")
	case ctl.ReservedRequest:
		t.Key, t.Detail = in.Key, strings.Join(texts(in.Addresses), ", ")
	case ctl.RegisterRequest:
		t.Key, t.Names, t.Detail = in.Key, in.Names, strings.Join(in.Names, ", ")
		if in.Resolver != "" {
			t.Detail += "; resolver: " + in.Resolver
		}
	case ctl.KeyRequest:
		t.Key = in.Key
	}
	return t, t.Key.Validate() == nil
}

func optional(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func texts[T netip.Addr | netip.Prefix](xs []T) []string {
	var out []string
	for _, x := range xs {
		out = append(out, fmt.Sprint(x))
	}
	return out
}

// saidOf is what an answer says for people.
func saidOf(out any, err error) string {
	if err != nil {
		return ""
	}
	var parts []string
	switch out := out.(type) {
	case ctl.AllocateReply:
		for _, a := range out.Addresses {
			parts = append(parts, a.Address.String())
		}
		parts = append(parts, optional(out.Network)...)
	case ctl.Network:
		parts = optional(out.Name)
	case ctl.RegisteredNames:
		parts = out.Names
	}
	return strings.Join(parts, ", ")
}

func outcomeOf(err error) (code uint, words string) {
	var coded *ctl.Error
	switch {
	case err == nil:
		return 0, ""
	case errors.As(err, &coded):
		return coded.Code, coded.Error()
	}
	return ctl.CodeInternal, err.Error()
}

// over notes that an attachment ended without a call about it: by a pass of
// reconciliation, or by a GC.
func (r *Router) over(how string, c ipam.Claim) {
	if c.Key.ContainerID == "" {
		return // read from the kernel alone: nobody can ask for it
	}
	t := ctl.TracedCall{Call: how, Key: c.Key, Network: c.Network, Detail: strings.Join(append(texts(c.Addrs), "freed"), " ")}
	r.calls.Note(t)
	if code, took, ended := r.adds.after(t, 0, time.Now(), time.Now()); ended {
		r.metrics.added(code, took, "")
	}
}

// apiTrace answers with what is remembered about a container, or about all.
func (r *Router) apiTrace(_ context.Context, in ctl.TraceRequest) (ctl.Trace, error) {
	if in.Container == "" && !in.NetNS.Known() {
		k := r.calls.Latest(in.Last)
		return ctl.Trace{Calls: k.Calls, Since: k.Since, Missed: k.Missed}, nil
	}
	claims := slices.DeleteFunc(slices.Clone(r.ipam.Claims()), ipam.Claim.Host)
	id, err := r.meant(in, claims)
	if err != nil {
		return ctl.Trace{}, err
	}
	var known []string
	for _, c := range claims {
		known = append(known, c.Key.ContainerID)
	}
	k, candidates := r.calls.Find(id, in.Last, known...)
	switch {
	case len(candidates) > 0:
		return ctl.Trace{}, &ctl.Error{Code: ctl.CodeAmbiguous, Msg: fmt.Sprintf("%d containers begin with %q", len(candidates), in.Container), Details: someOf(candidates)}
	case k.ContainerID == "":
		return ctl.Trace{}, &ctl.Error{Code: ctl.CodeUnknownContainer, Msg: fmt.Sprintf("no call about a container %q is known", id),
			Details: fmt.Sprintf("this router remembers what was since %s; `weave trace` lists the latest calls", k.Since.Format(time.DateTime))}
	}
	out := ctl.Trace{Calls: k.Calls, Since: k.Since, Missed: k.Missed}
	claims = slices.DeleteFunc(claims, func(c ipam.Claim) bool { return c.Key.ContainerID != k.ContainerID })
	for _, c := range claims {
		out.Claims = append(out.Claims, describe(c))
	}
	return out, nil
}

// meant is the id, or the beginning of one, that a request for a trace means: of the
// container in a namespace, or of a name. Those that are here now go before those that were.
func (r *Router) meant(in ctl.TraceRequest, claims []ipam.Claim) (string, error) {
	what := fmt.Sprintf("called %q", in.Container)
	is := func(c ipam.Claim) bool {
		return slices.ContainsFunc(c.Names, func(n string) bool { return strings.EqualFold(n, in.Container) })
	}
	if in.Container == "" {
		what, is = "in that namespace", func(c ipam.Claim) bool { return c.NetNS == in.NetNS }
	}
	var found []ipam.Claim
	for _, c := range claims {
		if c.Key.ContainerID == in.Container && in.Container != "" {
			return in.Container, nil
		}
		if is(c) && c.Key.ContainerID != "" {
			found = append(found, c)
		}
	}
	switch these := calledOf(found); {
	case len(these) > 1:
		return "", &ctl.Error{Code: ctl.CodeAmbiguous, Msg: fmt.Sprintf("%d containers are %s", len(these), what), Details: "say which, by its id: " + someOf(these)}
	case len(these) == 1:
		return found[0].Key.ContainerID, nil
	case in.Container == "":
		return "", &ctl.Error{Code: ctl.CodeUnknownContainer, Msg: "no container " + what + " has an interface or an address of this router", Details: "`weave trace` lists the latest calls"}
	}
	return cmp.Or(r.calls.Named(in.Container), in.Container), nil
}

func someOf(ids []string) string {
	const most = 8
	if len(ids) > most {
		return strings.Join(ids[:most], ", ") + fmt.Sprintf(" and %d more", len(ids)-most)
	}
	return strings.Join(ids, ", ")
}

// adds follows each ADD from its first call to its last, which are two calls: what a
// plugin does between them is in its duration.
type adds struct {
	mu    sync.Mutex
	began map[string]time.Time // by Key.Hash: those that have addresses and no commit yet
	swept time.Time            // when those that had been there for too long went last
}

const (
	mostAdds  = 4096
	longestIn = 2 * time.Minute // longer than any ADD: nothing was heard of its end
)

// The codes of an ADD that ended otherwise than by an answer of the router's.
const codeAbandoned = "abandoned"

// after tells, after a call that ended with a code, whether an ADD has ended with it: with
// which code, and how long after it began.
func (a *adds) after(c ctl.TracedCall, code uint, start, now time.Time) (outcome string, took time.Duration, ended bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	hash := c.Key.Hash()
	began, under := a.began[hash]
	if !under {
		began = start
	}
	switch {
	case c.Call == calllog.Allocate && code == 0 && !c.NoCommit:
		a.note(hash, began, now)
		return "", 0, false
	case c.Call == calllog.Allocate, c.Call == calllog.Commit:
		delete(a.began, hash)
		return fmt.Sprint(code), now.Sub(began), true
	case under && code == 0 && (c.Call == calllog.Release || c.Call == calllog.Detach || c.Call == calllog.Reconcile || c.Call == calllog.Collect):
		delete(a.began, hash)
		return codeAbandoned, now.Sub(began), true
	}
	return "", 0, false
}

// note remembers the beginning of an ADD. What has been there for too long goes.
func (a *adds) note(hash string, began, now time.Time) {
	if a.began == nil {
		a.began = map[string]time.Time{}
	}
	if len(a.began) >= mostAdds && now.Sub(a.swept) >= time.Second {
		a.swept = now
		for h, t := range a.began {
			if now.Sub(t) > longestIn {
				delete(a.began, h)
			}
		}
	}
	if len(a.began) < mostAdds {
		a.began[hash] = began
	}
}
