package ledger

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// State is the ledger after some entry of the log. Apply changes it; everything
// that it hands out or shares with a Clone is replaced, never written to, so any
// number of goroutines may read a State that nobody applies to any more.
type State struct {
	index    uint64
	cluster  string
	nextVNI  uint32
	members  []Member   // by ID
	networks []*network // by name
	recalls  []Recall   // by member: its last command and how it ended
}

type network struct {
	Network
	spaces []space // one a subnet, in the order of Network.Subnets
}

type space struct {
	whole  addr.Range
	blocks blocks
}

// Recall is a member's last command and how it ended.
type Recall struct {
	ID     MemberID `cbor:"1,keyasint"`
	Seq    uint64   `cbor:"2,keyasint"`
	Result Result   `cbor:"3,keyasint"`
}

// New is the state before the first entry.
func New() *State { return &State{nextVNI: FirstVNI} }

// Clone is a copy to apply to, while readers keep the original. It costs a few words.
func (s *State) Clone() *State {
	c := *s
	return &c
}

// Advance notes an entry of the log that carries no command.
func (s *State) Advance(index uint64) { s.index = max(s.index, index) }

// Apply carries out the command of entry index, which must be above Index: an
// entry applied before is refused (CodeStale) and changes nothing.
func (s *State) Apply(index uint64, c Command) Result {
	if index <= s.index {
		return refuse(CodeStale, "entry %d was applied before, the ledger is at %d", index, s.index)
	}
	s.index = index
	if c.From == 0 {
		return s.apply(c)
	}
	i, known := s.findRecall(c.From)
	if known && c.Seq == s.recalls[i].Seq {
		return s.recalls[i].Result
	}
	if known && c.Seq < s.recalls[i].Seq {
		return refuse(CodeStale, "command %d of this host is older than its last one, %d", c.Seq, s.recalls[i].Seq)
	}
	res := s.apply(c)
	s.remember(c, res)
	return res
}

// remember keeps the result of a member's command; of nobody else's, so that the
// memory is bounded by the number of live members.
func (s *State) remember(c Command, res Result) {
	if m, ok := s.Member(c.From); !ok || m.Left {
		return
	}
	i, known := s.findRecall(c.From)
	s.recalls = slices.Clone(s.recalls)
	if known {
		s.recalls[i] = Recall{c.From, c.Seq, res}
		return
	}
	s.recalls = slices.Insert(s.recalls, i, Recall{c.From, c.Seq, res})
}

func (s *State) apply(c Command) Result {
	if n := c.kinds(); n != 1 {
		return refuse(CodeInvalid, "a command must say exactly one thing, this one says %d", n)
	}
	if c.Found != nil {
		return s.found(c.Found)
	}
	if s.cluster == "" {
		return refuse(CodeUnknown, "there is no cluster yet")
	}
	if m, ok := s.Member(c.From); c.From != 0 && (!ok || m.Left) {
		return refuse(CodeGone, "host %s is no member of the cluster", s.nameOf(c.From))
	}
	if author := c.author(); c.From != 0 && author != 0 && author != c.From {
		return refuse(CodeInvalid, "host %s speaks for host %s", s.nameOf(c.From), s.nameOf(author))
	}
	switch {
	case c.Join != nil:
		return s.join(c.Join.Member)
	case c.Leave != nil:
		return s.leave(c.Leave.ID)
	case c.Take != nil:
		return s.take(*c.Take)
	case c.TakeAddr != nil:
		return s.takeAddr(*c.TakeAddr)
	case c.Give != nil:
		return s.give(*c.Give)
	case c.AddNetwork != nil:
		return s.addNetwork(*c.AddNetwork)
	}
	return s.delNetwork(c.DelNetwork.Name)
}

// kinds counts the things that a command says.
func (c Command) kinds() (n int) {
	for _, set := range []bool{c.Found != nil, c.Join != nil, c.Leave != nil, c.Take != nil,
		c.TakeAddr != nil, c.Give != nil, c.AddNetwork != nil, c.DelNetwork != nil} {
		if set {
			n++
		}
	}
	return n
}

