package cniconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

func code(err error) uint {
	var e *types.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

func decode(t *testing.T, text string) *Conf {
	t.Helper()
	c := &Conf{}
	if err := Decode([]byte(text), c); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

func TestDecodeRefusesHostileTextWithACode(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	for name, c := range map[string]struct {
		text string
		want uint
	}{
		"empty":                                  {"", 6},
		"null":                                   {"null", 6},
		"a list":                                 {"[]", 6},
		"a number":                               {"7", 6},
		"cut short":                              {`{"name":"a"`, 6},
		"two documents":                          {`{"name":"a"}{"name":"b"}`, 6},
		"rubbish behind":                         {`{"name":"a"}x`, 6},
		"byte order mark":                        {"\xef\xbb\xbf{}", 6},
		"NUL byte":                               {"{\"name\":\"a\x00\"}", 6},
		"key twice":                              {`{"name":"a","name":"b"}`, 6},
		"key twice, other case":                  {`{"name":"a","Name":"b"}`, 6},
		"key twice, long s":                      {`{"socket":"/a","ſocket":"/b"}`, 6},
		"key twice, escaped":                     {`{"name":"a","n\u0061me":"b"}`, 6},
		"key twice in a list":                    {`{"x":[{"a":1,"a":2}]}`, 6},
		"key twice in runtimeConfig, other case": {`{"runtimeConfig":{"ips":[],"IPs":[]}}`, 6},
		"very deep":                              {deep, 6},
		"name is a number":                       {`{"name":7}`, 7},
		"ipam is a list":                         {`{"ipam":[]}`, 7},
		"ipam.type is a list":                    {`{"ipam":{"type":[]}}`, 7},
		"ips is a text":                          {`{"runtimeConfig":{"ips":"10.0.0.1"}}`, 7},
		"route without an address":               {`{"ipam":{"type":"weave-ipam","routes":[{"dst":"x"}]}}`, 7},
		"aliases are a number":                   {`{"runtimeConfig":{"aliases":7}}`, 7},
		"valid-attachments a text":               {`{"cni.dev/valid-attachments":"x"}`, 7},
		"valid-attachments numbers":              {`{"cni.dev/valid-attachments":[7]}`, 7},
	} {
		err := Decode([]byte(c.text), &Conf{})
		if code(err) != c.want {
			t.Errorf("%s: got %v, want code %d", name, err, c.want)
		}
	}
}

func TestDecodeTakesUnknownKeysAndOtherPluginsIPAM(t *testing.T) {
	c := decode(t, `{"name":"a","x":{"y":[1,{"z":null}]},"ipam":{"type":"host-local","subnet":"10.1.0.1/16","routes":"mine","network":{"own":1}},
		"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"1","A":"2"}}}`)
	if c.IPAM.Type != "host-local" || c.IPAM.Subnet != "" {
		t.Errorf("got ipam %+v, want its type and nothing else", c.IPAM)
	}
	var p Problems
	if c.Check(&p); p.Err() != nil {
		t.Error(p.Err())
	}
}

func TestAHugeNumberIsAnErrorNotAWrap(t *testing.T) {
	var c struct {
		Conf
		MTU int `json:"mtu"`
	}
	for _, n := range []string{"1e400", "99999999999999999999", "1.5", `"1400"`, "-1e400"} {
		if err := Decode([]byte(`{"name":"a","mtu":`+n+`}`), &c); code(err) != 7 || !strings.Contains(err.Error(), "mtu") {
			t.Errorf("mtu %s: got %v, want code 7 that names mtu", n, err)
		}
	}
}

func TestRuntimeConfigKeysMatchInAnyCase(t *testing.T) {
	for _, text := range []string{
		`{"runtimeConfig":{"ips":["10.0.0.1"],"mac":"02:00:00:00:00:01","aliases":["a"]}}`,
		`{"RuntimeConfig":{"IPs":["10.0.0.1"],"Mac":"02:00:00:00:00:01","Aliases":["a"]}}`,
		`{"runtimeconfig":{"IPS":["10.0.0.1"],"MAC":"02:00:00:00:00:01","ALIASES":["a"]}}`,
	} {
		c := decode(t, text)
		ips, err := c.RequestedIPs(nil)
		mac, merr := c.RequestedMAC(nil)
		if err != nil || merr != nil || !slices.Equal(ips, []string{"10.0.0.1"}) || mac.String() != "02:00:00:00:00:01" || !slices.Equal(c.RuntimeConfig.Aliases.For("n"), []string{"a"}) {
			t.Errorf("%s: got %v %v %v %v %v", text, ips, err, mac, merr, c.RuntimeConfig.Aliases)
		}
	}
}

func TestAliasesTakeBothShapes(t *testing.T) {
	for text, want := range map[string][]string{
		`["a","b"]`:                   {"a", "b"},
		`{"net":["a"],"other":["b"]}`: {"a"},
		`{"other":["b"]}`:             nil,
		`[]`:                          nil,
		`{}`:                          nil,
		`null`:                        nil,
	} {
		c := decode(t, `{"runtimeConfig":{"aliases":`+text+`}}`)
		if got := c.RuntimeConfig.Aliases.For("net"); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

func TestARequestedAddressComesFromTheBestSource(t *testing.T) {
	const rc, args = `"runtimeConfig":{"ips":["10.0.0.1"]}`, `"args":{"cni":{"ips":["10.0.0.2/24"]}}`
	env := Args{"IP": "10.0.0.3, fd00::3"}
	for _, c := range []struct {
		conf string
		want []string
	}{
		{"{" + rc + "," + args + "}", []string{"10.0.0.1"}},
		{"{" + args + "}", []string{"10.0.0.2/24"}},
		{"{}", []string{"10.0.0.3", "fd00::3"}},
	} {
		got, err := decode(t, c.conf).RequestedIPs(env)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.conf, got, err, c.want)
		}
	}
}

func TestARequestedAddressMayBeRepeated(t *testing.T) { // podman network reload does so
	got, err := decode(t, `{"runtimeConfig":{"ips":["10.78.0.50","10.78.0.50/12","fd00:78::3","::ffff:10.78.0.50","FD00:78:0::3"]}}`).RequestedIPs(nil)
	if err != nil || !slices.Equal(got, []string{"10.78.0.50", "fd00:78::3"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestARequestedAddressThatNoContainerCanHaveIsRefused(t *testing.T) {
	for _, ip := range []string{"", "x", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "fe80::1", "fe80::1%eth0", "ff02::1", "::1", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1\x00", "010.0.0.1", "::ffff:10.0.0.1/100", strings.Repeat("1", 1<<20)} {
		b, _ := json.Marshal([]string{ip})
		got, err := decode(t, `{"runtimeConfig":{"ips":`+string(b)+`}}`).RequestedIPs(nil)
		if err == nil || len(err.Error()) > 200 {
			t.Errorf("%.40q: got %v, %.300v, want a short error", ip, got, err)
		}
	}
	many := strings.Repeat(`"10.0.0.1",`, maxRequested) + `"10.0.0.1"`
	if _, err := decode(t, `{"runtimeConfig":{"ips":[`+many+`]}}`).RequestedIPs(nil); err == nil {
		t.Error("more addresses than the bound were taken")
	}
}

func TestARequestedMACComesFromTheBestSource(t *testing.T) {
	c := decode(t, `{"runtimeConfig":{"mac":"02:00:00:00:00:01"},"args":{"cni":{"mac":"02:00:00:00:00:02"}}}`)
	env := Args{"MAC": "02:00:00:00:00:03"}
	if got, err := c.RequestedMAC(env); err != nil || got.String() != "02:00:00:00:00:01" {
		t.Errorf("got %v, %v", got, err)
	}
	c.RuntimeConfig.MAC = ""
	if got, err := c.RequestedMAC(env); err != nil || got.String() != "02:00:00:00:00:02" {
		t.Errorf("got %v, %v", got, err)
	}
	c.Args.CNI.MAC = ""
	if got, err := c.RequestedMAC(env); err != nil || got.String() != "02:00:00:00:00:03" {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := c.RequestedMAC(nil); err != nil || got != nil {
		t.Errorf("got %v, %v, want none", got, err)
	}
	for _, bad := range []string{"x", "01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"} {
		if got, err := c.RequestedMAC(Args{"MAC": bad}); err == nil {
			t.Errorf("%s: got %v, want an error", bad, got)
		}
	}
}

func TestCheckFindsEveryFaultAtOnce(t *testing.T) {
	c := decode(t, `{"name":"a","socket":"weave.sock","ipam":{"type":"weave-ipam","network":"../x","subnet":"10.0.0.1/8","exclude":["10.0.5.0/24","10.0.5.1/24","fd00::1%x"],"reserve":["fd00::/80","10.0.6.1/24"],"socket":"/a/../b","routes":[{"dst":"10.0.0.0/8","gw":"fd00::1"},null]}}`)
	var p Problems
	c.Check(&p)
	if len(p) != 9 || code(p.Err()) != 7 {
		t.Errorf("got %d problems, %v, want 9 in one error with code 7", len(p), p.Err())
	}
	for _, word := range []string{"socket", "ipam.network", "ipam.subnet", "ipam.exclude[1]", "ipam.exclude[2]", "ipam.reserve[1]", "ipam.socket", "routes[0]", "routes[1]"} {
		if !strings.Contains(p.Err().Error(), word) {
			t.Errorf("no word of %s in %v", word, p.Err())
		}
	}
}

func TestHostBitsAreSaidWithThePrefixThatWasMeant(t *testing.T) {
	c := decode(t, `{"name":"a","ipam":{"type":"weave-ipam","subnet":"10.40.243.9/24","exclude":["10.0.5.1/24"],"reserve":["fd00::1/64"]}}`)
	var p Problems
	c.Check(&p)
	for _, want := range []string{
		`ipam.subnet "10.40.243.9/24": has host bits set, did you mean 10.40.243.0/24?`,
		`ipam.exclude[0] "10.0.5.1/24": has host bits set, did you mean 10.0.5.0/24?`,
		`ipam.reserve[0] "fd00::1/64": has host bits set, did you mean fd00::/64?`,
	} {
		if len(p) != 3 || !strings.Contains(p.Err().Error(), want) {
			t.Errorf("%d problems, %v, want %s", len(p), p.Err(), want)
		}
	}
}

func TestTheListsOfRangesAreBoundedTogether(t *testing.T) {
	for _, c := range []struct {
		exclude, reserve int
		ok               bool
	}{{64, 0, true}, {0, 64, true}, {32, 32, true}, {65, 0, false}, {0, 65, false}, {33, 32, false}} {
		i := IPAM{Exclude: slices.Repeat([]string{"10.0.0.9"}, c.exclude), Reserve: slices.Repeat([]string{"10.0.0.10"}, c.reserve)}
		var p Problems
		i.checkRanges(&p)
		if ok := len(p) == 0; ok != c.ok || !ok && !strings.Contains(p.Err().Error(), "ipam.exclude and ipam.reserve: 65 ranges, at most 64") {
			t.Errorf("%d and %d: %v", c.exclude, c.reserve, p.Err())
		}
	}
}

func TestNoHostileTextBecomesAPath(t *testing.T) {
	hostile := []string{"../../bin/reboot", "/bin/sh", "a/b", "..", ".", "-x", " x", "x\x00", "x\n", "${X}", "$(x)", "`x`", "a;b", "%2e%2e%2f", "ａ", "\u202e", strings.Repeat("a", 4096), "weave-net", "simplebridge", "weavedns"}
	for _, s := range hostile {
		if err := CheckDelegate(s); err == nil {
			t.Errorf("ipam.type %.40q was taken", s)
		}
	}
	for _, s := range []string{"x", "./x", "/a//b", "/a/./b", "/a/../b", "/a/", "/a\x00b", "/" + strings.Repeat("a", 107)} {
		if err := checkSocket("socket", s); err == nil {
			t.Errorf("socket %.40q was taken", s)
		}
	}
	for _, s := range []string{"host-local", "weave-ipam", "static", "my_ipam.v2"} {
		if err := CheckDelegate(s); err != nil {
			t.Error(err)
		}
	}
}

func TestGCListKnowsBothKeysAndAbsenceFromEmptiness(t *testing.T) {
	one := []attachment.Key{{Network: "n", ContainerID: "c", IfName: "eth0"}}
	const list = `[{"containerID":"c","ifname":"eth0"}]`
	for _, c := range []struct {
		conf   string
		valid  []attachment.Key
		absent bool
	}{
		{`{"name":"n"}`, nil, true},
		{`{"name":"n","cni.dev/valid-attachments":null}`, nil, true},
		{`{"name":"n","cni.dev/valid-attachments":[]}`, nil, false},
		{`{"name":"n","cni.dev/attachments":[]}`, nil, false},
		{`{"name":"n","cni.dev/valid-attachments":` + list + `}`, one, false},
		{`{"name":"n","cni.dev/attachments":` + list + `}`, one, false},
		{`{"name":"n","cni.dev/valid-attachments":` + list + `,"cni.dev/attachments":[]}`, one, false},
		{`{"name":"n","cni.dev/valid-attachments":` + list + `,"cni.dev/attachments":` + list + `}`, one, false},
	} {
		valid, absent, err := decode(t, c.conf).GCList()
		if err != nil || !slices.Equal(valid, c.valid) || absent != c.absent {
			t.Errorf("%s: got %v, absent %v, %v", c.conf, valid, absent, err)
		}
	}
	if _, _, err := decode(t, `{"name":"n","cni.dev/valid-attachments":[{"containerID":"../x","ifname":"eth0"}]}`).GCList(); code(err) != 7 {
		t.Errorf("got %v, want code 7", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.0.0","name":"weave","type":"weave-net","ipam":{"type":"weave-ipam","subnet":"10.32.4.0/24","exclude":["10.32.4.7","fd00::/80"],"reserve":["10.32.4.8/29"],"routes":[{"dst":"0.0.0.0/0"}]}}`,
		`{"runtimeConfig":{"IPs":["10.0.0.1/8"],"Aliases":{"weave":["a"]},"MAC":"02:00:00:00:00:01"},"args":{"cni":{"ips":["fd00::1"],"mac":""}}}`,
		`{"name":"n","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}],"cni.dev/attachments":[]}`,
		`{"prevResult":{"ips":[null]}}`, `{"a":1,"a":2}`, `{"a":[[[{}]]]}`, "{}x", "\xef\xbb\xbf{}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Conf
		if err := Decode(b, &c); err != nil {
			if n := code(err); n != 6 && n != 7 {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		var p Problems
		c.Check(&p)
		_ = p.Err()
		if ips, err := c.RequestedIPs(Args{"IP": string(b[:min(len(b), 64)])}); err == nil {
			for _, ip := range ips {
				if _, _, err := parseIP(ip); err != nil {
					t.Fatalf("%q is not in its own form: %v", ip, err)
				}
			}
		}
		_, _ = c.RequestedMAC(nil)
		_, _, _ = c.GCList()
		if r, err := c.Prev(); err == nil {
			_ = Addresses(r, "eth0")
			_ = Gateways(r)
			AddDefaultRoutes(r)
			if _, err := Routes(r); err != nil {
				t.Fatalf("a checked result has a bad route: %v", err)
			}
		}
	})
}

func TestAThousandProblemsMakeAShortError(t *testing.T) {
	c := decode(t, `{"name":"a","ipam":{"type":"weave-ipam","routes":[`+strings.Repeat(`null,`, 1000)+`null]}}`)
	var p Problems
	c.Check(&p)
	if err := p.Err(); len(err.Error()) > 1000 || !strings.HasSuffix(err.Error(), "and 985 more") {
		t.Errorf("got %d bytes: %.100s … %s", len(err.Error()), err, err.Error()[max(0, len(err.Error())-40):])
	}
}

func TestProblemsReadAsOneSentence(t *testing.T) {
	var p Problems
	p.Check(nil)
	if p.Err() != nil {
		t.Error("an error without a problem")
	}
	p.Add("mtu %d: too small", 1)
	p.Check(fmt.Errorf("bridge: no name"))
	if got := p.Err().Error(); got != "invalid network configuration; mtu 1: too small; bridge: no name" {
		t.Errorf("got %q", got)
	}
}
