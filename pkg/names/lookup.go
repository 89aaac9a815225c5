package names

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Found is what a lookup was answered.
type Found struct {
	Name   string // that was answered, whole, without a trailing dot
	Rcode  string // "NOERROR", "NXDOMAIN", …
	Source Source
	Answer []Answer
}

// Answer is one record of an answer.
type Answer struct {
	Name string
	Type string // "A"
	TTL  uint32 // seconds
	Data string // as dig shows it
}

// Source says whose an answer is.
type Source string

// ErrUnreadable is of an upstream's answer, which is no fault of what was asked.
var ErrUnreadable = errors.New("the answer cannot be read")

// The sources.
const (
	FromHere     Source = "weave"
	FromUpstream Source = "upstream"
	FromNobody   Source = "none" // the network is internal
)

// itself is who asks when the router does.
var itself = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)

// Lookup asks as a container of a network would that has the domain as its search domain:
// a name as it is, and where that leads to nothing with the domain behind it, unless it
// ends with a dot. typ "" is what fits: PTR for an address, SRV for a service, else A and
// AAAA. Of from only the network and whether that is internal counts: nothing has to
// listen for it, nor Run to run.
func (s *Server) Lookup(ctx context.Context, from Listener, name, typ string) (Found, error) {
	qtype, known := dns.StringToType[strings.ToUpper(typ)]
	if typ != "" && !known {
		return Found{}, fmt.Errorf("no record type is called %q", clip(typ))
	}
	if a, err := netip.ParseAddr(name); err == nil {
		arpa, err := dns.ReverseAddr(a.Unmap().WithZone("").String())
		if err != nil {
			return Found{}, err
		}
		return s.lookup(ctx, from, arpa, dns.TypePTR)
	}
	if err := askable(name); err != nil {
		return Found{}, err
	}
	types := []uint16{qtype}
	switch {
	case qtype == 0 && isService(strings.ToLower(name)):
		types = []uint16{dns.TypeSRV}
	case qtype == 0:
		types = []uint16{dns.TypeA, dns.TypeAAAA}
	}
	f, err := s.lookup(ctx, from, dns.Fqdn(name), types...)
	inside := strings.HasSuffix("."+strings.ToLower(strings.TrimSuffix(name, ".")), "."+s.resolver.domain)
	if err != nil || len(f.Answer) > 0 || strings.HasSuffix(name, ".") || inside {
		return f, err
	}
	whole := name + "." + s.resolver.domain
	if askable(whole) != nil {
		return f, nil
	}
	searched, err := s.lookup(ctx, from, dns.Fqdn(whole), types...)
	if err != nil || searched.Rcode != rcodeSuccess || f.Rcode == rcodeSuccess && len(searched.Answer) == 0 {
		return f, nil
	}
	return searched, nil
}

var rcodeSuccess = dns.RcodeToString[dns.RcodeSuccess]

// askable says why a name cannot be put in a question.
func askable(name string) error {
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxName {
		return fmt.Errorf("name %q… has %d characters, DNS takes %d", clip(name), len(name), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return fmt.Errorf("name %q: empty, or two dots in a row", clip(name))
		case len(label) > maxLabel:
			return fmt.Errorf("name %q: a part has %d characters, DNS takes %d", clip(name), len(label), maxLabel)
		}
	}
	return nil
}

// lookup puts one question for each type. What one of them finds stands, whatever becomes
// of the next: some servers deny a name when they are asked for a type that it does not have.
func (s *Server) lookup(ctx context.Context, from Listener, name string, types ...uint16) (Found, error) {
	f := Found{Name: strings.TrimSuffix(name, ".")}
	for _, t := range types {
		m, source, err := s.put(ctx, from, new(dns.Msg).SetQuestion(name, t))
		if err != nil {
			return Found{}, fmt.Errorf("look %s up: %w", name, err)
		}
		if m.Rcode != dns.RcodeSuccess && len(f.Answer) > 0 {
			break
		}
		f.Rcode, f.Source, f.Answer = dns.RcodeToString[m.Rcode], source, append(f.Answer, answersOf(m)...)
		if m.Rcode != dns.RcodeSuccess {
			break
		}
	}
	return f, nil
}

func answersOf(m *dns.Msg) (out []Answer) {
	for _, rr := range m.Answer {
		h := rr.Header()
		out = append(out, Answer{h.Name, dns.Type(h.Rrtype).String(), h.Ttl, strings.TrimPrefix(rr.String(), h.String())})
	}
	return out
}

// put has the server answer a question.
func (s *Server) put(ctx context.Context, from Listener, question *dns.Msg) (*dns.Msg, Source, error) {
	msg, err := question.Pack()
	if err != nil {
		return nil, "", err
	}
	var q query
	source := FromHere
	out, o := s.serve(nil, msg, &q, true, scope{from.Network, strings.ToLower(from.Network)})
	if o == forward {
		if source = FromUpstream; from.Internal {
			source = FromNobody
		}
		out = s.forwardTCP(ctx, itself, &q, from.Internal, nil)
	}
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return m, source, nil
}
