package doctor

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// What the kernel says when it is asked is what its tables in /proc have.
func TestTheSocketsThatListenAreThoseOfTheKernelsTables(t *testing.T) {
	for _, x := range []struct {
		family             uint8
		network, at, table string
	}{{unix.AF_INET, "tcp4", "127.0.0.1:0", "tcp"}, {unix.AF_INET6, "tcp6", "[::1]:0", "tcp6"}} {
		l, err := net.Listen(x.network, x.at)
		if err != nil {
			t.Logf("%s: %v", x.network, err)
			continue // a host without IPv6
		}
		defer l.Close()
		want := netip.MustParseAddrPort(l.Addr().String())
		is := func(l listener) bool { return l.at == want && l.inode != "0" }
		got, err := listeners(x.family)
		if err != nil {
			t.Skipf("this kernel is without socket diagnosis: %v", err)
		}
		i, j := slices.IndexFunc(got, is), slices.IndexFunc(listed(x.table), is)
		if i < 0 || j < 0 || got[i] != listed(x.table)[j] {
			t.Errorf("%s: %v, and the table has %v; want %v", x.network, got, listed(x.table), want)
		}
	}
}

func FuzzListener(f *testing.F) {
	f.Add(make([]byte, diagSize))
	f.Add([]byte{unix.AF_INET6, tcpListen})
	f.Fuzz(func(t *testing.T, b []byte) { parseListener(b) })
}
