package netlab

import "time"

// WithLimit is the space with another bound for its commands.
func (s *Space) WithLimit(d time.Duration) *Space {
	other := *s
	other.limit = d
	return &other
}
