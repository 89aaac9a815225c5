package doctor

import (
	"fmt"
	"strings"
)

// unservedProblem begins the router's own line about names that it cannot serve: here it is
// told with who has the port.
const unservedProblem = "names are not served at "

// namePorts are the bridges' addresses at which the router cannot answer for names: no
// container of that network on this host has any.
func namePorts(s Snapshot) (out []Finding) {
	const check = "ports"
	if s.Router.Status == nil {
		return nil
	}
	for _, e := range s.Router.Status.DNS.Errors {
		what := "names are not served to containers here: " + e
		if !strings.Contains(e, "address already in use") {
			out = append(out, bad(check, what, "journalctl -u weaver | grep 'cannot serve an address'"))
			continue
		}
		p, known := s.nameServer(e)
		if !known {
			out = append(out, bad(check, what, "sudo ss -lntup 'sport = :53'"))
			continue
		}
		out = append(out, advise(check, Problem, what+fmt.Sprintf("; port 53 is taken by %s (process %d) at %s", p.Owner, p.PID, p.Addr.Addr()),
			"have that program listen at the addresses alone that are its own (dnsmasq: bind-interfaces and listen-address=127.0.0.1); the router tries again each second"))
	}
	return out
}

// nameServer is the program that has port 53 at the address that a text is about, or at all.
func (s Snapshot) nameServer(text string) (of Port, known bool) {
	for _, p := range s.Ports {
		at := p.Addr.Addr()
		if p.Addr.Port() != 53 || p.Owner == "" || s.routers(p) {
			continue
		}
		if at.IsUnspecified() || strings.Contains(text, " "+at.Unmap().String()+":") {
			return p, true
		}
	}
	return Port{}, false
}
