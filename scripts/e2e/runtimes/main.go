// Command runtimes runs real container runtimes on the hosts of a lab and lets
// their containers use the network:
//
//	runtimes -image TAR [-bin DIR] [-plugins DIR] podman|containerd|nerdctl
//
// On two hosts a container serves a page, and one on the other host fetches it
// by name. Then it tries what the runtime has besides, removes everything, and
// looks that nothing stayed.
//
// With -tool it walks through the network tool on three hosts instead, and
// "runtimes -seed N partition" changes networks on all hosts of a lab while it
// cuts them from each other.
//
// "runtimes dns" has containers of all runtimes that there are resolve each other.
//
// With -reference the network is the reference bridge plugin's, each host for
// itself and by address: what fails then is not weave's.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// runtime is a container runtime as the scenario uses it. All methods work on
// one host; containers' names are unique in the lab.
type runtime interface {
	// dirs are those that each host needs for itself.
	dirs() []string
	// prepare makes the runtime ready to run the image. A runtime that does not heed
	// the resolver in CNI's results gives containers this resolv.conf.
	prepare(h *netlab.Host, resolvConf string) error
	// serve starts a container on the network that runs a shell script until it is removed.
	serve(h *netlab.Host, name, script string) error
	// known is what the network calls a container, from what the runtime tells it.
	known(name string) string
	// exec runs a command in a container.
	exec(h *netlab.Host, name string, command ...string) (string, error)
	// extras tries what only this runtime can do with the container of each host.
	extras(hosts []*netlab.Host) error
	// sees is nil once the runtime knows a network that was just made, misses once it knows
	// that it is gone.
	sees(h *netlab.Host, network string) error
	misses(h *netlab.Host, network string) error
	// use has containers use another network than the first, where the runtime can name one.
	use(hosts []*netlab.Host, network string) error
	// remove stops and removes a container.
	remove(h *netlab.Host, name string) error
	// cgroups are the directories, under each controller, that it leaves behind empty.
	cgroups() []string
}

const image = "localhost/weave-e2e:1"

// fetchIn bounds how long the server may take to start, and its name to be known.
const fetchIn = 30 * time.Second

// options are the flags.
type options struct {
	bin, plugins, lists, tar string
	reference, tool          bool
	seed                     uint64
	lasting                  time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "the directory of our programs")
	flag.StringVar(&o.plugins, "plugins", "/usr/lib/cni", "the directory of the reference plugins")
	flag.StringVar(&o.lists, "conflist", "conflist", "the directory of our network lists")
	flag.StringVar(&o.tar, "image", "", "the image to run; made if it is not there")
	flag.BoolVar(&o.reference, "reference", false, "use the reference bridge, to test all but weave")
	flag.BoolVar(&o.tool, "tool", false, "walk through the network tool")
	flag.Uint64Var(&o.seed, "seed", 1, "of what partition does")
	flag.DurationVar(&o.lasting, "lasting", 30*time.Second, "how long partition cuts")
	flag.Parse()
	if err := netlab.Isolate(); err != nil {
		fail(err)
	}
	if err := o.run(flag.Arg(0)); err != nil {
		fail(err)
	}
}

// run does what was asked for, with that runtime.
func (o options) run(name string) error {
	w := weave{abs(o.bin), abs(o.lists)}
	if name == "partition" {
		return o.inLab(cutHosts, nil, func(lab *netlab.Lab) error { return newCuts(lab, w, o.seed).all(o.lasting) })
	}
	if name == "dns" {
		return o.countryside()
	}
	if err := makeImage(o.tar); err != nil {
		return err
	}
	ctrd := containerd{o.tar, map[string]*netlab.Daemon{}}
	rt := map[string]pluggable{"podman": podman{o.tar}, "containerd": ctrd, "nerdctl": nerdctl{ctrd}}[name]
	if rt == nil {
		return errors.New("which runtime? podman, containerd or nerdctl")
	}
	defer removeCgroups(rt.cgroups())
	switch {
	case o.tool:
		return o.inLab(3, rt.dirs(), func(lab *netlab.Lab) error { return newWalk(lab, rt, w).all() })
	case o.reference:
		return o.inLab(2, rt.dirs(), func(lab *netlab.Lab) error { return scenario(lab, rt, bridge{}) })
	}
	return o.inLab(2, rt.dirs(), func(lab *netlab.Lab) error { return scenario(lab, rt, w) })
}

