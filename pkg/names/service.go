package names

import (
	"fmt"
	"slices"
	"strings"
)

// protocols is constant.
var protocols = [...]string{"tcp", "udp", "sctp"}

// maxService is the longest name of a service, in characters (RFC 6335).
const maxService = 15

// valid brings a service into the form that DNS knows it by.
func (s Service) valid() (Service, error) {
	s.Name, s.Proto = strings.ToLower(s.Name), strings.ToLower(s.Proto)
	switch {
	case !validServiceName(s.Name):
		return s, fmt.Errorf("service %q: want 1 to %d letters, digits and '-', a letter among them, as in http", clip(s.Name), maxService)
	case !slices.Contains(protocols[:], s.Proto):
		return s, fmt.Errorf("service %q: protocol %q, want tcp, udp or sctp", s.Name, clip(s.Proto))
	case s.Port == 0:
		return s, fmt.Errorf("service %q: port 0 is none", s.Name)
	}
	return s, nil
}

// validServiceName accepts what RFC 6335 has a service be called.
func validServiceName(s string) bool {
	return len(s) <= maxService && !strings.Contains(s, "--") && !strings.Contains(s, "_") && validLabel(s) == nil &&
		strings.ContainsFunc(s, func(r rune) bool { return r >= 'a' && r <= 'z' })
}

func clip(s string) string {
	if len(s) > maxLabel {
		return s[:maxLabel] + "…"
	}
	return s
}
