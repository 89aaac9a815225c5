package router

import (
	"context"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// What the devices had done is read every trafficEvery, and told once it is trafficOld: with
// two readings kept there is always one from that to both together old.
const (
	trafficEvery = 5 * time.Second
	trafficOld   = time.Second
)

// traffic keeps the last two readings of the kernel's table of devices, as it is: it is
// understood only when somebody asks.
type traffic struct {
	mu          sync.Mutex
	before, now tableAt
}

type tableAt struct {
	at   time.Time // zero: none was read
	text []byte
}

// add keeps one more reading.
func (t *traffic) add(at time.Time, text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before, t.now = t.now, tableAt{at, text}
}

// since is the latest reading that is old enough.
func (t *traffic) since(now time.Time) (is tableAt, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range []tableAt{t.now, t.before} {
		if !x.at.IsZero() && now.Sub(x.at) >= trafficOld {
			return x, true
		}
	}
	return tableAt{}, false
}

// watchTraffic reads on until ctx ends. A table that cannot be read is missed by nobody but
// who looks at rates, and is read again.
func (r *Router) watchTraffic(ctx context.Context) error {
	tick := time.NewTicker(trafficEvery)
	defer tick.Stop()
	for {
		if text, err := netdev.ReadTraffic(); err == nil {
			r.traffic.add(time.Now(), text)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Router) apiTraffic(context.Context) (ctl.Traffic, error) {
	is, ok := r.traffic.since(time.Now())
	if !ok {
		return ctl.Traffic{}, ctl.Errorf(ctl.CodeTryAgain, "what the devices do is known a second after the router's start")
	}
	out := ctl.Traffic{Devices: map[string]ctl.DeviceTraffic{}}
	for name, t := range netdev.ParseTraffic(string(is.text)) {
		out.Devices[name] = ctl.DeviceTraffic(t)
	}
	out.Age = time.Since(is.at)
	return out, nil
}
