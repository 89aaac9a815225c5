package doctor

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatHangsHoldsNothingElseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stuck, start := make(chan struct{}), time.Now()
		s := together(ctx, Snapshot{}, map[string]look{
			partPorts: func(context.Context) func(*Snapshot) {
				<-stuck
				return func(s *Snapshot) { s.Ports = well().Ports }
			},
			partKernel: func(context.Context) func(*Snapshot) { return func(s *Snapshot) { s.Kernel = well().Kernel } },
			partFirewall: func(ctx context.Context) func(*Snapshot) {
				<-ctx.Done()
				return func(s *Snapshot) { s.Firewall.Late = true }
			},
		})
		if took := time.Since(start); took != time.Second+grace {
			t.Errorf("it took %v", took)
		}
		if !slices.Equal(s.Late, []string{partPorts}) || s.Kernel.Release == "" || !s.Firewall.Late || s.Ports != nil {
			t.Errorf("got %+v", s)
		}
		close(stuck)
	})
}

// Of what has not answered nothing is said but that, however much it is.
func TestAllThatHasNotAnsweredIsOneLine(t *testing.T) {
	parts := map[string]func(*Snapshot){
		partDevices:  func(s *Snapshot) { s.Devices, s.Default, s.Sources, s.Sysctls, s.Managed = nil, "", nil, nil, nil },
		partRuntimes: func(s *Snapshot) { s.Runtimes = nil },
		partFirewall: func(s *Snapshot) { s.Firewall = Firewall{} },
		partPorts:    func(s *Snapshot) { s.Ports = nil },
		partPaths:    func(s *Snapshot) { s.Paths = nil },
		partKernel:   func(s *Snapshot) { s.Kernel = Kernel{} },
	}
	one := func(s Snapshot, words ...string) {
		t.Helper()
		var said []Finding
		for _, f := range Judge(s) {
			if f.Level != OK {
				said = append(said, f)
			}
		}
		if len(said) != 1 || said[0].Check != "time" || said[0].Level != Warning || said[0].Advice == "" {
			t.Fatalf("got %+v", said)
		}
		for _, w := range words {
			if strings.Count(said[0].What, w) != 1 {
				t.Errorf("want %q once in %q", w, said[0].What)
			}
		}
	}
	all := well()
	for name, empty := range parts {
		s := well()
		s.Late = []string{name}
		empty(&s)
		one(s, name)
		all.Late = append(all.Late, name)
		empty(&all)
	}
	one(all, all.Late...)
	s := well()
	s.Firewall.Late = true
	for _, name := range []string{"weave-net", "portmap"} {
		s.Runtimes[0].Plugins[name] = Plugin{Late: true}
	}
	s.Runtimes = append(s.Runtimes, s.Runtimes[0])
	one(s, partFirewall, "portmap, weave-net")
}
