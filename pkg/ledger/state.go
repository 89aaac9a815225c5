package ledger

import (
	"slices"

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
	needs    []Need     // by age
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
	ID     MemberID
	Seq    uint64
	Result Result
	Digest uint64 // of the command
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
	if res, before := s.Answer(c); before {
		return res
	}
	res := s.apply(c)
	s.remember(c, res)
	return res
}

// Answer is what a member is told of a command whose number is not above that of
// its last; before is false when the number is, so that nothing is known of it.
// CodeStale, said of the command that a member has under way, proves that somebody
// else used its identity: a member's own numbers grow.
func (s *State) Answer(c Command) (res Result, before bool) {
	i, known := s.findRecall(c.From)
	if !known || c.From == 0 || c.Seq > s.recalls[i].Seq {
		return Result{}, false
	}
	switch last := s.recalls[i]; {
	case c.Seq < last.Seq:
		return refuse(CodeStale, "command %d of this host is older than its last one, %d", c.Seq, last.Seq), true
	case c.digest() != last.Digest:
		return refuse(CodeStale, "command %d of this host was another one before: two copies of its state directory are in use", c.Seq), true
	default:
		return last.Result, true
	}
}

// remember keeps the result of a member's command; of nobody else's, so that the
// memory is bounded by the number of live members.
func (s *State) remember(c Command, res Result) {
	if m, ok := s.Member(c.From); !ok || m.Left {
		return
	}
	i, known := s.findRecall(c.From)
	s.recalls = slices.Clone(s.recalls)
	r := Recall{c.From, c.Seq, res, c.digest()}
	if known {
		s.recalls[i] = r
		return
	}
	s.recalls = slices.Insert(s.recalls, i, r)
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
	res := s.carryOut(c)
	s.settleNeeds(c, res)
	return res
}

func (s *State) carryOut(c Command) Result {
	switch {
	case c.Join != nil:
		return s.join(c.Join.Member, c.From)
	case c.Leave != nil:
		return s.leave(c.Leave.ID, false)
	case c.Retire != nil:
		return s.leave(c.Retire.ID, true)
	case c.Take != nil:
		return s.take(*c.Take)
	case c.TakeAddr != nil:
		return s.takeAddr(*c.TakeAddr)
	case c.Give != nil:
		return s.give(*c.Give)
	case c.AddNetwork != nil:
		return s.addNetwork(*c.AddNetwork)
	case c.SetLabels != nil:
		return s.setLabels(*c.SetLabels)
	case c.CloseNetwork != nil:
		return s.closeNetwork(*c.CloseNetwork)
	}
	return s.delNetwork(*c.DelNetwork)
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