// inLab does something in a lab of its own. After a failure it shows what the routers say.
func (o options) inLab(hosts int, private []string, do func(*netlab.Lab) error) error {
	lab, err := netlab.Open(netlab.Options{Hosts: hosts, Bin: abs(o.bin), PluginDirs: []string{o.plugins}, Private: private, Timeout: time.Minute})
	if err != nil {
		return err
	}
	if err = do(lab); err != nil {
		showRouters(lab)
	}
	return errors.Join(err, lab.Close())
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "runtimes:", err)
	os.Exit(1)
}

func abs(path string) string {
	a, err := filepath.Abs(path)
	if err != nil {
		fail(err)
	}
	return a
}

// step says what is done, does it, and says how long it took.
func step(what string, f func() error) error {
	start := time.Now()
	fmt.Printf("    %-64s", what)
	if err := f(); err != nil {
		fmt.Println("failed")
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Printf("%7.2f s\n", time.Since(start).Seconds())
	return nil
}

// steps does one after the other until one fails.
func steps(fs ...func() error) error {
	for _, f := range fs {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func web(h *netlab.Host) string { return "web-" + h.Name() }

func pageOf(name string) string { return "the page of " + name }

func servePage(name string) string {
	return "mkdir -p /www; echo '" + pageOf(name) + "' >/www/index.html; exec httpd -f -p 80 -h /www"
}

func scenario(lab *netlab.Lab, rt pluggable, net network) error {
	hosts := lab.Hosts()
	return steps(
		func() error { return step("the network is up on both hosts", func() error { return net.up(hosts) }) },
		func() error {
			return step("the runtime runs on both hosts", func() error { return prepareAll(hosts, rt, net) })
		},
		func() error { return crossFetch(hosts, rt, net) },
		func() error { return rt.extras(hosts) },
		func() error { return net.more(hosts, rt) },
		func() error { return plug(rt, hosts, net) },
		func() error {
			return step("containers are removed", func() error {
				return each(hosts, func(h *netlab.Host) error { return rt.remove(h, web(h)) })
			})
		},
		func() error {
			return step("nothing stays behind", func() error { return each(hosts, func(h *netlab.Host) error { return nothingLeft(h, net) }) })
		},
	)
}

func prepareAll(hosts []*netlab.Host, rt runtime, net network) error {
	return each(hosts, func(h *netlab.Host) error {
		resolvConf, err := net.resolvConf(h)
		if err != nil {
			return err
		}
		return rt.prepare(h, resolvConf)
	})
}

func each(hosts []*netlab.Host, f func(*netlab.Host) error) error {
	for _, h := range hosts {
		if err := f(h); err != nil {
			return fmt.Errorf("on %s: %w", h.Name(), err)
		}
	}
	return nil
}

// crossFetch starts a server on each host and lets each fetch the page of the one that the network says.
func crossFetch(hosts []*netlab.Host, rt runtime, net network) error {
	for _, h := range hosts {
		err := step(fmt.Sprintf("%s starts on %s", web(h), h.Name()), func() error { return rt.serve(h, web(h), servePage(web(h))) })
		if err != nil {
			return err
		}
	}
	for i, from := range hosts {
		to := net.partner(hosts, i)
		where, err := net.address(rt, to, web(to))
		if err != nil {
			return err
		}
		err = step(fmt.Sprintf("%s fetches http://%s/ from %s", web(from), where, to.Name()), func() error {
			return fetch(func(url string) (string, error) { return rt.exec(from, web(from), "wget", "-qO-", url) }, where, pageOf(web(to)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fetch gets a page until it is the right one; the server may just be starting.
func fetch(get func(url string) (string, error), where, want string) error {
	return netlab.Wait(fetchIn, "http://"+where+"/ is "+want, func() error {
		got, err := get("http://" + where + "/")
		if err != nil {
			return err
		}
		if strings.TrimSpace(got) != want {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
}

// nothingLeft looks for interfaces and attachments of containers.
func nothingLeft(h *netlab.Host, net network) error {
	return netlab.Wait(30*time.Second, "no attachment is left", func() error {
		links, err := h.Run("ip", "-o", "link", "show", "type", "veth")
		if err != nil {
			return err
		}
		if strings.Contains(links, ": veth") {
			return fmt.Errorf("interfaces: %s", links)
		}
		return net.empty(h)
	})
}

func showRouters(lab *netlab.Lab) {
	for _, h := range lab.Hosts() {
		if r := h.Router(); r != nil {
			fmt.Fprintf(os.Stderr, "--- the router on %s:\n%s\n", h.Name(), r.Log())
		}
	}
}

// removeCgroups removes what the runtimes leave empty of themselves; rmdir refuses what is in use.
func removeCgroups(names []string) {
	var dirs []string
	for _, name := range names {
		found, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
		for _, top := range found {
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
		}
	}
	for _, d := range slices.Backward(dirs) { // the deepest first
		_ = unix.Rmdir(d)
	}
}