// author is the member in whose name a command acts, 0 when it is in nobody's.
func (c Command) author() MemberID {
	switch {
	case c.Leave != nil:
		return c.Leave.ID
	case c.Take != nil:
		return c.Take.ID
	case c.TakeAddr != nil:
		return c.TakeAddr.ID
	case c.Give != nil:
		return c.Give.ID
	}
	return 0
}

func (s *State) found(f *Found) Result {
	switch {
	case s.cluster == f.Cluster && f.Cluster != "":
		return Result{}
	case s.cluster != "":
		return refuse(CodeTaken, "the cluster is founded already, its id is %s", s.cluster)
	case !validText(f.Cluster):
		return refuse(CodeInvalid, "cluster id %q: want 1 to %d letters, digits, '_', '.', '-'", clip(f.Cluster), MaxName)
	}
	s.cluster = f.Cluster
	res := s.addNetwork(AddNetwork{Network: f.Network})
	if res.Code != OK {
		s.cluster = ""
	}
	return res
}

func (s *State) join(m Member) Result {
	if m.ID == 0 || !validText(m.Name) {
		return refuse(CodeInvalid, "host %q, id %x: want a name of 1 to %d letters, digits, '_', '.', '-', and an id", clip(m.Name), m.ID, MaxName)
	}
	if old, ok := s.Member(m.ID); ok {
		switch {
		case !old.Live():
			return refuse(CodeGone, "host %s has left the cluster or was replaced under this id; it must join with a new one", old.Name)
		case old.Name != m.Name:
			return Result{Code: CodeTaken, Owner: m.ID, Err: "host " + m.Name + " joins with the id of host " + old.Name}
		}
		return Result{}
	}
	there := 0
	for _, o := range s.members {
		if !o.Left {
			there++
		}
	}
	if there >= MaxMembers {
		return refuse(CodeTooMany, "the cluster has %d hosts, the most that there may be", there)
	}
	s.members = slices.Clone(s.members)
	for i, o := range s.members {
		if o.Live() && o.Name == m.Name {
			s.members[i].Replaced, s.members[i].Left = m.ID, !s.owns(o.ID)
		}
	}
	i, _ := findMember(s.members, m.ID)
	s.members = slices.Insert(s.members, i, Member{ID: m.ID, Name: m.Name, Since: s.index})
	s.forgetLeft()
	return Result{}
}

// owns reports whether the member has any block of any network.
func (s *State) owns(id MemberID) bool {
	for _, n := range s.networks {
		for _, sp := range n.spaces {
			if sp.blocks.held(id) > 0 {
				return true
			}
		}
	}
	return false
}

func (s *State) leave(id MemberID) Result {
	m, ok := s.Member(id)
	if !ok {
		return refuse(CodeUnknown, "no member has the id %x", id)
	}
	if m.Left {
		return Result{}
	}
	for i, n := range s.networks {
		for j, sp := range n.spaces {
			if sp.blocks.held(id) > 0 {
				s.setBlocks(i, j, sp.blocks.without(id))
			}
		}
	}
	s.members = slices.Clone(s.members)
	i, _ := findMember(s.members, id)
	s.members[i].Left = true
	s.forgetLeft()
	return Result{}
}

// forgetLeft drops the last commands of those that have left, and, when there are
// too many of them, the one that joined first. The members are a fresh copy.
func (s *State) forgetLeft() {
	oldest, n := -1, 0
	for i, m := range s.members {
		if !m.Left {
			continue
		}
		if n++; oldest < 0 || m.Since < s.members[oldest].Since {
			oldest = i
		}
	}
	s.recalls = slices.DeleteFunc(slices.Clone(s.recalls), func(r Recall) bool {
		m, ok := s.Member(r.ID)
		return !ok || m.Left
	})
	if n > maxLeft {
		s.members = slices.Delete(s.members, oldest, oldest+1)
	}
}

