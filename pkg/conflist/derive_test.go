package conflist

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

const blueID = "67ea60624dfc1a6c08ba141c6cc022265e6fff81a44668c0135830a92de0b5e1"

func blue() Network {
	return Network{Name: "blue", ID: blueID, Subnets: []netip.Prefix{netip.MustParsePrefix("10.48.0.0/20"), netip.MustParsePrefix("fd00:1::/64")}}
}

// flat is a derived list without its blanks.
func flat(t *testing.T, pattern string, n Network) string {
	t.Helper()
	d, err := parse(t, pattern).Derive(n)
	if err != nil {
		t.Fatal(err)
	}
	again := parse(t, string(d.Encode()))
	if again.ManagedID() != n.ID || again.Name() != n.Name {
		t.Errorf("it is %q's, of id %q", again.Name(), again.ManagedID())
	}
	return strings.Join(strings.Fields(string(d.Encode())), "")
}

func TestADerivedListIsThePatternUnderAnotherName(t *testing.T) {
	shipped := string(read(t, "../../conflist/10-weave.conflist"))
	want := strings.Join(strings.Fields(strings.Replace(shipped, `"name": "weave"`, `"name": "blue", "weave.managed": "`+blueID+`"`, 1)), "")
	if got := flat(t, shipped, blue()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWhatThePatternSaysOfItsOwnAddressesGoesAndTheRestStays(t *testing.T) {
	const pattern = `{"cniVersion":"0.4.0","cniVersions":["0.4.0","1.0.0"],"name":"w","disableGC":false,"plugins":[
		{"type":"weave-net","network":"weave","mtu":1300,"socket":"/s","ipam":{"type":"weave-ipam","network":"weave","subnet":"10.32.0.0/16",
		"exclude":["10.32.1.0/24"],"reserve":["10.32.2.0/24"],"routes":[{"dst":"10.9.0.0/16"}],"socket":"/s"},"capabilities":{"ips":true}},
		{"type":"weavedns","inject":"off","socket":"/s"},{"type":"bandwidth"}]}`
	const want = `{"cniVersion":"0.4.0","cniVersions":["0.4.0","1.0.0"],"name":"blue","weave.managed":"` + blueID + `","disableGC":false,"plugins":[` +
		`{"type":"weave-net","mtu":1300,"socket":"/s","ipam":{"type":"weave-ipam","socket":"/s"},"capabilities":{"ips":true}},` +
		`{"type":"weavedns","inject":"off","socket":"/s"},{"type":"bandwidth"}]}`
	if got := flat(t, pattern, blue()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDriversAndInternalNetworksHaveTheirKeys(t *testing.T) {
	const plain, routeless = `{"name":"weave","plugins":[{"type":"weave-net","hairpinMode":true,"ipam":{"type":"weave-ipam"}}]}`,
		`{"name":"weave","plugins":[{"type":"weave-net","isDefaultGateway":false,"ipam":{"type":"weave-ipam"}}]}`
	const routes = `"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`
	for _, c := range []struct {
		name, pattern    string
		bridge           string
		internal         bool
		main             string
		onlyOneDefaultV4 bool
	}{
		{name: "weave", pattern: plain, main: `{"type":"weave-net","hairpinMode":true,"ipam":{"type":"weave-ipam"}}`},
		{name: "weave, internal", pattern: plain, internal: true, main: `{"type":"weave-net","isDefaultGateway":false,"hairpinMode":true,"ipam":{"type":"weave-ipam"}}`},
		{name: "weave, no default route wanted", pattern: routeless, main: `{"type":"weave-net","isDefaultGateway":false,"ipam":{"type":"weave-ipam"}}`},
		{name: "simplebridge", pattern: plain, bridge: "sb-1", main: `{"type":"simplebridge","bridge":"sb-1","isGateway":true,"hairpinMode":true,"ipam":{"type":"weave-ipam",` + routes + `}}`},
		{name: "simplebridge, internal", pattern: plain, bridge: "sb-1", internal: true,
			main: `{"type":"simplebridge","isDefaultGateway":false,"bridge":"sb-1","isGateway":true,"hairpinMode":true,"ipam":{"type":"weave-ipam"}}`},
		{name: "simplebridge, no default route wanted", pattern: routeless, bridge: "sb-1",
			main: `{"type":"simplebridge","isDefaultGateway":false,"bridge":"sb-1","isGateway":true,"ipam":{"type":"weave-ipam"}}`},
		{name: "simplebridge, IPv4 alone", pattern: plain, bridge: "sb-1", onlyOneDefaultV4: true,
			main: `{"type":"simplebridge","bridge":"sb-1","isGateway":true,"hairpinMode":true,"ipam":{"type":"weave-ipam","routes":[{"dst":"0.0.0.0/0"}]}}`},
	} {
		n := blue()
		n.Bridge, n.Internal = c.bridge, c.internal
		if c.onlyOneDefaultV4 {
			n.Subnets = n.Subnets[:1]
		}
		want := `{"name":"blue","weave.managed":"` + blueID + `","plugins":[` + c.main + `]}`
		if got := flat(t, c.pattern, n); got != want {
			t.Errorf("%s: got\n%s, want\n%s", c.name, got, want)
		}
	}
}

func TestThePatternStaysAsItWas(t *testing.T) {
	p := parse(t, string(read(t, "../../conflist/10-weave.conflist")))
	before := string(p.Encode())
	n := blue()
	n.Bridge = "sb-1"
	if _, err := p.Derive(n); err != nil || string(p.Encode()) != before {
		t.Errorf("%v\n%s", err, p.Encode())
	}
	if p.ManagedID() != "" {
		t.Error("the operator's list passes for the router's")
	}
}

func TestLibcniLoadsADerivedList(t *testing.T) {
	n := blue()
	n.Bridge = "sb-1"
	d, err := parse(t, string(read(t, "../../conflist/10-weave.conflist"))).Derive(n)
	if err != nil {
		t.Fatal(err)
	}
	l, err := libcni.NetworkConfFromBytes(d.Encode())
	if err != nil || l.Name != "blue" || len(l.Plugins) != 3 || l.Plugins[0].Network.Type != "simplebridge" || !l.Plugins[0].Network.Capabilities["ips"] {
		t.Errorf("got %+v, %v", l, err)
	}
}

func TestWhatIsNoPatternIsRefusedInWords(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"n","plugins":[{"type":"bridge","ipam":{"type":"weave-ipam"}}]}`:            `"bridge", want weave-net`,
		`{"name":"n","plugins":[{"type":"weave-net"}]}`:                                      "ipam",
		`{"name":"n","plugins":[{"type":"weave-net","mtu":1,"mtu":2,"ipam":{}}]}`:            `"mtu" occurs twice`,
		`{"name":"n","plugins":[{"type":"weave-net","ipam":{"type":"a","type":"weave-a"}}]}`: `"type" occurs twice`,
	} {
		if _, err := parse(t, text).Derive(blue()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	bad := blue()
	bad.Name = "a/b"
	if _, err := parse(t, `{"name":"n","plugins":[{"type":"weave-net","ipam":{}}]}`).Derive(bad); err == nil {
		t.Error("a name that no runtime takes was taken")
	}
}

func FuzzDerive(f *testing.F) {
	f.Add([]byte(`{"name":"weave","plugins":[{"type":"weave-net","hairpinMode":true,"ipam":{"type":"weave-ipam"}}]}`), "blue", "sb-1", true)
	f.Add([]byte(`{"name":"weave","weave.managed":3,"plugins":[{"type":"weave-net","ipam":{"routes":null}},{"type":"x"}]}`), "b", "", false)
	f.Fuzz(func(t *testing.T, text []byte, name, bridge string, internal bool) {
		l, err := Parse(text)
		if err != nil {
			return
		}
		d, err := l.Derive(Network{Name: name, ID: blueID, Subnets: blue().Subnets, Bridge: bridge, Internal: internal})
		if err != nil {
			return
		}
		again, err := Parse(d.Encode())
		if err != nil || again.Name() != name || again.ManagedID() != blueID {
			t.Errorf("%q gives %q: %v", text, d.Encode(), err)
		}
	})
}
