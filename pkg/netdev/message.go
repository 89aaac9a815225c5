package netdev

import (
	"encoding/binary"
	"iter"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attr is one attribute of a message from the kernel. data is part of the message.
type attr struct {
	kind uint16
	data []byte
}

// attrs walks over the attributes in b and ends at the first that is cut off.
func attrs(b []byte) iter.Seq[attr] {
	return func(yield func(attr) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) & 0x3fff // less the nested and byte-order marks
			if !yield(attr{kind, b[unix.SizeofRtAttr:n]}) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

func (a attr) text() string { return strings.TrimRight(string(a.data), "\x00") }

func (a attr) u32() uint32 {
	if len(a.data) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a.data)
}

func (a attr) flag() bool { return len(a.data) > 0 && a.data[0] != 0 }

// request builds a message; parts are its fixed header and its attributes, in order.
func request(typ, flags int, parts ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	return &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Type: uint16(typ), Flags: uint16(unix.NLM_F_REQUEST | flags)},
		Data:     parts,
	}
}

// info is the fixed header of a link message. Index 0 leaves the choice of link
// to a name among the attributes.
func info(index int) *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index = int32(index)
	return m
}

// infoUp is info that also sets the link up.
func infoUp(index int) *nl.IfInfomsg {
	m := info(index)
	m.Flags, m.Change = unix.IFF_UP, unix.IFF_UP
	return m
}

func nameAttr(kind int, s string) *nl.RtAttr { return nl.NewRtAttr(kind, nl.ZeroTerminated(s)) }

func u32Attr(kind int, v uint32) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(v)) }

func boolAttr(v bool) []byte {
	if v {
		return []byte{1}
	}
	return []byte{0}
}