func (s *State) take(t Take) Result {
	i, j, res := s.locate(t.ID, t.Network, t.Subnet)
	if res.Code != OK {
		return res
	}
	if t.Want == 0 {
		return refuse(CodeInvalid, "asked for 0 addresses of %s", t.Subnet)
	}
	sp, parts := s.networks[i].spaces[j], s.liveMembers()+1
	pool := sp.blocks.free(sp.whole)
	if pool == 0 {
		return refuse(CodeEmpty, "every address of %s in network %s belongs to a host", t.Subnet, t.Network)
	}
	if held := sp.blocks.held(t.ID); t.Early && held > 0 && held >= sp.whole.Size()/parts {
		return refuse(CodeShare, "host %s holds its share of %s in network %s already, %d addresses", s.nameOf(t.ID), t.Subnet, t.Network, held)
	}
	if s.crumbled(sp) {
		return refuse(CodeTooMany, "the addresses are in more pieces than there may be")
	}
	want := min(ceilPow2(t.Want), floorPow2(max(pool/parts, 1)))
	granted := sp.blocks.choose(sp.whole, want)
	after := sp.blocks
	for _, r := range granted {
		after = after.grant(t.ID, r)
	}
	s.setBlocks(i, j, after)
	return Result{Ranges: granted}
}

// crumbled reports whether there are so many ranges that there may be no more.
func (s *State) crumbled(sp space) bool {
	all := 0
	for _, n := range s.networks {
		for _, o := range n.spaces {
			all += len(o.blocks)
		}
	}
	return len(sp.blocks) >= maxBlocks || all >= maxAll
}

func (s *State) takeAddr(t TakeAddr) Result {
	if t.Addr.Zone() != "" {
		return refuse(CodeInvalid, "address %s has a zone", t.Addr)
	}
	n, i, j := s.spaceOf(t.Network, t.Addr)
	if n == nil {
		return refuse(CodeUnknown, "address %s lies in no subnet of network %q", t.Addr, clip(t.Network))
	}
	if _, _, res := s.locate(t.ID, t.Network, n.Subnets[j]); res.Code != OK {
		return res
	}
	granted := Result{Ranges: []addr.Range{{First: t.Addr, Last: t.Addr}}}
	k, owned := n.spaces[j].blocks.find(t.Addr)
	if !owned && s.crumbled(n.spaces[j]) {
		return refuse(CodeTooMany, "the addresses are in more pieces than there may be")
	}
	if !owned {
		s.setBlocks(i, j, n.spaces[j].blocks.grant(t.ID, granted.Ranges[0]))
		return granted
	}
	if owner := n.spaces[j].blocks[k].Member; owner != t.ID {
		res := refuse(CodeTaken, "address %s of network %s belongs to host %s", t.Addr, t.Network, s.nameOf(owner))
		res.Owner = owner
		return res
	}
	return granted
}

func (s *State) give(g Give) Result {
	i, ok := s.findNetwork(g.Network)
	m, known := s.Member(g.ID)
	switch {
	case !ok:
		return refuse(CodeUnknown, "there is no network %q", clip(g.Network))
	case !known:
		return refuse(CodeUnknown, "no member has the id %x", g.ID)
	case len(g.Ranges) > maxGive:
		return refuse(CodeTooMany, "%d ranges given back at once, at most %d may be", len(g.Ranges), maxGive)
	}
	n := *s.networks[i]
	n.spaces = slices.Clone(n.spaces)
	for _, r := range g.Ranges {
		j := slices.IndexFunc(n.spaces, func(sp space) bool { return inside(r, sp.whole) })
		if j < 0 {
			return refuse(CodeUnknown, "range %s lies in no subnet of network %s", r, g.Network)
		}
		after, ok := n.spaces[j].blocks.revoke(g.ID, r)
		if !ok {
			return refuse(CodeTaken, "host %s gives back %s in network %s, not all of which it owns", m.Name, r, g.Network)
		}
		n.spaces[j].blocks = after
	}
	if slices.ContainsFunc(n.spaces, func(sp space) bool { return len(sp.blocks) > maxBlocks+maxGive }) {
		return refuse(CodeTooMany, "the addresses would be in more pieces than there may be")
	}
	s.setNetwork(i, &n)
	return Result{}
}

