package main

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// netlink attaches containers with as few messages as there can be: one that
// makes the pair across the two namespaces, with the host's end on the bridge
// and up; then, in the container, address, link and route in one packet. One
// message deletes the pair. No process is started and nothing is remembered.
type netlink struct {
	bridge uint32 // its index
}

func newNetlink(h *netlab.Host) (calls, error) {
	if _, err := h.Run("ip", "link", "add", "floor0", "up", "type", "bridge"); err != nil {
		return nil, err
	}
	n := &netlink{}
	return n, h.Do(func() error {
		i, err := net.InterfaceByName("floor0")
		if err == nil {
			n.bridge = uint32(i.Index)
		}
		return err
	})
}

// number is the same for a container whenever it is asked.
func number(c *netlab.Container) uint32 {
	h := fnv.New32a()
	h.Write([]byte(c.Name()))
	return h.Sum32()
}

func hostEnd(c *netlab.Container) string { return fmt.Sprintf("fl%08x", number(c)) }

// containerIndex is the index asked for the container's end; the loopback has 1.
const containerIndex = 2

func (n *netlink) add(c *netlab.Container) error {
	ns, err := os.Open(c.Path())
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := talk(n.veth(c, uint32(ns.Fd()))); err != nil {
		return fmt.Errorf("floor: make the veth: %w", err)
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = talk(inContainer(number(c))...)
	if e := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("floor: address: %w", err)
	}
	return nil
}

func (n *netlink) del(c *netlab.Container) error {
	return talk(newMessage(unix.RTM_DELLINK, 0, link(0, 0)).text(unix.IFLA_IFNAME, hostEnd(c)))
}

func (n *netlink) veth(c *netlab.Container, ns uint32) *message {
	const vethInfoPeer = 1
	return newMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, link(0, unix.IFF_UP)).
		text(unix.IFLA_IFNAME, hostEnd(c)).
		word(unix.IFLA_MASTER, n.bridge).
		nest(unix.IFLA_LINKINFO, func(m *message) {
			m.attr(unix.IFLA_INFO_KIND, []byte("veth"))
			m.nest(unix.IFLA_INFO_DATA, func(m *message) {
				m.nest(vethInfoPeer, func(m *message) {
					m.b = append(m.b, link(containerIndex, 0)...)
					m.text(unix.IFLA_IFNAME, "eth0").word(unix.IFLA_NET_NS_FD, ns)
				})
			})
		})
}

func inContainer(number uint32) []*message {
	addr := []byte{10, 61, byte(number >> 8), byte(number)}
	ifaddr := append([]byte{unix.AF_INET, 16, 0, 0}, native(containerIndex)...)
	route := []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	return []*message{
		newMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifaddr).attr(unix.IFA_LOCAL, addr).attr(unix.IFA_ADDRESS, addr),
		newMessage(unix.RTM_NEWLINK, 0, link(containerIndex, unix.IFF_UP)),
		newMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, route).attr(unix.RTA_GATEWAY, []byte{10, 61, 255, 254}).word(unix.RTA_OIF, containerIndex),
		newMessage(unix.RTM_NEWLINK, 0, link(1, unix.IFF_UP)),
	}
}

// message is an rtnetlink message as it grows.
type message struct{ b []byte }

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// newMessage starts a message whose length talk fills in.
func newMessage(kind, flags uint16, body []byte) *message {
	b := make([]byte, unix.NLMSG_HDRLEN, 256)
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	return &message{append(b, body...)}
}

// link is an ifinfomsg that sets flags and no others.
func link(index, flags uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], flags)
	return b
}

func (m *message) attr(kind uint16, value []byte) *message {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(unix.SizeofRtAttr+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, value...)
	for len(m.b)%unix.NLA_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
	return m
}

func (m *message) text(kind uint16, s string) *message { return m.attr(kind, append([]byte(s), 0)) }
func (m *message) word(kind uint16, v uint32) *message { return m.attr(kind, native(v)) }

func (m *message) nest(kind uint16, fill func(*message)) *message {
	at := len(m.b)
	m.attr(kind, nil)
	fill(m)
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
	return m
}

// talk sends messages in one packet over a socket of the thread's namespace,
// and reads the answer: an error of any, or the last one's acknowledgement.
func talk(ms ...*message) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	var packet []byte
	for i, m := range ms {
		binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
		if i == len(ms)-1 {
			binary.NativeEndian.PutUint16(m.b[6:], binary.NativeEndian.Uint16(m.b[6:])|unix.NLM_F_ACK)
		}
		packet = append(packet, m.b...)
	}
	if err := unix.Sendto(s, packet, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 8192)
	n, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.NLMSG_HDRLEN+4 {
		return fmt.Errorf("an answer of %d bytes", n)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
