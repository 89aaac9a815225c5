package router

import (
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func TestItIsAProblemWhereNoUpstreamAnswersAnyMore(t *testing.T) {
	now := time.Unix(1e9, 0)
	up := func(addr string, inARow uint64, ago time.Duration) ctl.DNSUpstream {
		return ctl.DNSUpstream{Addr: addr, Answered: 7, Failed: 40, InARow: inARow, FailedAt: now.Add(-ago)}
	}
	const a, b = "192.0.2.1:53", "[2001:db8::1]:53"
	for name, c := range map[string]struct {
		asked []string
		stats []ctl.DNSUpstream
		want  string
	}{
		"nobody is asked":           {nil, nil, ""},
		"nobody has asked":          {[]string{a}, nil, ""},
		"it answers":                {[]string{a}, []ctl.DNSUpstream{up(a, 0, 0)}, ""},
		"a few failed":              {[]string{a}, []ctl.DNSUpstream{up(a, deadQueries-1, 0)}, ""},
		"long ago":                  {[]string{a}, []ctl.DNSUpstream{up(a, 40, time.Hour)}, ""},
		"the other one answers":     {[]string{a, b}, []ctl.DNSUpstream{up(a, 40, 0), up(b, 0, 0)}, ""},
		"a user's own fails":        {[]string{a}, []ctl.DNSUpstream{up(a, 0, 0), up(b, 40, 0)}, ""},
		"all fail":                  {[]string{a, b}, []ctl.DNSUpstream{up(a, 40, time.Second), up(b, 22, time.Second)}, "each upstream has failed the last 22 queries"},
		"one that is asked no more": {[]string{a}, []ctl.DNSUpstream{up(a, 40, 0), up(b, 0, 0)}, "the last 40 queries"},
	} {
		got := upstreamProblem(ctl.DNS{Upstreams: c.asked, Traffic: ctl.DNSTraffic{Upstreams: c.stats}}, now)
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	ill := ctl.Status{DNS: ctl.DNS{Upstreams: []string{a}, Traffic: ctl.DNSTraffic{Upstreams: []ctl.DNSUpstream{up(a, 40, 0)}}}}
	if got := problems(ill, now); len(got) != 1 || !strings.Contains(got[0], "no names but ours") {
		t.Errorf("the status has %q", got)
	}
}
