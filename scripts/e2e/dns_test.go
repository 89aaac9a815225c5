package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
	"github.com/weave-cni/weave-cni/scripts/e2e/addresses"
	"github.com/weave-cni/weave-cni/scripts/e2e/answers"
)

// slackVariable is how many times a promise in seconds may be exceeded; scripts/e2e/dns.sh sets it.
const slackVariable = "WEAVE_E2E_SLACK"

const (
	namePool    = 14 // names that all containers share
	mostNamed   = 6  // containers of one host at a time
	resolveTail = 3 * time.Second
)

// dnsRanges have more room than what rests for 30 s, and not much: addresses are given again.
var dnsRanges = []string{"--range", "10.32.0.0/23", "--range6", "fd00:32::/119"}

// TestNoServerNamesWhatIsNotThereWhateverHappensToTheHosts adds, renames, moves and
// deletes containers on five hosts while routers are killed and hosts are cut off, asks
// each host's server all the time, and checks every answer.
func TestNoServerNamesWhatIsNotThereWhateverHappensToTheHosts(t *testing.T) {
	length, err := time.ParseDuration(or(os.Getenv(durationVariable), "30s"))
	if err != nil || length < 30*time.Second {
		t.Fatalf("%s=%s: want a time of at least 30s", durationVariable, os.Getenv(durationVariable))
	}
	seed, err := strconv.ParseUint(or(os.Getenv(seedVariable), strconv.FormatUint(rand.Uint64N(1e9), 10)), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedVariable, err)
	}
	loose, err := strconv.Atoi(or(os.Getenv(slackVariable), strconv.Itoa(slack)))
	if err != nil || loose < 1 {
		t.Fatalf("%s=%s: want a number", slackVariable, os.Getenv(slackVariable))
	}
	t.Logf("seed %d, %v", seed, length)
	s := newSurvey(t, seed, length)
	s.run()
	s.judge(time.Duration(loose))
}

// survey is one run.
type survey struct {
	c      *cluster
	t      *testing.T
	seed   uint64
	length time.Duration
	plan   []addresses.Fault
	start  time.Time
	hosts  []*office
	over   atomic.Bool // no more calls
	quiet  atomic.Bool // no more questions
	recent atomic.Pointer[[]netip.Addr]

	mu      sync.Mutex // guards what follows
	trouble int
	epoch   map[[2]int]int // counts what happened to the way between two hosts
	met     map[[2]int]int // the epoch in which they have met, from 1 on
	history answers.History
	failed  map[string]int
	renamed int
	moved   int
	unheard atomic.Int64 // questions without an answer
}

// office is a host of the survey.
type office struct {
	*netlab.Host
	index    int
	gateways []netip.Addr
	answers  []answers.Answer // of its clerk alone
	made     atomic.Int64
	process  sync.Mutex // held while the router is killed and started

	mu    sync.Mutex // guards what follows
	have  []*citizen
	freed []netip.Addr
}

// citizen is a container with what it is called.
type citizen struct {
	*netlab.Container
	added    json.RawMessage // weave-net's result
	addrs    []netip.Addr
	names    []string
	bindings []*answers.Binding // those that hold
	hold     time.Duration      // since when it has its addresses
}

func newSurvey(t *testing.T, seed uint64, length time.Duration) *survey {
	s := &survey{t: t, seed: seed, length: length, plan: answers.Plan(seed, hostCount, length),
		epoch: map[[2]int]int{}, met: map[[2]int]int{}, failed: map[string]int{}}
	s.recent.Store(&[]netip.Addr{})
	s.c = newCluster(t, hostCount, netlab.Options{RouterArgs: dnsRanges})
	s.c.waitVoters(hostCount)
	for i, h := range s.c.lab.Hosts() {
		status, err := s.c.status(i)
		if err != nil || len(status.Networks) == 0 {
			t.Fatalf("status of h%d: %v", i, err)
		}
		s.hosts = append(s.hosts, &office{Host: h, index: i, gateways: status.Networks[0].Gateways})
	}
	return s
}

