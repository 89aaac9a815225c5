package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/conflist"
)

// gatherRuntimes finds the runtimes of this host, with what they would load.
func gatherRuntimes(ctx context.Context, o Options) []Runtime {
	var out []Runtime
	for _, d := range o.ConfDirs {
		out = append(out, Runtime{Name: "a runtime with " + d, Picks: PicksFirst, ConfDir: d, PluginDirs: conflist.PluginDirs()})
	}
	if len(o.ConfDirs) == 0 {
		out = installed()
	}
	var together sync.WaitGroup
	var once asker
	for i := range out {
		r := &out[i]
		if len(o.PluginDirs) > 0 {
			r.PluginDirs = o.PluginDirs
		}
		together.Go(func() {
			if !r.NoLists {
				r.Files, r.Missing = readLists(r.ConfDir, r.Name == "podman")
				r.Plugins = once.askAll(ctx, *r)
			}
		})
	}
	together.Wait()
	return out
}

// installed are the runtimes that this host has; one that stands for all where none is found.
func installed() []Runtime {
	var out []Runtime
	if has("containerd", "/run/containerd/containerd.sock") {
		config := readText("/etc/containerd/config.toml")
		conf, dirs := containerdDirs(config)
		out = append(out, Runtime{Name: "containerd", Picks: PicksFirst, ConfDir: conf, PluginDirs: dirs, Loopback: true,
			Stopped: nobodyAt(containerdSockets(config)...)})
	}
	if has("crio", "/run/crio/crio.sock") {
		out = append(out, Runtime{Name: "CRI-O", Picks: PicksValid, ConfDir: conflist.Dir, PluginDirs: conflist.PluginDirs(), Loopback: true,
			Stopped: nobodyAt("/run/crio/crio.sock")})
	}
	if has("podman") {
		out = append(out, podmanHere())
	}
	if has("nerdctl") {
		dirs := []string{"/opt/cni/bin", "/usr/local/libexec/cni", "/usr/local/lib/cni", "/usr/libexec/cni", "/usr/lib/cni"}
		if i := slices.IndexFunc(dirs, exists); i >= 0 {
			dirs = dirs[i : i+1] // the first that is there, and no other
		}
		out = append(out, Runtime{Name: "nerdctl", Picks: PicksByName, ConfDir: conflist.Dir, PluginDirs: dirs, Default: "bridge"})
	}
	for _, r := range []Runtime{
		{Name: "k3s", ConfDir: "/var/lib/rancher/k3s/agent/etc/cni/net.d", PluginDirs: []string{"/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/data/current/bin"}},
		{Name: "microk8s", ConfDir: "/var/snap/microk8s/current/args/cni-network", PluginDirs: []string{"/var/snap/microk8s/current/opt/cni/bin"}},
	} {
		if exists(r.ConfDir) {
			r.Picks, r.Loopback = PicksFirst, true
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		out = append(out, Runtime{Name: "a runtime", Picks: PicksFirst, ConfDir: conflist.Dir, PluginDirs: conflist.PluginDirs()})
	}
	return out
}

// has reports whether a program is installed, or one of its files is there.
func has(program string, files ...string) bool {
	_, err := exec.LookPath(program)
	return err == nil || slices.ContainsFunc(files, exists)
}

// nobodyAt reports whether nobody listens at any of some unix sockets. One that this user
// may not open has somebody.
func nobodyAt(sockets ...string) bool {
	return !slices.ContainsFunc(sockets, func(s string) bool {
		c, err := net.DialTimeout("unix", s, answersIn)
		if err == nil {
			c.Close()
		}
		return err == nil || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED)
	})
}

// answersIn bounds a question whether a daemon is there.
const answersIn = 200 * time.Millisecond

