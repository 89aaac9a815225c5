package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// firstFD is the first socket that a service manager hands on.
const firstFD = 3

// Inherit is the socket that a service manager opened for this process (socket
// activation: LISTEN_PID and LISTEN_FDS), guarded as Listen's; nil when it
// opened none. The file stays when the listener is closed: it is the manager's.
func Inherit(env func(string) string) (net.Listener, error) {
	if env("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	if n := env("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("LISTEN_FDS=%.10q: want one socket", n)
	}
	unix.CloseOnExec(firstFD) // not for the plugins
	f := os.NewFile(firstFD, "LISTEN_FDS")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the socket of LISTEN_FDS: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the socket of LISTEN_FDS is %s, not a unix socket", l.Addr().Network()), l.Close())
	}
	u.SetUnlinkOnClose(false)
	return &guarded{u, ""}, nil
}
