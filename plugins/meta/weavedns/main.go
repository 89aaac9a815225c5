// Command weavedns is the chained CNI plugin that gives a container its names
// in the network's DNS, and the network's resolver to the container.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func main() {
	cniconf.Main(cniconf.Plugin{Name: "weavedns", Add: add, Check: check, Del: del, GC: gc, Status: status})
}

// config is what the README describes.
type config struct {
	cniconf.Conf
	Inject      string   `json:"inject"`
	RuntimeDirs []string `json:"runtimeDirs"`
	Required    bool     `json:"required"`

	aliases  []string // of the container's endpoint
	nameless bool     // which may say that it has no names
	services []ctl.Service
	texts    []string
}

func decode(c *cniconf.Call) (*config, error) {
	conf := &config{}
	if err := cniconf.Decode(c.Stdin, conf); err != nil {
		return nil, err
	}
	var p cniconf.Problems
	conf.Check(&p)
	conf.checkInject(&p)
	usual := conf.usualInject(c.Args)
	conf.setEndpoint(c.Args, usual, &p)
	conf.setInject(c.Args, &p)
	return conf, p.Err()
}

func add(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	r, err := conf.Prev()
	if err != nil {
		return err
	}
	way := conf.way(c)
	defer way.close()
	if way.unnamed != "" {
		say("%s: %s", c.Key.ContainerID, way.unnamed)
	}
	var resolver ctl.Resolver
	err = cniconf.NewRouter(conf.Socket).Call(ctx, ctl.PathRegister, way.request(), &resolver)
	switch {
	case err != nil && conf.Required:
		return err
	case err != nil:
		say("%s goes without names: %v", c.Key.ContainerID, err)
	default:
		resolver.Servers = reached(resolver.Servers, r, c.Key.IfName)
		conf.putResult(&r.DNS, resolver, keepsHostServers(c.Args))
		err = way.put(resolver)
	}
	if err != nil && conf.Required {
		return err
	}
	if err := c.Print(r); err != nil {
		way.undo() // all else ends with the attachment
		return err
	}
	return nil
}

// putResult puts the resolver before what the plugins before have said, and with it what
// the container's user has asked for beside servers: those are the router's to ask.
// A runtime that puts others behind those of the result gets ours in all places that count.
func (conf *config) putResult(dns *types.DNS, r ctl.Resolver, fills bool) {
	var servers []string
	for _, s := range r.Servers {
		servers = append(servers, s.String())
	}
	if len(servers) == 0 || conf.Inject == injectOff {
		return // told so, or the router serves no DNS, or the container does not reach it
	}
	if fills {
		servers = fill(servers)
	}
	asked := conf.RuntimeConfig.DNS
	dns.Nameservers = before(servers, dns.Nameservers)
	dns.Search = before([]string{r.Domain}, before(asked.Searches, dns.Search))
	dns.Options = before(asked.Options, dns.Options)
}

// keepsHostServers reports whether the runtime is podman, which puts the host's own servers
// behind those of the result: it passes a pod's name, and no namespace.
func keepsHostServers(args cniconf.Args) bool {
	return args["K8S_POD_NAME"] != "" && args["K8S_POD_NAMESPACE"] == ""
}

// counted is how many servers of a resolv.conf are asked by glibc, musl and Go (MAXNS of
// resolv.h). musl asks them all at once and believes the first that says there is no such name.
const counted = 3

// fill repeats the servers until others have no place that counts.
func fill(servers []string) []string {
	out := slices.Clone(servers)
	for len(out) < counted {
		out = append(out, out[len(out)-len(servers)])
	}
	return out
}

// before puts first in front of rest and leaves repeats out.
func before(first, rest []string) []string {
	out := slices.Clone(first)
	for _, s := range rest {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// del takes the names away, and the resolver out of the container. It never fails: a
// runtime that sees one plugin's DEL fail does not call the next one's, and the
// container's names end with its attachment in any case.
func del(ctx context.Context, c *cniconf.Call) error {
	var conf config
	err := cniconf.Decode(c.Stdin, &conf)
	if err == nil {
		err = cniconf.Tell(ctx, conf.Socket, ctl.PathForget, c.Key)
	}
	if err != nil {
		say("the names of %s end with its attachment: %v", c.Key.ContainerID, err)
	}
	takeOut(conf.dir(), c.Key.Hash(), c.NetNS, c.Key.ContainerID, conf.leaving(c))
	return nil
}

// check looks for the container's names at the router.
func check(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	if _, err := conf.Prev(); err != nil {
		return err
	}
	var have ctl.RegisteredNames
	if err := cniconf.NewRouter(conf.Socket).Call(ctx, ctl.PathNames, ctl.KeyRequest{Key: c.Key}, &have); err != nil {
		return err
	}
	for _, name := range conf.names(c) {
		if !slices.Contains(have.Names, name) {
			return cniconf.Errorf(cniconf.CodeNotAsAdded, "container %s is not registered as %q", c.Key.ContainerID, name)
		}
	}
	return nil
}

// gc takes the resolver out of files and namespaces of attachments that are gone, and
// forgets files that are. Names end with the attachment, which the main plugin's GC sees to.
func gc(_ context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	dir := conf.dir()
	if err := errors.Join(conf.collect(dir), dir.Sweep()); err != nil {
		say("%v", err)
	}
	return nil
}

// say tells a person what is no reason to fail.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "weavedns: "+format+"\n", args...)
}

// status asks the router only when an ADD would fail without it.
func status(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil || !conf.Required {
		return err
	}
	return cniconf.NewImpatientRouter(conf.Socket).Ready(ctx)
}
