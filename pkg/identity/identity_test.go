package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newSecret(t testing.TB) Secret {
	t.Helper()
	text, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSecret(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func secretOf(s Secret) []byte {
	key := s.key()
	return key[:]
}

func open(t testing.TB, dir, name string, s Secret) *Identity {
	t.Helper()
	id, err := Open(dir, name, s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestIdentityOutlivesARestartAndCountsItsStarts(t *testing.T) {
	dir, s := filepath.Join(t.TempDir(), "state"), newSecret(t)
	first, second := open(t, dir, "a", s), open(t, dir, "a", s)
	if first.MemberID() != second.MemberID() || first.MemberID() == 0 {
		t.Fatalf("member ids %x and %x", first.MemberID(), second.MemberID())
	}
	if first.Incarnation() != 1 || second.Incarnation() != 2 {
		t.Fatalf("incarnations %d and %d, want 1 and 2", first.Incarnation(), second.Incarnation())
	}
	if other := open(t, t.TempDir(), "a", s); other.MemberID() == first.MemberID() {
		t.Fatal("another key pair has the same member id")
	}
	info, err := os.Stat(filepath.Join(dir, stateFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("identity file: %v %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new-*")); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestSignatureIsVerifiedOnlyUnderTheRightNameMessageAndSecret(t *testing.T) {
	s := newSecret(t)
	a, b, stranger := open(t, t.TempDir(), "a", s), open(t, t.TempDir(), "b", s), open(t, t.TempDir(), "a", newSecret(t))
	msg := []byte("hello")
	for range 2 { // the second time from the cache
		if err := b.Verify(a.Cert(), "a", msg, a.Sign(msg)); err != nil {
			t.Fatal(err)
		}
	}
	for what, err := range map[string]error{
		"other name":      b.Verify(a.Cert(), "b", msg, a.Sign(msg)),
		"other message":   b.Verify(a.Cert(), "a", []byte("x"), a.Sign(msg)),
		"other key":       b.Verify(a.Cert(), "a", msg, b.Sign(msg)),
		"no signature":    b.Verify(a.Cert(), "a", msg, nil),
		"other secret":    b.Verify(stranger.Cert(), "a", msg, stranger.Sign(msg)),
		"no certificate":  b.Verify(nil, "a", msg, a.Sign(msg)),
		"long":            b.Verify(make([]byte, 1<<20), "a", msg, a.Sign(msg)),
		"authority's own": b.Verify(a.authority.cert.Raw, "weave cluster", msg, ed25519.Sign(a.authority.key, msg)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestCertificateSaysNameKeyAndIncarnation(t *testing.T) {
	dir, s := t.TempDir(), newSecret(t)
	open(t, dir, "a", s)
	a := open(t, dir, "a", s)
	got, err := open(t, t.TempDir(), "b", s).Check(a.Cert())
	if err != nil || got.Name != "a" || got.Incarnation != 2 || got.MemberID != a.MemberID() {
		t.Fatalf("%+v, %v", got, err)
	}
	if len(a.Cert()) > maxCert/2 {
		t.Errorf("certificate of %d bytes", len(a.Cert()))
	}
}

func TestSecretFileIsRefusedInWords(t *testing.T) {
	good, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		f := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(f, []byte(text), mode), os.Chmod(f, mode)); err != nil {
			t.Fatal(err)
		}
		return f
	}
	link := filepath.Join(dir, "link")
	fifo := filepath.Join(dir, "fifo")
	if err := errors.Join(os.Symlink(write("ok", good, 0o600), link), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	for file, words := range map[string]string{
		write("group", good, 0o640):                      "chmod 600",
		write("world", good, 0o604):                      "chmod 600",
		write("empty", "", 0o600):                        "does not begin with",
		write("password", "hunter2", 0o600):              "does not begin with",
		write("short", good[:40], 0o600):                 "damaged",
		write("flipped", string(flipped), 0o600):         "damaged",
		write("long", strings.Repeat("a", 1<<20), 0o600): "at most",
		link:                      "symbolic link",
		fifo:                      "not a regular file",
		dir:                       "not a regular file",
		filepath.Join(dir, "nix"): "no such file",
	} {
		if _, err := LoadSecret(file); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", file, err, words)
		}
	}
	if s, err := LoadSecret(write("upper", " "+strings.ToUpper(good)+"\n", 0o600)); err != nil || !s.Secured() {
		t.Errorf("upper case: %v", err)
	}
}

func TestSecretAndKeyNeverPrint(t *testing.T) {
	s := newSecret(t)
	id := open(t, t.TempDir(), "a", s)
	holder := struct {
		S  Secret
		s  Secret
		ID *Identity
	}{s, s, id}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&out, verb+verb+verb+verb+"\n", s, holder, id, &holder)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", s, "id", id, "holder", holder)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", s, "id", id, "holder", holder)
	j, _ := json.Marshal(holder)
	out.Write(j)
	for what, key := range map[string][]byte{"secret": secretOf(s), "key": id.key.Seed()} {
		for _, form := range []string{fmt.Sprintf("%x", key[:6]), fmt.Sprintf("%X", key[:6]), strings.Trim(fmt.Sprint(key[:6]), "[]"), string(key[:6])} {
			if strings.Contains(out.String(), form) {
				t.Errorf("the %s shows as %q", what, form)
			}
		}
	}
	if strings.Contains(out.String(), formatSecret(s.key())[7:17]) {
		t.Error("the secret shows as text")
	}
}

func TestFingerprintsAreEqualExactlyForEqualSecrets(t *testing.T) {
	a, b := newSecret(t), newSecret(t)
	again, err := parseSecret(formatSecret(a.key()))
	if err != nil || again.Fingerprint() != a.Fingerprint() {
		t.Errorf("%v: %s and %s", err, again.Fingerprint(), a.Fingerprint())
	}
	if a.Fingerprint() == b.Fingerprint() || (Secret{}).Fingerprint() != "none" {
		t.Error("fingerprints do not tell secrets apart")
	}
}

func TestStateThatCannotBeTrustedIsRefused(t *testing.T) {
	s := newSecret(t)
	for what, spoil := range map[string]func(file string) error{
		"readable":  func(f string) error { return os.Chmod(f, 0o644) },
		"truncated": func(f string) error { return os.Truncate(f, 40) },
		"empty":     func(f string) error { return os.Truncate(f, 0) },
		"edited": func(f string) error {
			b, _ := os.ReadFile(f)
			return os.WriteFile(f, bytes.Replace(b, []byte("incarnation 1"), []byte("incarnation 9"), 1), 0o600)
		},
		"a link": func(f string) error {
			return errors.Join(os.Rename(f, f+"2"), os.Symlink(f+"2", f))
		},
	} {
		dir := t.TempDir()
		open(t, dir, "a", s)
		if err := spoil(filepath.Join(dir, stateFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, "a", s); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestNamesAreChecked(t *testing.T) {
	for _, bad := range []string{"", ".a", "-a", "a b", "a/b", "ä", "a\x00", "*.a", strings.Repeat("a", 65)} {
		if _, err := ValidName(bad); err == nil {
			t.Errorf("%q is valid", bad)
		}
	}
	for _, good := range []string{"a", "node-1", "n_1.example.org", "9", strings.Repeat("a", 64)} {
		id, err := Open(t.TempDir(), good, Secret{})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := id.Check(id.Cert()); err != nil || string(s.Name) != good {
			t.Errorf("%q: %v %v", good, s, err)
		}
	}
}

func TestHostNameIsStableAndHidesTheMachineID(t *testing.T) {
	f := filepath.Join(t.TempDir(), "machine-id")
	const id = "0123456789abcdef0123456789abcdef"
	if err := os.WriteFile(f, []byte(id+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := hostName("/nonexistent", f)
	b, _ := hostName(f)
	if err != nil || a != b || strings.Contains(id, string(a[5:])) {
		t.Fatalf("%q %q %v", a, b, err)
	}
	if _, err := hostName("/nonexistent"); err == nil || !strings.Contains(err.Error(), "--name") {
		t.Fatal(err)
	}
}

// shake runs a TLS handshake over a pipe and gives the error of each side.
func shake(t *testing.T, client, server *tls.Config) (cerr, serr error) {
	t.Helper()
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	done := make(chan error, 1)
	go func() {
		err := tls.Server(s, server).HandshakeContext(ctx)
		s.Close()
		done <- err
	}()
	tc := tls.Client(c, client)
	if cerr = tc.HandshakeContext(ctx); cerr == nil {
		_, cerr = tc.Read(make([]byte, 1)) // a server's refusal comes after the client has finished
		if cerr != nil && strings.Contains(cerr.Error(), "EOF") {
			cerr = nil
		}
	}
	c.Close()
	return cerr, <-done
}

func TestTLSStandsExactlyBetweenHoldersOfOneSecret(t *testing.T) {
	s := newSecret(t)
	a, b, other, none := open(t, t.TempDir(), "a", s), open(t, t.TempDir(), "b", s), open(t, t.TempDir(), "b", newSecret(t)), open(t, t.TempDir(), "b", Secret{})
	if !a.Secured() || none.Secured() {
		t.Error("Secured is wrong")
	}
	conf := func(f func() (*tls.Config, error)) *tls.Config {
		c, err := f()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if cerr, serr := shake(t, conf(a.TLSClient), conf(b.TLSServer)); cerr != nil || serr != nil {
		t.Fatalf("same secret: %v, %v", cerr, serr)
	}
	for _, x := range []*Identity{other, none} {
		if _, serr := shake(t, conf(x.TLSClient), conf(a.TLSServer)); !errors.Is(serr, ErrStranger) {
			t.Errorf("a stranger dials: %v", serr)
		}
		if cerr, serr := shake(t, conf(a.TLSClient), conf(x.TLSServer)); cerr == nil || serr == nil {
			t.Errorf("we dial a stranger: %v, %v", cerr, serr)
		}
	}
	// An overheard knock does not help without the certificate, and a name is no transport.
	overheard := conf(other.TLSClient)
	overheard.NextProtos, overheard.InsecureSkipVerify = conf(a.TLSClient).NextProtos, true
	if _, serr := shake(t, overheard, conf(a.TLSServer)); serr == nil {
		t.Error("an overheard knock was enough")
	}
	named := conf(b.TLSClient)
	named.Certificates = []tls.Certificate{{Certificate: [][]byte{b.Cert()}, PrivateKey: b.key}}
	if _, serr := shake(t, named, conf(a.TLSServer)); serr == nil {
		t.Error("a named certificate was accepted for TLS")
	}
}

func FuzzCertificate(f *testing.F) {
	id := open(f, f.TempDir(), "a", Secret{})
	f.Add(id.Cert())
	f.Add(id.authority.cert.Raw)
	f.Add([]byte{0x30, 0x82, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, der []byte) {
		if s, err := id.Check(der); err == nil && s.Name == "" {
			t.Fatal("a good certificate without a name")
		}
	})
}

func FuzzSecretText(f *testing.F) {
	var key [secretBytes]byte
	rand.Read(key[:])
	f.Add(formatSecret(key))
	f.Add("weave1-")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseSecret(text); err == nil && formatSecret(s.key()) != strings.ToLower(text) {
			t.Fatalf("%q is read as another secret", text)
		}
	})
}
