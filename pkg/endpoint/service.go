package endpoint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Service is a port that a container offers, under the name that RFC 6335 has for such.
type Service struct {
	Name     string // lower case, 1 to 15 letters, digits and '-'
	Protocol string // "tcp", "udp" or "sctp"
	Port     uint16
}

// String is the text that an endpoint's option port has.
func (s Service) String() string { return fmt.Sprintf("%s:%d/%s", s.Name, s.Port, s.Protocol) }

// addService reads "http:80", "dns:53/udp".
func (e *Endpoint) addService(value string) (wrong string) {
	name, rest, _ := strings.Cut(value, ":")
	port, proto, given := strings.Cut(rest, "/")
	if !given {
		proto = "tcp"
	}
	s := Service{Name: strings.ToLower(name), Protocol: strings.ToLower(proto)}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case !ValidServiceName(s.Name):
		return fmt.Sprintf("port=%s: want a service of 1 to 15 letters, digits and '-', a letter among them, and its port, as in port=http:80", clip(value))
	case err != nil || n == 0:
		return fmt.Sprintf("port=%s: want the number of a port behind the service, as in port=http:80", clip(value))
	case s.Protocol != "tcp" && s.Protocol != "udp" && s.Protocol != "sctp":
		return fmt.Sprintf("port=%s: behind the port only /tcp, /udp or /sctp may stand", clip(value))
	}
	s.Port = uint16(n)
	return addOnce(&e.Services, s, MaxServices, "ports")
}

// ValidServiceName accepts what RFC 6335 has a service be called, in lower case.
func ValidServiceName(s string) bool {
	return len(s) <= MaxServiceName && !strings.Contains(s, "--") && !strings.ContainsAny(s, "._") && ValidAlias(s) &&
		strings.ContainsFunc(s, func(r rune) bool { return r >= 'a' && r <= 'z' })
}

func (e *Endpoint) addText(value string) (wrong string) {
	if value == "" || len(value) > MaxTXT || !utf8.ValidString(value) {
		return fmt.Sprintf("txt=%s: want a text of UTF-8 of 1 to %d bytes", clip(strings.ToValidUTF8(value, "?")), MaxTXT)
	}
	return addOnce(&e.Texts, value, MaxTexts, "texts")
}

// addOnce adds what is not in the list yet, of which there may be so many.
func addOnce[T comparable](list *[]T, value T, most int, what string) (wrong string) {
	switch {
	case slices.Contains(*list, value):
		return ""
	case len(*list) == most:
		return fmt.Sprintf("it has more than %d %s", most, what)
	}
	*list = append(*list, value)
	return ""
}
