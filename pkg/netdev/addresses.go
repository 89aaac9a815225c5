package netdev

import "net/netip"

// Addresses are those of all devices of this namespace, by the device's index: one dump,
// however many devices there are.
func Addresses() (map[int][]netip.Prefix, error) {
	all, err := addrList(nil)
	out := map[int][]netip.Prefix{}
	for _, a := range all {
		out[a.index] = append(out[a.index], a.prefix)
	}
	return out, err
}
