package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
)

const (
	maxNames = 64 // of one container
	shortID  = 12 // characters of a container id that people write
)

// registration is what DNS is to know of the container.
func (conf *config) registration(c *cniconf.Call) ctl.RegisterRequest {
	return ctl.RegisterRequest{Key: c.Key, Names: conf.names(c), Services: conf.services, Texts: conf.texts}
}

// names gives the container's names, best first: the one that the user or the
// runtime gave it, and its aliases; without any, that of its namespace; without
// that, the front of its id. None, when not even that can be a name, or its endpoint
// wants none.
func (conf *config) names(c *cniconf.Call) []string {
	if conf.nameless {
		return nil
	}
	names := append([]string{givenName(c.Args)}, conf.RuntimeConfig.Aliases.For(conf.Name)...)
	names = distinct(append(names, conf.aliases...))
	if len(names) == 0 {
		names = distinct([]string{netnsName(c.NetNS)})
	}
	if len(names) == 0 {
		names = distinct([]string{c.Key.ContainerID[:min(shortID, len(c.Key.ContainerID))]})
	}
	return names[:min(len(names), maxNames)]
}

// givenName is the name in CNI_ARGS: ours, that of podman, cri-o and containerd
// (a pod's with its namespace, since two namespaces may have a pod of one name),
// nerdctl's. One that can be no name is as good as none.
func givenName(args cniconf.Args) string {
	pod := args["K8S_POD_NAME"]
	if ns := args["K8S_POD_NAMESPACE"]; pod != "" && ns != "" {
		pod += "." + ns
	}
	for _, name := range []string{args["WEAVE_HOSTNAME"], pod, args["NERDCTL_CNI_DHCP_HOSTNAME"]} {
		if valid(normal(name)) {
			return name
		}
	}
	return ""
}

// leftOutName says why the name that a user asked for is none of the container's; "" when it
// is one, or nobody asked.
func (conf *config) leftOutName(args cniconf.Args) string {
	const most = 64 // of it is shown: it may have any length
	name := args["WEAVE_HOSTNAME"]
	if conf.nameless || name == "" || valid(normal(name)) {
		return ""
	}
	if len(name) > most {
		name = name[:most] + "…"
	}
	return fmt.Sprintf("WEAVE_HOSTNAME %q is left out: no name (want letters, digits, '-', '_' and '.', parts of 63 characters, 253 in all)", name)
}

// netnsName is the name that a person gave with `ip netns add`; "" for a path
// elsewhere and for names that runtimes make up.
func netnsName(path string) string {
	dir, name := filepath.Split(filepath.Clean(path))
	if dir != "/run/netns/" && dir != "/var/run/netns/" {
		return ""
	}
	if strings.HasPrefix(name, "cni-") || strings.HasPrefix(name, "netns-") || isUUID(name) {
		return ""
	}
	return name
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (r == '-') || !dash && !strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return false
		}
	}
	return true
}

// distinct normalises names and leaves out repeats and what no DNS name can be.
func distinct(names []string) []string {
	var out []string
	for _, n := range names {
		if n = normal(n); valid(n) && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// normal is a name as DNS compares it.
func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// valid accepts a normal name. The router decides; this keeps what it would pass over
// out of the way, localhost too.
func valid(name string) bool { return name != "localhost" && endpoint.ValidAlias(name) }
