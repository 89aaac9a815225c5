package attach

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// Road is how an endpoint comes into its container.
type Road string

// The roads.
const (
	ByCNI     Road = "cni"     // we do ADD into the running container's namespace, again when it runs anew
	ByHook    Road = "hook"    // we do it too, and its runtime has us do it at every start, before the first process
	ByRuntime Road = "runtime" // its runtime does it at every start
)

// Intent is the word that a container is to have an endpoint: what outlives a
// reboot. It is written before the ADD and removed after the DEL.
type Intent struct {
	ID        string         `json:"endpoint"` // Key.EndpointID
	Key       attachment.Key `json:"key"`
	Road      Road           `json:"road"`
	Container Container      `json:"container"`
	Net       Net            `json:"net,omitzero"`
	Wish      Wish           `json:"wish"`

	// Life is the container's life in which the endpoint was made last.
	Life Life `json:"life,omitzero"`
}

// Container says which one it is, in its runtime's words.
type Container struct {
	Runtime   string   `json:"runtime"`
	Namespace string   `json:"namespace,omitempty"`
	ID        string   `json:"id"`
	Name      string   `json:"name,omitempty"`
	Names     []string `json:"names,omitempty"` // all of them, Name too
	Typed     string   `json:"typed,omitempty"` // what the caller called it: it may be another one that led to this one
}

// Net is the network that the endpoint is on. Its ID is not known where the network is
// none of the router's, and not kept of the default network.
type Net struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Wish is what the endpoint is to have. What is left out is chosen.
type Wish struct {
	Endpoint string            `json:"endpoint,omitempty"` // pkg/endpoint's grammar; "" when the network alone was named
	IP       netip.Addr        `json:"ip,omitzero"`
	MAC      string            `json:"mac,omitempty"`
	Names    []string          `json:"names,omitempty"` // the first is the container's own on this network
	Labels   map[string]string `json:"labels,omitempty"`
}

func describe(c runtimes.Container, typed string) Container {
	return Container{Runtime: c.Runtime, Namespace: c.Namespace, ID: c.ID, Name: c.Name(), Names: c.Names, Typed: typed}
}

// Network is the name of the network that the endpoint is on.
func (i Intent) Network() string {
	if i.Net.Name != "" {
		return i.Net.Name
	}
	return i.Key.Network
}

// find is the container as pkg/runtimes wants to be asked about it.
func (i Intent) find() runtimes.Container {
	return runtimes.Container{Runtime: i.Container.Runtime, Namespace: i.Container.Namespace, ID: i.Container.ID, CNI: i.Key.ContainerID}
}

// String names the endpoint and the container, for people: by as much of an id as weave ps
// shows, which is enough for unplug, and by the container's name.
func (i Intent) String() string {
	c := i.find()
	if len(c.ID) == len(i.ID) && c.Runtime != runtimes.NamePath {
		c.ID = c.ID[:shown]
	}
	c.Names = []string{i.Container.Name}
	return fmt.Sprintf("endpoint %.12s (%s of %s on network %s)", i.ID, i.Key.IfName, c, i.Network())
}

const maxIntent = 64 << 10 // bytes

// decode reads an intent and refuses one that cannot have been written by us.
func decode(text []byte) (Intent, error) {
	var i Intent
	if len(text) > maxIntent {
		return Intent{}, fmt.Errorf("%d bytes, at most %d are read", len(text), maxIntent)
	}
	if err := json.Unmarshal(text, &i); err != nil {
		return Intent{}, err
	}
	if err := i.Key.Validate(); err != nil {
		return Intent{}, err
	}
	if i.ID != i.Key.EndpointID() {
		return Intent{}, fmt.Errorf("endpoint %.12q does not belong to its key", i.ID)
	}
	if !slices.Contains([]Road{ByCNI, ByHook, ByRuntime}, i.Road) {
		return Intent{}, fmt.Errorf("road %.20q is none", i.Road)
	}
	if i.Container.Runtime == "" || i.Container.ID == "" {
		return Intent{}, errors.New("it names no container")
	}
	return i, nil
}

// Intents are the files of a directory, one an endpoint.
type Intents struct {
	Dir string
}

const suffix = ".json"

func (s Intents) file(id string) string { return filepath.Join(s.Dir, id+suffix) }

// All gives every intent, by endpoint id. What cannot be read is told in the
// error, beside those that can.
func (s Intents) All() ([]Intent, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the intents: %w", err)
	}
	var all []Intent
	var bad []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || strings.HasPrefix(id, ".") {
			continue
		}
		i, err := s.Get(id)
		switch {
		case errors.Is(err, os.ErrNotExist): // removed meanwhile
		case err != nil:
			bad = append(bad, err)
		default:
			all = append(all, i)
		}
	}
	return all, errors.Join(bad...)
}

// Get reads one; os.ErrNotExist when there is none.
func (s Intents) Get(id string) (Intent, error) {
	text, err := os.ReadFile(s.file(id))
	if err != nil {
		return Intent{}, err
	}
	i, err := decode(text)
	if err == nil && i.ID != id {
		err = errors.New("it is another endpoint's")
	}
	if err != nil {
		return Intent{}, fmt.Errorf("intent %s: %w", s.file(id), err)
	}
	return i, nil
}

// Put writes one in one step, and has it on the disk when it returns.
func (s Intents) Put(i Intent) error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	if err := s.replace(s.file(i.ID), append(text, '\n')); err != nil {
		return fmt.Errorf("write the intent of %s: %w", i, err)
	}
	return nil
}

func (s Intents) replace(file string, text []byte) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.Dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // of no effect after the rename
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	return s.sync()
}

// Drop removes one; none is success.
func (s Intents) Drop(id string) error {
	if err := os.Remove(s.file(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the intent of endpoint %.12s: %w", id, err)
	}
	return s.sync()
}

func (s Intents) sync() error {
	d, err := os.Open(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockFiles is how many locks there are: containers share them, so that none
// need ever be removed, which cannot be done without a race.
const lockFiles = 4096

// lock makes this process the only one that changes endpoints of a container,
// by its id in CNI's calls, until unlock. It waits as long as ctx.
func (s Intents) lock(done <-chan struct{}, cni string) (unlock func(), err error) {
	dir := filepath.Join(s.Dir, "locks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock the container: %w", err)
	}
	sum := fnv.New32a()
	sum.Write([]byte(cni))
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%04d", sum.Sum32()%lockFiles)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the container: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock the container: %w", err)
		}
		select {
		case <-done:
			f.Close()
			return nil, errors.New("another call about this container does not end")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// hold locks an intent's container and reads the intent again: another call may have
// ended it meanwhile (os.ErrNotExist). Without an error the caller unlocks.
func (s Intents) hold(done <-chan struct{}, i Intent) (now Intent, unlock func(), err error) {
	unlock, err = s.lock(done, i.Key.ContainerID)
	if err != nil {
		return Intent{}, nil, ctl.Errorf(ctl.CodeTryAgain, "%v", err)
	}
	if now, err = s.Get(i.ID); err != nil {
		unlock()
		return Intent{}, nil, err
	}
	return now, unlock, nil
}
