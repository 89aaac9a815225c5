package attach

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/containernetworking/cni/libcni"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// place is a network: by the list that leads to it, and as the router has it.
type place struct {
	list string
	net  Net // zero: the list's own
}

// place finds the network list of an endpoint, and what of the endpoint remains to
// be said to the plugins. A list of that very name needs no router; ids and prefixes
// are the router's to resolve. A network of the cluster that has no list here is
// reached by the list of the default one, whose plugins go where they are told.
func (a *Attacher) place(ctx context.Context, e endpoint.Endpoint, w *Wish) (at place, err error) {
	e.Aliases = nil // the wish has them
	if e.HasOptions() {
		w.Endpoint = e.Arg()
	}
	if !e.Somewhere() {
		return place{list: defaultNetwork}, nil
	}
	_, missing := a.CNI.list(e.Network)
	if e.Network != "" && missing == nil {
		at.list = e.Network
		if id := a.CNI.managed(e.Network); id != "" {
			at.net = Net{ID: id, Name: e.Network}
		}
		return at, nil
	}
	n, err := a.ask(ctx, e)
	var unknown *ctl.Error
	switch {
	case err == nil && n.State == "elsewhere":
		return place{}, ctl.Errorf(ctl.CodeWrongHost, "network %s is of driver %s and of host %s: plug there", n.Name, n.Driver, n.Host)
	case err == nil:
	case e.Network != "" && errors.As(missing, &unknown) && !isCode(err, ctl.CodeAmbiguous):
		unknown.Details += "; " + ofTheCluster(err)
		return place{}, unknown
	default:
		return place{}, err
	}
	at.net = Net{ID: n.ID, Name: n.Name}
	if e.Addr && hasSubnet(n, e) {
		w.IP = e.Prefix.Addr() // with the length that it would have anyhow
	} else if e.Prefix.IsValid() {
		w.Endpoint = e.Arg()
	}
	if _, err := a.CNI.list(n.Name); err == nil || n.Driver != ctl.DriverWeave {
		at.list = n.Name
		return at, err
	}
	if _, err := a.CNI.list(defaultNetwork); errors.As(err, &unknown) {
		e := ctl.Errorf(ctl.CodeInvalidConfig, "network %s has no list on this host", n.Name)
		e.Details = cmp.Or(n.Waiting, "nor is there one of network "+defaultNetwork+" in "+a.CNI.ConfDir+
			", of which the router makes it: weave conflist --out "+a.CNI.ConfDir+" conflist/10-weave.conflist")
		return place{}, e
	}
	if w.Endpoint == "" {
		w.Endpoint = endpoint.Endpoint{Network: n.ID, DNS: e.DNS, Services: e.Services, Texts: e.Texts}.Arg() // not the name: it may be another's later
	}
	at.list = defaultNetwork
	return at, nil
}

// ofTheCluster says what the router knows of a network that has no list here. Those that
// it has are mostly those of the lists, which are told already.
func ofTheCluster(err error) string {
	var no *ctl.Error
	if errors.As(err, &no) && no.Code == ctl.CodeInvalidConfig {
		return "nor has the cluster one: " + no.Msg
	}
	return "of the cluster's networks: " + err.Error()
}

// ours are plugins that call the router.
var ours = []string{"weave-net", "weave-ipam", "weavedns", "simplebridge"}

// NeedsRouter reports whether a plug into an endpoint, as it is typed, can only be done
// with the router: unless it leads to a list of this host that has no plugin of ours.
func (a *Attacher) NeedsRouter(text string) bool {
	e, err := endpoint.ParseBare(text)
	if err != nil {
		return false // that is said first
	}
	name := e.Network
	if !e.Somewhere() {
		name = defaultNetwork
	}
	l, err := a.CNI.list(name)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(l.Plugins, func(p *libcni.PluginConfig) bool {
		return slices.Contains(ours, p.Network.Type) || slices.Contains(ours, p.Network.IPAM.Type)
	})
}

// ask has the router say which network an endpoint is on, and what is known of it.
// A name may be an id, or the beginning of one, here: who plugs sees what comes of it.
func (a *Attacher) ask(ctx context.Context, e endpoint.Endpoint) (n ctl.Net, err error) {
	ctx, cancel := context.WithTimeout(ctx, runtimes.Patience)
	defer cancel()
	ref := e.Network
	if e.Prefix.IsValid() {
		var at ctl.Network
		if err := a.Router.Call(ctx, ctl.PathNetwork, ctl.NetworkRequest{Name: defaultNetwork, Endpoint: e.Place()}, &at); err != nil {
			return ctl.Net{}, err
		}
		ref = at.ID
	}
	err = a.Router.Call(ctx, ctl.PathNetInspect, ctl.NetRef{Ref: ref}, &n)
	return n, err
}

func isCode(err error, code uint) bool {
	var coded *ctl.Error
	return errors.As(err, &coded) && coded.Code == code
}

// hasSubnet reports whether the network has just the subnet that the endpoint's address is in.
func hasSubnet(n ctl.Net, e endpoint.Endpoint) bool {
	for _, s := range n.Subnets {
		if s == e.Prefix.Masked() {
			return true
		}
	}
	return false
}
