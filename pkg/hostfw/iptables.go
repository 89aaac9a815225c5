package hostfw

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"
	"github.com/google/nftables"
)

const (
	iptComment = "weave"
	iptTable   = "filter"
	iptForward = "FORWARD"
	iptDocker  = "DOCKER-USER"

	// iptLockWait is how long iptables waits for its own lock, in seconds.
	iptLockWait = 5
	// legacyLook is how often rules are looked at that nftables does not know of.
	legacyLook = 2 * time.Second
)

// world is one of the up to four places where iptables may keep rules: two
// families, and rules inside nftables or beside it. A host may have several.
type world struct {
	proto    iptables.Protocol
	legacy   bool
	programs []string // that write there, the surest first
}

// worlds is constant.
func worlds() []world {
	return []world{
		{iptables.ProtocolIPv4, false, []string{"iptables-nft", "iptables"}},
		{iptables.ProtocolIPv6, false, []string{"ip6tables-nft", "ip6tables"}},
		{iptables.ProtocolIPv4, true, []string{"iptables-legacy", "iptables"}},
		{iptables.ProtocolIPv6, true, []string{"ip6tables-legacy", "ip6tables"}},
	}
}

// forwarding keeps the accepts in iptables. Its methods run one at a time.
type forwarding struct {
	log      *slog.Logger
	programs map[string]*iptables.IPTables // by path
	told     bool                          // that there is no program
	looked   time.Time                     // last look at rules outside nftables
	synced   bool                          // since then nothing was found amiss
}

func newForwarding(log *slog.Logger) *forwarding {
	return &forwarding{log: log, programs: map[string]*iptables.IPTables{}}
}

// sync makes iptables accept what it would drop of these bridges' traffic, where
// it would, and takes away what is no longer needed. A world that has no FORWARD
// chain is not touched: to list it could create it.
func (f *forwarding) sync(l *link, bridges []string) error {
	f.synced = false
	present, err := f.present(l)
	if err != nil {
		return err
	}
	for _, w := range present {
		ipt, err := f.program(w)
		if err != nil {
			return err
		}
		if ipt == nil {
			continue
		}
		if err := syncWorld(ipt, bridges); err != nil {
			return err
		}
	}
	f.synced = true
	return nil
}

// intact reports whether sync would have nothing to do. nftChanged says that
// some rule in nftables changed since the last look. What was found amiss stays
// so until sync has succeeded.
func (f *forwarding) intact(l *link, bridges []string, nftChanged bool) (bool, error) {
	legacy := time.Since(f.looked) >= legacyLook
	if !f.synced || !nftChanged && !legacy {
		return f.synced, nil
	}
	f.synced = false // until the look has ended well
	present, err := f.present(l)
	if err != nil {
		return false, err
	}
	for _, w := range present {
		if w.legacy && !legacy || !w.legacy && !nftChanged {
			continue
		}
		ipt, err := f.program(w)
		if err != nil {
			return false, err
		}
		if ipt == nil {
			continue
		}
		s, err := readWorld(ipt)
		if err != nil {
			return false, err
		}
		if add, del := s.difference(bridges); len(add)+len(del) > 0 {
			return false, nil
		}
	}
	if legacy {
		f.looked = time.Now()
	}
	f.synced = true
	return true, nil
}

// present lists the worlds that have a FORWARD chain, without executing anything.
func (f *forwarding) present(l *link) ([]world, error) {
	var found []world
	for _, w := range worlds() {
		ok, err := hasForward(l, w)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, w)
		}
	}
	return found, nil
}

func hasForward(l *link, w world) (bool, error) {
	if w.legacy {
		file := "ip_tables_names"
		if w.proto == iptables.ProtocolIPv6 {
			file = "ip6_tables_names"
		}
		// Missing or forbidden: this kernel keeps no such rules, or we may not change them.
		names, _ := os.ReadFile("/proc/thread-self/net/" + file)
		return slices.Contains(strings.Fields(string(names)), iptTable), nil
	}
	family := nftables.TableFamilyIPv4
	if w.proto == iptables.ProtocolIPv6 {
		family = nftables.TableFamilyIPv6
	}
	if err := l.deadline(); err != nil {
		return false, err
	}
	chains, err := l.nft.ListChainsOfTableFamily(family)
	if err != nil {
		return false, fmt.Errorf("list chains: %w", err)
	}
	return slices.ContainsFunc(chains, func(c *nftables.Chain) bool {
		return c.Name == iptForward && c.Table != nil && c.Table.Name == iptTable
	}), nil
}

