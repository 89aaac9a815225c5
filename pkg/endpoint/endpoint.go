// Package endpoint reads and writes endpoints: how a person says in one word to
// which network a container goes, and at which address.
//
//	weave://                      the network that is meant without saying so
//	weave://net1                  a network, by its name or id
//	weave://10.2.67.0/24          some address of that subnet
//	weave://10.2.45.3/24          that address, with that length
//	weave://fd00::5/64            likewise; also weave://[fd00::5]/64
//	weave://net1?alias=db&dns=no  with options
//
// A prefix says which network by being inside one of its ranges, and its length is
// that of the container's interface. Which network it is knows the router.
//
// The package is pure: no I/O, no clock, no log.
package endpoint

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// Limits of a text.
const (
	MaxText    = 4096 // bytes
	MaxNetwork = 64   // bytes of a name, and the digits of an id
	MaxAliases = 32

	MaxServices = 32
	MaxTexts    = 16
	MaxTXT      = 255 // bytes of one: a string of DNS

	MaxServiceName = 15 // characters (RFC 6335)
)

// Scheme is what an endpoint begins with.
const Scheme = "weave://"

// examples is how each refusal ends: whoever reads it knows what to write.
const examples = "want one like weave://net1, weave://10.2.67.0/24 or weave://10.2.45.3/24?alias=web"

// Endpoint is where a container is to be attached. At most one of Network and Prefix
// is set; the zero Endpoint is "weave://".
type Endpoint struct {
	Network string       // a name, or an id or the beginning of one; "" when none is named
	Prefix  netip.Prefix // with Addr the address and its length, else a subnet, masked
	Addr    bool         // that very address is asked for, not some address of Prefix

	// What DNS is to tell of the container: nothing where DNS is false, whatever the text
	// has. An alias of a container without names is no mistake to stop it for: whoever
	// switches a container's names off by one more option need not take others out.
	Aliases  []string  // more names for the container, each once, as DNS compares them
	Services []Service // ports that it offers, each once
	Texts    []string  // what DNS tells of it in words, each once

	DNS *bool // names and resolver: false for neither; nil where nothing is said
}

// Parse reads an endpoint that begins with weave://. Its errors are for a person: they
// say what is wrong, and show a right one.
func Parse(text string) (Endpoint, error) {
	rest, ok := cutScheme(text)
	if !ok {
		return Endpoint{}, refuse(text, "it does not begin with "+Scheme)
	}
	return parse(text, rest)
}

// ParseBare is Parse that also takes the text without weave://, as in "net1" and
// "10.2.45.3/24". Nothing at all is "weave://".
func ParseBare(text string) (Endpoint, error) {
	rest, ok := cutScheme(text)
	switch {
	case ok:
	case strings.Contains(text, "://"), len(text) > 5 && strings.EqualFold(text[:6], "weave:"):
		return Endpoint{}, refuse(text, "it does not begin with "+Scheme)
	default:
		rest = text
	}
	return parse(text, rest)
}

// cutScheme cuts weave:// off, in any case of letters, as schemes are.
func cutScheme(text string) (rest string, ok bool) {
	if len(text) < len(Scheme) || !strings.EqualFold(text[:len(Scheme)], Scheme) {
		return "", false
	}
	return text[len(Scheme):], true
}

func parse(text, rest string) (Endpoint, error) {
	if len(text) > MaxText {
		return Endpoint{}, refuse(text, fmt.Sprintf("it has %d bytes, at most %d are taken", len(text), MaxText))
	}
	where, options, _ := strings.Cut(rest, "?")
	var e Endpoint
	wrong := e.setWhere(where)
	if wrong == "" {
		wrong = e.setOptions(options)
	}
	if wrong != "" {
		return Endpoint{}, refuse(text, wrong)
	}
	return e, nil
}

func refuse(text, wrong string) error {
	return fmt.Errorf("endpoint %q: %s; %s", clip(text), wrong, examples)
}

// setWhere reads what stands before the options, and says what is wrong with it.
func (e *Endpoint) setWhere(where string) (wrong string) {
	if where == "" {
		return ""
	}
	if p, err := netip.ParsePrefix(unbracket(where)); err == nil {
		return e.setPrefix(p)
	}
	if a, err := netip.ParseAddr(strings.Trim(where, "[]")); err == nil {
		return whyNoAddr(a)
	}
	name, err := url.PathUnescape(where)
	if err != nil {
		return "a % stands before two hexadecimal digits"
	}
	if wrong := whyNoName(where, name); wrong != "" {
		return wrong
	}
	e.Network = name
	return ""
}

// unbracket takes the brackets off an address of IPv6 as URLs have it, [fd00::5]/64.
func unbracket(where string) string {
	inside, ok := strings.CutPrefix(where, "[")
	a, rest, closed := strings.Cut(inside, "]")
	if !ok || !closed || !strings.Contains(a, ":") {
		return where
	}
	return a + rest
}

// whyNoName says why a text can be neither prefix nor network; "" when it is a name.
// raw is the text before its percent signs were taken off.
func whyNoName(raw, name string) string {
	switch {
	case strings.Contains(raw, "@"):
		return "it takes no user or password"
	case strings.Contains(raw, "#"):
		return "it takes no fragment (#)"
	case strings.Contains(raw, "/"):
		return whyNoPrefix(raw)
	case strings.Contains(raw, ":"):
		return "it takes no port, and an address needs its length"
	case len(name) > MaxNetwork:
		return fmt.Sprintf("the name of a network has at most %d characters, this has %d", MaxNetwork, len(name))
	case !validName(name):
		return "a network is named by letters, digits, '_', '.' and '-', the first a letter or digit"
	}
	return ""
}

