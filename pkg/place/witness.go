package place

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Witness is what the run directory, which a reboot empties, knows of the state
// directory, which may be put back from a backup: whose it is and how far it had
// come. It is written before anything that it speaks of is acted upon.
type Witness struct {
	Member     uint64 // 0: there is no witness
	Generation uint64 // how often the state had been loaded
	Saves      uint64 // how often it had been changed since
	Boot       string // Place.Boot
}

// Judgement of a state directory by its witness.
type Judgement int

const (
	Unvouched Judgement = iota // nothing speaks for or against it: a reboot, mostly
	Vouched                    // it is what the last life on this host left
	OldCopy                    // the last life had come further
)

func (j Judgement) String() string { return [...]string{"unvouched", "vouched", "old copy"}[j] }

// Judge compares with the state as it was found: whose it is, and its two counts
// before this life has changed them.
func (w Witness) Judge(boot string, member, generation, saves uint64) Judgement {
	switch {
	case w.Member == 0 || boot == "" || w.Boot != boot || w.Member != member:
		return Unvouched
	case generation < w.Generation || generation == w.Generation && saves < w.Saves:
		return OldCopy
	}
	return Vouched
}

const (
	witnessFile   = "witness"
	witnessFormat = "weave-witness 1\nmember %016x\ngeneration %020d\nsaves %020d\nboot %s\n"
)

// ReadWitness gives the witness in a run directory; the zero Witness when there is
// none, or none that can be read, which vouches for nothing.
func ReadWitness(dir string) Witness {
	b, err := os.ReadFile(filepath.Join(dir, witnessFile))
	if err != nil {
		return Witness{}
	}
	var w Witness
	if _, err := fmt.Sscanf(string(b), witnessFormat, &w.Member, &w.Generation, &w.Saves, &w.Boot); err != nil {
		return Witness{}
	}
	return w
}

// Testifier keeps the witness of one life. It is not safe for concurrent use.
type Testifier struct {
	w Witness
	f *os.File
}

// Testify puts a witness in the place of the one before it.
func Testify(dir string, w Witness) (*Testifier, error) {
	path := filepath.Join(dir, witnessFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write witness: %w", err)
	}
	t := &Testifier{w, f}
	if err := errors.Join(t.write(), os.Rename(path+".new", path)); err != nil {
		return nil, errors.Join(fmt.Errorf("write witness: %w", err), f.Close())
	}
	return t, nil
}

// Note says how far the state has come now.
func (t *Testifier) Note(generation, saves uint64) error {
	t.w.Generation, t.w.Saves = generation, saves
	return t.write()
}

// write replaces the text by one of the same length, in one call.
func (t *Testifier) write() error {
	_, err := t.f.WriteAt(fmt.Appendf(nil, witnessFormat, t.w.Member, t.w.Generation, t.w.Saves, t.w.Boot), 0)
	return err
}

// Close lets go of the file, which stays.
func (t *Testifier) Close() error { return t.f.Close() }
