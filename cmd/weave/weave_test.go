package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/identity"
)

var update = flag.Bool("update", false, "write the golden files anew")

// router answers as the router would, at a socket of its own.
func router(t *testing.T, s ctl.Status) string {
	t.Helper()
	answer := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+ctl.PathStatus, answer(s))
	for path, forgotten := range map[string]bool{ctl.PathConnect: false, ctl.PathForgetPeer: true} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var in ctl.PeersRequest
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			var out ctl.PeersReply
			for i, p := range in.Peers {
				out.Peers = append(out.Peers, ctl.Target{Peer: p + ":6783", AtStart: i == 1, Forgotten: forgotten, Unchanged: i == 2})
			}
			_ = json.NewEncoder(w).Encode(out)
		})
	}
	mux.Handle("GET "+ctl.PathReport, answer(map[string]any{"ledger": map[string]int{"index": 7}, "names": []string{}}))
	mux.Handle("GET "+ctl.PathTopology, answer(seen()))
	return serve(t, mux)
}

// serve has a handler answer at a socket of its own.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weave") // t.TempDir can be longer than a socket's path may
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done; os.RemoveAll(dir) })
	return socket
}

// weave runs the command as a user would.
func weave(t *testing.T, colour bool, env map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{out: &stdout, paint: palette(colour), now: func() time.Time { return noon }}
	code = a.run(t.Context(), args, func(k string) string { return env[k] }, &stderr)
	return code, stdout.String(), stderr.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got; write anew with -update):\n%s", file, d)
	}
}

