package router

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/calllog"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const scrapeAddr = "127.0.0.1:6782"

// scrape reads a router's metrics from within its host.
func scrape(h *netlab.Host, openMetrics bool) (string, error) {
	// The socket is made by the goroutine, and so the thread, that calls.
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = net.Dial("tcp", scrapeAddr)
		return err
	})
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) { return conn, nil }}, Timeout: patience}
	req, err := http.NewRequest("GET", "http://"+scrapeAddr+"/metrics", nil)
	if err != nil {
		return "", err
	}
	if openMetrics {
		req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	}
	answer, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return string(text), err
}

// shows waits until a scrape has lines.
func (r *lone) shows(h *netlab.Host, openMetrics bool, lines ...string) (last string) {
	r.t.Helper()
	must(r.t, netlab.Wait(patience, "the metrics show "+strings.Join(lines, ", "), func() (err error) {
		if last, err = scrape(h, openMetrics); err != nil {
			return err
		}
		for _, l := range lines {
			if !regexp.MustCompile("(?m)^" + l).MatchString(last) {
				return fmt.Errorf("no line %s in\n%s", l, last)
			}
		}
		return nil
	}))
	return last
}

func TestARealRoutersMetricsAreWholeAndAsPrometheusWantsThem(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	a := startOn(t, lab.Host(0), func(c *Config) { c.Name, c.MetricsAddr = "a", scrapeAddr })
	a.until("a is ready", ready)
	b := startOn(t, lab.Host(1), func(c *Config) { c.Name, c.Peers = "b", []string{lab.Host(0).Addr().String()} })
	b.until("b is ready", ready)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	t.Setenv("TRACEPARENT", "00-"+trace+"-00f067aa0ba902b7-01")
	in := ctl.AllocateRequest{Key: key("web"), Network: DefaultNetwork, Decider: ctl.DecidedByClaim}
	must(t, ctl.New(a.config.Socket, 0).Call(t.Context(), ctl.PathAllocate, in, nil))
	in.Network = "none"
	if err := ctl.New(a.config.Socket, 0).Call(t.Context(), ctl.PathAllocate, in, nil); err == nil {
		t.Error("an address of no network")
	}
	text := a.shows(lab.Host(0), false,
		`weave_ready 1$`, `weave_build_info\{version="test"\} 1$`,
		`weave_calls_total\{call="allocate",code="0"\} 1$`, `weave_calls_total\{call="allocate",code="7"\} 1$`, `weave_call_duration_seconds_count\{call="allocate"\} 2$`,
		`weave_adds_total\{code="0"\} 1$`, `weave_adds_total\{code="7"\} 1$`,
		`weave_addresses_used\{family="ipv4",network="weave"\} [12]$`, `weave_addresses_free\{family="ipv4",network="weave"\} [1-9]`, `weave_blocks\{family="ipv4",network="weave"\} [1-9]`,
		`weave_attachments\{network="weave",state="attached"\} `,
		`weave_peers\{state="connected"\} 1$`, `weave_hosts\{path="vxlan"\} 1$`, `weave_ledger_members 2$`, `weave_ledger_leader_known 1$`, `weave_ledger_leads 1$`, `weave_ledger_lag_entries 0$`,
		`weave_gossip_sent_bytes_total [1-9]`, `weave_gossip_received_messages_total [1-9]`,
		`weave_forwarding_entries\{network="weave",table="fdb"\} 1$`, `weave_firewall_set_elements\{set="peers4"\} 2$`, `weave_reconciliations_total\{result="ok"\} [1-9]`,
		`weave_networks_standing 1$`, `weave_dns_names [1-9]`, `go_goroutines [1-9]`, `process_open_fds [1-9]`)
	if strings.Contains(text, "web") {
		t.Error("a container is named in the metrics: there is no bound to those")
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	must(t, err)
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "weave_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, m := range catalogue() {
		// Those whose every label is yet to be seen have no line.
		if !strings.Contains(text, "\n# TYPE "+m.name+" "+string(m.kind)+"\n") {
			t.Errorf("%s, a %s, is not exported", m.name, m.kind)
		}
	}
	a.shows(lab.Host(0), true, `weave_call_duration_seconds_bucket\{call="allocate",le="[^"]+"\} \d+ # \{trace_id="`+trace+`"\}`)
}

