package answers

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var limits = Limits{Grace: 6 * time.Second, Late: time.Second, Deaf: 4 * time.Second, Worst: 2 * time.Second, Rest: 30 * time.Second}

var (
	one = netip.MustParseAddr("10.32.0.1")
	two = netip.MustParseAddr("10.32.0.2")
	six = netip.MustParseAddr("fd00::1")
	web = Fact{"web", one}
)

func sec(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// story makes a history of three hosts for 60 s, all linked unless it says otherwise.
type story struct{ History }

func tale() *story {
	s := &story{History{Hosts: 3, End: sec(60)}}
	for h := range 3 {
		s.Lives = append(s.Lives, Life{Host: h, End: Never})
		for o := range h {
			s.Meetings = append(s.Meetings, Meeting{o, h, 0})
		}
	}
	return s
}

// bind has a container of a host make a fact true; each call takes a tenth of a second.
func (s *story) bind(owner string, host int, f Fact, on, off float64) *story {
	s.Bindings = append(s.Bindings, Binding{f, owner, host, sec(on), sec(on + 0.1), sec(off), sec(off + 0.1)})
	s.Holds = append(s.Holds, Hold{owner, f.Addr, sec(on + 0.1), sec(off)})
	return s
}

// ask has a host asked for the name web each 0.1 s in a time, and answer with these addresses.
func (s *story) ask(host int, from, to float64, addrs ...netip.Addr) *story {
	var facts []Fact
	for _, a := range addrs {
		facts = append(facts, Fact{"web", a})
	}
	for t := from; t < to-0.001; t += 0.1 {
		s.Answers = append(s.Answers, Answer{host, Question{Name: "web"}, sec(t), sec(t + 0.001), facts})
	}
	return s
}

// dies ends the router's life and begins another one.
func (s *story) dies(host int, from, to float64, lost bool) *story {
	for i := range s.Lives {
		if s.Lives[i].Host == host && s.Lives[i].End == Never {
			s.Lives[i].End = sec(from)
		}
	}
	s.Lives = append(s.Lives, Life{host, sec(to), Never, lost})
	return s
}

func (s *story) meet(a, b int, at float64) *story {
	s.Meetings = append(s.Meetings, Meeting{a, b, sec(at)})
	return s
}

// parts cuts a host from all others.
func (s *story) parts(host int, from, to float64) *story {
	for o := range 3 {
		if o != host {
			s.Cuts = append(s.Cuts, Cut{host, o, sec(from), sec(to)}, Cut{o, host, sec(from), sec(to)})
		}
	}
	return s
}

func (s *story) rules() (list []Rule) {
	for _, v := range Check(s.History, limits).Violations {
		if !slices.Contains(list, v.Rule) {
			list = append(list, v.Rule)
		}
	}
	slices.Sort(list)
	return list
}

func TestHistoriesThatAreRight(t *testing.T) {
	for name, s := range map[string]*story{
		"nothing":                                tale(),
		"nobody asks":                            tale().bind("a", 0, web, 1, 2),
		"at once at home":                        tale().bind("a", 0, web, 1, 5).ask(0, 0, 1).ask(0, 1.1, 5, one).ask(0, 5.1, 8),
		"while the calls run":                    tale().bind("a", 0, web, 1, 5).ask(0, 1, 1.1, one).ask(0, 5, 5.1),
		"a little later afar":                    tale().bind("a", 0, web, 1, 5).ask(1, 0, 1.6).ask(1, 1.6, 5.6, one).ask(1, 5.6, 8),
		"two of a name":                          tale().bind("a", 0, web, 1, 9).bind("b", 1, Fact{"web", two}, 3, 5).ask(0, 1.1, 3, one).ask(0, 3.5, 5, one, two).ask(0, 5.5, 9, one),
		"the address goes on":                    tale().bind("a", 0, web, 1, 3).bind("b", 0, web, 3.2, 9).ask(0, 1.1, 3, one).ask(0, 3.1, 3.2).ask(0, 3.3, 9, one),
		"moved to another host":                  tale().bind("a", 0, web, 1, 3).bind("b", 1, web, 3.2, 9).ask(0, 3.1, 3.2).ask(0, 3.5, 9, one).ask(2, 1.5, 9, one),
		"6 s after a death":                      tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 10, one).dies(0, 10, 20, false).ask(1, 10, 16.2, one).ask(1, 16.2, 20.5).meet(0, 1, 20.4).ask(1, 20.5, 30, one),
		"a fast restart":                         tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 15, one).dies(0, 10, 12, false).meet(0, 1, 13).ask(0, 12.1, 15, one),
		"a parting for 4 s":                      tale().bind("a", 0, web, 1, 50).parts(0, 10, 14).meet(0, 1, 14.2).ask(1, 1.5, 20, one),
		"a parting for 20 s":                     tale().bind("a", 0, web, 1, 50).parts(0, 10, 30).meet(0, 1, 31).ask(1, 1.5, 20.5, one).ask(1, 20.5, 31.2).ask(1, 31.2, 35, one),
		"unheard of in a parting":                tale().bind("a", 0, web, 12, 13).parts(0, 10, 20).meet(0, 1, 21).ask(1, 10, 30),
		"gone in a parting":                      tale().bind("a", 0, web, 1, 12).parts(0, 10, 20).meet(0, 1, 21).ask(1, 1.5, 16, one).ask(1, 16.5, 20),
		"lost and given back":                    tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 20, one).ask(2, 1.5, 20, one).dies(0, 10, 11, true).meet(0, 1, 12).ask(0, 11, 12.5).ask(0, 12.5, 20, one),
		"lost with nobody to ask":                tale().bind("a", 0, web, 1, 50).dies(0, 10, 11, true).ask(0, 11, 20),
		"lost, the first that is met was behind": tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 20).ask(2, 1.5, 10, one).parts(1, 0.5, 10.5).dies(0, 10, 11, true).meet(0, 1, 12).meet(0, 2, 12).ask(0, 11, 20),
		"renamed just before its claim files were lost": tale().bind("a", 0, web, 1, 9.9).bind("a", 0, Fact{"db", one}, 9.9, 20).ask(1, 1.5, 10, one).ask(2, 1.5, 10, one).
			dies(0, 10.05, 11, true).meet(0, 1, 12).meet(0, 2, 12).ask(0, 12.5, 20, one).ask(1, 10, 20, one).ask(0, 20.1, 22).ask(1, 20.5, 22),
		"an ADD that failed": func() *story {
			s := tale().bind("a", 0, web, 1, 5).ask(0, 2, 3).ask(0, 3, 4, one)
			s.Bindings[0].OnReturn = Never
			return s
		}(),
		"long gone on one host, asked for in its rest on another": tale().bind("c", 2, web, 1, 5).bind("a", 0, web, 40, 45).bind("b", 0, Fact{"db", one}, 46, 50).
			parts(1, 44, 47).meet(0, 1, 48).meet(1, 2, 47.2).ask(1, 41, 47.5, one),
		"an answer that was under way for the rest of a parting": func() *story {
			s := tale().bind("a", 0, web, 1, 50).parts(0, 10, 30).meet(0, 1, 31).ask(1, 1.5, 20, one)
			s.Answers = append(s.Answers, Answer{1, Question{Name: "web"}, sec(20), sec(31.1), []Fact{web}})
			return s.ask(1, 31.2, 31.4).ask(1, 31.4, 35, one)
		}(),
		"not asked for while it was withdrawn": tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 5, one).dies(0, 10, 18, false).meet(0, 1, 18.1).ask(1, 18.2, 18.7).ask(1, 18.7, 25, one),
		"an earlier holder was heard of long after": tale().bind("a", 2, Fact{"db", one}, 11, 12).parts(1, 10, 14).bind("b", 0, web, 12.5, 20).meet(0, 1, 14.1).meet(1, 2, 17).
			ask(1, 14.1, 14.3, one).ask(1, 14.3, 17.1).ask(1, 17.1, 19, one),
		"an earlier holder was heard of late": tale().bind("a", 2, Fact{"db", one}, 11, 12).parts(1, 10, 14).bind("b", 0, web, 12.5, 20).meet(0, 1, 14.1).meet(1, 2, 14.2).
			ask(1, 14.1, 14.3, one).ask(1, 14.3, 14.6).ask(1, 14.6, 19, one),
		"asked for in its rest": tale().bind("a", 0, web, 1, 5).bind("b", 0, Fact{"db", one}, 5.2, 9).ask(1, 5.1, 5.6, one),
	} {
		t.Run(name, func(t *testing.T) {
			if bad := Check(s.History, limits).Violations; len(bad) != 0 {
				t.Errorf("found %v", bad)
			}
		})
	}
}