func prefixes(s ...string) (ps []netip.Prefix) {
	for _, p := range s {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

func block(prefix string) addr.Range { return addr.RangeOf(netip.MustParsePrefix(prefix)) }

// noon is now in these tests.
var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// busy is a host in the middle of its life.
func busy() ctl.Status {
	key := attachment.Key{Network: "weave", ContainerID: "3f1d7a22c9b04e5d8f6a", IfName: "eth0"}
	return ctl.Status{
		Version: "v0.1.0", Name: "alpha", Cluster: "5f3a9c0d11e27b44", Secured: true, Uptime: 51*time.Hour + 12*time.Minute,
		Peers: []ctl.Peer{
			{Name: "beta", Address: "10.9.0.2:6783", State: "connected"},
			{Name: "gamma", Address: "10.9.0.3:6783", State: "dialling", Detail: "no heartbeat for 4 s"},
			{Address: "10.9.0.4:6783", State: "dialling", Detail: "connection refused"},
			{Name: "delta", State: "relayed"},
			{Name: "alpha", Address: "10.9.0.6", State: "refused", Detail: "we refuse alpha: another host is called so", Count: 1234, Last: noon.Add(-3 * time.Second)},
			{Name: "zeta", Address: "10.9.0.7:6783", State: "refused", Detail: "zeta refuses us: other cluster", RefusesUs: true},
		},
		Problems: []string{"1 peer refuses us: zeta; see `weave status peers`", "2 of 5 peers unreachable: gamma, 10.9.0.4:6783"},
		IPAM: ctl.IPAM{Index: 42, Leader: "beta", Voters: []string{"alpha", "beta", "gamma"}, Subnets: []ctl.SubnetUse{{
			Network: "weave", Subnet: netip.MustParsePrefix("10.32.0.0/12"), Pool: 1044480,
			Hosts: []ctl.HostUse{
				{Host: "alpha", Self: true, Owned: 2048, Used: 3, Foreign: 1, Blocks: []addr.Range{block("10.32.0.0/21")}},
				{Host: "beta", Owned: 1280, Blocks: []addr.Range{
					block("10.32.8.0/24"), block("10.32.10.0/24"), block("10.32.12.0/24"),
					block("10.32.14.0/24"), block("10.32.16.0/24")}},
				{Host: "beta", Former: true, Owned: 256, Blocks: []addr.Range{block("10.32.18.0/24")}},
			},
		}}},
		Networks: []ctl.NetStatus{{
			Network: ctl.Network{Name: "weave", Bridge: "weave", MTU: 1450, Gateways: []netip.Addr{netip.MustParseAddr("10.32.0.1")}},
			VNI:     6784, Subnets: prefixes("10.32.0.0/12"), Device: "weave-vx",
		}},
		Overlay: []ctl.Remote{
			{Network: "weave", Host: "beta", VTEP: netip.MustParseAddr("10.9.0.2"), Endpoints: 12, Path: "vxlan"},
			{Network: "weave", Host: "delta", VTEP: netip.MustParseAddr("10.9.0.5"), Endpoints: 1, Path: "vxlan"},
		},
		DNS: ctl.DNS{Enabled: true, Domain: "weave.local", Upstreams: []string{"9.9.9.9:53"}, Errors: []string{"network weave at 10.32.0.1: in use"}, Names: []ctl.NameEntry{
			{Name: "web", Network: "weave", Address: netip.MustParseAddr("10.32.8.7"), Host: "beta"},
			{Name: "alpha", Network: "weave", Address: netip.MustParseAddr("10.32.0.1"), Host: "alpha"},
			{Name: "db", Network: "weave", Address: netip.MustParseAddr("10.32.0.2"), Host: "alpha"},
		}, Traffic: ctl.DNSTraffic{
			Waiting: 3, Cache: ctl.DNSCache{Entries: 120, Bytes: 40_000, Limit: 8 << 20, Hits: 900, Misses: 100},
			Upstreams: []ctl.DNSUpstream{{Addr: "9.9.9.9:53", Answered: 97, Failed: 3, MeanSeconds: .01234}, {Answered: 1, MeanSeconds: .002}},
		}},
		Attachments: []ctl.Attachment{
			{Key: key, Hash: key.Hash(), Veth: key.Veth(), MAC: "02:42:0a:20:00:02", Addresses: prefixes("10.32.0.2/12"), Names: []string{"db"}, State: "attached"},
			{Key: attachment.Key{Network: "weave", ContainerID: ".host", IfName: "bridge"}, Addresses: prefixes("10.32.0.1/12"), State: "attached"},
			{Key: attachment.Key{Network: "weave"}, Veth: "vethabcdefghijk", MAC: "02:42:0a:20:00:03", Addresses: prefixes("10.32.0.3/12"), State: "attached", NamesLost: true},
			{Key: attachment.Key{Network: "weave", ContainerID: "0b2c", IfName: "eth1"}, Addresses: prefixes("10.32.8.7/12"), State: "attached",
				Contested: []ctl.Contested{{Address: netip.MustParseAddr("10.32.8.7"), Owner: "beta", UsedBy: "beta"}}},
			{Key: attachment.Key{Network: "weave", ContainerID: "0b2c", IfName: "eth0"}, Addresses: prefixes("10.32.18.1/12"), State: "attached",
				Contested: []ctl.Contested{{Address: netip.MustParseAddr("10.32.18.1"), Owner: "alpha"}}},
		},
	}
}

func TestWhatAnOperatorSees(t *testing.T) {
	socket := router(t, busy())
	for _, cmd := range []string{"status", "status peers", "status ipam", "status dns", "status overlay", "ps", "report --json", "status peers --json",
		"status topology", "status topology --dot"} {
		t.Run(cmd, func(t *testing.T) {
			code, out, errs := weave(t, false, nil, append(strings.Fields(cmd), "--socket", socket)...)
			if code != 0 || errs != "" {
				t.Errorf("exit %d, stderr %q", code, errs)
			}
			golden(t, strings.ReplaceAll(strings.ReplaceAll(cmd, " ", "-"), "--", ""), out)
			for line := range strings.Lines(out) {
				if strings.TrimRight(line, "\n") != strings.TrimRight(line, " \n") {
					t.Errorf("blanks at the end of %q", line)
				}
			}
		})
	}
}

func TestOfManySubnetsThoseThatAreShortHaveALine(t *testing.T) {
	use := func(network string, full bool) ctl.SubnetUse {
		return ctl.SubnetUse{Network: network, Subnet: netip.MustParsePrefix("10.48.0.0/20"), Pool: 8, Full: full,
			Hosts: []ctl.HostUse{{Host: "a", Self: true, Owned: 100, Used: 1}, {Host: "b", Owned: 2}, {Host: "c"}, {Host: "d", Former: true, Owned: 3}}}
	}
	all := []ctl.SubnetUse{use("blue", false), use("red", true), use("weave", false), use("x", false)}
	far := use("far", false)
	far.Host = "b"
	of := func(all ...ctl.SubnetUse) ctl.Status {
		return ctl.Status{Name: "a", IPAM: ctl.IPAM{Subnets: append(all, far)}}
	}
	rows := addressRows(of(all...))
	if len(rows) != 4 || rows[0][1] != "blue 10.48.0.0/20  1 used of 100 here, 8 in the pool, 2 hosts" {
		t.Errorf("got %q", rows)
	}
	tight := use("y", false)
	tight.Pool, tight.Hosts[0].Used = 0, 95
	rows = addressRows(of(append(all, tight)...))
	var got []string
	for _, r := range rows {
		got = append(got, r[1])
	}
	want := []string{"red ", "weave ", "y ", "2 subnets more: 2 used of 200 here, none is short"}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got %q", got)
	}
	if got := overlayLine([]ctl.Remote{{Host: "b", Endpoints: 2}, {Host: "c"}}); got != "2 endpoints on 1 other host" {
		t.Errorf("got %s", got)
	}
}

// How much of their blocks other hosts use is not known here: 0 would say that it is.
func TestWhatOtherHostsUseIsNotInTheJSON(t *testing.T) {
	_, out, _ := weave(t, false, nil, "status", "ipam", "--json", "--socket", router(t, busy()))
	if strings.Count(out, `"used": 3`) != 1 || strings.Count(out, `"used"`) != 1 || strings.Count(out, `"foreign"`) != 1 || strings.Count(out, `"owned"`) != 3 {
		t.Errorf("got %s", out)
	}
}

func TestStatusFitsOneScreenAndSaysWhatIsWrong(t *testing.T) {
	s := ctl.Status{Version: "v0.1.0", Name: "alpha", Uptime: 4 * time.Second,
		Error: &ctl.Error{Code: ctl.CodeNotAvailable, Msg: "this host has no addresses yet"},
		IPAM:  ctl.IPAM{Waiting: "waits for one of 10.9.0.2, 10.9.0.3 to answer: start weaver there"}}
	code, out, _ := weave(t, false, nil, "status", "--socket", router(t, s))
	if code != exitNotReady {
		t.Errorf("exit %d, want %d", code, exitNotReady)
	}
	golden(t, "status-not-ready", out)
	if n := strings.Count(out, "\n"); n > 24 {
		t.Errorf("%d lines", n)
	}
}

func TestColoursDoNotMoveTheColumns(t *testing.T) {
	socket := router(t, busy())
	for _, cmd := range []string{"status", "status peers", "status ipam", "status topology"} {
		_, plain, _ := weave(t, false, nil, append(strings.Fields(cmd), "--socket", socket)...)
		_, coloured, _ := weave(t, true, nil, append(strings.Fields(cmd), "--socket", socket)...)
		if coloured == plain && cmd != "status ipam" {
			t.Errorf("%s: no colour", cmd)
		}
		for _, c := range []string{"39", "31", "32", "33", "0"} {
			coloured = strings.ReplaceAll(coloured, "\x1b["+c+"m", "")
		}
		if d := cmp.Diff(plain, coloured); d != "" {
			t.Errorf("%s:\n%s", cmd, d)
		}
	}
}

func TestWithoutARouterItSaysHowToStartOne(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	for _, cmd := range []string{"status", "status peers", "ps", "report --json", "status topology", "top --once"} {
		code, out, errs := weave(t, false, map[string]string{"WEAVE_SOCKET": socket}, strings.Fields(cmd)...)
		if code != exitNoRouter || out != "" {
			t.Errorf("%s: exit %d, stdout %q", cmd, code, out)
		}
		if !strings.Contains(errs, "does not answer at "+socket) || !strings.Contains(errs, "start it with: weaver") {
			t.Errorf("%s: stderr %q", cmd, errs)
		}
	}
}

func TestUsedWronglyItSaysSoOnStderr(t *testing.T) {
	if _, _, errs := weave(t, false, nil, "conflist"); !strings.Contains(errs, "no FILE is given") {
		t.Errorf("conflist without a file: %q", errs)
	}
	if _, _, errs := weave(t, false, nil, "rmpeer", "--destroyed", "--majority-lost"); !strings.Contains(errs, "wants the NAME of the host") {
		t.Errorf("rmpeer without a name: %q", errs)
	}
	if _, _, errs := weave(t, false, nil, "rmpeer", "--destroyed", "host-b", "host-c"); !strings.Contains(errs, "2 are given (host-b host-c)") {
		t.Errorf("rmpeer with two names: %q", errs)
	}
	for cmd, want := range map[string]string{
		"trace --last web1":                "weave: invalid argument \"web1\" for \"--last\" flag: want a number\n",
		"ps --json=perhaps":                "weave: invalid argument \"perhaps\" for \"--json\" flag: want true or false\n",
		"net plug --ip nonsense web weave": "weave: --ip \"nonsense\": want an address, such as 10.32.0.80\n",
	} {
		if code, _, errs := weave(t, false, nil, strings.Fields(cmd)...); code != exitUsage || errs != want {
			t.Errorf("%s: exit %d, %q, want %q", cmd, code, errs, want)
		}
	}
	socket := router(t, busy())
	if code, _, errs := weave(t, false, nil, "rmpeer", "--socket", socket, "nosuch"); code != exitFailed || !strings.Contains(errs, `no host "nosuch" is known here: there are alpha, beta`) {
		t.Errorf("rmpeer of nobody: exit %d, %q", code, errs)
	}
	if code, _, errs := weave(t, false, nil, "rmpeer", "--socket", socket, "beta"); code != exitUsage || !strings.Contains(errs, "your word that beta") {
		t.Errorf("rmpeer without --destroyed: exit %d, %q", code, errs)
	}
	if _, _, errs := weave(t, false, nil, "upgrade"); !strings.Contains(errs, "`weave --help` shows what there is") {
		t.Errorf("an unknown command: %q", errs)
	}
	for _, cmd := range []string{"rmpeer", "rmpeer --destroyed a b", "nonsense", "status nonsense", "status --nonsense", "status topology --dot --svg", "conflist", "ps x", "conflist --name a b c"} {
		code, out, errs := weave(t, false, nil, strings.Fields(cmd)...)
		if code != exitUsage || out != "" || !strings.HasPrefix(errs, "weave: ") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", cmd, code, out, errs)
		}
	}
}

