package endpoint

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func said(yes bool) *bool { return &yes }

func at(prefix string) Endpoint {
	return Endpoint{Prefix: netip.MustParsePrefix(prefix), Addr: true}
}

func within(prefix string) Endpoint { return Endpoint{Prefix: netip.MustParsePrefix(prefix)} }

func TestEndpointsAreReadAsTheyAreMeant(t *testing.T) {
	for text, want := range map[string]Endpoint{
		"weave://":                                           {},
		"weave://?":                                          {},
		"WEAVE://net1":                                       {Network: "net1"},
		"weave://net1":                                       {Network: "net1"},
		"weave://net%31":                                     {Network: "net1"},
		"weave://10.2":                                       {Network: "10.2"}, // looks like an address and is none
		"weave://10.2.45.3.":                                 {Network: "10.2.45.3."},
		"weave://10.2.67.0/24":                               within("10.2.67.0/24"),
		"weave://10.2.45.3/24":                               at("10.2.45.3/24"),
		"weave://10.2.45.3/32":                               at("10.2.45.3/32"),
		"weave://10.2.45.2/31":                               within("10.2.45.2/31"),
		"weave://10.2.45.3/31":                               at("10.2.45.3/31"),
		"weave://fd00::5/64":                                 at("fd00::5/64"),
		"weave://[fd00::5]/64":                               at("fd00::5/64"),
		"weave://FD00:0::/64":                                within("fd00::/64"),
		"weave://[fd00::]/64":                                within("fd00::/64"),
		"weave://fd00::ffff/112":                             at("fd00::ffff/112"), // IPv6 has no broadcast address
		"weave://?dns=no":                                    {DNS: said(false)},
		"weave://net1?alias=db&dns=no":                       {Network: "net1", DNS: said(false)},
		"weave://net1?dns%3Dno&alias%3Ddb":                   {Network: "net1", DNS: said(false)},
		"weave://?port=a:1&dns=no&txt=a":                     {DNS: said(false)},
		"weave://?dns=yes&alias=Web.":                        {DNS: said(true), Aliases: []string{"web"}},
		"weave://net1?alias=web&alias=db&alias=web":          {Network: "net1", Aliases: []string{"web", "db"}},
		"weave://net1?alias%3Dweb&dns%3Dyes":                 {Network: "net1", Aliases: []string{"web"}, DNS: said(true)},
		"weave://" + strings.Repeat("a", MaxNetwork):         {Network: strings.Repeat("a", MaxNetwork)},
		"weave://net1?alias=a_b.c-d&alias=%77eb":             {Network: "net1", Aliases: []string{"a_b.c-d", "web"}},
		"weave://10.2.45.3/24?alias=web&alias=db":            {Prefix: netip.MustParsePrefix("10.2.45.3/24"), Addr: true, Aliases: []string{"web", "db"}},
		"weave://x?alias=" + strings.Repeat("a.", 126) + "a": {Network: "x", Aliases: []string{strings.Repeat("a.", 126) + "a"}},
	} {
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
		bare, err := ParseBare(text[len(Scheme):])
		if err != nil || !reflect.DeepEqual(bare, want) {
			t.Errorf("%q without %s: got %+v, %v, want %+v", text, Scheme, bare, err, want)
		}
		if both, err := ParseBare(text); err != nil || !reflect.DeepEqual(both, want) {
			t.Errorf("%q as a bare one: got %+v, %v", text, both, err)
		}
	}
}