// whyNoAddr says what an address without a length lacks.
func whyNoAddr(a netip.Addr) string {
	if a.Zone() != "" {
		return "an address takes no zone"
	}
	length := 24
	if a.Is6() {
		length = 64
	}
	return fmt.Sprintf("an address needs the length of its subnet, %s%s/%d for one (a network of such a name is to be had by its id)", Scheme, a, length)
}

// whyNoPrefix says what is wrong with a text that has a slash.
func whyNoPrefix(raw string) string {
	at, length, _ := strings.Cut(raw, "/")
	a, err := netip.ParseAddr(strings.Trim(at, "[]"))
	switch {
	case err != nil || length == "" || strings.Contains(length, "/"):
		return "behind a name no path may stand, and behind an address its length only"
	case a.Zone() != "":
		return whyNoAddr(a)
	}
	return fmt.Sprintf("%q is no length of that address's subnet", clip(length))
}

func (e *Endpoint) setPrefix(p netip.Prefix) (wrong string) {
	a := p.Addr()
	switch {
	case a.Is4In6():
		return fmt.Sprintf("write an address of IPv4 as one: %s", a.Unmap())
	case !a.IsGlobalUnicast():
		return fmt.Sprintf("%s is no address of a container", a)
	case p == p.Masked() && !p.IsSingleIP():
		e.Prefix = p
		return ""
	case ends(p, a):
		return fmt.Sprintf("%s is the last address of %s, which nobody may have", a, p.Masked())
	}
	e.Prefix, e.Addr = p, true
	return ""
}

// ends reports whether an address is one that nobody may have on an interface with a
// prefix's length: the prefix's first, and of IPv4 its last, which is its broadcast
// address. A prefix of one or two addresses has none such.
func ends(p netip.Prefix, a netip.Addr) bool {
	if a.BitLen()-p.Bits() < 2 || a.BitLen() != p.Addr().BitLen() || !p.Contains(a) {
		return false
	}
	first := p.Masked().Addr()
	return a == first || a.Is4() && !p.Contains(a.Next())
}

// setOptions reads "alias=web&dns=no". A '=' may be written %3D, for those who can
// have none in a value of CNI_ARGS.
func (e *Endpoint) setOptions(options string) (wrong string) {
	if options == "" {
		return ""
	}
	for part := range strings.SplitSeq(options, "&") {
		option, err := url.PathUnescape(part)
		if err != nil {
			return fmt.Sprintf("option %q: a %% stands before two hexadecimal digits", clip(part))
		}
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "alias":
			wrong = e.addAlias(value)
		case "dns":
			wrong = e.setDNS(value)
		case "port":
			wrong = e.addService(value)
		case "txt":
			wrong = e.addText(value)
		default:
			return fmt.Sprintf("there is no option %q, only alias=NAME, port=SERVICE:PORT, txt=TEXT and dns=yes|no", clip(key))
		}
		if wrong != "" {
			return wrong
		}
	}
	if e.DNS != nil && !*e.DNS {
		e.Aliases, e.Services, e.Texts = nil, nil, nil
	}
	return ""
}

func (e *Endpoint) addAlias(value string) (wrong string) {
	name := strings.ToLower(strings.TrimSuffix(value, "."))
	if !ValidAlias(name) {
		return fmt.Sprintf("alias %q can be no name: want parts of letters, digits, '-' and '_' with dots between", clip(value))
	}
	return addOnce(&e.Aliases, name, MaxAliases, "aliases")
}

func (e *Endpoint) setDNS(value string) (wrong string) {
	switch {
	case e.DNS != nil:
		return "dns stands there twice"
	case value != "yes" && value != "no":
		return fmt.Sprintf("dns=%s: want dns=yes or dns=no", clip(value))
	}
	yes := value == "yes"
	e.DNS = &yes
	return ""
}

// ValidAlias accepts a name as DNS compares it: lower case, without a trailing dot, of
// labels as RFC 1123 has them, and '_', which podman's and compose's names have.
func ValidAlias(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}

func validName(s string) bool {
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '_' && r != '.' && r != '-') {
			return false
		}
	}
	return s != ""
}

// Somewhere reports whether the endpoint says where, and not only options.
func (e Endpoint) Somewhere() bool { return e.Network != "" || e.Prefix.IsValid() }

// HasOptions reports whether the endpoint says more than where.
func (e Endpoint) HasOptions() bool {
	return e.DNS != nil || len(e.Aliases)+len(e.Services)+len(e.Texts) > 0
}

// Place is the endpoint without its options, which are the business of names.
func (e Endpoint) Place() string {
	if e.Prefix.IsValid() {
		return Scheme + e.Prefix.String()
	}
	return Scheme + e.Network
}

// String is the text that Parse reads the same endpoint from.
func (e Endpoint) String() string {
	var options []string
	for _, a := range e.Aliases {
		options = append(options, "alias="+a)
	}
	for _, s := range e.Services {
		options = append(options, "port="+s.String())
	}
	for _, t := range e.Texts {
		options = append(options, "txt="+strings.ReplaceAll(url.QueryEscape(t), "+", "%20"))
	}
	switch {
	case e.DNS != nil && *e.DNS:
		options = append(options, "dns=yes")
	case e.DNS != nil:
		options = append(options, "dns=no")
	case len(options) == 0:
		return e.Place()
	}
	return e.Place() + "?" + strings.Join(options, "&")
}

// Arg is String for a value of CNI_ARGS: cnitool, and plugins that read CNI_ARGS with
// CNI's own library, take no '=' in one.
func (e Endpoint) Arg() string { return strings.ReplaceAll(e.String(), "=", "%3D") }

// clip keeps foreign text in a message short.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
