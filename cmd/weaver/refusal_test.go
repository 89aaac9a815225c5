package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/weave-cni/weave-cni/pkg/router"
)

// refused are values of each flag that are wrong, each in a way of its own.
func refused() map[string][]string {
	const garbage = "100%d" // which a message must not take for a format
	out := map[string][]string{
		"name":      {strings.Repeat("%d", 50)},
		"bootstrap": {"a%d"},
		"range":     {garbage, "10.32.0.1/12", "10.32.0.0/30", "fd00::/64", ""},
		"range6":    {garbage, "fd00::1/64", "fd00::/126", "10.32.0.0/12"},
		"mtu":       {garbage, "500"},
		"port":      {garbage, "0", "6786"},
		"mesh-port": {garbage, "0", "6783"},
	}
	for _, flag := range []string{"run-dir", "state-dir", "conflist-dir", "init", "advertise", "dns-domain", "dns-upstream", "dns-stop-rebind", "dns-rebind-ok", "metrics-addr", "log-level", "force-range", "no-conflists", "no-dns"} {
		out[flag] = []string{garbage}
	}
	out["vxlan-port"] = out["port"][:2]
	return out
}

// takesAll are the flags of which only their use shows whether they are right.
var takesAll = []string{"socket", "secret-file", "machine-id", "config", "check-config"}

func TestEveryFlagsRefusalNamesItAndIsASentence(t *testing.T) {
	set, wrong := flagSet(), refused()
	set.VisitAll(func(f *pflag.Flag) {
		if (wrong[f.Name] != nil) == slices.Contains(takesAll, f.Name) {
			t.Errorf("--%s: which values are refused, and in which words?", f.Name)
		}
	})
	for flag, values := range wrong {
		for _, value := range values {
			inFile := strconv.Quote(value)
			if _, list := set.Lookup(flag).Value.(pflag.SliceValue); list {
				inFile = flowList([]string{value})
			}
			_, given := gather([]string{"--" + flag + "=" + value}, nil, "")
			isRefusal(t, given, flag, "--"+flag)
			_, environment := gather(nil, map[string]string{variable(flag): value}, "")
			isRefusal(t, environment, flag, variable(flag)+": ", "--"+flag)
			_, file := gather(nil, nil, flag+": "+inFile+"\n")
			isRefusal(t, file, flag, "weaver.yaml:1: "+flag)
		}
	}
	_, peers := gather([]string{"a,b%d"}, nil, "")
	isRefusal(t, peers, router.PeersFlag, `PEER "a,b%d"`)
}

// isRefusal looks that an error is one line with all these words, and well formed.
func isRefusal(t *testing.T, err error, flag string, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: not refused", flag)
		return
	}
	text := err.Error()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s: %q is not in %q", flag, w, text)
		}
	}
	if strings.Contains(text, "%!") || strings.Contains(text, "\n") || !strings.ContainsAny(text, ":,") {
		t.Errorf("%s: %q", flag, text)
	}
}
