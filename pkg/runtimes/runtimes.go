// Package runtimes finds a container of this host by what a person types: an id,
// the beginning of an id, a name, pid:N, or the path of a network namespace; and
// it knows the road by which each runtime has a container that does not run yet
// attached before its first process starts.
//
// A runtime that is not on this host has no containers, which is no error. Each
// question to a runtime about a container is bounded by Patience. Nothing is kept
// between two calls.
package runtimes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Patience bounds one question to one runtime about a container.
const Patience = 2 * time.Second

// State is what a container is at.
type State string

// The states. A paused container is running: its namespace is there.
const (
	Running State = "running"
	Created State = "created" // and never started
	Stopped State = "stopped"
)

// Names of the runtimes, as they stand before the colon of a Ref.
const (
	NamePodman     = "podman"
	NameContainerd = "containerd"
	NameNerdctl    = "nerdctl"
	NameCRI        = "cri"
	NameDocker     = "docker"
	NamePID        = "pid"
	NamePath       = "path"
)

// Container is one as its runtime tells of it.
type Container struct {
	Runtime   string
	Namespace string // containerd's own kind; "" elsewhere
	ID        string // by the runtime's word
	Names     []string
	CNI       string // its container id in CNI's calls
	State     State
	PID       int      // of its first process, while it runs
	NetNS     string   // the path of its network namespace; "" when it has none now
	Shares    string   // the Ref of the container whose namespace it uses, "" when its own
	HostNet   bool     // it has no namespace of its own
	Networks  []string // that its runtime attaches it to at every start; they take eth0, eth1, …
	Taken     []string // names of interfaces that its runtime was told to use instead
}

// Name is what people call it, "" when it has no name.
func (c Container) Name() string {
	if len(c.Names) == 0 {
		return ""
	}
	return c.Names[0]
}

// Ref names the container and no other: RUNTIME:ID, or RUNTIME:NAMESPACE/ID.
func (c Container) Ref() string {
	switch {
	case c.Runtime == NamePath:
		return c.ID
	case c.Namespace != "":
		return c.Runtime + ":" + c.Namespace + "/" + c.ID
	}
	return c.Runtime + ":" + c.ID
}

// String is the Ref with the name, for people.
func (c Container) String() string {
	if n := c.Name(); n != "" && n != c.ID {
		return c.Ref() + " (" + n + ")"
	}
	return c.Ref()
}

// Runtime is one container runtime of this host.
type Runtime interface {
	Name() string

	// List gives every container; ErrAbsent when the runtime is not on this host.
	// It may leave out PID, NetNS, Shares, HostNet and Networks.
	List(ctx context.Context) ([]Container, error)

	// Look fills in what List leaves out, and has what has changed since.
	Look(ctx context.Context, c Container) (Container, error)
}

// ErrAbsent: the runtime is not on this host, or not running.
var ErrAbsent = errors.New("not on this host")

// ErrGone: the runtime has no such container.
var ErrGone = errors.New("no such container")

// absent marks an error as ErrAbsent.
func absent(err error) error { return fmt.Errorf("%w: %w", ErrAbsent, err) }

// minBegin is how much of an id stands for it.
const minBegin = 3

// begins reports whether an id begins with a text: of ids that a runtime drew, which
// are hexadecimal. One that a person chose is a name, of which only the whole counts.
func begins(id, text string) bool {
	return len(text) >= minBegin && strings.HasPrefix(id, text) && strings.Trim(id, "0123456789abcdef") == ""
}

// Means reports whether a text means the container: whole when the container has it as
// Ref, id or name, begin when its id begins with it.
func (c Container) Means(text string) (whole, begin bool) {
	runtime, rest := split(text)
	if runtime != "" && c.Runtime != runtime {
		return false, false
	}
	if ns, bare, ok := strings.Cut(rest, "/"); ok && c.Namespace != "" && ns == c.Namespace { // NAMESPACE/ID
		if whole, begin = bare == c.ID, begins(c.ID, bare); whole || begin {
			return whole, begin
		}
	}
	return rest == c.ID || slices.Contains(c.Names, rest), begins(c.ID, rest)
}

// Choose gives those that a text means whole; when there are none, and whole is false,
// those whose id begins with it.
func Choose[T interface {
	Means(string) (whole, begin bool)
}](text string, all []T) (found []T, whole bool) {
	var exact, begin []T
	for _, one := range all {
		switch is, begins := one.Means(text); {
		case is:
			exact = append(exact, one)
		case begins:
			begin = append(begin, one)
		}
	}
	if len(exact) > 0 {
		return exact, true
	}
	return begin, false
}

// split takes the runtime off a Ref; "" when there is none before the colon.
func split(text string) (runtime, rest string) {
	before, after, ok := strings.Cut(text, ":")
	if ok {
		switch before {
		case NamePodman, NameContainerd, NameNerdctl, NameCRI, NameDocker:
			return before, after
		}
	}
	return "", text
}