func (s *survey) now() time.Duration { return time.Since(s.start) }

// wrong notes what is wrong; the run goes on, to see what else is.
func (s *survey) wrong(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble++; s.trouble <= 20 {
		s.t.Errorf("%s", fmt.Sprintf(format, args...))
	}
}

// run plays the plan while workers add and delete and clerks ask.
func (s *survey) run() {
	s.start = time.Now()
	for i := range s.hosts {
		s.history.Lives = append(s.history.Lives, answers.Life{Host: i, End: answers.Never})
		for j := range i {
			s.epoch[[2]int{j, i}] = 1
		}
	}
	var workers, faults, clerks sync.WaitGroup
	for i, h := range s.hosts {
		clerks.Go(func() { s.clerk(h) })
		for w := range workersPerHost {
			workers.Go(func() { s.work(h, rand.New(rand.NewPCG(s.seed, uint64(200+10*i+w)))) })
		}
	}
	clerks.Go(s.introduce)
	for _, network := range []bool{true, false} {
		faults.Go(func() {
			for _, f := range s.plan {
				if answers.OfNetwork(f) == network {
					time.Sleep(f.At - s.now()) // the plan's own time
					s.t.Logf("%v", f)
					if err := s.inflict(f); err != nil {
						s.wrong("%v: %v", f, err)
					}
				}
			}
		})
	}
	faults.Wait()
	time.Sleep(resolveTail) // what the last heal brings is asked for
	s.over.Store(true)
	workers.Wait()
	time.Sleep(time.Second)
	s.quiet.Store(true)
	clerks.Wait()
	s.history.Hosts, s.history.End = hostCount, s.now()
}

func (s *survey) inflict(f addresses.Fault) error {
	if !answers.OfNetwork(f) {
		return s.crash(f)
	}
	var cuts []answers.Cut
	for _, a := range f.Hosts {
		for _, b := range f.Other(hostCount) {
			cuts = append(cuts, answers.Cut{From: a, To: b})
			if f.Kind == addresses.Partition {
				cuts = append(cuts, answers.Cut{From: b, To: a})
			}
		}
	}
	began := s.disturb(func(a, b int) bool {
		return slices.ContainsFunc(cuts, func(c answers.Cut) bool { return min(c.From, c.To) == a && max(c.From, c.To) == b })
	})
	err := s.cut(f)
	time.Sleep(f.At + f.For - s.now()) // the fault is the time itself
	s.mu.Lock()
	for _, c := range cuts {
		c.Start, c.End = began, s.now()
		s.history.Cuts = append(s.history.Cuts, c)
	}
	s.mu.Unlock()
	if err == nil {
		err = s.c.lab.Heal()
	}
	s.settled()
	return err
}

func (s *survey) cut(f addresses.Fault) error {
	if f.Kind == addresses.Partition {
		return s.c.lab.Partition(f.Hosts...)
	}
	for _, i := range f.Hosts {
		for _, j := range f.Other(hostCount) {
			if err := s.c.lab.Cut(i, j); err != nil {
				return err
			}
		}
	}
	return nil
}

// crash kills routers, waits and starts them again, one perhaps without its claim files.
func (s *survey) crash(f addresses.Fault) error {
	var all errgroup.Group
	for _, i := range f.Hosts {
		h := s.hosts[i]
		all.Go(func() error {
			h.process.Lock()
			defer h.process.Unlock()
			if state := h.Router().State(); state != nil {
				return fmt.Errorf("the router of h%d ended by itself, with %v:\n%s", i, state, h.Router().Log())
			}
			died := s.disturb(func(a, b int) bool { return a == i || b == i })
			if err := h.Router().Kill(); err != nil {
				return err
			}
			if f.Kind == answers.Forget {
				if _, err := h.Run("sh", "-c", "rm -rf /run/weave/claims"); err != nil {
					return err
				}
			}
			time.Sleep(f.For) // the fault is the time itself
			s.mu.Lock()
			for k := range s.history.Lives {
				if l := &s.history.Lives[k]; l.Host == i && l.End == answers.Never {
					l.End = died
				}
			}
			s.history.Lives = append(s.history.Lives, answers.Life{Host: i, Start: s.now(), End: answers.Never, Lost: f.Kind == answers.Forget})
			s.mu.Unlock()
			defer s.settled()
			return h.Router().Restart()
		})
	}
	return all.Wait()
}

