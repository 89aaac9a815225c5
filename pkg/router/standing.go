package router

import (
	"reflect"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// standsSo reports whether a network stands here as the ledger has it now, as far as is
// known without asking the kernel. What is wrong with the default network makes the host
// unfit, and must not be forgotten between two looks.
func (r *Router) standsSo(n ledger.Network) bool {
	if n.Name == DefaultNetwork && r.lookout.unfit || r.ailment(n) != "" {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	has := r.networks[n.ID]
	return has != nil && reflect.DeepEqual(has.Network, n)
}
