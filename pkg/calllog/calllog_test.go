package calllog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// clock goes on only when it is told.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func fresh(calls, bytes int) (*Log, *clock) {
	c := &clock{t: time.Unix(1000, 0)}
	return New(calls, bytes, c.now), c
}

func about(container, call string) ctl.TracedCall {
	return ctl.TracedCall{Call: call, Key: attachment.Key{Network: "weave", ContainerID: container, IfName: "eth0"}}
}

func TestACallIsKeptWithItsStepsAndHowItEnded(t *testing.T) {
	l, c := fresh(10, 1<<20)
	o := l.Begin(about("web", Allocate))
	ctx := With(context.Background(), o)
	c.pass(time.Millisecond)
	for range 3 {
		end := From(ctx).Step("waited for the ledger")
		c.pass(2 * time.Millisecond)
		end()
	}
	c.pass(time.Millisecond)
	From(ctx).Took("claim written", time.Millisecond)
	From(ctx).Say("asked for 10.32.0.5")
	From(ctx).Say("10.32.0.5/12")
	if k, _ := l.Find("web", 0); len(k.Calls) != 1 || !k.Calls[0].Running || k.Calls[0].Took != 8*time.Millisecond {
		t.Errorf("while it runs: %+v", k)
	}
	o.End(11, "no leader")
	o.End(0, "") // too late
	o.Took("claim written", time.Hour)
	k, candidates := l.Find("we", 0)
	if len(k.Calls) != 1 || len(candidates) != 0 {
		t.Fatalf("found %+v, %v", k, candidates)
	}
	got := k.Calls[0]
	if got.Code != 11 || got.Error != "no leader" || got.Running || got.Took != 8*time.Millisecond || got.Detail != "asked for 10.32.0.5, 10.32.0.5/12" {
		t.Errorf("%+v", got)
	}
	want := []ctl.TracedStep{
		{After: time.Millisecond, Took: 6 * time.Millisecond, What: "waited for the ledger", Times: 3},
		{After: 7 * time.Millisecond, Took: time.Millisecond, What: "claim written"},
	}
	if !slices.Equal(got.Steps, want) {
		t.Errorf("steps %+v", got.Steps)
	}
}

func TestNobodyListensToStepsOfNoCall(t *testing.T) {
	var l *Log
	o := l.Begin(about("web", Allocate))
	l.Note(about("web", Reconcile))
	ctx := With(context.Background(), o)
	From(ctx).Step("a")()
	From(ctx).Took("b", time.Second)
	From(ctx).Say("c")
	From(ctx).End(0, "")
	if ctx != context.Background() {
		t.Error("the context was changed for nothing")
	}
}

func TestTheOldestMakeRoomByNumberAndByBytes(t *testing.T) {
	l, c := fresh(3, 1<<20)
	for i := range 5 {
		c.pass(time.Second)
		l.Note(about(fmt.Sprint("c", i), Release))
	}
	k := l.Latest(0)
	if len(k.Calls) != 3 || k.Missed != 2 || k.Calls[0].Key.ContainerID != "c2" || !k.Since.Equal(time.Unix(1002, 0)) {
		t.Errorf("%+v", k)
	}
	if k := l.Latest(1); len(k.Calls) != 1 || k.Calls[0].Key.ContainerID != "c4" {
		t.Errorf("the last one: %+v", k.Calls)
	}
	l, _ = fresh(1<<20, 10_000)
	big := about("big", Release)
	big.Error = strings.Repeat("x", 1<<20)
	for range 100 {
		l.Note(big)
	}
	if k := l.Latest(0); len(k.Calls) == 0 || len(k.Calls) > 10 || l.bytes > 10_000 || len(k.Calls[0].Error) > maxText+3 {
		t.Errorf("%d calls, %d bytes, error of %d", len(k.Calls), l.bytes, len(k.Calls[0].Error))
	}
	for range 100 {
		l.Begin(big).End(0, "")
	}
	if sum := func() (n int) {
		for _, c := range l.calls {
			n += size(c)
		}
		return n
	}(); sum != l.bytes || len(l.open) != 0 {
		t.Errorf("counted %d bytes, there are %d; %d open", l.bytes, sum, len(l.open))
	}
}

func TestACallThatNeverEndsItsStepsIsBounded(t *testing.T) {
	l, _ := fresh(10, 1<<20)
	o := l.Begin(about("web", Allocate))
	for i := range 1000 {
		o.Took(fmt.Sprint("step ", i), time.Millisecond)
	}
	o.End(0, "")
	steps := l.Latest(0).Calls[0].Steps
	if n := len(steps); n != maxSteps || steps[n-1].What != "further steps" || steps[n-1].Times != 1000-maxSteps+1 {
		t.Errorf("%d steps, the last %+v", n, steps[n-1])
	}
}

