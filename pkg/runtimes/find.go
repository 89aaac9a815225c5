package runtimes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// maxCandidates bounds how many containers an ambiguous text is answered with.
const maxCandidates = 8

// Finder looks in all runtimes of a host.
type Finder struct {
	Runtimes []Runtime
}

// Find gives the container that a text means. It fails with a *ctl.Error of
// CodeUnknownContainer or CodeAmbiguous, whose text has the candidates, or of
// CodeTryAgain when it was not found and a runtime did not answer.
func (f Finder) Find(ctx context.Context, text string) (Container, error) {
	if c, is, err := direct(text); is || err != nil {
		return c, err
	}
	all, failed := f.list(ctx, text)
	found, whole := Choose(text, all)
	switch {
	case len(found) > 0 && !whole && len(failed) > 0: // who does not answer may have one that is called just so
		return Container{}, ctl.Errorf(ctl.CodeTryAgain, "no container is called %q, only the id of %s begins so, and %v", text, found[0], errors.Join(failed...))
	case len(found) == 1:
		return f.look(ctx, found[0], 0)
	case len(found) > 1:
		return Container{}, ambiguous(text, found)
	case len(failed) > 0:
		return Container{}, ctl.Errorf(ctl.CodeTryAgain, "no container %q was found, and %v", text, errors.Join(failed...))
	}
	e := ctl.Errorf(ctl.CodeUnknownContainer, "no container %q on this host", text)
	e.Details = "want an id or 3 digits or more of its beginning, a name, pid:N, or the path of a network namespace; looked in " + f.names()
	return Container{}, e
}

// list asks all runtimes at once, or the one that the text names.
func (f Finder) list(ctx context.Context, text string) (all []Container, failed []error) {
	only, _ := split(text)
	lists, errs := make([][]Container, len(f.Runtimes)), make([]error, len(f.Runtimes))
	var asked sync.WaitGroup
	for i, r := range f.Runtimes {
		if only != "" && !serves(r, only) {
			continue
		}
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, Patience)
			defer cancel()
			lists[i], errs[i] = r.List(ctx)
		})
	}
	asked.Wait()
	for i, err := range errs {
		all = append(all, lists[i]...)
		if err != nil && !errors.Is(err, ErrAbsent) {
			failed = append(failed, fmt.Errorf("%s: %w", f.Runtimes[i].Name(), err))
		}
	}
	return all, failed
}

// serves reports whether a runtime has the containers of that name: containerd's
// socket tells of nerdctl's and CRI's too.
func serves(r Runtime, name string) bool {
	if name == NameNerdctl || name == NameCRI {
		name = NameContainerd
	}
	return r.Name() == name
}

// look completes a container, and goes on to the one whose namespace it uses.
func (f Finder) look(ctx context.Context, c Container, depth int) (Container, error) {
	for _, r := range f.Runtimes {
		if !serves(r, c.Runtime) {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, Patience)
		full, err := r.Look(bounded, c)
		cancel()
		switch {
		case errors.Is(err, ErrGone):
			return Container{}, ctl.Errorf(ctl.CodeUnknownContainer, "container %s is gone", c)
		case err != nil:
			return Container{}, ctl.Errorf(ctl.CodeTryAgain, "%s was asked about container %s: %v", r.Name(), c, err)
		case full.Shares != "" && depth < 2:
			return f.look(ctx, Container{Runtime: full.Runtime, Namespace: full.Namespace, ID: strings.TrimPrefix(full.Shares, full.Runtime+":")}, depth+1)
		}
		return full, nil
	}
	return Container{}, ctl.Errorf(ctl.CodeTryAgain, "container %s: there is no %s here", c, c.Runtime)
}

// Again looks a container up that was found before. ErrGone when its runtime
// answers and has it no more; other errors prove nothing.
func (f Finder) Again(ctx context.Context, c Container) (Container, error) {
	if c.Runtime == NamePID || c.Runtime == NamePath {
		return again(c)
	}
	for _, r := range f.Runtimes {
		if serves(r, c.Runtime) {
			ctx, cancel := context.WithTimeout(ctx, Patience)
			defer cancel()
			return r.Look(ctx, c)
		}
	}
	return Container{}, fmt.Errorf("%s: %w", c.Runtime, ErrAbsent)
}

func (f Finder) names() string {
	var names []string
	for _, r := range f.Runtimes {
		names = append(names, r.Name())
	}
	return strings.Join(names, ", ")
}

func ambiguous(text string, found []Container) error {
	var list []string
	for _, c := range found {
		list = append(list, c.String())
	}
	slices.Sort(list)
	if n := len(list); n > maxCandidates {
		list = append(list[:maxCandidates], fmt.Sprintf("and %d more", n-maxCandidates))
	}
	e := ctl.Errorf(ctl.CodeAmbiguous, "%d containers are called %q", len(found), text)
	e.Details = "say which: " + strings.Join(list, ", ")
	return e
}
