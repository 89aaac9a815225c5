package identity

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
)

const (
	secretPrefix = "weave1-"
	secretBytes  = 32
	checkBytes   = 3 // of CRC-32, so that a slip in copying is told from a wrong secret
)

// openSecret is what keys are derived from where the operator gave no secret.
// It is public: whoever knows this program can join.
const openSecret = "weave-cni: no secret, open to everybody"

// Secret is a cluster secret, or, as its zero value, the lack of one. It prints
// as a placeholder, whatever prints it; a function hides it also where fmt looks
// into the unexported fields of a struct that holds it (and, for a verb that does
// not fit, behind a pointer).
type Secret struct{ key func() [secretBytes]byte }

// NewSecret makes a secret from 256 random bits, as text for a file.
func NewSecret() (string, error) {
	var key [secretBytes]byte
	if _, err := rand.Read(key[:]); err != nil {
		return "", fmt.Errorf("make a secret: %w", err)
	}
	return formatSecret(key), nil
}

// LoadSecret reads a secret from a file that only its owner may read, and that
// belongs to root or to the user who runs this.
func LoadSecret(file string) (Secret, error) {
	b, err := readPrivate(file, 1024)
	if err != nil {
		return Secret{}, fmt.Errorf("read the cluster secret: %w", err)
	}
	s, err := parseSecret(strings.TrimSpace(string(b)))
	if err != nil {
		return Secret{}, fmt.Errorf("read the cluster secret from %s: %w", file, err)
	}
	return s, nil
}

// Secured reports whether there is a secret.
func (s Secret) Secured() bool { return s.key != nil }

// Fingerprint is a short text that is equal on two hosts when their secrets are,
// and that may be shown: the secret cannot be found from it.
func (s Secret) Fingerprint() string {
	if s.key == nil {
		return "none"
	}
	f := hex.EncodeToString(s.derive("fingerprint")[:8])
	return f[:4] + "-" + f[4:8] + "-" + f[8:12] + "-" + f[12:]
}

// String, GoString, LogValue and MarshalText all hide the secret.
func (s Secret) String() string               { return "[cluster secret]" }
func (s Secret) GoString() string             { return s.String() }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.String()) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Format keeps every verb of fmt, %x and %d too, from reaching the bytes.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

func (s Secret) derive(label string) []byte {
	material := []byte(openSecret)
	if s.key != nil {
		key := s.key()
		material = key[:]
	}
	out, err := hkdf.Key(sha256.New, material, []byte("weave-cni v1"), label, secretBytes)
	if err != nil {
		panic(err) // only for lengths beyond HKDF's: a mistake in this file
	}
	return out
}

func secretEncoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

func formatSecret(key [secretBytes]byte) string {
	return secretPrefix + secretEncoding().EncodeToString(append(key[:], check(key[:])...))
}

func parseSecret(text string) (Secret, error) {
	body, ok := strings.CutPrefix(strings.ToLower(text), secretPrefix)
	if !ok {
		return Secret{}, errors.New(`not a secret of "weave secret new": it does not begin with "weave1-"`)
	}
	b, err := secretEncoding().DecodeString(body)
	if err != nil || len(b) != secretBytes+checkBytes || string(check(b[:secretBytes])) != string(b[secretBytes:]) {
		return Secret{}, errors.New(`damaged: characters are missing, added or changed since "weave secret new" printed it`)
	}
	key := [secretBytes]byte(b[:secretBytes])
	return Secret{func() [secretBytes]byte { return key }}, nil
}

func check(b []byte) []byte {
	sum := crc32.ChecksumIEEE(b)
	return []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8)}
}

// readPrivate reads a regular file of at most limit bytes which nobody but its
// owner may use, and refuses any other in words. It looks at what it has opened,
// not at the name, and is not held up by a FIFO.
func readPrivate(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link: name the file itself", name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private(name, info); err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes: it should have at most %d", name, info.Size(), limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

func private(name string, info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", name)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so that others may use it: chmod 600 %s", name, m, name)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && st.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s belongs to uid %d: it must belong to root or to uid %d, which runs this", name, st.Uid, os.Geteuid())
	}
	return nil
}