func TestTheRoutersOwnErrorIsShown(t *testing.T) {
	socket := router(t, ctl.Status{})
	a := &app{out: &bytes.Buffer{}, socket: socket}
	err := a.ask(t.Context(), "/v1/none", nil)
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v", err)
	}
}

func TestVersionNeedsNoRouterButTellsItsVersion(t *testing.T) {
	code, out, errs := weave(t, false, nil, "version", "--socket", filepath.Join(t.TempDir(), "none"))
	if code != 0 || errs != "" || out != "weave  unknown\n" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if _, out, _ = weave(t, false, nil, "version", "--socket", router(t, busy())); !strings.Contains(out, "weaver v0.1.0") {
		t.Errorf("got %q", out)
	}
}

func TestEachNewSecretIsAnotherAndIsTakenByTheRouter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	var last string
	for range 2 {
		code, out, errs := weave(t, false, nil, "secret", "new")
		if code != 0 || errs != "" || out == last {
			t.Fatalf("exit %d, %q after %q, stderr %q", code, out, last, errs)
		}
		last = out
	}
	if err := os.WriteFile(file, []byte(last), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := identity.LoadSecret(file); err != nil || !s.Secured() {
		t.Errorf("%q: %v", last, err)
	}
}

func TestConflistIsFittedPrintedAndInstalled(t *testing.T) {
	plugins := t.TempDir()
	for _, p := range []string{"weave-net", "weave-ipam", "weavedns", "portmap"} {
		script := "#!/bin/sh\necho '{\"supportedVersions\":[\"0.4.0\",\"1.0.0\",\"1.1.0\"]}'\n"
		if err := os.WriteFile(filepath.Join(plugins, p), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const file = "../../conflist/10-weave.conflist"
	code, out, errs := weave(t, false, nil, "conflist", "--plugin-dir", plugins, file)
	if code != 0 || !strings.Contains(out, `"cniVersions": ["0.4.0", "1.0.0", "1.1.0"]`) {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	netd := t.TempDir()
	for _, want := range []string{"installed", "is as it should be"} {
		code, out, errs = weave(t, false, nil, "conflist", "--plugin-dir", "/nonexistent", "--versions-from", plugins, "--name", "blue", "--out", netd, file)
		if code != 0 || !strings.Contains(out, "weave-blue.conflist: network blue at CNI 0.4.0 1.0.0 1.1.0, "+want) {
			t.Errorf("exit %d, %s%s", code, out, errs)
		}
	}
	code, _, errs = weave(t, false, nil, "conflist", "--plugin-dir", netd, file)
	if code != exitFailed || !strings.Contains(errs, `plugin "weave-net" is not in `+netd) || !strings.Contains(errs, "else: install -m 0755 -D -t "+netd+" bin/weave-net") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestNumbersAndTimesReadWell(t *testing.T) {
	for got, want := range map[string]string{
		number(0): "0", number(999): "999", number(1048576): "1 048 576",
		count(1, "peer"): "1 peer", count(2, "address"): "2 addresses",
		span(59 * time.Second): "59 s", span(61 * time.Second): "1 min 1 s", span(90 * time.Minute): "1 h 30 min", span(49 * time.Hour): "2 d 1 h",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