// disturb notes that pairs of hosts are parted from now on, and returns the time.
func (s *survey) disturb(which func(a, b int) bool) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.epoch {
		if which(p[0], p[1]) {
			s.epoch[p]++
		}
	}
	return s.now()
}

// settled has all pairs looked at once more: while a fault lasts they may still say that
// they are connected.
func (s *survey) settled() { s.disturb(func(int, int) bool { return true }) }

// introduce notes when two hosts have met again after a fault.
func (s *survey) introduce() {
	for !s.quiet.Load() {
		s.mu.Lock()
		pending := map[[2]int]int{}
		for p, e := range s.epoch {
			if s.met[p] != e {
				pending[p] = e
			}
		}
		s.mu.Unlock()
		asked := s.now()
		for p := range pending {
			if !s.connected(p[0], p[1]) || !s.connected(p[1], p[0]) {
				delete(pending, p)
			}
		}
		s.mu.Lock()
		for p, e := range pending {
			if s.epoch[p] == e { // nothing has happened to them meanwhile
				s.met[p] = e
				s.history.Meetings = append(s.history.Meetings, answers.Meeting{A: p[0], B: p[1], At: asked})
			}
		}
		s.mu.Unlock()
		time.Sleep(30 * time.Millisecond) // two cores have more to do than to answer this
	}
}

// connected asks a router whether it is connected with another one.
func (s *survey) connected(from, to int) bool {
	var status ctl.Status
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.hosts[from].Do(func() error { return ctl.New("", 0).Call(ctx, ctl.PathStatus, nil, &status) })
	name := s.hosts[to].Name()
	return err == nil && slices.ContainsFunc(status.Peers, func(p ctl.Peer) bool { return p.Name == name && p.State == "connected" })
}

// work adds, renames, moves and deletes on a host, as its dice say.
func (s *survey) work(h *office, dice *rand.Rand) {
	for !s.over.Load() {
		victim := h.take(dice)
		switch {
		case victim == nil:
			s.add(h, draws(dice), h.wish(dice))
		case dice.IntN(4) == 0:
			s.rename(h, victim, draws(dice))
		case dice.IntN(3) == 0:
			s.move(h, s.hosts[dice.IntN(hostCount)], victim, dice.IntN(2) == 0)
		default:
			s.del(h, victim)
		}
		time.Sleep(time.Duration(100+dice.IntN(400)) * time.Millisecond) // the pace of the load
	}
}

// take has a container that is there for the caller alone, or nil: then it is to make one.
func (h *office) take(dice *rand.Rand) *citizen {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.have)
	if n == 0 || dice.IntN(mostNamed) >= n {
		return nil
	}
	i := dice.IntN(n)
	victim := h.have[i]
	h.have = slices.Delete(h.have, i, i+1)
	return victim
}

// wish is now and then an address that was freed on this host before.
func (h *office) wish(dice *rand.Rand) netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.freed); n > 0 && dice.IntN(4) == 0 {
		return h.freed[n-1-dice.IntN(min(n, 4))]
	}
	return netip.Addr{}
}

// draws are one to three names of the pool, in any case.
func draws(dice *rand.Rand) (list []string) {
	for range 1 + dice.IntN(3) {
		list = append(list, fmt.Sprintf("%s%d", []string{"n", "N"}[dice.IntN(2)], dice.IntN(namePool)))
	}
	return list
}

