package cniconf

import (
	"maps"
	"strings"
	"testing"
)

func TestArgsTakeWhateverRuntimesSend(t *testing.T) {
	for text, want := range map[string]Args{
		"":                                    {},
		";;":                                  {},
		"IP=10.0.0.1":                         {"IP": "10.0.0.1"},
		"IgnoreUnknown=1;K8S_POD_NAME=":       {"IgnoreUnknown": "1", "K8S_POD_NAME": ""},
		"A=x=y==;B=1":                         {"A": "x=y==", "B": "1"},
		"IP=10.0.0.1;IP=10.0.0.2":             {"IP": "10.0.0.2"}, // a runtime appends what its caller asked for
		"UNKNOWN_KEY=1;MAC=02:00:00:00:00:01": {"UNKNOWN_KEY": "1", "MAC": "02:00:00:00:00:01"},
	} {
		got, err := ParseArgs(text)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestArgsRefuseWhatCannotBeMeant(t *testing.T) {
	for _, text := range []string{"IP", "=x", "A=1;IP", strings.Repeat("A", MaxArgs+1) + "=1"} {
		if got, err := ParseArgs(text); err == nil {
			t.Errorf("%.40q: got %d keys, want an error", text, len(got))
		} else if len(err.Error()) > 200 {
			t.Errorf("%.40q: the error has %d bytes", text, len(err.Error()))
		}
	}
}

func FuzzParseArgs(f *testing.F) {
	for _, s := range []string{"", "IP=10.0.0.1;MAC=02:00:00:00:00:01", "A==;=;B", "K8S_POD_NAME=web;IgnoreUnknown=1", "A=\x00;B=\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args, err := ParseArgs(s)
		if (args == nil) != (err != nil) {
			t.Fatalf("got %v and %v", args, err)
		}
		for k, v := range args {
			if k == "" || strings.Contains(k, "=") || strings.Contains(k+v, ";") {
				t.Fatalf("key %q value %q", k, v)
			}
		}
	})
}
