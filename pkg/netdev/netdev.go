// Package netdev makes and reads the kernel's network devices: the bridge, the
// VXLAN device and its forwarding tables, the veth of an attachment, and the
// sysctls that go with them.
//
// Every function acts in the network namespace of the calling thread, so a
// caller who changed that must have locked the thread. A container's namespace
// is entered only for the moment in which a socket is opened there; after that
// it is spoken to from outside.
//
// Two styles live side by side. What happens rarely (bridge, VXLAN, inspection)
// uses the netlink library's calls. What happens for each container (Attach,
// Detach, DeleteBatch) and for each remote endpoint (SyncForwarding) puts many
// messages into one sendmsg: the kernel works such a batch off before the call
// returns, so a process that is killed leaves all of it or none, and the cost is
// one system call.
//
// A dump that the kernel marks as interrupted is read again; nothing is ever
// decided from half a list.
package netdev

import "errors"

// Errors to be recognised with errors.Is. They come wrapped in the names of the things concerned.
var (
	ErrNotFound   = errors.New("no such device")
	ErrExists     = errors.New("name is taken")
	ErrWrongKind  = errors.New("device of that name is of another kind")
	ErrBridgeFull = errors.New("bridge is full (the kernel takes 1023 ports)")
	ErrNotOurs    = errors.New("link is not this attachment's")
	ErrNSGone     = errors.New("network namespace does not exist")
	ErrNotNS      = errors.New("not a network namespace")
)
