package router

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// InitNew is the value of Config.Init with which this host founds a cluster although
// it may have to found another one after the next reboot.
const InitNew = "new"

// errAnew ends a life whose memory belongs to no cluster: the next one founds.
var errAnew = errors.New("this host founds a cluster")

// memory is what the state directory held when the router started.
type memory int

const (
	noMemory     memory = iota // nothing: no life has come as far as to speak to others
	blankMemory                // a life that has learnt no ledger: it waited to join, and did not
	ledgerMemory               // a member of a cluster
)

// situation is all that decides whether a router founds a cluster. Where several hosts
// found together (--bootstrap), they decide.
type situation struct {
	memory   memory
	others   bool   // there are some to join: --bootstrap, PEERs, by flags or by hand, or hosts that were reached before
	volatile bool   // the state directory is lost at each reboot
	init     string // Config.Init
}

type beginning int

const (
	goesOn     beginning = iota // as a member, or to join others
	founds                      // a cluster of its own
	foundsAnew                  // likewise, under a new identity: nothing that the old one said may bind it
	waits                       // for another host to connect
)

// begin decides. A ledger wins over every flag, and whoever can be joined over founding.
func (s situation) begin() beginning {
	told := s.init == InitNew
	switch {
	case s.memory == ledgerMemory || s.others:
		return goesOn
	case s.memory == blankMemory && told:
		return foundsAnew
	case s.memory == blankMemory || s.volatile && !told:
		return waits
	}
	return founds
}

// situation is this router's. Before the ledger is open only an empty directory is told
// from any other.
func (r *Router) situation() (situation, error) {
	s := situation{others: r.founders != nil || len(r.targets.all())+len(r.known) != 0, init: r.config.Init}
	switch {
	case r.stateless:
	case r.replica == nil || r.replica.State().Cluster() != "":
		s.memory = ledgerMemory
	default:
		s.memory = blankMemory
	}
	if s.others || s.memory == ledgerMemory {
		return s, nil // wherever that lies
	}
	var err error
	s.volatile, err = isVolatile(r.config.StateDir)
	return s, err
}

// holdBack notes why this host founds no cluster, if it is to wait for others and knows
// none; it is for a router whose ledger is open.
func (r *Router) holdBack() error {
	s, err := r.situation()
	if err != nil {
		return err
	}
	switch s.begin() {
	case foundsAnew:
		return errAnew
	case waits:
		r.heldBack = notFounding(r.config.StateDir, s.volatile)
	case goesOn:
		if s.memory != ledgerMemory && s.init == InitNew {
			r.log.Warn("--init new does not count: this host has reached others before and joins them. To found a cluster, stop it and remove its state directory", "state", r.config.StateDir)
		}
	}
	return nil
}

// notFounding says why a host founds no cluster, and what to do.
func notFounding(dir string, volatile bool) string {
	if volatile {
		return fmt.Sprintf("the state directory %s is lost at each reboot, and a cluster founded here with it: "+
			"name a PEER, put --state-dir on a disk, or start with --init new", dir)
	}
	return fmt.Sprintf("this host was to join others before, as %s says, and has not: name a PEER, or start with --init new to found a cluster", dir)
}

// heldBackWaits is what a host that founds no cluster waits for. Once it is connected to
// others that is for them to have one; where they wait as well, this is the host to say so.
func heldBackWaits(why, waiting string, alone bool) string {
	if alone || waiting == "" {
		return "waits for a host of a cluster to connect; " + why
	}
	return waiting + "; if no host there has a cluster either: " + why
}

// isVolatile reports whether a directory's file system is in memory alone. What lies
// under an overlay is not seen: a live system may pass for a disk.
func isVolatile(dir string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, fmt.Errorf("find out whether state directory %s survives a reboot: %w", dir, err)
	}
	return inMemory(uint32(fs.Type)), nil // the type's own type differs between architectures
}

// inMemory judges a file system by its magic number.
func inMemory(magic uint32) bool { return magic == unix.TMPFS_MAGIC || magic == unix.RAMFS_MAGIC }
