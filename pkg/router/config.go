package router

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/names"
)

// The network that every cluster is founded with.
const (
	DefaultNetwork = "weave"
	DefaultBridge  = "weave"
	DefaultDevice  = "weave-vx"
	DefaultRange   = "10.32.0.0/12"
)

// DefaultMTU is what a VXLAN frame leaves of an underlay of 1500 bytes, whether
// that is IPv4 (50 bytes of headers) or IPv6 (70). One network has one MTU on
// all hosts, so it must fit both.
const DefaultMTU = 1430

// Config is how a router runs. Defaults gives one that works; Validate says what
// is wrong with one.
type Config struct {
	Name  string   // of this host, unique in the cluster; "" derives it from the machine id
	Peers []string // HOST[:PORT] of other routers, resolved again and again; none: found a cluster

	// Bootstrap are the names of the hosts that found the cluster together, this one
	// among them; the same on all of them. None: PEERs say whether to join or found.
	Bootstrap []string

	// Init is InitNew where this host is to found a cluster though its state directory
	// is lost at each reboot, or though it was to join one before. "" else.
	Init string

	Advertise  netip.Addr     // where other hosts reach this one; zero: found by looking at the routes
	Port       uint16         // TCP, gossip
	VXLANPort  uint16         // UDP
	MeshPort   uint16         // TCP on loopback, between the router and itself
	Ranges     []netip.Prefix // of the default network, at most one of each family; used when a cluster is founded
	ForceRange bool           // take the range although a route of the host overlaps it
	MTU        int            // bytes, of the default network; used when a cluster is founded

	Machine    string // tells this machine from every other, where its hardware does not; "" asks the kernel
	RunDir     string // survives a restart, not a reboot
	StateDir   string // survives both
	Socket     string // "" is weave.sock in RunDir
	SecretFile string // the cluster secret; "" is an open cluster

	// Asked are the flags of founding that were given: --range, --range6, --mtu. A host
	// of a cluster that has others says that they do not count.
	Asked []string

	DNS         bool
	DNSDomain   string
	DNSUpstream []string // ADDR[:PORT]; none: those of /etc/resolv.conf
	// DNSStopRebind has addresses that are inside taken out of upstreams' answers, but for
	// names in the domains DNSRebindOK.
	DNSStopRebind bool
	DNSRebindOK   []string

	MetricsAddr string // IP:port where Prometheus finds metrics; "": nowhere
	ConflistDir string // where runtimes look for network lists; "": the router writes none

	Version string // stamped at build time
}

// Defaults is the configuration of a router without flags.
func Defaults() Config {
	return Config{
		Port:      6783,
		VXLANPort: 6784,
		MeshPort:  6786,
		Ranges:    []netip.Prefix{netip.MustParsePrefix(DefaultRange)},
		MTU:       DefaultMTU,
		RunDir:    "/run/weave",
		StateDir:  "/var/lib/weave",
		DNS:       true,
		DNSDomain: "weave.local",

		ConflistDir: "/etc/cni/net.d",
	}
}

// TunnelPort is where the encrypted overlay will listen. It is closed to
// containers from the first day.
const TunnelPort = 6785

// Times. All of them are measured by the monotonic clock.
const (
	settleEvery    = 2 * time.Second        // how often the kernel is compared with what it should hold
	guardEvery     = 500 * time.Millisecond // how often the firewall is looked at
	beatEvery      = time.Second            // how often the control socket is dated
	nameGrace      = 6 * time.Second        // a dead router's names are withdrawn after it
	hostAddrWithin = 2 * time.Second        // to learn the bridge's own address, each try
	forwardDelay   = 5 * time.Millisecond   // records that arrive together are written together
	rememberEvery  = 2 * time.Second        // how often it is looked whether other hosts are reached elsewhere
	lookUpWithin   = 2 * time.Second        // for one PEER's name, to choose our own address
)

const (
	smallestMTU = 1280 // what IPv6 demands of a link
	biggestMTU  = 65535 - 70
	longestName = 63
)

// FlagError is what is wrong with the value of one flag, whoever gave it.
type FlagError struct {
	Flag string // without its dashes; PeersFlag for the PEERs
	Text string
}

func (e *FlagError) Error() string { return e.Text }

// PeersFlag stands for the PEERs, which are arguments and no flag.
const PeersFlag = "peers"

// badFlag says what is wrong with a flag, or with it and others.
func badFlag(flag, format string, args ...any) error {
	return &FlagError{flag, fmt.Sprintf(format, args...)}
}