func (s *survey) add(h *office, names []string, want netip.Addr) {
	ns, err := h.NewContainer(fmt.Sprintf("c%d-%d", h.index, h.made.Add(1)))
	if err != nil {
		s.wrong("%v", err)
		return
	}
	c := &citizen{Container: ns, names: names}
	call := s.now()
	out, err := s.plugin(c, "weave-net", "ADD", want)
	if err == nil {
		var r result
		if err = json.Unmarshal(out, &r); err == nil {
			c.added = out
			for _, ip := range r.IPs {
				c.addrs = append(c.addrs, ip.Address.Addr())
			}
			s.watch(c.addrs)
			_, err = s.plugin(c, "weavedns", "ADD", netip.Addr{})
		}
	}
	if err != nil {
		s.mu.Lock()
		s.failed[why(want, err)]++
		s.mu.Unlock()
		s.bind(h, c, call, answers.Never)
		s.del(h, c)
		return
	}
	s.bind(h, c, call, s.now())
	c.hold = s.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.have = append(h.have, c)
}

func why(want netip.Addr, err error) string {
	switch {
	case want.IsValid():
		return "that address is not to be had"
	case strings.Contains(err.Error(), "router"), strings.Contains(err.Error(), "not ready on this host yet"):
		return "router not there or not ready"
	}
	return err.Error()
}

// watch has the clerks ask for the names of these addresses, and forget those of long ago.
func (s *survey) watch(addrs []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := append(slices.Clone(addrs), *s.recent.Load()...)
	list = list[:min(len(list), 16)]
	s.recent.Store(&list)
}

// bind notes what a container is called from here on.
func (s *survey) bind(h *office, c *citizen, call, ret time.Duration) {
	for _, n := range c.names {
		for _, a := range c.addrs {
			f := answers.Fact{Name: strings.ToLower(n), Addr: a}
			if !slices.ContainsFunc(c.bindings, func(b *answers.Binding) bool { return b.Fact == f }) {
				c.bindings = append(c.bindings, &answers.Binding{Fact: f, Owner: c.Name(), Host: h.index, OnCall: call, OnReturn: ret})
			}
		}
	}
}

// unbind notes that those of the bindings have ended that are not to be kept.
func (s *survey) unbind(c *citizen, call, ret time.Duration, keep func(*answers.Binding) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.bindings = slices.DeleteFunc(c.bindings, func(b *answers.Binding) bool {
		if keep(b) {
			return false
		}
		b.OffCall, b.OffReturn = call, ret
		s.history.Bindings = append(s.history.Bindings, *b)
		return true
	})
}

// rename gives a container other names, as the same ADD with others does.
func (s *survey) rename(h *office, c *citizen, names []string) {
	c.names = names
	called := func(b *answers.Binding) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, b.Name) })
	}
	call := s.now()
	_, err := s.plugin(c, "weavedns", "ADD", netip.Addr{})
	if err != nil { // nobody knows what it is called until it is gone
		for _, b := range c.bindings {
			b.OffCall = call
		}
		s.bind(h, c, call, answers.Never)
		s.del(h, c)
		return
	}
	ret := s.now()
	s.unbind(c, call, ret, called)
	s.bind(h, c, call, ret)
	s.watch(c.addrs)
	s.mu.Lock()
	s.renamed++
	s.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.have = append(h.have, c)
}

func (s *survey) move(from, to *office, c *citizen, address bool) {
	want := netip.Addr{}
	if address {
		want = c.addrs[0]
	}
	s.del(from, c)
	s.add(to, c.names, want)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved++
}

// del detaches and deletes a container, again and again until it succeeds.
func (s *survey) del(h *office, c *citizen) {
	call := s.now()
	err := netlab.Wait(30*time.Second, "DEL of "+c.Name(), func() error {
		if _, err := s.plugin(c, "weavedns", "DEL", netip.Addr{}); err != nil {
			return err
		}
		_, err := s.plugin(c, "weave-net", "DEL", netip.Addr{})
		return err
	})
	ret := s.now()
	if err != nil {
		s.wrong("DEL on h%d: %v", h.index, err)
		ret = answers.Never
	}
	for _, b := range c.bindings {
		if b.OffCall != 0 { // a renaming that failed
			b.OffReturn = ret
		}
	}
	s.unbindAll(c, call, ret)
	if err := c.Delete(); err != nil {
		s.wrong("%v", err)
	}
	if len(c.addrs) > 0 {
		h.mu.Lock()
		h.freed = append(h.freed, c.addrs[0])
		h.mu.Unlock()
	}
}

