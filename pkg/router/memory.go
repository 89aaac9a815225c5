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
	return r.judgeMemory()
}

// judgeMemory judges the state by the witness in the run directory. A life that is in
// doubt bears no witness before the others have cleared it: else the next one, after
// a crash, would be vouched for by it.
func (r *Router) judgeMemory() error {
	mark := r.store.Mark()
	r.stateless = mark.Generation == 0
	switch place.ReadWitness(r.config.RunDir).Judge(r.place.Boot, uint64(mark.Owner), mark.Generation, mark.Saves) {
	case place.OldCopy:
		return &spentError{fmt.Sprintf("%s is older than what this host did since it was started; it was put back from a copy", r.store.Path())}
	case place.Vouched:
		r.vouched = true
	}
	if r.vouched || r.stateless {
		return r.bearWitness()
	}
	return nil
}

// bearWitness has the witness follow the state from now on.
func (r *Router) bearWitness() error {
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
