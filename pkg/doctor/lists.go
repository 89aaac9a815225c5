package doctor

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/conflist"
)

// router is how the router of this host does.
func router(s Snapshot) []Finding {
	const check = "router"
	r := s.Router
	switch {
	case r.Hangs:
		return []Finding{bad(check, "it runs and does not answer: "+r.Why, "systemctl restart weaver")}
	case r.Status == nil:
		return []Finding{bad(check, r.Why, "systemctl start weaver")}
	}
	var out []Finding
	if e := r.Status.Error; e != nil {
		out = append(out, bad(check, "containers cannot be added: "+e.Error(), "weave status"))
	}
	for _, p := range r.Status.Problems {
		if strings.HasPrefix(p, unservedProblem) && len(r.Status.DNS.Errors) > 0 {
			continue // check ports tells it, with who is in the way
		}
		out = append(out, warn(check, p, "weave status"))
	}
	if len(out) == 0 {
		out = append(out, ok(check, fmt.Sprintf("version %s, ready", r.Status.Version)))
	}
	return out
}

// lists is what each runtime would load, and what stands in the way.
func lists(s Snapshot) []Finding {
	var out []Finding
	for _, r := range s.Runtimes {
		out = append(out, listsOf(r)...)
	}
	return out
}

func listsOf(r Runtime) []Finding {
	check := "lists of " + r.Name
	if r.Stopped {
		return []Finding{advise(check, Warning, "it is installed and does not run: what it would load, and from where, is not judged",
			"if its containers are to come to weave, start it and look again")}
	}
	if r.NoLists {
		return []Finding{advise(check, Warning, "it "+netavark, noNetavark)}
	}
	weave := slices.IndexFunc(r.Files, File.isOurs)
	if r.Missing || weave < 0 {
		return []Finding{bad(check, fmt.Sprintf("no network list in %s starts a plugin of weave", r.ConfDir),
			fmt.Sprintf("weave conflist --out %s%s conflist/10-weave.conflist", r.ConfDir, dirFlags(r)))}
	}
	out := broken(check, r)
	out = append(out, picked(check, r)...)
	return append(out, sameNames(check, r)...)
}

// What is said of a podman with netavark, and what there is to decide: the other backend
// knows nothing of the networks that podman has made.
const (
	netavark   = "uses netavark, and reads no CNI network lists"
	noNetavark = "podman 4 has its CNI backend with network_backend = \"cni\" below [network] in /etc/containers/containers.conf, " +
		"and then not its former networks, nor containers on them; podman 5 has none: there `weave net plug` brings a container to a network"
)

// broken are files that no runtime can read. One of them stops every nerdctl command, and
// for containerd all networks if it is the first.
func broken(check string, r Runtime) []Finding {
	var out []Finding
	for i, f := range r.Files {
		if f.Bad == "" {
			continue
		}
		path := filepath.Join(r.ConfDir, f.Name)
		if f.Unread {
			out = append(out, warn(check, fmt.Sprintf("%s is not looked at: %s", path, f.Bad), "sudo weave doctor"))
			continue
		}
		what, level := fmt.Sprintf("%s is no network list: %s", path, f.Bad), Warning
		if r.Picks == PicksFirst && i == 0 {
			what, level = what+"; it is the first, so this runtime has no network at all", Problem
		} else if r.Name == "nerdctl" {
			what, level = what+"; every nerdctl command fails by it", Problem
		}
		out = append(out, Finding{Check: check, Level: level, What: what, Cure: moveAway(path)})
	}
	return out
}

func moveAway(path string) string { return fmt.Sprintf("mv %s %s.off", path, path) }

// picked says which network a container gets that names none.
func picked(check string, r Runtime) []Finding {
	if r.Picks == PicksByName {
		return []Finding{ok(check, fmt.Sprintf("%s has %s; who names none gets %q", r.ConfDir, strings.Join(names(r.Files), ", "), r.Default))}
	}
	i := slices.IndexFunc(r.Files, func(f File) bool { return r.Picks == PicksFirst || f.Bad == "" && r.complete(f) })
	if i < 0 || r.Files[i].Bad != "" {
		return nil // broken, or plugins, has said so
	}
	f := r.Files[i]
	if f.isOurs() {
		return []Finding{ok(check, fmt.Sprintf("it loads %s, network %q", filepath.Join(r.ConfDir, f.Name), f.Network))}
	}
	path, our := filepath.Join(r.ConfDir, f.Name), r.Files[slices.IndexFunc(r.Files, File.isOurs)].Name
	return []Finding{advise(check, Warning, fmt.Sprintf("it loads %s, network %q: that sorts before %s, so pods are not on the network of weave", path, f.Network, our),
		fmt.Sprintf("if they are to be on it, give %s a name that sorts before: pods that start then are on no network of %s any more", our, f.Name))}
}

