// Package identity says who a router is: its host's name, its key pair, the
// incarnation of this start, and the certificates that prove them to every
// router that holds the same cluster secret.
//
// All of a cluster's trust comes from one secret of 256 bits. HKDF turns it into
// the key of a certificate authority that every router can rebuild, so each
// router issues its own certificates and none is ever stored or distributed.
// Holding the secret is being a member; a certificate guards against mistakes
// and confusion between members, not against a malicious one (DESIGN §4).
//
// Nothing here depends on the wall clock: certificates are valid from 2000 to
// 9999 and are verified at a fixed moment in between.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Identity is one router during one life of its process. All methods may be
// called from any goroutine.
type Identity struct {
	name        gossip.Peer
	incarnation uint64
	key         ed25519.PrivateKey
	cert        []byte
	secret      Secret
	authority   authority
	knockKey    []byte

	mu       sync.Mutex
	verified map[[sha256.Size]byte]Subject
}

// Subject is what a certificate says of its holder.
type Subject struct {
	Name        gossip.Peer
	MemberID    uint64 // derived from Key: another key is another member
	Incarnation uint64
	Key         ed25519.PublicKey
}

// maxVerified bounds the cache of certificates that were found good: one a peer
// and a few of its earlier incarnations. It is emptied when full.
const maxVerified = 4096

// Open loads the identity kept in dir, or makes one where there is none, and
// counts its incarnation up by one, durably, before it returns.
//
// A file that others may read, that belongs to somebody else or that is damaged
// is refused: an identity that cannot be trusted is worse than a new one, and
// which of the two the operator wants is for the operator to say.
func Open(dir string, name string, secret Secret) (*Identity, error) {
	peer, err := ValidName(name)
	if err != nil {
		return nil, err
	}
	kept, err := loadState(dir)
	if errors.Is(err, os.ErrNotExist) {
		kept, err = newState()
	}
	if err != nil {
		return nil, fmt.Errorf("open identity in %s: %w", dir, err)
	}
	kept.incarnation++
	if err := kept.store(dir); err != nil {
		return nil, fmt.Errorf("open identity in %s: %w", dir, err)
	}
	return build(peer, kept, secret)
}

func build(name gossip.Peer, kept state, secret Secret) (*Identity, error) {
	ca, err := newAuthority(secret)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's certificate authority: %w", err)
	}
	id := &Identity{
		name: name, incarnation: kept.incarnation, key: ed25519.NewKeyFromSeed(kept.seed),
		secret: secret, authority: ca, knockKey: secret.derive("knock"),
		verified: map[[sha256.Size]byte]Subject{},
	}
	id.cert, err = ca.issue(namedTemplate(name, kept.incarnation), id.key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("issue the certificate of %q: %w", name, err)
	}
	return id, nil
}

// Name is the host's name.
func (i *Identity) Name() gossip.Peer { return i.name }

// Format prints who this is, with any verb, and never the keys.
func (i *Identity) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s (member %016x, incarnation %d)", i.name, i.MemberID(), i.incarnation)
}

// Incarnation is the number of this start, 1 for the first with this key.
func (i *Identity) Incarnation() uint64 { return i.incarnation }

// MemberID stands for the key pair: 64 bits of its hash, never zero.
func (i *Identity) MemberID() uint64 { return memberID(i.key.Public().(ed25519.PublicKey)) }

// Secured reports whether a cluster secret guards this identity. Without one
// whoever reaches the port is a member.
func (i *Identity) Secured() bool { return i.secret.Secured() }

// Sign signs msg with the host's key. Callers put their own label in front of
// what they sign, so that no signature serves for two purposes.
func (i *Identity) Sign(msg []byte) []byte { return ed25519.Sign(i.key, msg) }

// Cert is the certificate (DER) that binds name, key and incarnation. The
// caller must not change it.
func (i *Identity) Cert() []byte { return i.cert }

// Derive gives 32 bytes from the cluster secret, for one labelled use: the same
// on every router of the cluster, and no help in finding the secret.
func (i *Identity) Derive(label string) []byte { return i.secret.derive("use " + label) }

// Verify reports whether cert is a certificate of this cluster for that name and
// sig is its holder's signature of msg.
func (i *Identity) Verify(cert []byte, name gossip.Peer, msg, sig []byte) error {
	s, err := i.Check(cert)
	if err != nil {
		return err
	}
	if s.Name != name {
		return fmt.Errorf("certificate is for %q, not for %q", s.Name, name)
	}
	if !ed25519.Verify(s.Key, msg, sig) {
		return fmt.Errorf("signature of %q is wrong", name)
	}
	return nil
}

// Check reports what a certificate says, if it is one of this cluster.
func (i *Identity) Check(cert []byte) (Subject, error) {
	sum := sha256.Sum256(cert)
	i.mu.Lock()
	s, ok := i.verified[sum]
	i.mu.Unlock()
	if ok {
		return s, nil
	}
	s, err := i.authority.check(cert)
	if err != nil {
		return Subject{}, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.verified) >= maxVerified {
		clear(i.verified)
	}
	i.verified[sum] = s
	return s, nil
}

func memberID(pub ed25519.PublicKey) uint64 {
	sum := sha256.Sum256(append([]byte("weave member id\x00"), pub...))
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// ValidName checks a host's name: 1 to 64 letters, digits, dots, hyphens and
// underscores, the first a letter or a digit.
func ValidName(name string) (gossip.Peer, error) {
	if name == "" || len(name) > gossip.MaxPeer {
		return "", fmt.Errorf("host name %.80q: must have 1 to %d characters", name, gossip.MaxPeer)
	}
	for n, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (n == 0 || !strings.ContainsRune("._-", rune(c))) {
			return "", fmt.Errorf("host name %q: only letters, digits, '.', '-' and '_', beginning with a letter or digit", name)
		}
	}
	return gossip.Peer(name), nil
}

// HostName is the name of a host that was given none: stable for as long as the
// machine keeps its machine-id, and no way back to that id, which is private.
func HostName() (gossip.Peer, error) {
	return hostName("/etc/machine-id", "/var/lib/dbus/machine-id")
}

func hostName(files ...string) (gossip.Peer, error) {
	for _, f := range files {
		b, err := os.ReadFile(f)
		if id := strings.TrimSpace(string(b)); err == nil && len(id) == 32 && id != strings.Repeat("0", 32) {
			sum := sha256.Sum256([]byte("weave host name\x00" + id))
			return gossip.Peer("host-" + hex.EncodeToString(sum[:6])), nil
		}
	}
	return "", fmt.Errorf("this host has no machine-id in %s: give it a name with --name", files[0])
}

func randomSeed() ([]byte, error) {
	seed := make([]byte, ed25519.SeedSize)
	_, err := rand.Read(seed)
	return seed, err
}
