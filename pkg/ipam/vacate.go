package ipam

// Vacant lists the networks that are being removed, that no container here uses any more
// and of which this host has something left; see allot.
func (a *Allocator) Vacant() []string {
	defer a.mu.Unlock()
	return a.locked().Vacant()
}

// Dwellers are the claims of containers on a network; see allot. None of a network that
// the ledger does not know.
func (a *Allocator) Dwellers(network string) []Claim {
	defer a.mu.Unlock()
	core := a.locked()
	n, ok := a.config.Ledger.State().Network(network)
	if !ok {
		return nil
	}
	return core.Dwellers(n)
}

// Forsake ends the claims on this host's own addresses on networks that are gone; see allot.
func (a *Allocator) Forsake() error {
	defer a.mu.Unlock()
	return a.locked().Forsake()
}

// Vacate gives back all that this host has of a network that is being removed. Its
// bridge is down: nothing here has an address of it. It returns when that is on file,
// and the ledger hears of it soon; held are containers that were found meanwhile: then
// nothing was done.
func (a *Allocator) Vacate(network string) (held []string, err error) {
	a.filing.Lock()
	defer a.filing.Unlock()
	unsaved, held, err := a.locked().Vacate(network)
	a.mu.Unlock()
	if err != nil || len(held) > 0 {
		return held, err
	}
	if err := a.file(unsaved); err != nil {
		return nil, err
	}
	a.look()
	return nil, nil
}