func (s *survey) unbindAll(c *citizen, call, ret time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range c.bindings {
		b.OffCall, b.OffReturn = cmp.Or(b.OffCall, call), ret
		s.history.Bindings = append(s.history.Bindings, *b)
	}
	c.bindings = nil
	for _, a := range c.addrs {
		if c.hold != 0 {
			s.history.Holds = append(s.history.Holds, answers.Hold{Owner: c.Name(), Addr: a, From: c.hold, To: call})
		}
	}
}

// plugin calls one of the list, as a runtime does.
func (s *survey) plugin(c *citizen, name, verb string, want netip.Addr) ([]byte, error) {
	conf := map[string]any{"cniVersion": "1.0.0", "name": "weave", "type": name}
	args := "IgnoreUnknown=1"
	switch {
	case name == "weave-net":
		conf["ipam"] = map[string]string{"type": "weave-ipam"}
	case verb == "ADD": // a required one fails without the router, and then the container has no names
		conf["required"], conf["runtimeConfig"], conf["prevResult"] = true, map[string]any{"aliases": c.names[1:]}, c.added
		args += ";K8S_POD_NAME=" + c.names[0]
	}
	if want.IsValid() {
		args += ";IP=" + want.String()
	}
	in, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := c.Host().Command(ctx, bin+"/"+name)
	cmd.Stdin = strings.NewReader(string(in))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+c.Name(), "CNI_NETNS="+c.Path(), "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin", "CNI_ARGS="+args)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s%w", out, err)
	}
	return out, err
}

// judge checks the history and says what it took.
func (s *survey) judge(loose time.Duration) {
	for _, h := range s.hosts {
		if state := h.Router().State(); state != nil {
			s.wrong("the router of h%d ended by itself, with %v:\n%s", h.index, state, h.Router().Log())
		}
		for _, c := range h.have {
			s.unbindAll(c, answers.Never, answers.Never)
		}
		s.history.Answers = append(s.history.Answers, h.answers...)
	}
	start := time.Now()
	r := answers.Check(s.history, answers.Limits{Grace: 6 * time.Second, Late: 2 * loose * time.Second, Deaf: 6 * time.Second, Worst: 5 * loose * time.Second, Rest: 30 * time.Second})
	took := time.Since(start)
	for _, v := range r.Violations {
		about := answers.About(s.history, v.Binding.Addr, v.Binding.OnCall-10*time.Second, v.Answer.End)
		s.wrong("%v\nof that address:\n\t%s", v, strings.Join(about, "\n\t"))
	}
	s.t.Logf("checked in %v:\n%s\nworst:\n%s", took.Round(time.Millisecond), r.Table(), strings.Join(r.Worst, "\n"))
	// A router that starts waits up to a second for what the others remember of it.
	for m, promise := range map[answers.Measure]time.Duration{
		answers.Known: time.Second, answers.Gone: time.Second, answers.KnownHeal: time.Second, answers.GoneHeal: time.Second,
		answers.KnownLife: 2 * time.Second, answers.GoneLife: 2 * time.Second, answers.Restored: 2 * time.Second,
	} {
		if p := r.Part(m, 99); p > loose*promise {
			s.wrong("99%% of %q took %v, promised %v", m, p, promise)
		}
	}
	s.t.Logf("ADD failed: %v", s.failed)
	s.t.Logf("seed %d: %d bindings, %d containers renamed, %d moved, %d faults, %d questions without an answer, %d violations",
		s.seed, len(s.history.Bindings), s.renamed, s.moved, len(s.plan), s.unheard.Load(), s.trouble)
}
