package netdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watchBuffer holds what the kernel tells while the router is at something else: a few
// thousand messages, each of which counts with the page that it is in.
const watchBuffer = 8 << 20

// notices are the groups of what the kernel tells: devices, addresses, neighbours and
// forwarding entries, and the settings that it has notices for.
const notices = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NEIGH-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_NETCONF-1) | 1<<(unix.RTNLGRP_IPV6_NETCONF-1)

// everyDevice is the index in a notice of a setting of all devices (NETCONFA_IFINDEX_ALL).
const everyDevice = -1

// learnAgain is how long the names of devices are left alone after they could not be read.
const learnAgain = 100 * time.Millisecond

// Touched is what may differ from what was seen before.
type Touched struct {
	All      bool            // notices were lost: anything may
	Devices  map[string]bool // by name: they, their addresses, neighbours or forwarding entries
	Settings bool            // forwarding of the whole host
}

// Watch notes what the kernel tells of devices. Notices of one's own changes are among
// them. It is no proof that nothing changed: some settings have no notice.
type Watch struct {
	sock *os.File
	dump *conn
	mine func(device string) bool

	mu      sync.Mutex
	touched Touched
	links   uint64         // notices of links, and losses
	names   map[int]string // of the devices that are there, by index
}

// NewWatch begins to watch the namespace of the calling thread. Devices that are not
// mine are not told of by name.
func NewWatch(mine func(device string) bool) (*Watch, error) {
	w := &Watch{mine: mine, touched: Touched{All: true}}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket for notices: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer) // with less, more is lost
	w.sock = os.NewFile(uintptr(fd), "netlink notices")
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: notices})
	if err == nil {
		w.dump, err = dial()
	}
	if err == nil {
		err = w.learn()
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("watch the kernel's devices: %w", err)
	}
	return w, nil
}

// Close ends it. Run is not to run any more.
func (w *Watch) Close() error {
	if w.dump != nil {
		w.dump.close()
	}
	return w.sock.Close()
}

// Take gives what was touched since it was called last; everything, at its first call.
func (w *Watch) Take() Touched {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.touched
	w.touched = Touched{}
	return was
}

// Links counts the notices of links of any kind, and what was lost of them: while it
// stands still no link came, changed or went.
func (w *Watch) Links() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.links
}

// Run listens until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { w.sock.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, dumpBytes)
	for {
		n, err := w.sock.Read(buf)
		switch {
		case err == nil:
			w.mu.Lock()
			messages(buf[:n], w.note)
			w.mu.Unlock()
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			w.lost(ctx)
		default:
			return fmt.Errorf("read the kernel's notices: %w", err)
		}
	}
}

// lost makes notices good that the kernel had no room for. It is empty-handed only when
// ctx ends: in a storm a dump may fail, and then it tries again.
func (w *Watch) lost(ctx context.Context) {
	for {
		w.drain()
		err := w.learn()
		w.mu.Lock()
		w.touched.All = true
		w.links++
		w.mu.Unlock()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(learnAgain):
		}
	}
}

// drain empties the socket. Until then the kernel tells neither of changes nor of what it
// leaves out; a socket that is full takes nothing new, so this ends.
func (w *Watch) drain() {
	raw, err := w.sock.SyscallConn()
	if err != nil {
		return // it is closed
	}
	buf := make([]byte, dumpBytes)
	_ = raw.Control(func(fd uintptr) {
		for {
			if _, err := unix.Read(int(fd), buf); err != nil && err != unix.EINTR && err != unix.ENOBUFS {
				return
			}
		}
	})
}

// learn reads the names of all devices: at the start, and when notices were lost.
func (w *Watch) learn() error {
	links, err := w.dump.links()
	if err != nil {
		return err
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.index] = l.name
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = names
	return nil
}

// note takes one notice. w.mu is held.
func (w *Watch) note(h unix.NlMsghdr, body []byte) {
	switch h.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		w.noteLink(h.Type, body)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if e, ok := parseEntry(body); ok && written(e, body[0]) {
			w.touch(w.names[e.index])
			if e.static() {
				w.touch(w.names[e.master]) // at a port it takes the place of one that leads elsewhere
			}
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if a, ok := parseAddress(body); ok {
			w.touch(w.names[a.index])
		}
	case unix.RTM_NEWNETCONF:
		w.touched.Settings = w.touched.Settings || settingOf(body) == everyDevice
	}
}

func (w *Watch) noteLink(kind uint16, body []byte) {
	l, ok := parseLink(body)
	if !ok {
		return
	}
	w.links++
	w.touch(w.names[l.index]) // it may have been called otherwise
	w.touch(l.name)
	switch {
	case kind == unix.RTM_NEWLINK:
		w.names[l.index] = l.name
	case body[0] != unix.AF_BRIDGE: // that one tells of a port that left its bridge
		delete(w.names, l.index)
	}
}

// written reports whether an entry is of those that somebody writes: neighbours that the
// kernel finds by itself, and has no protocol for, come and go all the time.
func written(e entry, family byte) bool {
	return family == unix.AF_BRIDGE || e.protocol != 0 || e.state&netlink.NUD_PERMANENT != 0
}

func (w *Watch) touch(device string) {
	if device == "" || !w.mine(device) {
		return
	}
	if w.touched.Devices == nil {
		w.touched.Devices = map[string]bool{}
	}
	w.touched.Devices[device] = true
}

// settingOf is the index of the device that a notice of a setting is about; 0 for none.
func settingOf(body []byte) int {
	const header, ifindex = 4, 1 // struct netconfmsg, aligned; NETCONFA_IFINDEX
	if len(body) < header {
		return 0
	}
	for a := range attrs(body[header:]) {
		if a.kind == ifindex {
			return int(int32(a.u32()))
		}
	}
	return 0
}
