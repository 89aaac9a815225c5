package router

import "context"

// apiNetChangeable answers whether a change of the networks could be decided now, within
// leaderWithin.
func (r *Router) apiNetChangeable(ctx context.Context) (nothing, error) {
	if why := r.led(ctx); why != "" {
		return nothing{}, r.noMajority(why, "nothing was changed")
	}
	return nothing{}, nil
}
