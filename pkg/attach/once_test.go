package attach

import (
	"context"
	"errors"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// counted counts how often the runtime was asked about a container.
type counted struct {
	*scene
	asked *int
}

func (c counted) Again(ctx context.Context, of runtimes.Container) (runtimes.Container, error) {
	*c.asked++
	return c.scene.Again(ctx, of)
}

func TestARuntimeIsAskedOnceAboutAContainerWithManyEndpoints(t *testing.T) {
	first := box(t, runtimes.NameDocker, "aa")
	s := newStage(t, first)
	for range 3 {
		if _, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web", Endpoint: "weave"}); err != nil {
			t.Fatal(err)
		}
	}
	asked := 0
	s.Finder = counted{s.scene, &asked}
	keep := func(want Fate) {
		t.Helper()
		asked = 0
		seen := map[string]bool{}
		s.KeepAll(t.Context(), s.intents(), func(i Intent, fate Fate, err error) {
			if seen[i.ID] = true; fate != want || (err != nil) != (want == Unknown) {
				t.Errorf("%s is %s, %v; want %s", i, fate, err, want)
			}
		})
		if len(seen) != 3 {
			t.Errorf("%d were seen to", len(seen))
		}
	}
	if keep(Lives); asked != 0 {
		t.Errorf("asked %d times about one that lives", asked)
	}
	later := box(t, runtimes.NameDocker, "aa") // its next life
	all := s.intents()
	for _, i := range all {
		i.Life.Boot = "an earlier one"
		if err := s.Intents.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	s.scene.err = errors.New("podman did not answer in time")
	if keep(Unknown); asked != 1 {
		t.Errorf("asked %d times who does not answer", asked)
	}
	s.scene.err, s.found = nil, later
	if keep(Back); asked != 1 {
		t.Errorf("asked %d times about one that runs anew", asked)
	}
	if got := links(t, later, "eth0", "eth1", "eth2"); len(got) != 3 {
		t.Errorf("it has %v", got)
	}
}

func TestAContainerThatEndedSinceItWasAskedForIsAskedForAgain(t *testing.T) {
	first, second := box(t, runtimes.NameDocker, "aa"), box(t, runtimes.NameDocker, "aa")
	asked := 0
	o := &once{Finder: counted{&scene{again: []runtimes.Container{first, second}}, &asked}}
	ask := func() runtimes.Container {
		t.Helper()
		c, err := o.Again(t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if a, b := ask(), ask(); asked != 1 || a.PID != first.PID || b.PID != first.PID {
		t.Errorf("asked %d times: %v, %v", asked, a, b)
	}
	o.life.Started++ // the process of that number is another one
	if c := ask(); asked != 2 || c.PID != second.PID {
		t.Errorf("asked %d times: %v", asked, c)
	}
}
