// Command weavedns is the chained CNI plugin that gives a container its names
// in the network's DNS, and the network's resolver to the container.
package main

import (
	"context"
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
	Inject   string `json:"inject"`
	Required bool   `json:"required"`

	aliases  []string // of the container's endpoint
	nameless bool     // which may say that it has no names
	services []ctl.Service
	texts    []string
}

// What "inject" may say.
const (
	injectResult = "result" // the resolver stands in the result; the runtime uses it or not
	injectOff    = "off"
)

func decode(c *cniconf.Call) (*config, error) {
	conf := &config{Inject: injectResult}
	if err := cniconf.Decode(c.Stdin, conf); err != nil {
		return nil, err
	}
	var p cniconf.Problems
	conf.Check(&p)
	if conf.Inject != injectResult && conf.Inject != injectOff {
		p.Add("inject %q: want %q or %q", conf.Inject, injectResult, injectOff)
	}
	conf.setEndpoint(c.Args, &p)
	if c.Args["WEAVE_DNS"] == "off" {
		conf.Inject = injectOff
	}
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
	var resolver ctl.Resolver
	router := cniconf.NewRouter(conf.Socket)
	err = router.Call(ctx, ctl.PathRegister, conf.registration(c), &resolver)
	switch {
	case err != nil && conf.Required:
		return err
	case err != nil:
		fmt.Fprintf(os.Stderr, "weavedns: %s goes without names: %v\n", c.Key.ContainerID, err)
	case conf.Inject == injectResult:
		resolver.Servers = reached(resolver.Servers, r, c.Key.IfName)
		inject(&r.DNS, resolver)
	}
	// Nothing to undo: names end with the attachment.
	return c.Print(r)
}

// inject puts the resolver before what the plugins before have said.
func inject(dns *types.DNS, r ctl.Resolver) {
	var servers []string
	for _, s := range r.Servers {
		servers = append(servers, s.String())
	}
	if len(servers) == 0 {
		return // the router was told to serve no DNS, or the container does not reach it
	}
	dns.Nameservers = before(servers, dns.Nameservers)
	dns.Search = before([]string{r.Domain}, dns.Search)
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

// del takes the names away. It never fails: a runtime that sees one plugin's
// DEL fail does not call the next one's, and the container's names end with its
// attachment in any case.
func del(ctx context.Context, c *cniconf.Call) error {
	var conf config
	err := cniconf.Decode(c.Stdin, &conf)
	if err == nil {
		err = cniconf.Tell(ctx, conf.Socket, ctl.PathForget, c.Key)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "weavedns: the names of %s end with its attachment: %v\n", c.Key.ContainerID, err)
	}
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

// gc has nothing to do: names end with the attachment, which the main plugin's GC sees to.
func gc(_ context.Context, c *cniconf.Call) error {
	_, err := decode(c)
	return err
}

// status asks the router only when an ADD would fail without it.
func status(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil || !conf.Required {
		return err
	}
	return cniconf.NewImpatientRouter(conf.Socket).Ready(ctx)
}
