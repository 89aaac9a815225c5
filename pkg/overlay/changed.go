package overlay

// Changed are networks whose plans may have changed.
type Changed struct {
	all   bool
	names map[string]bool
}

// Has reports whether a network is among them.
func (c Changed) Has(network string) bool { return c.all || c.names[network] }

// touch notes that the plan of a network may have changed.
func (c *Changed) touch(network string) {
	if c.names == nil {
		c.names = map[string]bool{}
	}
	c.names[network] = true
}

// Touch has the next TakeChanged name a network: the kernel is to be compared with its plan.
func (v *View) Touch(network string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.changed.touch(network)
}

// TakeChanged tells which networks' plans may differ from those at its last call.
func (v *View) TakeChanged() Changed {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.changed
	v.changed = Changed{}
	return was
}
