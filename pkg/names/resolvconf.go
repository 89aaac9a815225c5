package names

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// HostUpstreams reads the resolvers of a resolv.conf, as host:port and in its
// order; none when it cannot be read. Addresses of our own that stand there are
// the caller's to take out.
func HostUpstreams(path string) []string {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil
	}
	var ups []string
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			ups = append(ups, net.JoinHostPort(a.String(), conf.Port))
		}
	}
	return ups
}
