// Package names is the name service of the containers: a table of names, and a
// DNS server on the bridge's address of each network of this host.
//
// What is ours is answered here and never leaves the host: single labels, the
// domain, and the reverse zones of the networks, also when there is no such name.
// Everything else is handed to the host's own resolvers. The answers depend on
// which network's address was asked: a container finds the containers of its
// network, as `web`, `web.DOMAIN` or `web.NETWORK.DOMAIN`, and nobody else's: at
// another network's address it is refused (see fence).
//
// Queries are hostile bytes. Their fixed fields are checked before anything is
// taken apart, the rest is read by a parser that allocates nothing that a sender
// can make large, and every table, queue and connection count has a bound.
package names

import (
	"fmt"
	"net/netip"
	"strings"
)

// Limits of DNS, in bytes.
const (
	maxName  = 253
	maxLabel = 63
)

// localhost is who asks, always.
const localhost = "localhost"

// Record is one name of one address.
type Record struct {
	Name    string     `json:"name"`    // lower-case, no trailing dot, relative to the domain; may have several labels
	Network string     `json:"network"` // the network whose members may ask for it
	Host    string     `json:"host"`    // the peer that published it
	Addr    netip.Addr `json:"addr"`
	ByHand  bool       `json:"by_hand,omitempty"` // `weave dns add` did it
}

// ValidName brings a container's name into the form that DNS knows it by: lower
// case, without a trailing dot. Labels are as in RFC 1123, with '_' beside '-'
// and letters and digits, since compose and podman have such names. The error
// says what is wrong in words fit for a user.
func ValidName(s string) (string, error) {
	n := strings.ToLower(strings.TrimSuffix(s, "."))
	if len(n) > maxName {
		return "", fmt.Errorf("name %q… has %d characters, DNS takes %d", n[:32], len(n), maxName)
	}
	for label := range strings.SplitSeq(n, ".") {
		if err := validLabel(label); err != nil {
			return "", fmt.Errorf("name %q: %w", n, err)
		}
	}
	return n, nil
}

func validLabel(l string) error {
	switch {
	case l == "":
		return fmt.Errorf("empty, or two dots in a row")
	case len(l) > maxLabel:
		return fmt.Errorf("a part has %d characters, DNS takes %d", len(l), maxLabel)
	case l[0] == '-' || l[len(l)-1] == '-':
		return fmt.Errorf("%q begins or ends with '-'", l)
	}
	for i := range len(l) {
		if c := l[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return fmt.Errorf("%q has other characters than letters, digits, '-' and '_'", l)
		}
	}
	return nil
}
