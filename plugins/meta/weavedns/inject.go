package main

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/inject"
	"github.com/weave-cni/weave-cni/pkg/intercept"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// What "inject" may say. Names are registered with all of them.
const (
	injectAuto      = "auto"      // result, and the container's resolv.conf where that is to be had
	injectIntercept = "intercept" // result, and rules in the container's namespace
	injectResult    = "result"    // the resolver stands in the result; the runtime uses it or not
	injectOff       = "off"
)

var injects = []string{injectAuto, injectIntercept, injectResult, injectOff}

const (
	stateDir    = "resolv"         // beside the router's socket
	collectOver = 30 * time.Second // the age from which GC may take what an ADD has left, as the router has it
)

func (conf *config) checkInject(p *cniconf.Problems) {
	if conf.Inject != "" && !slices.Contains(injects, conf.Inject) {
		p.Add("inject %q: want one of %q", conf.Inject, injects)
	}
	for _, d := range conf.RuntimeDirs {
		if !filepath.IsAbs(d) || filepath.Clean(d) != d || d == "/" {
			p.Add("runtimeDirs %q: want a clean absolute path of a runtime's own directory", d)
		}
	}
}

// usualInject settles what "inject" is where the list says nothing, and gives it. A pod's
// resolver is the cluster's.
func (conf *config) usualInject(args cniconf.Args) string {
	usual := injectAuto
	if args["K8S_POD_NAMESPACE"] != "" {
		usual = injectResult
	}
	if conf.Inject == "" {
		conf.Inject = usual
	}
	return usual
}

// setInject takes over what is said of this one container.
func (conf *config) setInject(args cniconf.Args, p *cniconf.Problems) {
	word, source, err := conf.RequestedDNS(args)
	switch {
	case err != nil:
		p.Check(err)
	case word != "" && !slices.Contains(injects, word):
		p.Add("%s %q: want one of %q", source, word, injects)
	case word != "" && !conf.nameless:
		conf.Inject = word
	}
}

// dir is where it is kept what was written for whom.
func (conf *config) dir() inject.Dir {
	socket := conf.Socket
	if socket == "" {
		socket = ctl.DefaultSocket
	}
	return inject.Dir{Path: filepath.Join(filepath.Dir(socket), stateDir), Host: inject.NewHost(conf.RuntimeDirs)}
}

// way is how one container gets its resolver.
type way struct {
	conf *config
	call *cniconf.Call
	dir  inject.Dir
	who  inject.Owner
	file *inject.File // the container's; nil: none that could be ours to write
	left error        // why not

	unnamed string // why a name that its user asked for is left out
}

// way finds out what there is, and changes nothing.
func (conf *config) way(c *cniconf.Call) *way {
	w := &way{conf: conf, call: c, dir: conf.dir(), who: inject.Owner{Hash: c.Key.Hash(), Network: c.Key.Network, NetNS: c.NetNS, NS: c.NS.ID()}, unnamed: conf.leftOutName(c.Args)}
	if conf.Inject == injectAuto || conf.Inject == injectIntercept {
		w.file, w.left = w.dir.Host.Find(inject.Container{ID: c.Key.ContainerID, NetNS: c.NetNS, NS: c.NS.ID(), Named: netnsName(c.NetNS)})
	}
	return w
}

func (w *way) close() {
	if w.file != nil {
		w.file.Close()
	}
}

// request is all that the router is told of the container.
func (w *way) request() ctl.RegisterRequest {
	out := w.conf.registration(w.call)
	out.Upstreams, out.Resolver = w.upstreams(), w.String()
	if w.unnamed != "" {
		out.Resolver += "; " + w.unnamed
	}
	return out
}

// upstreams are the servers that the container's user has chosen: as the runtime passes
// them, or else in the file that the runtime has made of them. That is looked at in any
// case: later, the container may have written there.
func (w *way) upstreams() []netip.Addr {
	ups := inject.Askable(w.conf.RuntimeConfig.DNS.Servers)
	if w.file == nil {
		return ups
	}
	servers, err := w.dir.Servers(w.file)
	if err != nil {
		say("%s: its own servers: %v", w.call.Key.ContainerID, err)
	}
	if len(ups) == 0 {
		ups = servers
	}
	return ups
}

