// Package doctor looks over a host for what keeps containers from the network, or will:
// what each runtime loads, plugins that are missing or too old, sizes of packets, ports,
// sysctls, other firewalls, other managers of links. It works without a router.
//
// Gather takes a Snapshot of the host and changes nothing on it; Judge is a function of
// the snapshot; printing is the caller's. So every check is tested without a host.
//
//	Gather ──> Snapshot ──> Judge ──> []Finding
package doctor

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Level says how much a finding matters.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // works, or may; look at it
	Problem Level = "problem" // something does not work
)

// Finding is one thing that was looked at.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	What  string `json:"what"`

	// Cure is a command, as it is to be given: only where it is certain to do no harm,
	// whatever else the host is for. Elsewhere Advice says what there is to decide.
	Cure   string `json:"cure,omitempty"`
	Advice string `json:"advice,omitempty"`
}

func ok(check, what string) Finding { return Finding{Check: check, Level: OK, What: what} }
func warn(check, what, cure string) Finding {
	return Finding{Check: check, Level: Warning, What: what, Cure: cure}
}
func bad(check, what, cure string) Finding {
	return Finding{Check: check, Level: Problem, What: what, Cure: cure}
}

// advise is a finding without a command.
func advise(check string, level Level, what, advice string) Finding {
	return Finding{Check: check, Level: level, What: what, Advice: advice}
}

// Worst is the highest level of some findings.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Problem || f.Level == Warning && worst == OK {
			worst = f.Level
		}
	}
	return worst
}

// Snapshot is what was seen of a host.
type Snapshot struct {
	Router   Router
	Runtimes []Runtime
	Devices  []Device
	Default  string            // the device of the default route, "" without one
	Sysctls  map[string]string // by path below /proc/sys; without those that the kernel has not
	Ports    []Port
	Firewall Firewall
	Managed  []Managed
	Kernel   Kernel
	Paths    []Path
	Sources  map[string]netip.Addr // by host: the address that this one would send to it from

	Late []string // parts that have not answered in time; of these the rest says nothing
}

// Router is what the router of this host says, if it does.
type Router struct {
	Status   *ctl.Status
	Topology *ctl.Topology // nil: it is older, or does not answer
	Why      string        // of one that does not answer
	Hangs    bool          // of one that does not answer: it is there
	PID      int           // of the process behind its control socket, whether it answers or not; 0 for none
}

// Runtime is one that reads network lists on this host.
type Runtime struct {
	Name       string
	Picks      Pick
	ConfDir    string
	PluginDirs []string // in its order
	Loopback   bool     // it starts the plugin loopback for every container
	NoLists    bool     // it reads none: podman with netavark
	Stopped    bool     // a daemon that is installed and does not run
	Default    string   // of one that picks by name: the network of who names none

	Missing bool              // its ConfDir is not there
	Files   []File            // of ConfDir, by name
	Plugins map[string]Plugin // by type, those that were looked for
}

// Pick is how a runtime chooses a network.
type Pick string

// The ways.
const (
	PicksFirst  Pick = "first"   // the first file by name, whatever is wrong with it
	PicksValid  Pick = "valid"   // the first file whose plugins are all there
	PicksByName Pick = "by name" // the user names a network
)

// File is one file that a runtime takes for a network list.
type File struct {
	Name     string
	Bad      string // why it cannot be read as one
	Unread   bool   // of a bad one: it could not even be opened, by this user
	Managed  bool   // the router writes it, from the operator's of the default network
	Network  string
	Versions []string
	Version  string   // the one of them that podman takes
	Plugins  []string // the types that it starts
}

// Plugin is an answer to VERSION.
type Plugin struct {
	Path   string // "" when no directory of the runtime has it
	Speaks []string
	Bad    string // it is there, and does not answer so
	Late   bool   // there was no time for its answer: nothing is known of it
}

// Device is a network device of the host.
type Device struct {
	Index int
	Name  string
	MTU   int
	Addrs []netip.Addr
}

// Port is a port that is taken.
type Port struct {
	Proto string // "tcp", "udp"
	Addr  netip.AddrPort
	Owner string // the program; "" is the kernel, or one that cannot be seen
	PID   int
}