func TestSomebodysChangesAreCountedAsRepairs(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	h := lab.Host(0)
	a := startOn(t, h, func(c *Config) { c.Name, c.MetricsAddr = "a", scrapeAddr })
	a.until("a is ready", ready)
	b := startOn(t, lab.Host(1), func(c *Config) { c.Name, c.Peers = "b", []string{h.Addr().String()} })
	b.until("b is ready", ready)
	a.shows(h, false, `weave_forwarding_entries\{network="weave",table="fdb"\} 1$`, `weave_firewall_repairs_total 0$`, `weave_forwarding_repairs_total 0$`)
	h.MustRun(t, "nft", "flush", "table", "inet", "weave")
	h.MustRun(t, "sh", "-c", "bridge fdb show dev weave-vx | grep dst | grep -v 00:00:00:00:00:00 | head -1 | { read mac rest; bridge fdb del $mac dev weave-vx; }")
	a.shows(h, false, `weave_firewall_repairs_total [1-9]`, `weave_forwarding_repairs_total [1-9]`)
}

func TestAnAddressForMetricsThatIsTakenIsAProblemAndIsTriedAgain(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	var taken net.Listener
	must(t, h.Do(func() (err error) {
		taken, err = net.Listen("tcp", scrapeAddr)
		return err
	}))
	r := startOn(t, h, func(c *Config) { c.MetricsAddr = scrapeAddr })
	s := r.until("it says so", problem("metrics are not served at 127.0.0.1:6782 (--metrics-addr)"))
	if !strings.Contains(strings.Join(s.Problems, "\n"), "address already in use") {
		t.Errorf("without the reason: %q", s.Problems)
	}
	must(t, taken.Close())
	r.until("and then no more", func(s ctl.Status) bool { return ready(s) && !problem("metrics")(s) })
	r.shows(h, false, "weave_ready 1$")
}

func TestNothingIsServedUnlessItIsAskedFor(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	startOn(t, h, func(*Config) {}).until("it is ready", ready)
	if text, err := scrape(h, false); err == nil {
		t.Errorf("somebody answers:\n%s", text)
	}
}