// Validate returns everything that is wrong, joined: a FlagError each.
func (c Config) Validate() error {
	var errs []error
	bad := func(flag, format string, args ...any) {
		errs = append(errs, badFlag(flag, "--"+flag+": "+format, args...))
	}
	if len(c.Name) > longestName {
		bad("name", "%d characters, at most %d", len(c.Name), longestName)
	}
	if c.MTU < smallestMTU || c.MTU > biggestMTU {
		bad("mtu", "%d, want %d to %d", c.MTU, smallestMTU, biggestMTU)
	}
	for _, p := range []struct {
		flag string
		port uint16
	}{{"port", c.Port}, {"vxlan-port", c.VXLANPort}, {"mesh-port", c.MeshPort}} {
		if p.port == 0 {
			bad(p.flag, "0 is no port")
		}
	}
	if c.Port == c.MeshPort && c.Port != 0 {
		flag, other := "mesh-port", "port"
		if c.MeshPort == Defaults().MeshPort { // then it is the other that was given
			flag, other = other, flag
		}
		bad(flag, "--%s is %d too: gossip and mesh need two TCP ports", other, c.Port)
	}
	for _, p := range c.Peers {
		if strings.Contains(p, ",") {
			errs = append(errs, badFlag(PeersFlag, "PEER %q: want one host; write several with blanks between them", p))
		}
	}
	if name, err := names.ValidName(c.DNSDomain); err != nil || name != c.DNSDomain {
		bad("dns-domain", "%q is no domain name in lower case", c.DNSDomain)
	}
	for _, d := range []struct{ flag, path string }{{"run-dir", c.RunDir}, {"state-dir", c.StateDir}, {"conflist-dir", cmp.Or(c.ConflistDir, "/")}} {
		if !filepath.IsAbs(d.path) {
			bad(d.flag, "%q: want an absolute path", d.path)
		}
	}
	for _, u := range c.DNSUpstream {
		if !isUpstream(u) {
			bad("dns-upstream", "%q is no address: want IP or IP:port, such as 192.0.2.1, 192.0.2.1:53 or [2001:db8::1]:53", u)
		}
	}
	for _, d := range c.DNSRebindOK {
		if name, err := names.ValidName(d); err != nil || name != d {
			bad("dns-rebind-ok", "%q is no domain name in lower case, such as corp.example, which stands for all names below it too", d)
		}
	}
	if ap, err := netip.ParseAddrPort(c.MetricsAddr); c.MetricsAddr != "" && (err != nil || ap.Port() == 0) {
		bad("metrics-addr", "%q is no address with a port: want one such as 127.0.0.1:6782 or [::1]:6782", c.MetricsAddr)
	}
	errs = append(errs, c.validateInit(), c.validateBootstrap(), c.validateRanges())
	return errors.Join(errs...)
}

// isUpstream takes addresses only: who would look up the name of a resolver?
func isUpstream(u string) bool {
	if _, err := netip.ParseAddr(u); err == nil {
		return true
	}
	ap, err := netip.ParseAddrPort(u)
	return err == nil && ap.Port() != 0
}

func (c Config) validateInit() error {
	switch {
	case c.Init == "":
		return nil
	case c.Init != InitNew:
		return badFlag("init", "--init: %q, want %q, or leave it out", c.Init, InitNew)
	case len(c.Peers) > 0:
		return badFlag("init", "--init %s founds a cluster, and PEERs (%s) are there to join theirs: leave one of the two out", InitNew, strings.Join(c.Peers, " "))
	case len(c.Bootstrap) > 0:
		return badFlag("init", "--init %s has this host found a cluster alone, and --bootstrap together with others: leave one of the two out", InitNew)
	}
	return nil
}

// validateBootstrap refuses a list of one: such a host would found before it has asked
// anybody, and whatever its kernel and its disk say.
func (c Config) validateBootstrap() error {
	if n := len(c.Bootstrap); n == 0 || slices.ContainsFunc(c.Bootstrap, func(name string) bool { return name != c.Bootstrap[0] }) {
		return nil
	}
	return badFlag("bootstrap", "--bootstrap names %s alone: name all the hosts that found together. To found a cluster with one host start it without --bootstrap and PEERs, "+
		"and with --init %s where its state directory is in memory", c.Bootstrap[0], InitNew)
}

func (c Config) validateRanges() error {
	var errs []error
	families := map[bool]bool{}
	for _, r := range c.Ranges {
		host, flag := r.Addr().BitLen()-r.Bits(), rangeFlag(r)
		switch {
		case r != r.Masked():
			errs = append(errs, badFlag(flag, "--%s: %s has host bits set, did you mean %s?", flag, r, r.Masked()))
		case host < 3:
			errs = append(errs, badFlag(flag, "--%s: %s is too small, want at least 8 addresses", flag, r))
		case families[r.Addr().Is4()]:
			errs = append(errs, badFlag(flag, "--%s: %s is one more, and one range of each family is enough", flag, r))
		}
		families[r.Addr().Is4()] = true
	}
	if len(c.Ranges) == 0 {
		errs = append(errs, badFlag("range", "--range: there is none, and none of --range6: want at least one"))
	}
	return errors.Join(errs...)
}

// rangeFlag is the flag that a range comes from.
func rangeFlag(r netip.Prefix) string {
	if r.Addr().Is4() {
		return "range"
	}
	return "range6"
}

func (c Config) socket() string {
	if c.Socket != "" {
		return c.Socket
	}
	return filepath.Join(c.RunDir, "weave.sock")
}
