package doctor

import (
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
	if r.NoLists {
		return []Finding{advise(check, Warning, "it uses netavark, and reads no CNI network lists",
			"its containers come to a network of weave by `weave net plug`; podman 4 can be set to its CNI backend, and loses its networks by that; podman 5 has none")}
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

// versions compares what our lists offer with what their plugins speak.
func versions(s Snapshot) []Finding {
	const check = "versions"
	var out []Finding
	said := map[string]bool{}
	compared := 0
	for _, r := range s.Runtimes {
		for _, f := range r.Files {
			if f.Bad != "" || !f.isOurs() {
				continue
			}
			compared++
			for _, clash := range clashes(r, f) {
				if !said[clash] { // two runtimes read the same directory
					said[clash] = true
					path := filepath.Join(r.ConfDir, f.Name)
					out = append(out, bad(check, clash, fmt.Sprintf("weave conflist --out %s%s %s", r.ConfDir, dirFlags(r), path)))
				}
			}
		}
	}
	if len(out) == 0 && compared > 0 {
		out = append(out, ok(check, "every plugin speaks what the network lists offer"))
	}
	return out
}

func clashes(r Runtime, f File) []string {
	var out []string
	for _, plugin := range f.Plugins {
		p, asked := r.Plugins[plugin]
		if !asked || p.Path == "" || p.Bad != "" || p.Late {
			continue // the check plugins says so
		}
		var not []string
		for _, v := range f.Versions {
			if !slices.Contains(p.Speaks, v) {
				not = append(not, v)
			}
		}
		if len(not) > 0 {
			out = append(out, fmt.Sprintf("%s offers CNI %s, which %s does not speak (it speaks %s)",
				filepath.Join(r.ConfDir, f.Name), strings.Join(not, " "), p.Path, strings.Join(p.Speaks, " ")))
		}
	}
	return out
}

// plugins are those that a list names, or a runtime starts by itself, and that are not there.
func plugins(s Snapshot) []Finding {
	const check = "plugins"
	var out []Finding
	said := map[string]bool{}
	looked := 0
	for _, r := range s.Runtimes {
		for _, name := range r.wanted() {
			p, asked := r.Plugins[name]
			if !asked {
				continue
			}
			f, well := r.judge(name, p)
			if well {
				looked++
				continue
			}
			if key := f.What + strings.Join(r.PluginDirs, " "); !said[key] { // two runtimes look in the same places
				said[key] = true
				f.Check, f.What = check, fmt.Sprintf("%s, where %s looks", f.What, r.Name)
				out = append(out, f)
			}
		}
	}
	if len(out) == 0 && looked > 0 {
		out = append(out, ok(check, "all are there and answer"))
	}
	return out
}

// judge is what is to be said of one plugin.
func (r Runtime) judge(name string, p Plugin) (f Finding, well bool) {
	f.Level = Problem
	switch {
	case p.Path == "":
		f.What = fmt.Sprintf("%s is not in %s", name, strings.Join(r.PluginDirs, ", "))
	case p.Late:
		f.Level, f.What = Warning, fmt.Sprintf("not known: %s has not answered yet; this host may be busy", p.Path)
		f.Advice = "look again; where it stays so ask it by hand: CNI_COMMAND=VERSION " + p.Path + " </dev/null"
		return f, false
	case p.Bad != "":
		f.What = p.Bad
	default:
		return f, true
	}
	f.Cure, f.Advice = install(name, r)
	return f, false
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

// install is how a plugin comes into a runtime's first directory; only advice for those of
// which is not known who brings them.
func install(plugin string, r Runtime) (cure, advice string) {
	const debian = "/usr/lib/cni"
	dir := conflist.PluginDirs()[0]
	if len(r.PluginDirs) > 0 {
		dir = r.PluginDirs[0]
	}
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