func TestTheAddressForMetricsIsChecked(t *testing.T) {
	for addr, ok := range map[string]bool{
		"": true, "127.0.0.1:6782": true, "[::1]:6782": true, "0.0.0.0:6782": true, "6782": false, "127.0.0.1": false, "127.0.0.1:0": false, "100%d": false, "localhost:6782": false,
	} {
		c := Defaults()
		c.MetricsAddr = addr
		if err := c.Validate(); (err == nil) != ok || err != nil && !strings.HasPrefix(err.Error(), fmt.Sprintf("--metrics-addr: %q is no address with a port: want one such as 127.0.0.1:6782", addr)) {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

// The page is what dashboards and alerts are checked against.
func TestEveryMetricIsOnItsPageAndTheOtherWayRound(t *testing.T) {
	text, err := os.ReadFile("../../docs/operate/metrics.md")
	must(t, err)
	row := regexp.MustCompile("(?m)^\\| `(weave_[a-z_]+)` +\\| ([a-z]+) +\\| ([^|]*?) +\\| (.*?) +\\|$")
	told := map[string][]string{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		told[m[1]] = m[2:]
	}
	for _, m := range catalogue() {
		var labels []string
		for _, l := range m.labels {
			labels = append(labels, "`"+l+"`")
		}
		want := []string{string(m.kind), strings.Join(labels, ", "), strings.TrimSuffix(m.help, ".")}
		if !slices.Equal(told[m.name], want) {
			t.Errorf("docs/operate/metrics.md: %s: %q, want the row\n| `%s` | %s |", m.name, told[m.name], m.name, strings.Join(want, " | "))
		}
		delete(told, m.name)
	}
	for name := range told {
		t.Errorf("docs/operate/metrics.md: there is no %s", name)
	}
}

func TestMetricsThatAreCountedAreNotGatheredToo(t *testing.T) {
	r := &Router{metrics: newMetrics(), log: quiet()}
	c := newCollector(r)
	if n := len(c.descs) + len(r.metrics.counted()); n != len(catalogue()) {
		t.Errorf("%d metrics, the catalogue has %d", n, len(catalogue()))
	}
	if _, err := r.registry(); err != nil {
		t.Error(err)
	}
	// Nothing of the router is there: the scrape fails, and nothing else.
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	if _, err := reg.Gather(); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("got %v", err)
	}
}

func TestTheSameWrittenAgainIsARepair(t *testing.T) {
	m := newMetrics()
	want := netdev.Forwarding{
		Remotes: []netdev.Remote{{MAC: attachment.MACFor(netip.MustParseAddr("10.32.0.9")), VTEP: netip.MustParseAddr("192.0.2.2"), Addrs: []netip.Addr{netip.MustParseAddr("10.32.0.9")}}},
		Flood:   []netip.Addr{netip.MustParseAddr("192.0.2.2")},
	}
	m.forwarded("id1", want, 4) // new
	m.forwarded("id1", want, 0) // as it was
	m.forwarded("id2", want, 4) // another network
	if n := testutil.ToFloat64(m.entryRepair); n != 0 {
		t.Errorf("%v repairs before anybody changed anything", n)
	}
	m.forwarded("id1", want, 2)
	want.Remotes = nil
	m.forwarded("id1", want, 3) // other endpoints
	if n := testutil.ToFloat64(m.entryRepair); n != 2 {
		t.Errorf("%v repairs, want 2", n)
	}
	blue := &network{}
	blue.ID, blue.Name = "id2", "blue"
	if got := m.forwarding([]*network{blue}); len(got) != 1 || got["blue"].fdb != 1 || got["blue"].neighbours != 1 || got["blue"].flood != 1 {
		t.Errorf("%+v", got)
	}
	if len(m.written) != 1 {
		t.Error("what was noted after its network went is kept")
	}
	m.dropped("id2")
	if len(m.written) != 0 {
		t.Error("networks that went are kept")
	}
}

// What a call of attachd's hands on is whatever a plugin of others has made up.
func TestCodesOfOthersAreOneLabel(t *testing.T) {
	m := newMetrics()
	for code := range uint(5000) {
		m.called("net/attach", code, time.Second, "")
	}
	if n := testutil.CollectAndCount(m.calls); n > 121 {
		t.Errorf("%d lines", n)
	}
	if n := testutil.ToFloat64(m.calls.WithLabelValues("net/attach", "107")); n != 1 {
		t.Errorf("ours: %v", n)
	}
	if n := testutil.ToFloat64(m.calls.WithLabelValues("net/attach", codeOther)); n != 5000-120 {
		t.Errorf("others: %v", n)
	}
}

func TestAnADDIsFollowedFromItsFirstCallToItsLast(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	call := func(name string, foreign bool) ctl.TracedCall {
		return ctl.TracedCall{Call: name, Key: key("c"), NoCommit: foreign}
	}
	for name, c := range map[string]struct {
		calls []ctl.TracedCall
		codes []uint
		want  string
	}{
		"it succeeds":                  {[]ctl.TracedCall{call("allocate", false), call("commit", false)}, []uint{0, 0}, "0 in 1s"},
		"no address":                   {[]ctl.TracedCall{call("allocate", false), call("release", false)}, []uint{100, 0}, "100 in 0s"},
		"refused at the end":           {[]ctl.TracedCall{call("allocate", false), call("commit", false), call("release", false)}, []uint{0, 101, 0}, "101 in 1s"},
		"it fails in the plugin":       {[]ctl.TracedCall{call("allocate", false), call("release", false), call("detach", false)}, []uint{0, 0, 0}, "abandoned in 1s"},
		"the plugin is killed":         {[]ctl.TracedCall{call("allocate", false), call(calllog.Reconcile, false)}, []uint{0, 0}, "abandoned in 1s"},
		"the address is still in use":  {[]ctl.TracedCall{call("allocate", false), call("release", false)}, []uint{0, 11}, ""},
		"another main plugin":          {[]ctl.TracedCall{call("allocate", true), call("release", false)}, []uint{0, 0}, "0 in 0s"},
		"asked twice by a broken call": {[]ctl.TracedCall{call("allocate", false), call("allocate", false), call("commit", false)}, []uint{0, 0, 0}, "0 in 2s"},
		"a DEL":                        {[]ctl.TracedCall{call("detach", false), call("release", false)}, []uint{0, 0}, ""},
	} {
		var a adds
		var got []string
		for i, one := range c.calls {
			if code, took, ended := a.after(one, c.codes[i], at(i), at(i)); ended {
				got = append(got, fmt.Sprint(code, " in ", took))
			}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	var a adds
	for i := range 2 * mostAdds {
		a.after(ctl.TracedCall{Call: "allocate", Key: key(fmt.Sprint(i))}, 0, at(0), at(0))
	}
	if len(a.began) != mostAdds {
		t.Errorf("%d are followed", len(a.began))
	}
	a.after(ctl.TracedCall{Call: "allocate", Key: key("later")}, 0, at(1000), at(1000))
	if len(a.began) != 1 {
		t.Errorf("after some time %d", len(a.began))
	}
}
