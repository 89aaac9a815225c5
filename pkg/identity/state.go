package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// stateFile holds key and incarnation in one file, so that they cannot disagree.
const stateFile = "identity"

const stateFormat = "weave-identity 1\nkey %s\nincarnation %d\ncheck %08x\n"

// ErrDamaged marks an identity file that does not read as it was written.
var ErrDamaged = errors.New("the identity file is damaged; move it away to join the cluster as a new member")

type state struct {
	seed        []byte // ed25519
	incarnation uint64
}

func newState() (state, error) {
	seed, err := randomSeed()
	return state{seed: seed}, err
}

func (s state) encode() []byte {
	key := base64.StdEncoding.EncodeToString(s.seed)
	return fmt.Appendf(nil, stateFormat, key, s.incarnation, stateSum(key, s.incarnation))
}

func stateSum(key string, incarnation uint64) uint32 {
	return crc32.ChecksumIEEE(fmt.Appendf(nil, "%s %d", key, incarnation))
}

func decodeState(b []byte) (state, error) {
	var (
		s   state
		key string
		sum uint32
	)
	if _, err := fmt.Sscanf(string(b), stateFormat, &key, &s.incarnation, &sum); err != nil || sum != stateSum(key, s.incarnation) {
		return state{}, ErrDamaged
	}
	seed, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(seed) != ed25519.SeedSize {
		return state{}, ErrDamaged
	}
	s.seed = seed
	return s, nil
}

func loadState(dir string) (state, error) {
	b, err := readPrivate(filepath.Join(dir, stateFile), 1024)
	if err != nil {
		return state{}, err
	}
	return decodeState(b)
}

// store replaces the file so that after a crash either the old or the new one is there.
func (s state) store(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, stateFile+".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(s.encode())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, stateFile))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