// Managed is a link of ours that another program believes to be its own.
type Managed struct {
	Device, By string
}

// Kernel is what matters of the kernel.
type Kernel struct {
	Release  string
	Features map[string]bool // "vxlan"; those that cannot be told are left out
}

// Path is a probe with packets of full size that must not be cut.
type Path struct {
	Host  string
	Addr  netip.Addr
	Size  int    // bytes of the IP packet that was tried
	Small bool   // a small one was answered
	Full  bool   // that one was
	Limit int    // the path's MTU as a router on it told, 0 when none did
	Error string // why it could not be tried
}

// checks in the order in which they are shown, with the parts of a snapshot that they need.
var checks = []struct {
	check func(Snapshot) []Finding
	needs []string
}{
	{router, nil},
	{lists, []string{partRuntimes}},
	{versions, []string{partRuntimes}},
	{plugins, []string{partRuntimes}},
	{underlayMTU, []string{partDevices}},
	{pathMTU, []string{partPaths}},
	{ports, []string{partPorts, partDevices}},
	{forwarding, []string{partDevices}},
	{reversePath, []string{partDevices}},
	{firewalls, []string{partFirewall, partDevices, partPorts}},
	{managers, []string{partDevices}},
	{kernel, []string{partKernel}},
	{inTime, nil},
}

// Judge is what is to be said of a host.
func Judge(s Snapshot) []Finding {
	var out []Finding
	for _, c := range checks {
		if !slices.ContainsFunc(c.needs, func(part string) bool { return slices.Contains(s.Late, part) }) {
			out = append(out, c.check(s)...)
		}
	}
	return out
}

// inTime is all that has not answered, in one line: the cause is the same.
func inTime(s Snapshot) []Finding {
	late := slices.Clone(s.Late)
	if s.Firewall.Late && !slices.Contains(late, partFirewall) {
		late = append(late, partFirewall)
	}
	var plugins []string
	for _, r := range s.Runtimes {
		plugins = append(plugins, r.late()...)
	}
	slices.Sort(plugins)
	if plugins = slices.Compact(plugins); len(plugins) > 0 {
		late = append(late, "what these plugins speak: "+list(plugins))
	}
	if len(late) == 0 {
		return nil
	}
	advice := "this host may be busy: look again"
	if len(plugins) > 0 {
		advice += "; a plugin for which it stays so is asked by hand: CNI_COMMAND=VERSION PLUGIN </dev/null"
	}
	return []Finding{advise("time", Warning, "not known, for there was no answer in time: "+strings.Join(late, "; "), advice)}
}

// bridges are those of our networks: as the router says, else by their names.
func (s Snapshot) bridges() []string {
	var out []string
	if s.Router.Status != nil {
		for _, n := range s.Router.Status.Networks {
			out = append(out, n.Bridge)
		}
		return out
	}
	for _, d := range s.Devices {
		if isBridge(d.Name) {
			out = append(out, d.Name)
		}
	}
	return out
}

func (s Snapshot) device(name string) (Device, bool) {
	for _, d := range s.Devices {
		if d.Name == name {
			return d, true
		}
	}
	return Device{}, false
}

// underlay is the device over which packets go to other hosts, with our address on it.
func (s Snapshot) underlay() (d Device, own netip.Addr, found bool) {
	if t := s.Router.Topology; t != nil {
		for _, h := range t.Hosts {
			if h.State == ctl.HostHere {
				own = h.Address
			}
		}
	}
	for _, d := range s.Devices {
		for _, a := range d.Addrs {
			if own.IsValid() && a == own {
				return d, own, true
			}
		}
	}
	d, found = s.device(s.Default)
	for _, a := range d.Addrs {
		if a.IsGlobalUnicast() {
			own = a
			break
		}
	}
	return d, own, found
}

// overhead is what VXLAN adds to a frame's payload, in bytes, on an underlay of the
// address's family.
func overhead(underlay netip.Addr) int {
	if underlay.Is6() {
		return 70
	}
	return 50
}