func (s *State) addNetwork(a AddNetwork) Result {
	n := a.Network
	if res := s.checkNetwork(n, len(a.Choose)); res.Code != OK {
		return res
	}
	subnets := make([]netip.Prefix, 0, len(n.Subnets)+len(a.Choose))
	for _, p := range n.Subnets {
		if res := s.checkSubnet(p, subnets); res.Code != OK {
			return res
		}
		subnets = append(subnets, p)
	}
	for _, c := range a.Choose {
		p, res := s.chooseSubnet(c, subnets)
		if res.Code != OK {
			return res
		}
		subnets = append(subnets, p)
	}
	n.Subnets = subnets
	if n.VNI == 0 {
		if n.VNI = s.freeVNI(); n.VNI == 0 {
			return refuse(CodeTooMany, "every VNI is in use")
		}
		s.nextVNI = n.VNI + 1
	}
	if n.ID == "" {
		n.ID = s.deriveID(n.Name)
	}
	i, _ := s.findNetwork(n.Name)
	s.networks = slices.Insert(slices.Clone(s.networks), i, newNetwork(n))
	return Result{}
}

func newNetwork(n Network) *network {
	spaces := make([]space, len(n.Subnets))
	for i, p := range n.Subnets {
		spaces[i].whole = addr.RangeOf(p)
	}
	return &network{n, spaces}
}

// deriveID names a network by what made it: no two entries have one index.
func (s *State) deriveID(name string) string {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], s.index)
	d := sha256.Sum256([]byte("network\x00" + s.cluster + "\x00" + name + "\x00" + string(at[:])))
	return hex.EncodeToString(d[:])
}

// freeVNI is the next that was never chosen, then any that is free; 0 when none is.
func (s *State) freeVNI() uint32 {
	used := make(map[uint32]bool, len(s.networks))
	for _, n := range s.networks {
		used[n.VNI] = true
	}
	for v := s.nextVNI; v <= maxVNI; v++ {
		if !used[v] {
			return v
		}
	}
	for v := uint32(FirstVNI); v <= maxVNI; v++ {
		if !used[v] {
			return v
		}
	}
	return 0
}

func (s *State) delNetwork(name string) Result {
	i, ok := s.findNetwork(name)
	if !ok {
		return refuse(CodeUnknown, "there is no network %q", clip(name))
	}
	for _, sp := range s.networks[i].spaces {
		if len(sp.blocks) > 0 {
			res := refuse(CodeOccupied, "network %s still has addresses at host %s", name, s.nameOf(sp.blocks[0].Member))
			res.Owner = sp.blocks[0].Member
			return res
		}
	}
	s.networks = slices.Delete(slices.Clone(s.networks), i, i+1)
	return Result{}
}

// checkNetwork refuses a definition that is malformed or in another's way, all but its subnets.
func (s *State) checkNetwork(n Network, choices int) Result {
	switch {
	case !validText(n.Name):
		return refuse(CodeInvalid, "network name %q: want 1 to %d letters, digits, '_', '.', '-'", clip(n.Name), MaxName)
	case n.ID != "" && !validHex(n.ID):
		return refuse(CodeInvalid, "network id %q: want 64 hexadecimal digits in lower case", clip(n.ID))
	case n.VNI > maxVNI:
		return refuse(CodeInvalid, "VNI %d: want at most %d", n.VNI, maxVNI)
	case n.MTU < 0 || n.MTU > maxMTU:
		return refuse(CodeInvalid, "MTU %d: want at most %d", n.MTU, maxMTU)
	case len(n.Driver) > MaxName:
		return refuse(CodeInvalid, "driver %q: too long", clip(n.Driver))
	case len(n.Subnets)+choices > MaxSubnets:
		return refuse(CodeTooMany, "network %s has %d subnets, at most %d may be", n.Name, len(n.Subnets)+choices, MaxSubnets)
	case len(s.networks) >= MaxNetworks:
		return refuse(CodeTooMany, "there are %d networks, the most that there may be", len(s.networks))
	}
	for _, o := range s.networks {
		switch {
		case o.Name == n.Name:
			return refuse(CodeTaken, "there is a network %s already", n.Name)
		case o.ID == n.ID:
			return refuse(CodeTaken, "network %s has the id %s already", o.Name, n.ID)
		case o.VNI == n.VNI && n.VNI != 0:
			return refuse(CodeTaken, "network %s has the VNI %d already", o.Name, n.VNI)
		}
	}
	return Result{}
}

