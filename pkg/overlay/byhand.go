package overlay

import "net/netip"

// HandPrefix and a hash are the key of a name that was added by hand. Versions that know
// none pass over it.
const HandPrefix = "nm/"

// HandName is a name that the operator of a host gave to addresses, of whomever they are.
type HandName struct {
	Network string       `cbor:"1,keyasint"` // the ledger's name: who may ask for it
	Name    string       `cbor:"2,keyasint"`
	Addrs   []netip.Addr `cbor:"3,keyasint"`
}

// Valid reports whether the name may reach a name table.
func (h HandName) Valid() bool {
	return len(h.Name) > 0 && Endpoint{Network: h.Network, Addrs: h.Addrs}.Valid()
}