func TestWhatIsNoEndpointIsRefusedInWordsWithAnExample(t *testing.T) {
	for text, words := range map[string]string{
		"":                                              "does not begin with weave://",
		"net1":                                          "does not begin with weave://",
		"http://net1":                                   "does not begin with weave://",
		"weave:/net1":                                   "does not begin with weave://",
		"weave://user@net1":                             "no user",
		"weave://user:secret@net1":                      "no user",
		"weave://net1:80":                               "no port",
		"weave://10.2.45.3:80":                          "no port",
		"weave://net1/":                                 "no path",
		"weave://net1/web":                              "no path",
		"weave:///":                                     "no path",
		"weave://10.2.45.0/24/":                         "no path",
		"weave://10.2.45.0/":                            "no path",
		"weave://..%2fetc":                              "letters, digits",
		"weave://net1#x":                                "no fragment",
		"weave://10.2.45.3":                             "needs the length of its subnet, weave://10.2.45.3/24",
		"weave://[fd00::5]":                             "needs the length of its subnet, weave://fd00::5/64",
		"weave://fd00::5":                               "needs the length",
		"weave://10.2.45.3/33":                          `"33" is no length`,
		"weave://10.2.45.3/024":                         `"024" is no length`,
		"weave://10.2.45.3/-1":                          "is no length",
		"weave://10.2.45.3/255.255.255.0":               "is no length",
		"weave://010.2.45.3/24":                         "no path",
		"weave://fe80::1%25eth0/64":                     "no zone",
		"weave://fd00::5%25eth0":                        "no zone",
		"weave://fe80::1/64":                            "no address of a container",
		"weave://127.0.0.1/8":                           "no address of a container",
		"weave://224.0.0.1/24":                          "no address of a container",
		"weave://0.0.0.0/0":                             "no address of a container",
		"weave://::ffff:10.2.45.3/120":                  "write an address of IPv4 as one: 10.2.45.3",
		"weave://10.2.45.255/24":                        "10.2.45.255 is the last address of 10.2.45.0/24",
		"weave://[10.2.45.3]/24":                        "is no length",
		"weave://-net":                                  "letters, digits",
		"weave://nét":                                   "letters, digits",
		"weave://net 1":                                 "letters, digits",
		"weave://net\x00":                               "letters, digits",
		"weave://net%":                                  "two hexadecimal digits",
		"weave://net%zz":                                "two hexadecimal digits",
		"weave://net%C3%A9":                             "letters, digits",
		"weave://net1?colour=red":                       `no option "colour", only alias=NAME, port=SERVICE:PORT, txt=TEXT and dns=yes|no`,
		"weave://net1?Alias=web":                        `no option "Alias"`,
		"weave://net1?alias=web&":                       `no option ""`,
		"weave://net1?alias":                            `alias ""`,
		"weave://net1?alias=-web":                       `alias "-web"`,
		"weave://net1?alias=a..b":                       `alias "a..b"`,
		"weave://net1?alias=we b":                       "alias",
		"weave://net1?alias=web%26dns=no":               "alias",
		"weave://net1?alias=a%":                         "two hexadecimal digits",
		"weave://net1?alias=a+b":                        "alias",
		"weave://net1?dns=maybe":                        "dns=maybe: want dns=yes or dns=no",
		"weave://net1?dns":                              "want dns=yes or dns=no",
		"weave://net1?dns=no&dns=no":                    "twice",
		"weave://net1?dns=no&alias=a..b":                `alias "a..b"`,
		"weave://net1?alias=" + strings.Repeat("a", 64): "can be no name",
		"weave://" + strings.Repeat("a", MaxNetwork+1):  "at most 64 characters",
		"weave://" + strings.Repeat("a", MaxText):       "at most 4096",
	} {
		e, err := Parse(text)
		if err == nil {
			t.Errorf("%q is taken for %+v", text, e)
			continue
		}
		if got := err.Error(); !strings.Contains(got, words) || !strings.Contains(got, "want one like weave://net1") {
			t.Errorf("%q: %s; want words %q", text, got, words)
		} else if len(got) > 500 || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%.40q: %q is no message", text, got)
		}
		if !reflect.DeepEqual(e, Endpoint{}) {
			t.Errorf("%q is refused and gives %+v", text, e)
		}
	}
	for _, text := range []string{"http://net1", "weave:net1", "Weave:/net1", "net1:80", "10.2.45.3", "net1/x"} {
		if e, err := ParseBare(text); err == nil {
			t.Errorf("bare %q is taken for %+v", text, e)
		}
	}
}

func TestMoreAliasesThanTheBoundAreRefused(t *testing.T) {
	var some []string
	for i := range MaxAliases {
		some = append(some, "alias=a"+strings.Repeat("b", i))
	}
	text := "weave://?" + strings.Join(some, "&")
	if e, err := Parse(text); err != nil || len(e.Aliases) != MaxAliases {
		t.Errorf("got %d, %v", len(e.Aliases), err)
	}
	if _, err := Parse(text + "&alias=a"); err != nil {
		t.Errorf("one that is there already: %v", err)
	}
	if _, err := Parse(text + "&alias=more"); err == nil || !strings.Contains(err.Error(), "more than 32 aliases") {
		t.Errorf("got %v", err)
	}
}

func TestAnEndpointIsWrittenAsItIsRead(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "weave://",
		"net1":                                 "weave://net1",
		"[FD00::5]/64":                         "weave://fd00::5/64",
		"10.2.67.0/24?alias=B&alias=a&dns=yes": "weave://10.2.67.0/24?alias=b&alias=a&dns=yes",
		"?dns=no":                              "weave://?dns=no",
		"?port=HTTP:80&txt=a b;c=d&port=dns:53/UDP&port=http:80/tcp": "weave://?port=http:80/tcp&port=dns:53/udp&txt=a%20b%3Bc%3Dd",
	} {
		e, err := ParseBare(text)
		if err != nil || e.String() != want {
			t.Errorf("%q: got %s, %v", text, e, err)
		}
	}
	e := Endpoint{Network: "net1", Aliases: []string{"web"}, DNS: said(true)}
	if e.Place() != "weave://net1" || e.Arg() != "weave://net1?alias%3Dweb&dns%3Dyes" {
		t.Errorf("got %s, %s", e.Place(), e.Arg())
	}
}

