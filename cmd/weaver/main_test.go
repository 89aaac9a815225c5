package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/router"
)

// parse parses a command line as the command does.
func parse(t *testing.T, args ...string) (router.Config, error) {
	t.Helper()
	c, err := gather(args, nil, "")
	return c.config, err
}

// gather takes a command line, the process's environment and that of the test, and a
// file at the usual place, "" for none.
func gather(args []string, env map[string]string, file string) (checked, error) {
	f := flags{config: router.Defaults()}
	s := pflag.NewFlagSet("weaver", pflag.ContinueOnError)
	f.register(s)
	if err := s.Parse(args); err != nil {
		return checked{}, err
	}
	lookup := func(name string) (string, bool) {
		if v, ok := env[name]; ok {
			return v, true
		}
		return os.LookupEnv(name)
	}
	read := func(path string) ([]byte, error) {
		if path != defaultFile || file == "" {
			return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
		}
		return []byte(file), nil
	}
	return f.gather(s.Args(), lookup, read)
}

func TestNoFlagsAreTheDefaults(t *testing.T) {
	got, err := parse(t)
	want := router.Defaults()
	want.Version, want.Peers = version, []string{}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestTheEnvironmentCountsWhereNoFlagIsGiven(t *testing.T) {
	t.Setenv("WEAVE_NAME", "from-environment")
	t.Setenv("WEAVE_PORT", "7000")
	t.Setenv("WEAVE_NO_DNS", "true")
	got, err := parse(t, "--port", "7001", "host2")
	if err != nil || got.Name != "from-environment" || got.Port != 7001 || got.DNS || len(got.Peers) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestBadFlagsAreRefusedAllAtOnce(t *testing.T) {
	for words, args := range map[string][]string{
		"--advertise":  {"--advertise", "nonsense"},
		"other family": {"--range", "fd00::/64"},
		`--range "garbage": want a prefix like 10.32.0.0/12`:    {"--range", "garbage"},
		`--range6 "fd00::/129": want a prefix like fd77:1::/64`: {"--range6", "fd00::/129"},
		"host bits":                        {"--range", "10.32.0.1/12"},
		"too small":                        {"--range", "10.32.0.0/30"},
		"--range: there is none":           {"--range", ""},
		"--mtu: 500":                       {"--mtu", "500"},
		"absolute path":                    {"--run-dir", "run"},
		"no domain name":                   {"--dns-domain", "a b"},
		"--port: --mesh-port is 6786 too":  {"--port", "6786"},
		`PEER "a,b"`:                       {"a,b"},
		`--init: "old", want "new"`:        {"--init", "old"},
		"PEERs (host2 host3)":              {"--init", "new", "host2", "host3"},
		"--bootstrap together with others": {"--init", "new", "--bootstrap", "a,b"},
		"--name: 100":                      {"--name", strings.Repeat("n", 100)},
		"65465\n--port":                    {"--mtu", "1", "--port", "0"},
	} {
		if _, err := parse(t, args...); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v: got %v, want %q", args, err, words)
		}
	}
	t.Setenv("WEAVE_MTU", "many")
	if _, err := parse(t); err == nil || !strings.Contains(err.Error(), `WEAVE_MTU: --mtu "many": want a number`) {
		t.Errorf("got %v", err)
	}
}

func TestTheFlagsOfFoundingThatWereGivenAreKnown(t *testing.T) {
	t.Setenv("WEAVE_RANGE6", "fd77:1::/64")
	if got, err := parse(t, "--mtu", "1400", "--port", "7000"); err != nil || !slices.Equal(got.Asked, []string{"--range6", "--mtu"}) {
		t.Errorf("got %q, %v", got.Asked, err)
	}
}

func TestWhoIsNotRootIsToldSo(t *testing.T) {
	denied := fmt.Errorf("make run directory: %w", os.ErrPermission)
	for _, c := range []struct {
		err  error
		uid  int
		told bool
	}{{denied, 1000, true}, {denied, 0, false}, {errors.New("x"), 1000, false}} {
		if got := asRoot(c.err, c.uid).Error(); strings.Contains(got, "run it as root") != c.told {
			t.Errorf("%v as %d: %s", c.err, c.uid, got)
		}
	}
}

func TestAnUpstreamIsAnAddress(t *testing.T) {
	good := []string{"192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:5353", "fe80::1%eth0", "[fe80::1%eth0]:53"}
	got, err := parse(t, "--dns-upstream", strings.Join(good, ","))
	if err != nil || !slices.Equal(got.DNSUpstream, good) {
		t.Errorf("got %v, %v", got.DNSUpstream, err)
	}
	if got, err := parse(t, "--dns-upstream", ""); err != nil || len(got.DNSUpstream) != 0 {
		t.Errorf("got %v, %v", got.DNSUpstream, err)
	}
	for _, bad := range []string{
		"dns.example.com", "dns.example.com:53", "192.0.2", "192.0.2.1:", "192.0.2.1:domain", "192.0.2.1:65536", "192.0.2.1:0",
		"192.0.2.1/24", " 192.0.2.1", "[2001:db8::1]", "[192.0.2.1]:53", "udp://192.0.2.1",
	} {
		_, err := parse(t, "--dns-upstream", "192.0.2.1,"+bad)
		if want := fmt.Sprintf("--dns-upstream: %q", bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	if _, err := parse(t, "--dns-upstream", "192.0.2.1,,192.0.2.2"); err == nil || !strings.Contains(err.Error(), `""`) {
		t.Errorf("got %v", err)
	}
	t.Setenv("WEAVE_DNS_UPSTREAM", "one,two")
	if _, err := parse(t); err == nil || !strings.Contains(err.Error(), `"one"`) || !strings.Contains(err.Error(), `"two"`) {
		t.Errorf("got %v", err)
	}
}

func TestASignalThatComesAsTheRouterEndsIsKnown(t *testing.T) {
	for when, kill := range map[string]bool{"none": false, "while it runs": true} {
		told, err := untilTold(func(ctx context.Context) error {
			if kill {
				runtime.LockOSThread() // so that it has come when the call returns
				defer runtime.UnlockOSThread()
				if err := unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			return router.ErrAgain // whether the context has ended by now or not
		})
		if told != kill || err != router.ErrAgain {
			t.Errorf("%s: told %v, %v", when, told, err)
		}
	}
}

func TestTheUnitDoesNotStartARouterAgainThatHasLeft(t *testing.T) {
	unit, err := os.ReadFile("../../docs/weaver.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"RestartPreventExitStatus", "SuccessExitStatus"} {
		if want := fmt.Sprintf("\n%s=%d\n", key, exitLeft); !strings.Contains(string(unit), want) {
			t.Errorf("without %q", want)
		}
	}
}

func TestNetworkListsAreKeptUnlessToldNotTo(t *testing.T) {
	for want, args := range map[string][]string{
		"/etc/cni/net.d": nil, "/x": {"--conflist-dir", "/x"}, "": {"--conflist-dir", "/x", "--no-conflists"},
	} {
		if got, err := parse(t, args...); err != nil || got.ConflistDir != want {
			t.Errorf("%v: %q, %v", args, got.ConflistDir, err)
		}
	}
	if _, err := parse(t, "--conflist-dir", "net.d"); err == nil || !strings.Contains(err.Error(), `"net.d": want an absolute path`) {
		t.Errorf("got %v", err)
	}
}

func TestAFlagThatThereIsNotIsWrongUse(t *testing.T) {
	for _, args := range [][]string{{"--bogus"}, {"--mtu", "many"}} {
		cmd := command()
		cmd.SetArgs(args)
		err := cmd.ExecuteContext(t.Context())
		if exitCode(err) != 2 || !strings.Contains(err.Error(), "`weaver --help` shows all flags") {
			t.Errorf("%v: exit code %d, %v", args, exitCode(err), err)
		}
	}
	if code := exitCode(errors.New("no route")); code != 1 {
		t.Errorf("exit code %d", code)
	}
}
