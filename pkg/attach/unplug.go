package attach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// Unplug takes an endpoint away that Plug gave.
func (a *Attacher) Unplug(ctx context.Context, req ctl.DetachRequest) error {
	i, err := a.wanted(ctx, req)
	if err != nil {
		return err
	}
	i, unlock, err := a.Intents.hold(ctx.Done(), i)
	if errors.Is(err, os.ErrNotExist) {
		return nil // another call was quicker
	}
	if err != nil {
		return err
	}
	defer unlock()
	if err := a.undo(ctx, i); err != nil {
		return err
	}
	a.Log.Info("endpoint unplugged", "endpoint", i.ID, "container", i.find().Ref(), "network", i.Network())
	return a.Intents.Drop(i.ID)
}

// undo takes away what an intent says, whatever of it is there. A runtime that is gone,
// or does not answer, is in the way only where it holds the endpoint itself.
func (a *Attacher) undo(ctx context.Context, i Intent) error {
	over := a.ended(ctx, i) != nil
	if i.Road == ByRuntime {
		err := a.Podman.Disconnect(ctx, i.find(), i.Key.Network)
		if err == nil || errors.Is(err, runtimes.ErrAbsent) {
			return nil
		}
		return coded(err, err)
	}
	if i.Road == ByHook {
		// A hook that stays does no harm: it does nothing for an endpoint that is not wanted.
		if err := a.Hooks.DropHook(ctx, i.find(), i.ID); err != nil && !errors.Is(err, runtimes.ErrAbsent) {
			a.Log.Warn("a hook stays in a container's specification", "container", i.find().Ref(), "endpoint", i.ID, "error", err)
		}
	}
	if over {
		return nil // what was there went with the network; an interface of that name is another's
	}
	return a.CNI.del(ctx, i, a.within(ctx, i))
}

// within is the namespace that a DEL is to look into; "" when the endpoint is in none, as
// far as is known: all that is on the host goes then too, and the interface with it.
func (a *Attacher) within(ctx context.Context, i Intent) string {
	if i.lives() {
		return i.Life.Path
	}
	c, err := a.Finder.Again(ctx, i.find())
	if err != nil || c.State != runtimes.Running || c.NetNS == "" {
		return ""
	}
	if has, err := hasLink(c.NetNS, i.Key.IfName); err != nil || !has {
		return c.NetNS
	}
	if mine, err := a.ours(ctx, i, c.NetNS); err != nil || !mine {
		return ""
	}
	return c.NetNS
}

// minBegin is how much of an endpoint's id stands for it.
const minBegin = 4

