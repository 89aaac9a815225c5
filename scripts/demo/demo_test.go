package main

import (
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func TestATableIsAlignedWithAndWithoutColours(t *testing.T) {
	rows := [][]cell{
		header("name", ">number", "mark", "last"),
		{text("a"), number(5), {parts: []part{{"✓", green}, {"✗", red}}}, text("x")},
		{text("longer"), number(15012), coloured("·", dim), text("")},
	}
	want := []string{
		"    name     number   mark   last",
		"    a             5   ✓✗     x",
		"    longer   15 012   ·",
		"",
	}
	for _, colours := range []bool{false, true} {
		var b strings.Builder
		(&printer{&b, colours}).table(rows)
		got := regexp.MustCompile("\x1b\\[[0-9]+m").ReplaceAllString(b.String(), "")
		if got != strings.Join(want, "\n") {
			t.Errorf("colours %v:\n%s\nwant\n%s", colours, got, strings.Join(want, "\n"))
		}
		if strings.Contains(b.String(), "\x1b") != colours {
			t.Errorf("colours %v: %q", colours, b.String())
		}
	}
}

func TestNumbersAreGroupedByThrees(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1 000", 1047040: "1 047 040"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestEachPhaseCountsTheDatagramsThatWereSentInIt(t *testing.T) {
	one := &flow{answered: []bool{true, true, false, true, true, true}, phases: []int{0, 2, 4}}
	start := time.Unix(0, 0)
	f := &flows{all: []*flow{one, one}, phases: []phase{{"alive", start}, {"dead", start.Add(time.Second)}, {"again", start.Add(3 * time.Second)}}}
	got := f.count(start.Add(4 * time.Second))
	want := losses{{"alive", time.Second, 4, 4}, {"dead", 2 * time.Second, 4, 2}, {"again", time.Second, 4, 4}}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAnyLossFailsAndSoDoesTooLittleTraffic(t *testing.T) {
	for _, c := range []struct {
		l    loss
		want string
	}{
		{loss{"dead", time.Second, 1000, 1000}, ""},
		{loss{"dead", time.Second, 1000, 999}, "routers dead: 1 of 1000 datagrams were lost"},
		{loss{"dead", 5 * time.Second, 20, 20}, "too busy"},
		{loss{"dead", 5 * time.Second, 0, 0}, "too busy"},
	} {
		err := losses{{"alive", time.Second, 1000, 1000}, c.l}.err()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.l, err, c.want)
		}
	}
}

func TestAFlowMissesWhatIsNotSentBack(t *testing.T) {
	f := loopbackFlow(t)
	f.start()
	all := &flows{all: []*flow{f}, phases: []phase{{"alive", time.Now()}}}
	f.phases = []int{0}
	if err := wait(t.Context(), time.Minute, "some are answered", func() error {
		if _, n := f.count(0); n < 50 {
			return errLost
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	all.phase("deaf")
	f.server.Close() // nobody answers from here on
	if err := wait(t.Context(), time.Minute, "some are not answered", func() error {
		if sent, n := f.count(1); sent-n < 20 {
			return errLost
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got := all.stop(t.Context())
	if got[1].lost() < 20 || got.err() == nil {
		t.Errorf("%+v: %v", got, got.err())
	}
}

func loopbackFlow(t *testing.T) *flow {
	t.Helper()
	server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	f := &flow{client: client, server: server, gap: time.Millisecond, quit: make(chan struct{})}
	if err := errors.Join(enlarge(client), enlarge(server)); err != nil {
		t.Error(err)
	}
	return f
}

func TestTheResolvConfIsThatOfTheResult(t *testing.T) {
	addr, d, err := parseResult(`{"cniVersion":"1.1.0","ips":[{"address":"10.32.0.2/12","gateway":"10.32.0.1"}],
		"dns":{"nameservers":["10.32.0.1"],"search":["weave.local","example.org"],"options":["ndots:1"]}}`)
	if err != nil || addr != netip.MustParsePrefix("10.32.0.2/12") {
		t.Fatal(addr, err)
	}
	want := "nameserver 10.32.0.1\nsearch weave.local example.org\noptions ndots:1\n"
	if got := d.resolvConf(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range []string{"", "{}", `{"ips":[{"address":"10.32.0.2/12"}]}`, `{"ips":[{"address":"x"}]}`} {
		if _, _, err := parseResult(bad); err == nil {
			t.Errorf("%q is a result", bad)
		}
	}
}

func TestEveryPluginOfAListIsNamed(t *testing.T) {
	l, err := parseList(`{"cniVersions":["1.0.0","1.1.0"],"plugins":[{"type":"weave-net","ipam":{"type":"weave-ipam"}},{"type":"weavedns"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(l.plugins(), " "); got != "weave-net weave-ipam weavedns" {
		t.Error(got)
	}
	if !l.speaks("1.1.0") || l.speaks("0.3.1") {
		t.Error(l.CNIVersions)
	}
}

func TestAHostThatIsOnlyDialledIsNotKnown(t *testing.T) {
	s := ctl.Status{Peers: []ctl.Peer{{State: "connected"}, {State: "dialling"}}, Overlay: make([]ctl.Remote, 2)}
	if knowsOthers(s, 2) == nil {
		t.Error("a host that is not connected counts")
	}
	s.Peers[1].State = "connected"
	if err := knowsOthers(s, 2); err != nil {
		t.Error(err)
	}
}

func TestALongTextIsCutToItsBeginningOrEnd(t *testing.T) {
	if got := strings.Join(tail("a\nb\nc\n", 2), " "); got != "b c" {
		t.Error(got)
	}
	if got := strings.Join(firstLines("a\nb\nc\n", 2), " "); got != "a b … and 1 more" {
		t.Error(got)
	}
	if got := firstLines("a\nb\n", 2); len(got) != 2 || utf8.RuneCountInString(got[1]) != 1 {
		t.Error(got)
	}
}