// checkSubnet refuses a prefix that overlaps one of more, or of any network.
func (s *State) checkSubnet(p netip.Prefix, more []netip.Prefix) Result {
	if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
		return refuse(CodeInvalid, "subnet %s: want an address and a length, with no bits set beyond it", p)
	}
	if other, name, yes := s.overlap(p, more); yes {
		return refuse(CodeTaken, "subnet %s overlaps %s of network %s", p, other, name)
	}
	return Result{}
}

func (s *State) overlap(p netip.Prefix, more []netip.Prefix) (other netip.Prefix, name string, yes bool) {
	for _, o := range more {
		if o.Overlaps(p) {
			return o, "itself", true
		}
	}
	for _, n := range s.networks {
		for _, o := range n.Subnets {
			if o.Overlaps(p) {
				return o, n.Name, true
			}
		}
	}
	return netip.Prefix{}, "", false
}

// chooseSubnet finds the first free subnet of a Choice. It leaps over whatever
// is in the way, so it takes at most one step for each subnet that exists.
func (s *State) chooseSubnet(c Choice, more []netip.Prefix) (netip.Prefix, Result) {
	if !c.From.IsValid() || c.From.Addr().Is4In6() || c.Bits < c.From.Bits() || c.Bits > c.From.Addr().BitLen() {
		return netip.Prefix{}, refuse(CodeInvalid, "choose a /%d inside %s: not possible", c.Bits, c.From)
	}
	pool := addr.RangeOf(c.From)
	for at := pool.First; pool.Contains(at); {
		p := netip.PrefixFrom(at, c.Bits)
		other, _, taken := s.overlap(p, more)
		if !taken {
			return p, Result{}
		}
		last := addr.LastOf(p)
		if o := addr.LastOf(other); last.Less(o) {
			last = o // other is larger than p, and both are aligned
		}
		if at = last.Next(); !at.IsValid() {
			break
		}
	}
	return netip.Prefix{}, refuse(CodeEmpty, "no free /%d is left inside %s", c.Bits, c.From)
}

// locate finds the subnet that a live member asks for.
func (s *State) locate(id MemberID, name string, subnet netip.Prefix) (i, j int, res Result) {
	m, ok := s.Member(id)
	if !ok {
		return 0, 0, refuse(CodeUnknown, "no member has the id %x", id)
	}
	if !m.Live() {
		return 0, 0, refuse(CodeGone, "host %s has left the cluster or was replaced under this id", m.Name)
	}
	i, ok = s.findNetwork(name)
	if !ok {
		return 0, 0, refuse(CodeUnknown, "there is no network %q", clip(name))
	}
	if j = slices.Index(s.networks[i].Subnets, subnet); j < 0 {
		return 0, 0, refuse(CodeUnknown, "network %s has no subnet %s", name, subnet)
	}
	return i, j, Result{}
}

// setBlocks and setNetwork replace one piece and copy the way to it.
func (s *State) setBlocks(i, j int, b blocks) {
	n := *s.networks[i]
	n.spaces = slices.Clone(n.spaces)
	n.spaces[j].blocks = b
	s.setNetwork(i, &n)
}

func (s *State) setNetwork(i int, n *network) {
	s.networks = slices.Clone(s.networks)
	s.networks[i] = n
}

func (s *State) nameOf(id MemberID) string {
	m, ok := s.Member(id)
	if !ok {
		return "unknown"
	}
	return m.Name
}

func (s *State) liveMembers() (n uint64) {
	for _, m := range s.members {
		if m.Live() {
			n++
		}
	}
	return n
}

func findMember(ms []Member, id MemberID) (int, bool) {
	return slices.BinarySearchFunc(ms, id, func(m Member, id MemberID) int { return cmp.Compare(m.ID, id) })
}

func (s *State) findNetwork(name string) (int, bool) {
	return slices.BinarySearchFunc(s.networks, name, func(n *network, name string) int { return strings.Compare(n.Name, name) })
}

func validText(t string) bool {
	if t == "" || len(t) > MaxName {
		return false
	}
	for _, r := range t {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && r != '_' && r != '.' && r != '-' {
			return false
		}
	}
	return true
}

func validHex(t string) bool {
	b, err := hex.DecodeString(t)
	return err == nil && len(b) == 32 && t == strings.ToLower(t)
}

func clip(t string) string {
	if len(t) > MaxName {
		return t[:MaxName] + "…"
	}
	return t
}