// wanted is the one intent that a request names.
func (a *Attacher) wanted(ctx context.Context, req ctl.DetachRequest) (i Intent, err error) {
	switch {
	case req.EndpointID == "" && (req.ContainerID == "" || req.Network == ""):
		return Intent{}, ctl.Errorf(ctl.CodeInvalidConfig, "which endpoint? want its id, or the container and the network")
	case req.EndpointID != "" && len(req.EndpointID) < minBegin:
		return Intent{}, ctl.Errorf(ctl.CodeInvalidConfig, "endpoint %q: want %d digits of its id or more", req.EndpointID, minBegin)
	}
	if req.Network, err = networkOf(req.Network); err != nil {
		return Intent{}, err
	}
	all, err := a.Intents.All()
	if err != nil {
		a.Log.Warn("some intents cannot be read", "error", err)
	}
	var found []Intent
	for _, i := range all {
		if strings.HasPrefix(i.ID, strings.ToLower(req.EndpointID)) && (req.Network == "" || i.on(req.Network)) {
			found = append(found, i)
		}
	}
	if req.ContainerID != "" {
		found = a.into(ctx, req.ContainerID, found)
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if err := a.noSuch(ctx, req, all); err != nil && len(found) == 0 {
		return Intent{}, err
	}
	return Intent{}, notOne(req, found)
}

// noSuch fails when neither a plug nor a runtime has a container that a request names.
func (a *Attacher) noSuch(ctx context.Context, req ctl.DetachRequest, all []Intent) error {
	known := func(i Intent) bool {
		whole, begin := i.Means(req.ContainerID)
		return whole || begin
	}
	if req.ContainerID == "" || slices.ContainsFunc(all, known) {
		return nil
	}
	_, err := a.Finder.Find(ctx, req.ContainerID)
	if isCode(err, ctl.CodeUnknownContainer) {
		return err
	}
	return nil
}

// networkOf is the network that an endpoint's text names: several endpoints of a container
// may be in one subnet, and an address is not looked for.
func networkOf(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	e, err := endpoint.ParseBare(text)
	switch {
	case err != nil:
		return "", ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	case e.Prefix.IsValid():
		return "", ctl.Errorf(ctl.CodeInvalidConfig, "network %q: want its name or its id, or take the endpoint's id", text)
	}
	return cmp.Or(e.Network, defaultNetwork), nil
}

// notOne says that a request names none, or several.
func notOne(req ctl.DetachRequest, found []Intent) error {
	what := strings.TrimSpace(req.EndpointID + " " + req.Network)
	if len(found) == 0 {
		e := ctl.Errorf(ctl.CodeUnknownContainer, "no endpoint %q is plugged", what)
		if req.ContainerID != "" {
			e = ctl.Errorf(ctl.CodeUnknownContainer, "no endpoint %q is plugged into container %q", what, req.ContainerID)
		}
		e.Details = "one that the runtime gave the container is the runtime's to take; `weave ps` shows all"
		return e
	}
	e := ctl.Errorf(ctl.CodeAmbiguous, "%d endpoints are %q", len(found), what)
	var list []string
	for _, i := range found {
		list = append(list, i.choice())
	}
	e.Details = "say which, by its id: " + strings.Join(list, ", ")
	return e
}

// choice is one of several in a list: what unplug takes of its id, and its container as a
// person knows it.
func (i Intent) choice() string {
	who := i.find()
	if len(who.ID) > 2*shown {
		who.ID = who.ID[:shown]
	}
	if i.Container.Runtime == runtimes.NamePath {
		who.ID = i.Container.ID
	}
	text := who.Ref()
	if name := i.Container.Name; name != "" && name != who.ID {
		text = name + " (" + text + ")"
	}
	return fmt.Sprintf("%.*s (%s of %s on network %s)", shown, i.ID, i.Key.IfName, text, i.Network())
}

// on reports whether a text means the endpoint's network: its name, or its id or the
// beginning of that.
func (i Intent) on(network string) bool {
	return network == i.Network() || len(network) >= minBegin && strings.HasPrefix(i.Net.ID, strings.ToLower(network))
}

// into are those of the endpoints that are in the container that a text means: as it was
// typed when they were plugged, or as it is called. Else the runtimes are asked, for it
// may be called otherwise now, or share the container's namespace.
func (a *Attacher) into(ctx context.Context, text string, all []Intent) []Intent {
	if found, _ := runtimes.Choose(text, all); len(found) > 0 || len(all) == 0 {
		return found
	}
	c, err := a.Finder.Find(ctx, text)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(all), func(i Intent) bool { return i.Key.ContainerID != c.CNI })
}

// shown is how much weave ps shows of an id.
const shown = 12

// Means reports whether a text means the endpoint's container, whole, or by the beginning
// of its id. Of a path and a process only the whole counts.
func (i Intent) Means(text string) (whole, begin bool) {
	c := i.Container
	if text == i.Key.ContainerID || text == c.Typed && text != "" {
		return true, false
	}
	if len(text) >= shown && strings.HasPrefix(i.Key.ContainerID, text) {
		return false, true // as ps shows it
	}
	switch c.Runtime {
	case runtimes.NamePath:
		rest, ok := strings.CutPrefix(text, "/var/run/")
		return text == c.ID || ok && "/run/"+rest == c.ID, false
	case runtimes.NamePID:
		return text == runtimes.NamePID+":"+c.ID || text == "/proc/"+c.ID+"/ns/net", false
	}
	names := c.Names
	if len(names) == 0 && c.Name != "" {
		names = []string{c.Name}
	}
	return runtimes.Container{Runtime: c.Runtime, Namespace: c.Namespace, ID: c.ID, Names: names}.Means(text)
}