func TestHistoriesThatAreWrong(t *testing.T) {
	for name, c := range map[string]struct {
		s    *story
		rule Rule
	}{
		"not at once at home": {tale().bind("a", 0, web, 1, 5).ask(0, 1.1, 1.2).ask(0, 1.2, 5, one), OwnShows},
		"lost at home":        {tale().bind("a", 0, web, 1, 5).ask(0, 1.1, 3, one).ask(0, 3, 3.1).ask(0, 3.1, 5, one), OwnShows},
		"renamed, then the claim files were lost": {tale().bind("a", 0, web, 1, 8).bind("a", 0, Fact{"db", one}, 8, 20).ask(1, 1.5, 8, one).ask(1, 8.3, 10).
			dies(0, 10.05, 11, true).meet(0, 1, 12).ask(0, 12.5, 20, one), OwnForgets},
		"deleted just before the claim files were lost": {tale().bind("a", 0, web, 1, 9.9).ask(1, 1.5, 10, one).
			dies(0, 10.05, 11, true).meet(0, 1, 12).ask(0, 12.5, 20, one), OwnForgets},
		"stale after it was renamed once more": {tale().bind("a", 0, web, 1, 9.9).bind("a", 0, Fact{"db", one}, 9.9, 14).bind("a", 0, Fact{"dc", one}, 14, 20).
			ask(1, 1.5, 10, one).dies(0, 10.05, 11, true).meet(0, 1, 12).ask(0, 12.5, 16, one), OwnForgets},
		"one of two at home":                         {tale().bind("a", 0, web, 1, 9).bind("b", 0, Fact{"web", two}, 1, 9).ask(0, 2, 3, one), OwnShows},
		"lost in a fast restart":                     {tale().bind("a", 0, web, 1, 50).dies(0, 10, 12, false).ask(0, 12, 12.2).ask(0, 12.2, 20, one), OwnShows},
		"stale at home":                              {tale().bind("a", 0, web, 1, 5).ask(0, 5.15, 5.2, one), OwnForgets},
		"stale after a restart":                      {tale().bind("a", 0, web, 1, 11).dies(0, 10, 12, false).ask(0, 12, 12.1, one), OwnForgets},
		"out of nothing":                             {tale().ask(0, 1, 1.1, one), Unheard},
		"before the ADD":                             {tale().bind("a", 0, web, 3, 5).ask(1, 1, 1.1, one), Unheard},
		"an address of another":                      {tale().bind("a", 0, web, 1, 9).ask(1, 2, 2.1, one, two), Unheard},
		"never known afar":                           {tale().bind("a", 0, web, 1, 9).ask(1, 1, 9), NotKnown},
		"known late after a heal":                    {tale().bind("a", 0, web, 12, 40).parts(0, 10, 20).meet(0, 1, 21).ask(1, 12, 24).ask(1, 24, 30, one), NotKnown},
		"stays afar":                                 {tale().bind("a", 0, web, 1, 5).ask(1, 2, 8, one), NotGone},
		"stays after a heal":                         {tale().bind("a", 0, web, 1, 12).parts(0, 10, 14).meet(0, 1, 15).ask(1, 2, 18, one), NotGone},
		"stays long in a parting":                    {tale().bind("a", 0, web, 1, 12).parts(0, 10, 50).ask(1, 2, 30, one), NotGone},
		"flaps":                                      {tale().bind("a", 0, web, 1, 9).ask(1, 1.5, 5, one).ask(1, 5, 5.1).ask(1, 5.1, 9, one), Flaps},
		"withdrawn too early":                        {tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 12, one).dies(0, 10, 20, false).ask(1, 12, 15), Flaps},
		"flaps after a short time unasked":           {tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 9, one).dies(0, 10, 12, false).meet(0, 1, 12.1).ask(1, 12.2, 12.4).ask(1, 12.4, 20, one), Flaps},
		"flaps long after the address was another's": {tale().bind("a", 2, Fact{"db", one}, 1, 2).bind("b", 0, web, 2.5, 20).ask(1, 2.7, 5, one).ask(1, 5, 5.1).ask(1, 5.1, 9, one), Flaps},
		"flaps after a heal, the earlier holder was heard of before": {tale().bind("a", 2, Fact{"db", one}, 1, 2).bind("b", 0, web, 2.5, 50).parts(1, 28, 29).meet(0, 1, 29.1).meet(1, 2, 29.1).
			ask(1, 2.7, 30, one).ask(1, 30, 30.2).ask(1, 30.2, 40, one), Flaps},
		"flaps in a restart":       {tale().bind("a", 0, web, 1, 50).dies(0, 10, 11, true).meet(0, 1, 12).ask(1, 1.5, 12.1, one).ask(1, 12.1, 12.2).ask(1, 12.2, 14, one), Flaps},
		"outlives a death":         {tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 18, one).dies(0, 10, 20, false), Outlives},
		"outlives a parting":       {tale().bind("a", 0, web, 1, 50).parts(0, 10, 40).ask(1, 1.5, 25, one), Outlives},
		"lost and not given back":  {tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 20, one).dies(0, 10, 11, true).meet(0, 1, 12).ask(0, 11, 20), NotBack},
		"another's after its rest": {tale().bind("a", 0, web, 1, 5).bind("b", 1, Fact{"db", one}, 36, 50).parts(0, 4, 60).ask(2, 37, 38, one), Foreign},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.s.rules(); !slices.Contains(got, c.rule) {
				t.Errorf("found %q, want %q", got, c.rule)
			}
		})
	}
}

