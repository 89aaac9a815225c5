package cniconf

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"
)

const result100 = `{"cniVersion":"1.0.0","interfaces":[{"name":"br"},{"name":"eth0","sandbox":"/run/netns/x","mtu":1400}],
	"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1","interface":1},{"address":"fd00::2/64","gateway":"fd00::1","interface":1}],
	"routes":[{"dst":"10.9.0.0/16"},{"dst":"10.8.0.0/16","gw":"10.1.0.7","mtu":1300,"table":0}],"dns":{"nameservers":["10.1.0.1"]}}`

func TestResultsOfEveryVersionAreRead(t *testing.T) {
	for _, version := range supported() {
		text := strings.Replace(result100, "1.0.0", version, 1)
		if version < "1" {
			text = strings.NewReplacer(`{"address":"10.`, `{"version":"4","address":"10.`, `{"address":"fd`, `{"version":"6","address":"fd`).Replace(text)
		}
		r, err := DecodeResult([]byte(text), "0.1.0")
		if err != nil {
			t.Errorf("%s: %v", version, err)
			continue
		}
		want := []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00::2/64")}
		if got := Addresses(r, "eth0"); !slices.Equal(got, want) || len(r.Routes) != 2 || len(r.DNS.Nameservers) != 1 {
			t.Errorf("%s: got %v, %d routes, dns %v", version, got, len(r.Routes), r.DNS)
		}
	}
}

func TestAResultWithoutAVersionHasThatOfTheConfiguration(t *testing.T) {
	r, err := DecodeResult([]byte(strings.Replace(result100, `"cniVersion":"1.0.0",`, "", 1)), "1.0.0")
	if err != nil || len(r.IPs) != 2 {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestABrokenResultIsAnErrorNotAPanic(t *testing.T) {
	for _, text := range []string{
		"", "null", "7", "[]", "{}x", `{"cniVersion":"9.9.9"}`, `{"cniVersion":7}`,
		`{"cniVersion":"1.0.0","ips":[null]}`,
		`{"cniVersion":"1.0.0","interfaces":[null]}`,
		`{"cniVersion":"1.0.0","routes":[null]}`,
		`{"cniVersion":"0.4.0","ips":[null]}`,
		`{"cniVersion":"0.4.0","routes":[null]}`,
		`{"cniVersion":"1.0.0","ips":[{}]}`,
		`{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/24","interface":0}]}`,
		`{"cniVersion":"1.0.0","interfaces":[{"name":"a"}],"ips":[{"address":"10.0.0.1/24","interface":-1}]}`,
		`{"cniVersion":"1.0.0","interfaces":[{"name":"a"}],"ips":[{"address":"10.0.0.1/24","interface":9999999999}]}`,
		`{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/99"}]}`,
		`{"cniVersion":"1.0.0","routes":[{"dst":"10.0.0.0/8","gw":"fd00::1"}]}`,
		`{"cniVersion":"1.0.0","routes":[{}]}`,
		`{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1/8"}}`,
		`{"cniVersion":"1.0.0","ips":[` + strings.Repeat(`{"address":"10.0.0.1/24"},`, maxResultItems) + `{"address":"10.0.0.1/24"}]}`,
	} {
		if r, err := DecodeResult([]byte(text), "1.0.0"); err == nil {
			t.Errorf("%.80s: got %+v, want an error", text, r)
		}
	}
}

func parse(t *testing.T, text string) *current.Result {
	t.Helper()
	r, err := DecodeResult([]byte(text), "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDefaultRoutesAreAddedPerFamilyOnlyWhereTheyAreMissing(t *testing.T) {
	r := parse(t, result100)
	AddDefaultRoutes(r)
	AddDefaultRoutes(r) // again changes nothing
	routes, err := Routes(r)
	if err != nil || len(routes) != 4 {
		t.Fatalf("got %v, %v", routes, err)
	}
	for i, want := range []string{"10.9.0.0/16 10.1.0.1", "10.8.0.0/16 10.1.0.7", "0.0.0.0/0 10.1.0.1", "::/0 fd00::1"} {
		if got := routes[i].Dst.String() + " " + routes[i].GW.String(); got != want {
			t.Errorf("route %d: got %s, want %s", i, got, want)
		}
	}
	if routes[1].MTU != 1300 {
		t.Errorf("got %+v: the MTU of a route is lost", routes[1])
	}

	r = parse(t, `{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24"}]}`)
	if AddDefaultRoutes(r); len(r.Routes) != 0 {
		t.Errorf("got %v: a default route without a gateway", r.Routes)
	}
}

func TestGatewaysAreThoseInsideTheirPrefixOnce(t *testing.T) {
	r := parse(t, `{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"},{"address":"10.1.0.3/24","gateway":"10.1.0.1"},
		{"address":"10.2.0.3/24","gateway":"10.3.0.1"},{"address":"10.4.0.3/24"},{"address":"fd00::2/64","gateway":"fd00::1"}]}`)
	want := []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("fd00::1/64")}
	if got := Gateways(r); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzDecodeResult(f *testing.F) {
	f.Add([]byte(result100), "1.0.0")
	f.Add([]byte(strings.Replace(result100, "1.0.0", "0.4.0", 1)), "0.4.0")
	f.Add([]byte(`{"ips":[null],"interfaces":[{}],"routes":[{"dst":"::/0"}]}`), "1.1.0")
	f.Add([]byte(`{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1/8","routes":[null]}}`), "0.2.0")
	f.Fuzz(func(t *testing.T, b []byte, version string) {
		r, err := DecodeResult(b, version)
		if err != nil {
			return
		}
		_ = Addresses(r, "eth0")
		AddDefaultRoutes(r)
		if _, err := Routes(r); err != nil {
			t.Fatalf("a checked result has a bad route: %v", err)
		}
		for _, v := range supported() {
			if _, err := r.GetAsVersion(v); err != nil {
				t.Fatalf("as %s: %v", v, err)
			}
		}
	})
}