// complete reports whether every plugin of a list is there and answers.
func (r Runtime) complete(f File) bool {
	return !slices.ContainsFunc(f.Plugins, func(p string) bool {
		have, asked := r.Plugins[p]
		return asked && !have.Late && (have.Path == "" || have.Bad != "")
	})
}

// sameNames are networks that two files define: which one counts depends on the runtime.
func sameNames(check string, r Runtime) []Finding {
	var out []Finding
	first := map[string]string{}
	for _, f := range r.Files {
		if f.Bad != "" {
			continue
		}
		if other, twice := first[f.Network]; twice {
			out = append(out, advise(check, Warning, fmt.Sprintf("%s and %s in %s are both network %q: which one counts is the runtime's to say", other, f.Name, r.ConfDir, f.Network),
				"keep the one that is meant, and give the other's network another name"))
			continue
		}
		first[f.Network] = f.Name
	}
	return out
}

func names(files []File) []string {
	var out []string
	for _, f := range files {
		if f.Bad == "" {
			out = append(out, fmt.Sprintf("%q", f.Network))
		}
	}
	return out
}

// dirFlags repeats the directories of plugins for the command weave conflist.
func dirFlags(r Runtime) string {
	var b strings.Builder
	for _, d := range r.PluginDirs {
		b.WriteString(" --plugin-dir " + d)
	}
	return b.String()
}

// clash is a plugin that does not speak what a list offers: one cause, however many lists
// offer it.
type clash struct {
	runtime Runtime
	plugin  string
	not     string
	files   []File
}

// versions compares what our lists offer with what their plugins speak.
func versions(s Snapshot) []Finding {
	const check = "versions"
	var out []Finding
	said := map[string]bool{}
	compared, late := 0, false
	for _, r := range s.Runtimes {
		late = late || len(r.late()) > 0
		for _, f := range r.Files {
			if !r.Stopped && f.Bad == "" && f.isOurs() {
				compared++
			}
		}
		for _, c := range clashes(r) {
			f := c.finding(check)
			if !said[f.What] { // two runtimes read the same directory
				said[f.What] = true
				out = append(out, f)
			}
		}
	}
	if len(out) == 0 && compared > 0 && !late {
		out = append(out, ok(check, "every plugin speaks what the network lists offer"))
	}
	return out
}

// clashes are those of a runtime's lists, those of one plugin together.
func clashes(r Runtime) (out []clash) {
	if r.Stopped {
		return nil
	}
	for _, f := range r.Files {
		if f.Bad != "" || !f.isOurs() {
			continue
		}
		for _, plugin := range f.Plugins {
			not := r.unspoken(plugin, r.takes(f))
			if not == "" {
				continue
			}
			i := slices.IndexFunc(out, func(c clash) bool { return c.plugin == plugin && c.not == not })
			if i < 0 {
				i, out = len(out), append(out, clash{runtime: r, plugin: plugin, not: not})
			}
			out[i].files = append(out[i].files, f)
		}
	}
	return out
}

// takes are the versions at which a runtime may use a list. podman 4 knows cniVersion alone:
// what else the list offers, for plugins in another runtime's directory, is nothing to it.
func (r Runtime) takes(f File) []string {
	if r.Name == "podman" && f.Version != "" {
		return []string{f.Version}
	}
	return f.Versions
}

// unspoken are those of some versions that a plugin does not speak.
func (r Runtime) unspoken(plugin string, versions []string) string {
	p, asked := r.Plugins[plugin]
	if !asked || p.Path == "" || p.Bad != "" || p.Late {
		return "" // the check plugins says so
	}
	var not []string
	for _, v := range versions {
		if !slices.Contains(p.Speaks, v) {
			not = append(not, v)
		}
	}
	return strings.Join(not, " ")
}

// finding is one of the operator's lists to be fitted: the router makes its own from that.
func (c clash) finding(check string) Finding {
	of := c.files[0]
	if i := slices.IndexFunc(c.files, func(f File) bool { return !f.Managed }); i >= 0 {
		of = c.files[i]
	}
	who, p := filepath.Join(c.runtime.ConfDir, of.Name), c.runtime.Plugins[c.plugin]
	verb := "offers"
	if more := len(c.files) - 1; more > 0 {
		who, verb = fmt.Sprintf("%s and %d more", who, more), "offer"
	}
	f := bad(check, fmt.Sprintf("%s %s CNI %s, which %s does not speak (it speaks %s)", who, verb, c.not, p.Path, strings.Join(p.Speaks, " ")), "")
	switch {
	case of.Managed:
		f.Advice = "the router makes that list from the one of the network weave: fit that one by `weave conflist`, and it follows"
	case !c.runtime.complete(of):
		f.Advice = "first install the plugins that are not there, then fit the list by `weave conflist`"
	default:
		f.Cure = fmt.Sprintf("weave conflist --out %s%s %s", c.runtime.ConfDir, dirFlags(c.runtime), filepath.Join(c.runtime.ConfDir, of.Name))
	}
	return f
}

