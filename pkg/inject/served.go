package inject

import (
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/resolvconf"
)

// Served reports whether a file that was left alone names one of ours first as it is: then
// its user has seen to it, and nobody has to be told. It is opened as one that may be
// written, so that nothing else is ever read, and stays as it is.
func (h Host) Served(l *Left, ours []netip.Addr) bool {
	f, err := h.open(l.Path)
	if err != nil {
		return false
	}
	defer f.Close()
	servers := resolvconf.Parse(f.text).Servers
	if len(servers) == 0 {
		return false
	}
	first, err := netip.ParseAddr(servers[0])
	return err == nil && slices.Contains(ours, first.Unmap())
}
