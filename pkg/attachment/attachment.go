// Package attachment holds what an attachment is called, everywhere.
//
// An attachment is one interface of one container on one network. Its key is
// (network, container id, interface name) and nothing else: not an address, not
// a process, not a namespace path, since each of those is reused by somebody.
// From the key follow, by hashing, the name of the host's end of the veth, the
// endpoint id and the name of the claim file; the plugin and the router derive
// them independently and so agree without talking.
//
// The package is pure: no I/O, no clock, no log.
package attachment

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// MaxAlias is the longest ifalias that the kernel takes (IFALIASZ less its NUL), in bytes.
const MaxAlias = 255

// Key names an attachment.
type Key struct {
	Network     string `json:"network"`
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// NSID identifies a network namespace for as long as somebody holds it: the
// device and inode of its nsfs file. The zero NSID means "not known".
type NSID struct {
	Dev uint64 `json:"dev,omitempty"`
	Ino uint64 `json:"ino,omitempty"`
}

// Known reports whether the id names a namespace.
func (n NSID) Known() bool { return n.Ino != 0 }

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func (k Key) digest() [sha256.Size]byte {
	// NUL cannot occur in a valid part, so the three parts cannot run into each other.
	return sha256.Sum256([]byte(k.Network + "\x00" + k.ContainerID + "\x00" + k.IfName))
}

// Hash is 26 lower-case base32 characters: 128 bits of the key's SHA-256.
func (k Key) Hash() string {
	d := k.digest()
	return lowerBase32.EncodeToString(d[:16])
}

// EndpointID is 64 hexadecimal digits: the key's whole SHA-256.
func (k Key) EndpointID() string {
	d := k.digest()
	return hex.EncodeToString(d[:])
}

// Veth is the name of the host's end of the attachment's veth.
func (k Key) Veth() string { return VethName(k.Hash()) }

// VethName derives the host's interface name from a Key's Hash: "veth" and 55
// bits of it, 15 bytes, just what IFNAMSIZ leaves. Two keys may share a name
// (one chance in 2^55 a pair); the alias, with the whole hash, tells them apart.
func VethName(hash string) string { return "veth" + hash[:11] }

// Validate rejects a key that could not have passed a CNI runtime.
func (k Key) Validate() error {
	if err := checkName("network name", k.Network); err != nil {
		return err
	}
	if err := ValidContainerID(k.ContainerID); err != nil {
		return err
	}
	return ValidIfName(k.IfName)
}

// ValidContainerID rejects what CNI allows no container id to be, and what is longer
// than a file's name may be.
func ValidContainerID(s string) error { return checkName("container id", s) }

func checkName(what, s string) error {
	switch {
	case len(s) > maxName:
		return fmt.Errorf("%s %q: %d characters, at most %d", what, clip(s), len(s), maxName)
	case !validName(s):
		return fmt.Errorf("%s %q: want letters, digits, '_', '.', '-', first a letter or digit", what, clip(s))
	}
	return nil
}

const maxName = 255

// ValidIfName rejects what the kernel would not take as an interface name.
func ValidIfName(s string) error {
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == '/' || r == ':' || r == '%' || r >= 0x7f
	}) {
		return fmt.Errorf("interface name %q: want 1 to 15 printable characters without '/', ':', '%%' or space", clip(s))
	}
	return nil
}

func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '_' && r != '.' && r != '-') {
			return false
		}
	}
	return true
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// MAC is the hardware address of an endpoint that did not ask for one:
// 02:42 and the IPv4 address, so that a neighbour entry is never wrong for a
// reused address; without IPv4, 02 and 40 bits of the key's hash.
func (k Key) MAC(addrs []netip.Prefix) net.HardwareAddr {
	for _, a := range addrs {
		if a.Addr().Is4() {
			return MACFor(a.Addr())
		}
	}
	d := k.digest()
	return append(net.HardwareAddr{0x02}, d[:5]...)
}

// MACFor is the hardware address that goes with an IPv4 address.
func MACFor(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return append(net.HardwareAddr{0x02, 0x42}, b[:]...)
}

// Alias is what the host's end of a veth says of itself in its ifalias. It is
// the attachment's only durable record: it lives and dies with the interface.
//
// Text: "wv1 HASH NETWORK MAC ADDR[,ADDR…]", and wv1l in the place of wv1 when it is Local.
type Alias struct {
	Hash    string // Key.Hash
	Network string // Key.Network
	MAC     net.HardwareAddr
	Addrs   []netip.Prefix
	Local   bool // it belongs on a bridge of its host alone, and on no network's of the router
}

const (
	aliasVersion = "wv1"
	localVersion = "wv1l"
)

// ErrNotOurs says that a text is no alias of ours.
var ErrNotOurs = errors.New("not an attachment's alias")

// Encode gives the text, or an error when it does not fit in MaxAlias bytes.
func (a Alias) Encode() (string, error) {
	addrs := make([]string, len(a.Addrs))
	for i, p := range a.Addrs {
		addrs[i] = p.String()
	}
	version := aliasVersion
	if a.Local {
		version = localVersion
	}
	s := strings.Join([]string{version, a.Hash, a.Network, a.MAC.String(), strings.Join(addrs, ",")}, " ")
	if len(s) > MaxAlias {
		return "", fmt.Errorf("%d addresses on network %q need %d bytes of interface alias, the kernel keeps %d: ask for fewer addresses", len(a.Addrs), a.Network, len(s), MaxAlias)
	}
	return s, nil
}

// ParseAlias reads the text back; ErrNotOurs when it is somebody else's.
func ParseAlias(s string) (Alias, error) {
	f := strings.Split(s, " ")
	if len(f) != 5 || f[0] != aliasVersion && f[0] != localVersion || len(f[1]) != 26 || !validName(f[2]) {
		return Alias{}, ErrNotOurs
	}
	if _, err := lowerBase32.DecodeString(f[1]); err != nil {
		return Alias{}, ErrNotOurs
	}
	mac, err := net.ParseMAC(f[3])
	if err != nil || len(mac) != 6 {
		return Alias{}, ErrNotOurs
	}
	a := Alias{Hash: f[1], Network: f[2], MAC: mac, Local: f[0] == localVersion}
	if f[4] == "" {
		return a, nil // layer 2 only
	}
	for _, t := range strings.Split(f[4], ",") {
		p, err := netip.ParsePrefix(t)
		if err != nil {
			return Alias{}, ErrNotOurs
		}
		a.Addrs = append(a.Addrs, p)
	}
	return a, nil
}
