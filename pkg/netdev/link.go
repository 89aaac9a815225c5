package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// skipStats is RTEXT_FILTER_SKIP_STATS: counters are a third of a link's description, and nobody here reads them.
const skipStats = 1 << 3

// link is what this package needs to know of a device.
type link struct {
	index, master int
	name, kind    string
	alias         string
	group         uint32
	up            bool
	port          []byte // attributes IFLA_BRPORT_* of a bridge port, part of the message
}

// parseLink reads a link message; ok is false for what is none.
func parseLink(b []byte) (l link, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return link{}, false
	}
	l.index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	l.up = binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0
	for a := range attrs(b[unix.SizeofIfInfomsg:]) {
		switch a.kind {
		case unix.IFLA_IFNAME:
			l.name = a.text()
		case unix.IFLA_IFALIAS:
			l.alias = a.text()
		case unix.IFLA_MASTER:
			l.master = int(a.u32())
		case unix.IFLA_GROUP:
			l.group = a.u32()
		case unix.IFLA_LINKINFO:
			l.parseKind(a.data)
		}
	}
	return l, l.name != ""
}

func (l *link) parseKind(b []byte) {
	slave := ""
	for a := range attrs(b) {
		switch a.kind {
		case nl.IFLA_INFO_KIND:
			l.kind = a.text()
		case nl.IFLA_INFO_SLAVE_KIND:
			slave = a.text()
		case nl.IFLA_INFO_SLAVE_DATA:
			if slave == "bridge" {
				l.port = a.data
			}
		}
	}
}

// has reports whether the bridge port has all these flags.
func (l link) has(flags []brport) bool {
	fit := 0
	for a := range attrs(l.port) {
		if slices.ContainsFunc(flags, func(f brport) bool { return f.kind == int(a.kind) && f.on == a.flag() }) {
			fit++
		}
	}
	return fit == len(flags)
}

// link reads one device by name; ErrNotFound.
func (c *conn) link(name string) (link, error) {
	return c.readLink(request(unix.RTM_GETLINK, 0, info(0), nameAttr(unix.IFLA_IFNAME, name), u32Attr(unix.IFLA_EXT_MASK, skipStats)))
}

// linkAt reads one device by index; ErrNotFound.
func (c *conn) linkAt(index int) (link, error) {
	return c.readLink(request(unix.RTM_GETLINK, 0, info(index), u32Attr(unix.IFLA_EXT_MASK, skipStats)))
}

func (c *conn) readLink(m *nl.NetlinkRequest) (link, error) {
	b, err := c.get(m)
	if errors.Is(err, unix.ENODEV) {
		return link{}, ErrNotFound
	}
	if err != nil {
		return link{}, fmt.Errorf("read link: %w", err)
	}
	l, ok := parseLink(b)
	if !ok {
		return link{}, errors.New("read link: kernel's answer is no link")
	}
	return l, nil
}

// links reads all devices of the socket's namespace.
func (c *conn) links() ([]link, error) {
	var all []link
	err := c.dump(request(unix.RTM_GETLINK, 0, info(0), u32Attr(unix.IFLA_EXT_MASK, skipStats)),
		func() { all = all[:0] },
		func(b []byte) {
			if l, ok := parseLink(b); ok {
				l.port = nil // the message does not last
				all = append(all, l)
			}
		})
	return all, wrap("list links", err)
}

// belongsTo checks that the link is the host's end of the attachment with that
// Key.Hash: its alias says so, or it has none yet and its name follows from the hash.
func (l link) belongsTo(hash string) error {
	if l.kind != "veth" {
		return fmt.Errorf("%q is a %q: %w", l.name, l.kind, ErrNotOurs)
	}
	if l.alias == "" {
		if len(hash) >= 11 && l.name == attachment.VethName(hash) {
			return nil
		}
		return fmt.Errorf("%q has no alias: %w", l.name, ErrNotOurs)
	}
	a, err := attachment.ParseAlias(l.alias)
	if err != nil {
		return fmt.Errorf("%q has another's alias: %w", l.name, ErrNotOurs)
	}
	if a.Hash != hash {
		return fmt.Errorf("%q is attachment %s: %w", l.name, a.Hash, ErrNotOurs)
	}
	return nil
}

// isAttachment reports whether the link says of itself that it is an attachment, whichever.
func (l link) isAttachment() bool {
	_, err := attachment.ParseAlias(l.alias)
	return err == nil && l.kind == "veth"
}
