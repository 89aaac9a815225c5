package names

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/endpoint"
)

// protocols is constant.
var protocols = [...]string{"tcp", "udp", "sctp"}

// valid brings a service into the form that DNS knows it by.
func (s Service) valid() (Service, error) {
	s.Name, s.Proto = strings.ToLower(s.Name), strings.ToLower(s.Proto)
	switch {
	case !endpoint.ValidServiceName(s.Name):
		return s, fmt.Errorf("service %q: want 1 to %d letters, digits and '-', a letter among them, as in http", clip(s.Name), endpoint.MaxServiceName)
	case !slices.Contains(protocols[:], s.Proto):
		return s, fmt.Errorf("service %q: protocol %q, want tcp, udp or sctp", s.Name, clip(s.Proto))
	case s.Port == 0:
		return s, fmt.Errorf("service %q: port 0 is none", s.Name)
	}
	return s, nil
}

func clip(s string) string {
	if len(s) > maxLabel {
		return s[:maxLabel] + "…"
	}
	return s
}
