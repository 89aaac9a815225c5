package doctor

import (
	"context"
	"slices"
	"sync"
	"time"
)

// grace is what a part has after the deadline, to give what it has found by then.
const grace = 200 * time.Millisecond

// The parts of a Snapshot that are looked at each by itself, as a person calls them.
const (
	partDevices  = "devices, routes and sysctls"
	partRuntimes = "runtimes and their lists"
	partFirewall = "other firewalls"
	partPorts    = "ports"
	partPaths    = "paths to the other hosts"
	partKernel   = "the kernel"
)

// look gives how what it saw comes into a snapshot. It writes nothing that others read.
type look func(context.Context) func(*Snapshot)

// Gather looks over the host. It changes nothing, and sends no more than pings to the
// other hosts that the router knows. What cannot be read is left out, and Judge says
// nothing of it or that it is not known.
//
// ctx is to have a deadline: with its end and a short grace Gather returns, and the
// snapshot has as Late what has not answered. A call of the kernel that does not come back
// cannot be ended: what waits in one goes on until it does, or the program ends.
func Gather(ctx context.Context, o Options) Snapshot {
	devices := make(chan Snapshot, 1)
	router := sync.OnceValue(func() Router {
		if o.Ask == nil {
			return o.Router
		}
		return o.Ask(ctx)
	})
	s := together(ctx, Snapshot{}, map[string]look{
		partDevices: func(context.Context) func(*Snapshot) {
			seen := gatherDevices(router())
			devices <- seen
			return func(s *Snapshot) {
				s.Devices, s.Default, s.Sources, s.Sysctls, s.Managed = seen.Devices, seen.Default, seen.Sources, seen.Sysctls, seen.Managed
			}
		},
		partPaths: func(ctx context.Context) func(*Snapshot) {
			var all []Path
			select {
			case seen := <-devices:
				all = gatherPaths(ctx, seen)
			case <-ctx.Done():
			}
			return func(s *Snapshot) { s.Paths = all }
		},
		partRuntimes: func(ctx context.Context) func(*Snapshot) {
			all := gatherRuntimes(ctx, o)
			return func(s *Snapshot) { s.Runtimes = all }
		},
		partFirewall: func(ctx context.Context) func(*Snapshot) {
			f := gatherFirewall(ctx)
			return func(s *Snapshot) { s.Firewall = f }
		},
		partPorts: func(context.Context) func(*Snapshot) {
			all := takenPorts()
			return func(s *Snapshot) { s.Ports = all }
		},
		partKernel: func(context.Context) func(*Snapshot) {
			k := readKernel()
			return func(s *Snapshot) { s.Kernel = k }
		},
	})
	s.Router = router() // it has answered, unless the kernel has not
	return s
}

// together looks at all parts at once, until the grace after ctx has passed.
func together(ctx context.Context, s Snapshot, parts map[string]look) Snapshot {
	type answer struct {
		part string
		into func(*Snapshot)
	}
	answers := make(chan answer, len(parts))
	for name, l := range parts {
		s.Late = append(s.Late, name)
		go func() { answers <- answer{name, l(ctx)} }()
	}
	slices.Sort(s.Late)
	over := afterwards(ctx, grace)
	for len(s.Late) > 0 {
		select {
		case a := <-answers:
			a.into(&s)
			s.Late = slices.DeleteFunc(s.Late, func(name string) bool { return name == a.part })
		case <-over:
			return s
		}
	}
	return s
}

// afterwards is closed some time after ctx has ended.
func afterwards(ctx context.Context, d time.Duration) <-chan struct{} {
	over := make(chan struct{})
	context.AfterFunc(ctx, func() { time.AfterFunc(d, func() { close(over) }) })
	return over
}

// gatherDevices is what the kernel says at once.
func gatherDevices(r Router) Snapshot {
	s := Snapshot{Router: r, Devices: devices(), Default: defaultDevice(), Sources: sources(r.Topology)}
	s.Sysctls = sysctls(s.Default)
	if under, _, found := s.underlay(); found && under.Name != s.Default {
		for key, value := range sysctls(under.Name) {
			s.Sysctls[key] = value
		}
	}
	s.Managed = managed(s)
	return s
}