func TestAContainerIsFoundByAnyBeginningThatNoOtherHas(t *testing.T) {
	l, _ := fresh(10, 1<<20)
	for _, id := range []string{"abc", "abd", "ab", "xyz"} {
		l.Note(about(id, Release))
	}
	for prefix, want := range map[string]string{"abc": "abc", "ab": "ab", "x": "xyz", "nobody": ""} {
		k, candidates := l.Find(prefix, 0)
		if len(candidates) != 0 || (want == "") != (len(k.Calls) == 0) || want != "" && k.Calls[0].Key.ContainerID != want {
			t.Errorf("%q: %+v %v", prefix, k.Calls, candidates)
		}
	}
	if k, candidates := l.Find("old", 0, "older"); len(k.Calls) != 0 || len(candidates) != 0 || k.ContainerID != "older" {
		t.Errorf("one without a call: %+v %v", k, candidates)
	}
	if _, candidates := l.Find("x", 0, "xya", "xyz"); !slices.Equal(candidates, []string{"xya", "xyz"}) {
		t.Errorf("one with calls and one without: %v", candidates)
	}
	if k, candidates := l.Find("a", 0); len(k.Calls) != 0 || !slices.Equal(candidates, []string{"ab", "abc", "abd"}) {
		t.Errorf("an ambiguous one: %+v %v", k.Calls, candidates)
	}
}

func TestWhatTheRouterCannotSeeIsSaidInWords(t *testing.T) {
	failed := about("c", Commit)
	failed.Code = 101
	foreign := about("c", Allocate)
	foreign.NoCommit = true
	for name, c := range map[string]struct {
		calls []ctl.TracedCall
		want  []string
	}{
		"an ADD and a DEL":                       {[]ctl.TracedCall{about("c", Allocate), about("c", Commit), about("c", Detach), about("c", Release)}, []string{"", "", "", ""}},
		"an ADD that failed in the plugin":       {[]ctl.TracedCall{about("c", Allocate), about("c", Release)}, []string{"", remarkFailed}},
		"and the runtime's DEL after it":         {[]ctl.TracedCall{about("c", Allocate), about("c", Release), about("c", Detach), about("c", Release)}, []string{"", remarkFailed, "", ""}},
		"a commit that was refused":              {[]ctl.TracedCall{about("c", Allocate), failed, about("c", Release)}, []string{"", "", ""}},
		"another main plugin, which never says":  {[]ctl.TracedCall{foreign, about("c", Release)}, []string{"", ""}},
		"a plugin that was killed":               {[]ctl.TracedCall{about("c", Allocate), about("c", Reconcile)}, []string{"", remarkKilled}},
		"an ADD under way":                       {[]ctl.TracedCall{about("c", Allocate)}, []string{remarkWaiting}},
		"a namespace that went":                  {[]ctl.TracedCall{about("c", Allocate), about("c", Commit), about("c", Reconcile)}, []string{"", "", remarkVethGone}},
		"a GC":                                   {[]ctl.TracedCall{about("c", Allocate), about("c", Commit), about("c", Collect)}, []string{"", "", remarkCollected}},
		"two containers do not get mixed up":     {[]ctl.TracedCall{about("c", Allocate), about("d", Release), about("c", Commit)}, []string{"", "", ""}},
		"one that stands asks for the same once": {[]ctl.TracedCall{about("c", Allocate), about("c", Commit), about("c", Allocate)}, []string{"", "", ""}},
	} {
		explain(c.calls)
		for i, want := range c.want {
			if c.calls[i].Remark != want {
				t.Errorf("%s: call %d (%s): %q, want %q", name, i, c.calls[i].Call, c.calls[i].Remark, want)
			}
		}
	}
}

func TestManyMayWriteAndReadAtOnce(t *testing.T) {
	l, c := fresh(100, 1<<20)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 200 {
				o := l.Begin(about(fmt.Sprint("c", i), Allocate))
				end := o.Step("x")
				c.pass(time.Microsecond)
				l.Find("c", 0)
				end()
				o.End(0, "")
			}
		})
	}
	all.Wait()
	if k := l.Latest(0); len(k.Calls) != 100 || k.Missed != 1500 || len(l.open) != 0 {
		t.Errorf("%d calls, %d missed, %d open", len(k.Calls), k.Missed, len(l.open))
	}
}

func TestANameLeadsToTheContainerThatHadItLast(t *testing.T) {
	l, _ := fresh(10, 1<<20)
	for _, container := range []string{"first", "second", "third"} {
		c := about(container, "register")
		if c.Names = []string{"web", "web-of-" + container}; container == "third" {
			c.Names = []string{"other"}
		}
		l.Begin(c).End(0, "")
	}
	for name, want := range map[string]string{"web": "second", "WEB-of-first": "first", "we": "", "": ""} {
		if got := l.Named(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}
