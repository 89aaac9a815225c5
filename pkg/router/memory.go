package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weave-cni/weave-cni/pkg/identity"
	"github.com/weave-cni/weave-cni/pkg/place"
	"github.com/weave-cni/weave-cni/pkg/replica/store"
)

// The files of the state directory that are one memory: with one of them gone, or
// one of them old, none is worth anything.
const (
	identityFile = "identity"
	ledgerFile   = "ledger.db"
)

// spentError says that this host's identity is over.
type spentError struct{ why string }

func (e *spentError) Error() string { return "this host's identity is over: " + e.why }

// openMemory opens the state directory, and finds out whether what it holds is what
// the last life of this host left there.
func (r *Router) openMemory(context.Context) (err error) {
	r.place = place.Here(r.config.Machine)
	r.loadKnown()
	r.loadTargets()
	path := filepath.Join(r.config.StateDir, ledgerFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		// An identity without its ledger may have promised what it forgot.
		if err := setAside(r.config.StateDir); err != nil {
			return err
		}
	}
	if r.id, err = r.openIdentity(); err != nil {
		return err
	}
	if r.store, err = store.Open(path); err != nil {
		return err
	}
	r.closers = append(r.closers, r.store.Close)
	r.loadByHand()
	return r.judgeMemory()
}

// judgeMemory judges the state by the witness in the run directory. A life that is in
// doubt bears no witness before the others have cleared it: else the next one, after
// a crash, would be vouched for by it.
func (r *Router) judgeMemory() error {
	mark := r.store.Mark()
	r.stateless = mark.Owner == 0 // one that was loaded, but broke off before it was anybody's, has promised nothing
	switch place.ReadWitness(r.config.RunDir).Judge(r.place.Boot, uint64(mark.Owner), mark.Generation, mark.Saves) {
	case place.OldCopy:
		return &spentError{fmt.Sprintf("%s is older than what this host did since it was started; it was put back from a copy", r.store.Path())}
	case place.Vouched:
		r.vouched = true
	}
	home, now := r.home(), place.HomeOf(r.place)
	if now.Nowhere() {
		r.log.Warn(homeless)
	}
	if r.vouched || r.stateless {
		return r.bearWitness()
	}
	if home.Elsewhere(now) {
		return &spentError{"the state directory was copied from another machine"}
	}
	return nil
}

// homeless is what a machine without any id cannot do.
const homeless = "nothing tells this machine from others (no id of its hardware, no /etc/machine-id): " +
	"a copy of its state directory that is started elsewhere while this host is cut off would give the same addresses; give --machine-id"

// homeNote is the name of the note that says where the state is at home.
const homeNote = "home"

// home is where the state directory is at home, as it says; zero where it says nothing.
func (r *Router) home() (h place.Home) {
	note, err := r.store.Get(homeNote)
	if err == nil && note != nil {
		err = r.codec.Decode(note, &h)
	}
	if err != nil {
		r.log.Warn("read where the state directory is at home", "error", err)
		return place.Home{}
	}
	return h
}

// settleHome notes that the state is at home here: nobody doubts it any more.
func (r *Router) settleHome() error {
	now := place.HomeOf(r.place)
	if r.home() == now {
		return nil
	}
	note, err := r.codec.Encode(now)
	if err == nil {
		err = r.store.Put(homeNote, note)
	}
	if err != nil {
		return fmt.Errorf("note where the state directory is at home: %w", err)
	}
	return nil
}

// bearWitness has the witness follow the state from now on.
func (r *Router) bearWitness() error {
	if err := r.settleHome(); err != nil {
		return err
	}
	mark := r.store.Mark()
	witness, err := place.Testify(r.config.RunDir, place.Witness{Member: r.id.MemberID(), Generation: mark.Generation, Saves: mark.Saves, Boot: r.place.Boot})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, witness.Close, func() error { return r.store.Watch(nil) })
	r.witnessed = true
	return r.store.Watch(func(m store.Mark) error { return witness.Note(m.Generation, m.Saves) })
}

func (r *Router) openIdentity() (id *identity.Identity, err error) {
	var secret identity.Secret
	if r.config.SecretFile != "" {
		if secret, err = identity.LoadSecret(r.config.SecretFile); err != nil {
			return nil, err
		}
	} else {
		r.log.Warn("OPEN CLUSTER: no --secret-file is given; whoever reaches this host's gossip port can join and take part")
	}
	name := r.config.Name
	if name == "" {
		n, err := identity.HostName()
		if err != nil {
			return nil, err
		}
		name = string(n)
	}
	return identity.Open(r.config.StateDir, name, secret)
}

// watchIdentity ends the router's life when its identity is over. It alone writes
// closers and witnessed once the router runs.
func (r *Router) watchIdentity(ctx context.Context) error {
	for {
		changed := r.replica.Changed()
		if why := r.replica.Spent(); why != "" && !r.resetting.Load() {
			return &spentError{why}
		}
		if !r.witnessed && r.replica.Ready() {
			if err := r.bearWitness(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// setAside renames the files of a memory that is none, for whoever wants to look
// into them; those of an earlier time are replaced.
func setAside(dir string) error {
	for _, name := range []string{identityFile, ledgerFile} {
		path := filepath.Join(dir, name)
		if err := os.Rename(path, path+".old"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set the state aside: %w", err)
		}
	}
	return nil
}