// program finds what writes in w; nil when it is not installed, which is fine:
// then whoever made these rules has to let us through.
func (f *forwarding) program(w world) (*iptables.IPTables, error) {
	for _, name := range w.programs {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if ipt := f.programs[path]; ipt != nil {
			return ipt, nil
		}
		ipt, err := iptables.New(iptables.IPFamily(w.proto), iptables.Path(path), iptables.Timeout(iptLockWait))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		f.programs[path] = ipt
		return ipt, nil
	}
	if !f.told {
		f.told = true
		f.log.Debug("firewall: no iptables program; forwarding is left as it is", "tried", w.programs)
	}
	return nil, nil
}

// accept is one rule of ours.
type accept struct{ chain, spec string }

// worldState is what matters of one world's forwarding rules.
type worldState struct {
	drops  bool     // a packet of ours may end in a drop
	target string   // the chain that our accepts belong in
	ours   []accept // there already, in any chain
}

// readWorld reads FORWARD, and Docker's chain for users where FORWARD leads there.
func readWorld(ipt *iptables.IPTables) (worldState, error) {
	lines, err := ipt.List(iptTable, iptForward)
	if err != nil {
		return worldState{}, fmt.Errorf("list %s: %w", iptForward, err)
	}
	s := worldState{target: iptForward}
	docker := false
	for _, line := range lines {
		s.drops = s.drops || dropsAll(line)
		docker = docker || strings.HasSuffix(line, " -j "+iptDocker)
	}
	s.ours = oursIn(iptForward, lines)
	if docker {
		s.target = iptDocker
		if lines, err = ipt.List(iptTable, iptDocker); err != nil {
			return worldState{}, fmt.Errorf("list %s: %w", iptDocker, err)
		}
		s.ours = append(s.ours, oursIn(iptDocker, lines)...)
	}
	return s, nil
}

// dropsAll reports whether a line of the listing drops packets for no other
// reason than the interfaces they pass: the chain's policy, or a rule like the
// last one of a strict firewall. A drop with more conditions is somebody's
// intention about certain packets, and nothing to get around.
func dropsAll(line string) bool {
	f := strings.Fields(line)
	if len(f) == 3 && f[0] == "-P" {
		return f[2] == "DROP"
	}
	for i := 2; i < len(f); i++ {
		switch f[i] {
		case "!":
		case "-i", "-o":
			i++
		case "-j":
			return i+1 < len(f) && (f[i+1] == "DROP" || f[i+1] == "REJECT")
		default:
			return false
		}
	}
	return false
}

func oursIn(chain string, lines []string) []accept {
	var found []accept
	for _, line := range lines {
		spec, isRule := strings.CutPrefix(line, "-A "+chain+" ")
		if isRule && strings.HasSuffix(spec, " -m comment --comment "+iptComment+" -j ACCEPT") {
			found = append(found, accept{chain, spec})
		}
	}
	return found
}

// acceptsFor gives the rules in the words in which the listing repeats them.
// Towards a bridge of ours only answers pass, and what the host itself redirected
// there (published ports): that strangers may open connections to containers is
// for the host's firewall to say.
func acceptsFor(chain string, bridges []string) []accept {
	var as []accept
	for _, b := range bridges {
		tail := " -m comment --comment " + iptComment + " -j ACCEPT"
		as = append(as,
			accept{chain, "-i " + b + tail},
			accept{chain, "-o " + b + " -m conntrack --ctstate RELATED,ESTABLISHED,DNAT" + tail})
	}
	return as
}

// difference tells what to add and what to delete for these bridges. A second
// copy of a rule is deleted too.
func (s worldState) difference(bridges []string) (add, del []accept) {
	var want []accept
	if s.drops {
		want = acceptsFor(s.target, bridges)
	}
	left := slices.Clone(want)
	for _, a := range s.ours {
		if i := slices.Index(left, a); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else {
			del = append(del, a)
		}
	}
	return left, del
}

func syncWorld(ipt *iptables.IPTables, bridges []string) error {
	s, err := readWorld(ipt)
	if err != nil {
		return err
	}
	add, del := s.difference(bridges)
	for _, a := range add {
		if err := ipt.Insert(iptTable, a.chain, 1, strings.Fields(a.spec)...); err != nil {
			return fmt.Errorf("insert %q in %s: %w", a.spec, a.chain, err)
		}
	}
	for _, a := range del {
		if err := ipt.Delete(iptTable, a.chain, strings.Fields(a.spec)...); err != nil {
			return fmt.Errorf("delete %q from %s: %w", a.spec, a.chain, err)
		}
	}
	return nil
}
