package attachment

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var key = Key{Network: "weave", ContainerID: "ca88a6e", IfName: "eth0"}

func TestNamesFitTheKernelAndDifferByEachPart(t *testing.T) {
	seen := map[string]Key{}
	for _, k := range []Key{
		key,
		{"weave2", "ca88a6e", "eth0"},
		{"weave", "ca88a6f", "eth0"},
		{"weave", "ca88a6e", "eth1"},
		{"weavec", "a88a6e", "eth0"},
	} {
		if got := k.Veth(); len(got) != 15 || ValidIfName(got) != nil {
			t.Errorf("%v: veth name %q does not fit", k, got)
		}
		if o, dup := seen[k.Veth()]; dup {
			t.Errorf("%v and %v share %q", k, o, k.Veth())
		}
		seen[k.Veth()] = k
		if len(k.EndpointID()) != 64 || len(k.Hash()) != 26 {
			t.Errorf("%v: endpoint id %q, hash %q", k, k.EndpointID(), k.Hash())
		}
	}
}

func TestMACFollowsIPv4ThenTheKey(t *testing.T) {
	v4 := netip.MustParsePrefix("10.32.0.5/12")
	v6 := netip.MustParsePrefix("fd00::5/64")
	if got := key.MAC([]netip.Prefix{v6, v4}).String(); got != "02:42:0a:20:00:05" {
		t.Errorf("dual stack: got %s", got)
	}
	if got := key.MAC([]netip.Prefix{v6}); len(got) != 6 || got[0] != 2 {
		t.Errorf("v6 only: got %s", got)
	}
}

func TestAliasRoundTrip(t *testing.T) {
	for _, addrs := range [][]netip.Prefix{
		nil,
		{netip.MustParsePrefix("10.32.0.5/12")},
		{netip.MustParsePrefix("10.32.0.5/12"), netip.MustParsePrefix("fd00::5/64")},
	} {
		for _, local := range []bool{false, true} {
			a := Alias{Hash: key.Hash(), Network: "weave", MAC: key.MAC(addrs), Addrs: addrs, Local: local}
			s, err := a.Encode()
			if err != nil {
				t.Fatal(err)
			}
			b, err := ParseAlias(s)
			if err != nil || !reflect.DeepEqual(a, b) {
				t.Errorf("%q: got %+v, %v", s, b, err)
			}
		}
	}
}

func TestAliasTooLongIsAnError(t *testing.T) {
	a := Alias{Hash: key.Hash(), Network: strings.Repeat("n", 250), MAC: key.MAC(nil)}
	if _, err := a.Encode(); err == nil {
		t.Error("want an error")
	}
}

func TestKeyValidation(t *testing.T) {
	bad := []Key{
		{}, {"weave", "", "eth0"}, {"we/ave", "a", "eth0"}, {"weave", "../a", "eth0"},
		{"weave", "a", ""}, {"weave", "a", ".."}, {"weave", "a", "a/b"}, {"weave", "a", "sixteen-letters!"}, {"weave", "a", "a b"},
		{"weave", "a\x00b", "eth0"}, {"weave", "a", "eth%d"}, {"-weave", "a", "eth0"}, {"weave", strings.Repeat("a", 256), "eth0"},
	}
	for _, k := range bad {
		if k.Validate() == nil {
			t.Errorf("%q: want an error", k)
		}
	}
	if err := key.Validate(); err != nil {
		t.Error(err)
	}
}

func FuzzParseAlias(f *testing.F) {
	f.Add("wv1 " + key.Hash() + " weave 02:42:0a:20:00:05 10.32.0.5/12,fd00::5/64")
	f.Add("wv1 " + key.Hash() + " weave 02:42:0a:20:00:05 ")
	f.Add("wv1")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAlias(s)
		if err != nil {
			return
		}
		if _, err := a.Encode(); err != nil && len(s) <= MaxAlias/2 {
			t.Errorf("%q parsed but does not encode: %v", s, err)
		}
	})
}