// String is for the router's trace.
func (w *way) String() string {
	switch {
	case w.conf.Inject == injectIntercept:
		return "result, and rules for port 53"
	case w.file != nil:
		return "result, and " + w.file.Path()
	case w.left != nil:
		return "result; " + w.left.Error()
	case w.conf.Inject == injectOff:
		return "none: told so"
	}
	return "result"
}

// put gives the container its resolver. What is left alone is said, and no error.
func (w *way) put(r ctl.Resolver) error {
	var err error
	switch {
	case len(r.Servers) == 0:
		return nil
	case w.conf.Inject == injectIntercept:
		if err = w.dir.NoteIntercept(w.who); err == nil {
			err = intercept.Put(w.call.NS.FD(), w.who.Hash, r.Servers)
		}
	case w.conf.Inject == injectAuto && w.file != nil:
		if err = w.file.Keeps(r.Servers, hostAddrs()); err == nil {
			err = w.dir.Put(w.file, inject.Entry{Owner: w.who, Servers: r.Servers, Domain: r.Domain})
		}
	case w.conf.Inject == injectAuto:
		if err = w.left; w.served(r.Servers) {
			return nil
		}
	}
	if err != nil {
		say("%s: %v", w.call.Key.ContainerID, err)
	}
	var left *inject.Left
	if errors.As(err, &left) {
		return nil
	}
	return err
}

// served reports whether the file that was left alone has our resolver from its user.
func (w *way) served(ours []netip.Addr) bool {
	var left *inject.Left
	return errors.As(w.left, &left) && w.dir.Host.Served(left, ours)
}

func (w *way) undo() {
	takeOut(w.dir, w.who.Hash, w.who.NetNS, w.call.Key.ContainerID, inject.Container{})
}

// leaving is the container of a DEL, as far as it may have a file of ours. Its namespace
// may be gone, and a file by its name is there all the same.
func (conf *config) leaving(c *cniconf.Call) inject.Container {
	if conf.usualInject(c.Args); conf.Inject != injectAuto {
		return inject.Container{}
	}
	out := inject.Container{ID: c.Key.ContainerID, NetNS: c.NetNS, Named: netnsName(c.Given)}
	if ns, err := netdev.OpenNS(c.NetNS); c.NetNS != "" && err == nil {
		out.NS = ns.ID()
		ns.Close()
	}
	return out
}

// takeOut takes the resolver out of a container again, as far as that is still there. What
// stays is noted as before, for the next DEL or GC. whose is for people; by container its
// file is found where nothing is noted.
func takeOut(dir inject.Dir, hash, netns, whose string, container inject.Container) {
	if who, ok := dir.Intercepted(hash); ok {
		err := endIntercept(who, cmp.Or(netns, who.NetNS))
		if err == nil {
			err = dir.EndIntercept(hash)
		}
		if err != nil {
			say("%s: its rules for port 53: %v", whose, err)
		}
	}
	said, err := dir.RemoveFrom(container, hash)
	if said != "" {
		say("%s: %s", whose, said)
	}
	if err != nil {
		say("%s: its resolv.conf: %v", whose, err)
	}
}

// endIntercept takes an attachment's rules out of its namespace. Where its path leads to
// none any more, or to another one, they went with theirs.
func endIntercept(who inject.Owner, netns string) error {
	ns, err := netdev.OpenNS(netns)
	if errors.Is(err, netdev.ErrNSGone) || errors.Is(err, netdev.ErrNotNS) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	if who.NS.Known() && who.NS != ns.ID() {
		return nil
	}
	return intercept.Remove(ns.FD(), who.Hash)
}

// collect takes out what was written for attachments whose DEL never came.
func (conf *config) collect(dir inject.Dir) error {
	notes, err := dir.Notes(conf.Name)
	if err != nil || len(notes) == 0 {
		return err
	}
	leftOut, err := conf.LeftOut()
	if err != nil {
		return err
	}
	for _, n := range notes {
		if n.Age >= collectOver && leftOut(n.Hash, n.NS) {
			takeOut(dir, n.Hash, n.NetNS, "an attachment that has ended", inject.Container{})
		}
	}
	return nil
}

// hostAddrs are the host's own addresses.
func hostAddrs() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}