// containerdSockets are where it may listen: the usual place, and what its configuration has.
func containerdSockets(config string) []string {
	out := []string{"/run/containerd/containerd.sock"}
	for _, m := range tomlAddress.FindAllStringSubmatch(config, -1) {
		out = append(out, m[1])
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func readText(file string) string {
	text, _ := os.ReadFile(file)
	return string(text)
}

var (
	tomlConfDir = regexp.MustCompile(`(?m)^\s*conf_dir\s*=\s*["']([^"']+)["']`)
	tomlAddress = regexp.MustCompile(`(?m)^\s*address\s*=\s*["'](/[^"']+)["']`)
	tomlBinDir  = regexp.MustCompile(`(?m)^\s*bin_dirs?\s*=\s*(.+)$`)
	tomlText    = regexp.MustCompile(`["']([^"']+)["']`)
	tomlBackend = regexp.MustCompile(`(?m)^\s*network_backend\s*=\s*["']([^"']*)["']`)
	tomlDefault = regexp.MustCompile(`(?m)^\s*default_network\s*=\s*["']([^"']+)["']`)
	tomlNetDir  = regexp.MustCompile(`(?m)^\s*network_config_dir\s*=\s*["']([^"']+)["']`)
	tomlPlugins = regexp.MustCompile(`(?m)^\s*cni_plugin_dirs\s*=\s*(\[[^\]]*\])`)
)

// containerdDirs reads its configuration as far as this matters.
func containerdDirs(config string) (conf string, plugins []string) {
	conf, plugins = conflist.Dir, conflist.PluginDirs()[:1]
	if m := tomlConfDir.FindStringSubmatch(config); m != nil {
		conf = m[1]
	}
	if m := tomlBinDir.FindStringSubmatch(config); m != nil {
		if dirs := texts(m[1]); len(dirs) > 0 {
			plugins = dirs
		}
	}
	return conf, plugins
}

func texts(list string) (out []string) {
	for _, m := range tomlText.FindAllStringSubmatch(list, -1) {
		out = append(out, m[1])
	}
	return out
}

// podmanConfig is all of its configuration, what counts more first.
func podmanConfig() string {
	files, _ := filepath.Glob("/etc/containers/containers.conf.d/*.conf") // the last counts most
	slices.Reverse(files)
	var b strings.Builder
	for _, f := range append(files, "/etc/containers/containers.conf", "/usr/share/containers/containers.conf") {
		b.WriteString(readText(f) + "\n")
	}
	return b.String()
}

func podmanHere() Runtime {
	return podman(podmanConfig(), readText("/var/lib/containers/storage/defaultNetworkBackend"))
}

// ReadsNoLists is what is to be known by whoever installs a network list into a directory
// from which a podman of this host would take it, and does not; "" where there is nothing.
func ReadsNoLists(dir string) string {
	if !has("podman") {
		return ""
	}
	r := podmanHere()
	if !r.NoLists || filepath.Clean(dir) != filepath.Clean(r.ConfDir) {
		return ""
	}
	return "podman on this host " + netavark + ": " + noNetavark
}

// podman reads its configuration, and the backend that it has chosen once and for all.
func podman(config, backend string) Runtime {
	r := Runtime{Name: "podman", Picks: PicksByName, ConfDir: conflist.Dir, Default: "podman",
		PluginDirs: []string{"/usr/local/libexec/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/lib/cni", "/opt/cni/bin"}}
	if m := tomlBackend.FindStringSubmatch(config); m != nil && m[1] != "" {
		backend = m[1]
	}
	if m := tomlDefault.FindStringSubmatch(config); m != nil {
		r.Default = m[1]
	}
	if m := tomlNetDir.FindStringSubmatch(config); m != nil {
		r.ConfDir = m[1]
	}
	if m := tomlPlugins.FindStringSubmatch(config); m != nil {
		r.PluginDirs = texts(m[1])
	}
	r.NoLists = strings.TrimSpace(backend) == "netavark"
	return r
}

// readLists reads a directory as runtimes do: by name, and by how the names end.
func readLists(dir string, onlyLists bool) (out []File, missing bool) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, errors.Is(err, os.ErrNotExist)
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || ext != ".conflist" && (onlyLists || ext != ".conf" && ext != ".json") {
			continue
		}
		f := File{Name: e.Name()}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if f.Unread = err != nil; !f.Unread {
			err = f.parse(text, ext == ".conflist")
		}
		if err != nil {
			f.Bad = err.Error()
		}
		out = append(out, f)
	}
	return out, false
}

// parse reads a list, or the configuration of a single plugin.
func (f *File) parse(text []byte, isList bool) error {
	if !isList {
		var one struct {
			Name, Type, CNIVersion string
			IPAM                   struct{ Type string }
		}
		if err := json.Unmarshal(text, &one); err != nil {
			return err
		}
		if one.Type == "" {
			return errors.New(`no "type"`)
		}
		f.Network, f.Versions = one.Name, []string{one.CNIVersion}
		f.Plugins = slices.DeleteFunc([]string{one.Type, one.IPAM.Type}, func(s string) bool { return s == "" })
		return nil
	}
	l, err := conflist.Parse(text)
	if err != nil {
		return err
	}
	f.Network, f.Versions, f.Version, f.Plugins = l.Name(), l.Versions(), l.Version(), l.Plugins()
	f.Managed = l.ManagedID() != ""
	return nil
}

// asker asks plugins for their versions, each file once: most runtimes of a host start the
// same ones, and each question is a process.
type asker struct {
	mu   sync.Mutex
	said map[string]func() Plugin // by the place of the file
}

// askAll asks the plugins that matter to a runtime, all at the same time. Those that
// have not answered soon after ctx has ended are Late, and left to themselves.
func (k *asker) askAll(ctx context.Context, r Runtime) map[string]Plugin {
	want := slices.Clone(r.wanted())
	for _, f := range r.Files {
		if r.Picks == PicksValid {
			want = append(want, f.Plugins...)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	type answer struct {
		name string
		Plugin
	}
	answers := make(chan answer, len(want))
	out := map[string]Plugin{}
	for _, name := range want {
		out[name] = Plugin{Late: true}
		go func() { answers <- answer{name, k.ask(ctx, name, r.PluginDirs)} }()
	}
	over := afterwards(ctx, grace/2) // before that of the whole part
	for range want {
		select {
		case a := <-answers:
			out[a.name] = a.Plugin
		case <-over:
			return out
		}
	}
	return out
}

// ask asks the first of that name in dirs, unless it was asked before: then for what it says.
func (k *asker) ask(ctx context.Context, name string, dirs []string) Plugin {
	path, err := conflist.Find(name, dirs)
	if err != nil {
		return Plugin{}
	}
	k.mu.Lock()
	if k.said == nil {
		k.said = map[string]func() Plugin{}
	}
	says, asked := k.said[path]
	if !asked {
		says = sync.OnceValue(func() Plugin { return askPlugin(ctx, name, filepath.Dir(path)) })
		k.said[path] = says
	}
	k.mu.Unlock()
	return says()
}

func askPlugin(ctx context.Context, name, dir string) Plugin {
	path, speaks, err := conflist.AskOne(ctx, name, []string{dir})
	p := Plugin{Path: path, Speaks: speaks}
	switch {
	case path == "" || err == nil:
	case ctx.Err() != nil:
		p.Late = true
	default:
		p.Bad = err.Error()
	}
	return p
}
