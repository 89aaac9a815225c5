package router

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
)

// idOf is a claim's container, or, where its id was lost, the host's end of its interface.
func idOf(c ipam.Claim) string { return cmp.Or(c.Key.ContainerID, c.Veth()) }

// calledOf names the containers of claims, each once.
func calledOf(claims []ipam.Claim) []string {
	var ids []string
	for _, c := range claims {
		ids = append(ids, idOf(c))
	}
	return called(ids, claims)
}

// called names containers, each once, in the order of ids: by the name that a person
// knows, where a claim has it, and by what `weave ps` shows of the id.
func called(ids []string, claims []ipam.Claim) (out []string) {
	names := map[string]string{}
	for _, c := range claims {
		if id := idOf(c); names[id] == "" && len(c.Names) > 0 {
			names[id] = c.Names[0]
		}
	}
	seen := map[string]bool{}
	for _, id := range ids {
		if !seen[id] {
			out = append(out, calledBy(names[id], id))
		}
		seen[id] = true
	}
	return out
}

// calledBy is a container's name with the beginning of its id, or the one that there is.
// What is as short as an interface's name stays whole: it may be one.
func calledBy(name, id string) string {
	if len(id) > unix.IFNAMSIZ-1 {
		id = id[:idLike]
	}
	if name == "" || name == id {
		return id
	}
	return fmt.Sprintf("%s (%s)", name, id)
}

// usersOf name the containers on a network, each once and on which host: this host's by
// their claims, the others' by what these tell, which is no id.
func usersOf(self string, claims []ipam.Claim, endpoints []ctl.NetEndpoint) (out []string) {
	for _, who := range calledOf(claims) {
		out = append(out, fmt.Sprintf("container %s on host %s", who, self))
	}
	for _, e := range endpoints {
		who := ""
		switch {
		case e.Host == self:
			continue
		case len(e.Names) > 0:
			who = fmt.Sprintf("container %s on host %s", e.Names[0], e.Host)
		default:
			who = fmt.Sprintf("a container with %s on host %s", strings.Join(texts(e.Addresses), ", "), e.Host)
		}
		if !slices.Contains(out, who) {
			out = append(out, who)
		}
	}
	return out
}