func TestTheNamesOfAnAddressAreJudgedAsTheAddressesOfAName(t *testing.T) {
	s := tale().bind("a", 0, web, 1, 5)
	s.Answers = []Answer{{0, Question{Addr: one}, sec(2), sec(2.1), []Fact{{"db", one}}}}
	if got, want := fmt.Sprint(s.rules()), fmt.Sprint([]Rule{OwnShows, Unheard}); len(s.rules()) != 2 || got != want && got != fmt.Sprint([]Rule{Unheard, OwnShows}) {
		t.Errorf("found %v", got)
	}
	if (Question{Name: "web"}).Covers(Fact{"web", six}) || !(Question{Name: "web", V6: true}).Covers(Fact{"web", six}) {
		t.Error("a question covers another family")
	}
}

func TestTimesAreTakenFromTheEndOfTheCallOrTheHeal(t *testing.T) {
	s := tale().bind("a", 0, web, 1, 5).ask(1, 0, 1.55).ask(1, 1.55, 5.35, one).ask(1, 5.35, 9)
	s.bind("b", 0, Fact{"web", two}, 22, 50).parts(0, 20, 24).meet(0, 1, 25).meet(0, 2, 25).ask(1, 22, 25.25).ask(1, 25.25, 49, two)
	r := Check(s.History, limits)
	for m, want := range map[Measure]float64{Known: 0.35, Gone: 0.15, KnownHeal: 0.2} {
		if got := r.Times[m]; len(got) != 1 || got[0] < sec(want-0.11) || got[0] > sec(want+0.11) {
			t.Errorf("%s: %v, want one, about %v s", m, got, want)
		}
	}
	s = tale().bind("a", 0, web, 1, 12).parts(0, 10, 14).meet(0, 1, 15).bind("b", 2, web, 20, 24).dies(0, 30, 31, false).meet(0, 1, 32).ask(1, 20.5, 33.8, one).ask(1, 33.8, 40)
	s.Cuts = append(s.Cuts, Cut{1, 2, sec(22), sec(50)}, Cut{2, 1, sec(22), sec(50)})
	if got := Check(s.History, limits).Times[GoneHeal]; len(got) != 1 || got[0] != 0 {
		t.Errorf("%s, where another one out of reach had the name later: %v", GoneHeal, got)
	}
	s = tale().bind("a", 0, web, 1, 50).dies(1, 10, 11, false).meet(0, 1, 12).ask(1, 11, 12.35).ask(1, 12.35, 20, one)
	if got := Check(s.History, limits).Times[KnownLife]; len(got) != 1 || got[0] < sec(0.2) || got[0] > sec(0.4) {
		t.Errorf("%s: %v", KnownLife, got)
	}
	if len(r.Times[Interval]) == 0 || r.Table() == "" {
		t.Error("no table")
	}
}

