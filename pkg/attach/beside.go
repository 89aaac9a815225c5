package attach

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// beside says that a container is on an endpoint's network already, by others of its
// endpoints or by its runtime; "" when it is not. Several are allowed, and seldom meant.
func (a *Attacher) beside(c runtimes.Container, i Intent) string {
	all, _ := a.Intents.All() // one that cannot be read costs a note
	var before *Intent
	for _, o := range all {
		same := o.Network() == i.Network() && (o.Net.ID == i.Net.ID || o.Net.ID == "" || i.Net.ID == "")
		if same && o.Key.ContainerID == i.Key.ContainerID && o.ID != i.ID {
			before = &o
		}
	}
	called := cmp.Or(i.Container.Typed, i.Container.Name, c.Ref())
	switch {
	case before != nil:
		return fmt.Sprintf("%s is on network %s already, by %s (endpoint %.12s), and now by %s too; if that was not meant: weave net unplug %s %.12s",
			called, i.Network(), before.Key.IfName, before.ID, i.Key.IfName, called, i.ID)
	case slices.Contains(c.Networks, i.Network()):
		return fmt.Sprintf("%s is on network %s already, by its runtime, and now by %s too; if that was not meant: weave net unplug %s %.12s",
			called, i.Network(), i.Key.IfName, called, i.ID)
	}
	return ""
}