// plugins are those that a list names, or a runtime starts by itself, and that are not there.
func plugins(s Snapshot) []Finding {
	const check = "plugins"
	var out []Finding
	said := map[string]bool{}
	looked, late := 0, false
	say := func(r Runtime, f Finding) {
		if key := f.What + strings.Join(r.PluginDirs, " "); !said[key] { // two runtimes look in the same places
			said[key] = true
			f.Check, f.What = check, fmt.Sprintf("%s, where %s looks", f.What, r.Name)
			out = append(out, f)
		}
	}
	for _, r := range s.Runtimes {
		var missing []string // of ours: they come together
		for _, name := range r.wanted() {
			p, asked := r.Plugins[name]
			if !asked || r.Stopped {
				continue
			}
			f, well := r.judge(name, p)
			switch {
			case well:
				looked++
			case p.Late: // inTime says so
				late = true
			case p.Path == "" && isOurPlugin(name):
				missing = append(missing, name)
			default:
				say(r, f)
			}
		}
		if len(missing) > 0 {
			say(r, r.missing(missing))
		}
	}
	if len(out) == 0 && looked > 0 && !late {
		out = append(out, ok(check, "all are there and answer"))
	}
	return out
}

// missing is what is to be said of plugins of ours that are not there.
func (r Runtime) missing(names []string) Finding {
	is := "is"
	if len(names) > 1 {
		is = "are"
	}
	return Finding{Level: Problem, What: fmt.Sprintf("%s %s not in %s", strings.Join(names, ", "), is, strings.Join(r.PluginDirs, ", ")),
		Cure: fmt.Sprintf("install -m 0755 -D -t %s bin/%s   # from the build of weave", r.firstDir(), strings.Join(names, " bin/"))}
}

// firstDir is where a plugin is found before all others.
func (r Runtime) firstDir() string {
	if len(r.PluginDirs) > 0 {
		return r.PluginDirs[0]
	}
	return conflist.PluginDirs()[0]
}

// judge is what is to be said of one plugin.
func (r Runtime) judge(name string, p Plugin) (f Finding, well bool) {
	f.Level = Problem
	switch {
	case p.Late:
		return f, false
	case p.Path == "":
		f.What = fmt.Sprintf("%s is not in %s", name, strings.Join(r.PluginDirs, ", "))
	case p.Bad != "":
		f.What = p.Bad
	default:
		return f, true
	}
	f.Cure, f.Advice = install(name, r)
	return f, false
}

// late are the plugins that have not answered in time.
func (r Runtime) late() (out []string) {
	for name, p := range r.Plugins {
		if p.Late {
			out = append(out, name)
		}
	}
	return out
}

// wanted are the plugins of our lists, and of what a runtime starts besides.
func (r Runtime) wanted() []string {
	var out []string
	for _, f := range r.Files {
		if f.isOurs() {
			out = append(out, f.Plugins...)
		}
	}
	if r.Loopback {
		out = append(out, "loopback")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// reference are the plugins that Debian's containernetworking-plugins brings.
var reference = []string{"bandwidth", "bridge", "dhcp", "firewall", "host-device", "host-local", "ipvlan", "loopback", "macvlan", "portmap", "ptp",
	"sbr", "static", "tuning", "vlan", "vrf"}

// HowToInstall is what brings a plugin into the first of a runtime's directories.
func HowToInstall(plugin string, dirs []string) string {
	cure, advice := install(plugin, Runtime{PluginDirs: dirs})
	return cmp.Or(cure, advice)
}

// install is how a plugin comes into a runtime's first directory; only advice for those of
// which is not known who brings them.
func install(plugin string, r Runtime) (cure, advice string) {
	const debian = "/usr/lib/cni"
	dir := r.firstDir()
	into := fmt.Sprintf("install -m 0755 -D -t %s ", dir)
	switch {
	case isOurPlugin(plugin):
		return into + "bin/" + plugin + "   # from the build of weave", ""
	case !slices.Contains(reference, plugin):
		return "", fmt.Sprintf("install what brings %s, or take it out of the network list", plugin)
	case dir == debian:
		return "apt-get install containernetworking-plugins", ""
	}
	return "apt-get install containernetworking-plugins && " + into + debian + "/" + plugin, ""
}