func TestTheTimeOfAWithdrawalIsTaken(t *testing.T) {
	s := tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 16.2, one).dies(0, 10, 20, false).ask(1, 16.2, 20)
	if r := Check(s.History, limits); len(r.Times[Dead]) != 1 || r.Part(Dead, 100) < sec(6) || r.Part(Dead, 100) > sec(6.2) {
		t.Errorf("took %v", r.Times[Dead])
	}
	s = tale().bind("a", 0, web, 1, 50).ask(1, 1.5, 20.2, one).parts(0, 10, 30).ask(1, 20.2, 30)
	if r := Check(s.History, limits); len(r.Times[Parted]) != 1 || r.Part(Parted, 100) < sec(10) || r.Part(Parted, 100) > sec(10.2) {
		t.Errorf("took %v", r.Times[Parted])
	}
}

func TestHostsOneOfWhomHearsTheOtherOverAThirdAreNotApart(t *testing.T) {
	s := tale()
	s.Cuts = []Cut{{0, 1, sec(10), sec(20)}, {1, 0, sec(10), sec(20)}, {2, 0, sec(5), sec(50)}}
	w := waysOf(s.History)
	if len(w.apart[pair(0, 1)]) != 0 {
		t.Errorf("apart %v", w.apart)
	}
	if l := w.linked[pair(0, 1)]; len(l) != 1 || l[0].to != sec(10) {
		t.Errorf("linked %v", l)
	}
	s.Cuts = append(s.Cuts, Cut{0, 2, sec(15), sec(30)})
	if a := waysOf(s.History).apart[pair(0, 1)]; len(a) != 1 || a[0] != (span{sec(15), sec(20)}) {
		t.Errorf("apart %v", a)
	}
}
