package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// nameRouter answers the calls about names, as a function says.
func nameRouter(t *testing.T, reply func(path string, in map[string]any) any) string {
	t.Helper()
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in map[string]any
		_ = json.NewDecoder(r.Body).Decode(&in) // a GET has none
		out := reply(r.URL.Path, in)
		if e, failed := out.(*ctl.Error); failed {
			w.WriteHeader(http.StatusBadRequest)
			out = e
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
}

func TestNamesByHandAreAddedAndRemovedAsTheyAreTyped(t *testing.T) {
	socket := nameRouter(t, func(path string, in map[string]any) any {
		if in["network"] == "nosuch" {
			return ctl.Errorf(ctl.CodeInvalidConfig, "no network is called so")
		}
		out := ctl.HandName{Name: "db", Network: "weave"}
		if in["name"] == "db.out" {
			out.Remarks = []string{"ask elsewhere"}
		}
		if as, _ := in["addresses"].([]any); len(as) > 0 {
			out.Addresses = []netip.Addr{netip.MustParseAddr(as[0].(string))}
		}
		return out
	})
	for command, want := range map[string]struct {
		code int
		says string
	}{
		"add db 192.0.2.7 2001:db8::7":      {0, "db on network weave: 192.0.2.7\n"},
		"remove db":                         {0, "db on network weave: removed\n"},
		"rm db 192.0.2.7":                   {0, "db on network weave: 192.0.2.7\n"},
		"add db.out 192.0.2.7":              {0, "weave: ask elsewhere\n"},
		"trace":                             {exitUsage, "want a CONTAINER"},
		"add db":                            {exitUsage, "want a NAME"},
		"add":                               {exitUsage, "want a NAME"},
		"add db x":                          {exitUsage, `"x" is no address`},
		"remove":                            {exitUsage, "want a NAME"},
		"add --network nosuch db 192.0.2.7": {exitFailed, "no network is called so"},
		"lookup":                            {exitUsage, "want a NAME, or an address"},
	} {
		code, out, errs := weave(t, false, nil, append([]string{"dns", "--socket", socket}, strings.Fields(command)...)...)
		if code != want.code || !strings.Contains(out+errs, want.says) {
			t.Errorf("%s: %d %q %q, want %d %q", command, code, out, errs, want.code, want.says)
		}
	}
}

func TestALookupSaysWhatItFindsOrWhyThereIsNothing(t *testing.T) {
	record := []ctl.LookupRecord{{Name: "web.", Type: "A", Data: "10.32.0.2"}, {Name: "web.", Type: "AAAA", Data: "fd00::2"}}
	for says, reply := range map[string]ctl.LookupReply{
		"web  A     10.32.0.2\nweb  AAAA  fd00::2\n":             {Status: "NOERROR", Source: "weave", Records: record},
		"web is there and has no record of that type":            {Status: "NOERROR", Source: "weave", Asked: "web"},
		"answered so on the others only":                         {Status: "NOERROR", Source: "weave", Records: record, Unserved: true},
		"no web on network blue; `weave status dns` lists":       {Status: "NXDOMAIN", Source: "weave", Asked: "web", Network: "blue"},
		"no web.example.com, say the upstream servers":           {Status: "NXDOMAIN", Source: "upstream", Asked: "web.example.com"},
		"web.example.com: SERVFAIL; `weave status dns` shows":    {Status: "SERVFAIL", Source: "upstream", Asked: "web.example.com"},
		"network blue is internal: its containers hear of no ot": {Status: "NXDOMAIN", Source: "none", Asked: "web.example.com", Network: "blue"},
	} {
		socket := nameRouter(t, func(string, map[string]any) any { return reply })
		code, out, errs := weave(t, false, nil, "dns", "lookup", "--socket", socket, "web")
		if want := len(reply.Records) == 0; !strings.Contains(out+errs, says) || (code == exitFailed) != want {
			t.Errorf("%+v: %d %q %q, want %q", reply, code, out, errs, says)
		}
		if code, out, _ := weave(t, false, nil, "dns", "lookup", "--json", "--socket", socket, "web"); !json.Valid([]byte(out)) || (code == exitFailed) != (len(reply.Records) == 0) {
			t.Errorf("%+v: as JSON %d %s", reply, code, out)
		}
	}
}

func TestQueriesAreShownAsTheyComeUntilItIsTimeToEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	calls := 0
	socket := nameRouter(t, func(_ string, in map[string]any) any {
		out := ctl.Queries{Container: "3f1d7a22c9b0", Addresses: []netip.Addr{netip.MustParseAddr("10.32.0.2")}, Last: 5}
		if calls++; calls == 2 {
			if in["after"] != 5.0 || in["container"] != "web" {
				t.Errorf("asks %v", in)
			}
			out.Missed = 3
			out.Queries = []ctl.Query{{At: noon, Name: "evil\x1b[31m", Type: "A", Outcome: "nxdomain", Took: 1500 * time.Microsecond}, {At: noon, Type: "NS", Outcome: "forwarded"}}
		}
		if calls == 3 {
			cancel()
		}
		return out
	})
	var out, errs strings.Builder
	a := &app{out: &out, err: &errs, socket: socket, now: time.Now}
	if err := a.followQueries(ctx, ctl.QueriesRequest{Container: "web"}, nil, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`A     nxdomain     1.5 ms  evil\x1b[31m` + "\n", "NS    forwarded    0.0 ms  .\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
	if got := errs.String(); got != "queries of 3f1d7a22c9b0, from 10.32.0.2:\n3 more came than are kept\n" {
		t.Errorf("beside it %q", got)
	}
}

func TestOfManyNetworksAHostsOwnNameIsOneLine(t *testing.T) {
	entry := func(name, network, host, addr string, byHand bool) ctl.NameEntry {
		return ctl.NameEntry{Name: name, Network: network, Host: host, Address: netip.MustParseAddr(addr), ByHand: byHand}
	}
	all := []ctl.NameEntry{
		entry("beta", "weave", "beta", "10.32.2.1", false), entry("web", "net1", "beta", "10.48.0.7", false),
		entry("alpha", "net1", "alpha", "10.48.0.1", false), entry("db", "weave", "alpha", "192.0.2.7", true),
		entry("alpha", "weave", "alpha", "10.32.0.1", true), // one may well be added by hand
	}
	for i, network := range []string{"net1", "net2", "net3", "weave"} {
		all = append(all, entry("gamma", network, "gamma", []string{"10.10.0.1", "10.48.1.1", "10.48.2.1", "10.32.4.1"}[i], false))
	}
	want := [][]string{
		{"NAME", "ADDRESS", "NETWORK", "HOST"},
		{"alpha", "10.32.0.1", "weave", "alpha (by hand)"},
		{"db", "192.0.2.7", "weave", "alpha (by hand)"},
		{"web", "10.48.0.7", "net1", "beta"},
		{"alpha", "10.48.0.1", "net1", "alpha"},
		{"beta", "10.32.2.1", "weave", "beta"},
		{"gamma", "10.32.4.1", "weave and 3 more", "gamma"},
	}
	if got := nameRows(all); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}
