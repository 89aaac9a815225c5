package attach

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/weave-cni/weave-cni/pkg/conflist"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// An endpoint belongs to a network, not to a name: a later network of the name is not
// for it. So an intent has the network's id, where it has one. The default network has
// its name from the operator's list, and stays as long as the cluster: there the name is
// what was meant.

// managed is the id of the network for which the router wrote the list of that name; ""
// where the list is another's, or none.
func (c CNI) managed(network string) string {
	text, err := os.ReadFile(filepath.Join(c.ConfDir, conflist.FileName(network)))
	if err != nil {
		return ""
	}
	l, err := conflist.Parse(text)
	if err != nil || l.Name() != network {
		return ""
	}
	return l.ManagedID()
}

// bound gives an intent of before the id of the network that its name leads to now.
func (a *Attacher) bound(i Intent) (Intent, bool) {
	if i.Net.ID != "" || i.Key.Network == defaultNetwork {
		return i, false
	}
	id := a.CNI.managed(i.Key.Network)
	if id == "" {
		return i, false
	}
	i.Net = Net{ID: id, Name: i.Key.Network}
	return i, true
}

// ended says that an intent's network is gone. Its text has the cure.
type ended struct{ error }

func (e ended) Unwrap() error { return e.error }

// ended fails when the network of an intent is surely gone: the list of its name is
// another's, or the router has no network of that id. nil proves nothing.
func (a *Attacher) ended(ctx context.Context, i Intent) error {
	if i.Net.ID == "" || i.Net.Name == defaultNetwork {
		return nil
	}
	now := ""
	if i.Key.Network == i.Net.Name {
		now = a.CNI.managed(i.Key.Network)
	}
	if now == i.Net.ID || now == "" && !a.unknown(ctx, i.Net.ID) {
		return nil
	}
	e := ctl.Errorf(ctl.CodeInvalidConfig, "its network %s (%.12s) is gone", i.Net.Name, i.Net.ID)
	if now != "" {
		e.Msg += ", and another one has the name"
	}
	e.Details = "weave net unplug " + i.find().Ref() + " " + i.ID[:12]
	return ended{e}
}

// doubtful reports whether it is to be asked for the network of an endpoint that lives:
// its runtime will want the list at the next start, and that is not there, or another's.
func (a *Attacher) doubtful(i Intent) bool {
	if i.Road != ByRuntime || i.Net.ID == "" {
		return false
	}
	now := a.CNI.managed(i.Key.Network)
	if now == "" {
		_, err := a.CNI.list(i.Key.Network)
		return err != nil
	}
	return now != i.Net.ID
}

// unknown reports whether the router has no network of an id. One that is not ready may
// not have heard of it.
func (a *Attacher) unknown(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, runtimes.Patience)
	defer cancel()
	var r ctl.Ready
	if err := a.Router.Call(ctx, ctl.PathReady, nil, &r); err != nil || r.Error != nil {
		return false
	}
	return isCode(a.Router.Call(ctx, ctl.PathNetInspect, ctl.NetRef{Ref: id}, nil), ctl.CodeInvalidConfig)
}

// note gives an intent the id of a network of which the list is not the router's.
func (a *Attacher) note(id, network string) error {
	i, err := a.Intents.Get(id)
	if err != nil || network == "" || i.Net.ID != "" || i.Key.Network == defaultNetwork || i.Wish.Endpoint != "" {
		return err
	}
	i.Net = Net{ID: network, Name: i.Key.Network}
	return a.Intents.Put(i)
}

// release has the runtime forget an endpoint whose network is gone: by its name it would
// attach the container to another network at the next start, or, where there is none,
// not start it. The intent stays for people to see; nothing of it is on the host.
func (a *Attacher) release(ctx context.Context, i Intent, why error) error {
	if i.Road == ByRuntime {
		if err := a.Podman.Disconnect(ctx, i.find(), i.Key.Network); err != nil && !errors.Is(err, runtimes.ErrAbsent) {
			return errors.Join(why, err)
		}
		i.Road, i.Life = ByCNI, Life{}
		if err := a.Intents.Put(i); err != nil {
			return errors.Join(why, err)
		}
	}
	return why
}