func TestTheEndsOfAPrefixAreNobodys(t *testing.T) {
	for text, want := range map[string]bool{
		"10.2.45.0/24 10.2.45.0": true, "10.2.45.0/24 10.2.45.255": true, "10.2.45.0/24 10.2.45.1": false, "10.2.45.0/24 10.2.46.0": false,
		"10.2.45.0/31 10.2.45.0": false, "10.2.45.0/32 10.2.45.0": false, "10.2.45.0/30 10.2.45.3": true,
		"fd00::/64 fd00::": true, "fd00::/64 fd00::ffff:ffff:ffff:ffff": false, "fd00::/127 fd00::": false, "fd00::/64 10.2.45.0": false,
		"224.0.0.0/3 255.255.255.255": true, // behind it is no address
	} {
		p, a, _ := strings.Cut(text, " ")
		if got := ends(netip.MustParsePrefix(p), netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"weave://", "net1", "weave://10.2.67.0/24", "weave://10.2.45.3/24?alias=web&alias=db", "weave://[fd00::5]/64?dns=no",
		"weave://net1?alias=db&dns=no", "weave://?port=http:80&port%3Ddns:53/udp&txt=a%20b%3Bc%3D%26", "weave://?port=:&txt=", "?port=a:1/&txt=%ff",
		"weave://net%31?alias%3Dweb", "weave://user@net1:80/x#y", "weave://[::1%25lo]/64", "weave://\xff?alias=\xff", "weave://a?alias=%26&dns=yes",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseBare(text)
		strict, strictErr := Parse(text)
		if strictErr == nil && (err != nil || !reflect.DeepEqual(e, strict)) {
			t.Fatalf("%q: %+v, and bare %+v, %v", text, strict, e, err)
		}
		if err != nil {
			if !reflect.DeepEqual(e, Endpoint{}) || len(err.Error()) > 2000 {
				t.Fatalf("%q: %+v, %v", text, e, err)
			}
			return
		}
		if e.Network != "" && e.Prefix.IsValid() || e.Addr && ends(e.Prefix, e.Prefix.Addr()) || !e.Addr && e.Prefix.IsValid() && e.Prefix != e.Prefix.Masked() {
			t.Fatalf("%q: %+v", text, e)
		}
		for _, s := range []string{e.String(), e.Arg()} {
			again, err := Parse(s)
			if err != nil || !reflect.DeepEqual(again, e) {
				t.Fatalf("%q: %+v, written as %q: %+v, %v", text, e, s, again, err)
			}
		}
		if strings.ContainsAny(e.Arg(), "=; ") {
			t.Fatalf("%q: %q is no value of CNI_ARGS", text, e.Arg())
		}
	})
}

func TestPortsAndTextsThatCannotBeAreRefused(t *testing.T) {
	for option, want := range map[string]string{
		"port=80": "want a service", "port=:80": "want a service", "port=80:80": "want a service", "port=a.b:80": "want a service", "port=a_b:80": "want a service",
		"port=a--b:1": "want a service", "port=abcdefghijklmnop:1": "want a service", "port=http": "number of a port", "port=http:0": "number of a port",
		"port=http:65536": "number of a port", "port=http:80/icmp": "only /tcp", "port=http:80/": "only /tcp", "txt=": "want a text", "txt=%ff": "want a text",
		"txt=" + strings.Repeat("x", 256): "want a text", "dns=no&port=80": "want a service", "dns=no&txt=": "want a text",
	} {
		if e, err := Parse("weave://?" + option); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v", option, e, err)
		}
	}
	many := "weave://?txt=x0"
	for i := range 40 {
		many += fmt.Sprintf("&port=a:%d", i+1)
	}
	if _, err := Parse(many); err == nil || !strings.Contains(err.Error(), "more than 32 ports") {
		t.Errorf("got %v", err)
	}
	many = "weave://?txt=x"
	for i := range 16 {
		many += fmt.Sprint("&txt=", i)
	}
	if _, err := Parse(many); err == nil || !strings.Contains(err.Error(), "more than 16 texts") {
		t.Errorf("got %v", err)
	}
}
