package netlab

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// World is what a host or a container looks like: lines of text, each
// beginning with the name of its section, which is also its key in the map:
//
//	link      kind, peer or bridge, MTU, up, MAC, alias, flags of the bridge port
//	addr      addresses
//	route     routes of all tables, less what the kernel adds for an address
//	rule      routing policy
//	neigh     neighbours: permanent and proxy ones
//	fdb       forwarding entries of bridges and VXLAN devices: those that do not age
//	nft       the ruleset without counters, a line for each rule, element, chain and table
//	sysctl    settings under net/ for all interfaces, for new ones, for bridges
//	mount     mount points
//	file      files in the private directories: mode, size and hash; of *.log only the mode
//	socket    listening sockets
//	process   command lines
//
// A line holds nothing that differs between two looks at an unchanged host: no
// index, counter, timer, process number or learned state. Lines are sorted,
// but those of nft are in the order of the ruleset.
type World map[string][]string

// Worlds are the worlds of a lab's hosts, by host name.
type Worlds map[string]World

// WorldOptions says what to leave out and what to add.
type WorldOptions struct {
	// Ignore are beginnings of lines that are left out: "file /var/lib/weave/", "sysctl", "process weaver".
	Ignore []string
	// Dynamic adds what comes and goes by itself: neighbours in every state and learned FDB entries.
	Dynamic bool
}

// World looks at all hosts, without the outside one, at the same time.
func (l *Lab) World(o WorldOptions) (Worlds, error) {
	worlds := make([]World, len(l.hosts))
	var all errgroup.Group
	for i, h := range l.hosts {
		all.Go(func() (err error) {
			worlds[i], err = h.World(o)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	out := Worlds{}
	for i, w := range worlds {
		out[l.hosts[i].name] = w
	}
	return out, nil
}

// World looks at the host.
func (h *Host) World(o WorldOptions) (World, error) {
	w := World{}
	// First the processes: what follows starts some itself.
	set := map[string]bool{}
	if err := h.addNamespaces(set); err != nil {
		return nil, fmt.Errorf("look at %s: %w", h.name, err)
	}
	ps, err := processesIn(set)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", h.name, err)
	}
	for _, p := range ps {
		w.add("process", "%s", p.text)
	}
	err = h.look(w, o, func() error { return h.addFiles(w) })
	return w.finish(o), err
}

// World looks at the container: its network only.
func (c *Container) World(o WorldOptions) (World, error) {
	w := World{}
	err := c.look(w, o, func() error { return nil })
	return w.finish(o), err
}

// look adds what is in the space's network namespace, and what files, called in the space, adds.
func (s *Space) look(w World, o WorldOptions, files func() error) error {
	parts := []func(World) error{
		func(w World) error { return s.addLinks(w, o) },
		func(w World) error { return s.addIPv6(w, o) },
		func(w World) error { return s.addFDB(w, o) },
		s.addRuleset,
		s.addSockets,
		s.addSysctls,
		func(World) error { return s.Do(files) },
	}
	found := make([]World, len(parts))
	var all errgroup.Group
	for i, part := range parts {
		found[i] = World{}
		all.Go(func() error { return part(found[i]) })
	}
	if err := all.Wait(); err != nil {
		return fmt.Errorf("look at %s: %w", s.where, err)
	}
	for _, f := range found {
		for section, lines := range f {
			w[section] = append(w[section], lines...)
		}
	}
	return nil
}

func (w World) add(section, format string, args ...any) {
	w[section] = append(w[section], section+" "+fmt.Sprintf(format, args...))
}

// finish leaves out what is to be ignored and sorts.
func (w World) finish(o WorldOptions) World {
	for section, lines := range w {
		w[section] = slices.DeleteFunc(lines, func(line string) bool {
			return slices.ContainsFunc(o.Ignore, func(p string) bool { return strings.HasPrefix(line, p) })
		})
		if section != "nft" {
			slices.Sort(w[section])
		}
		if len(w[section]) == 0 {
			delete(w, section)
		}
	}
	return w
}

// String is every line of the world, by section.
func (w World) String() string {
	var b strings.Builder
	for _, section := range slices.Sorted(maps.Keys(w)) {
		for _, line := range w[section] {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// Diff says what has changed from w to now: a line with "- " for each that is
// gone and one with "+ " for each that is new; the empty string if nothing has.
func (w World) Diff(now World) string {
	sections := map[string]bool{}
	for s := range w {
		sections[s] = true
	}
	for s := range now {
		sections[s] = true
	}
	var b strings.Builder
	for _, s := range slices.Sorted(maps.Keys(sections)) {
		before, after := w[s], now[s]
		if slices.Equal(before, after) {
			continue
		}
		gone, added := surplus(before, after), surplus(after, before)
		if len(gone)+len(added) == 0 {
			i := slices.IndexFunc(before, func(string) bool { return true })
			for before[i] == after[i] {
				i++
			}
			gone, added = before[i:i+1], []string{after[i] + "    (the order has changed, from here on)"}
		}
		for _, line := range gone {
			b.WriteString("- " + line + "\n")
		}
		for _, line := range added {
			b.WriteString("+ " + line + "\n")
		}
	}
	return b.String()
}

// surplus are the lines of a that b does not have, or not as often.
func surplus(a, b []string) (out []string) {
	count := map[string]int{}
	for _, line := range b {
		count[line]++
	}
	for _, line := range a {
		if count[line]--; count[line] < 0 {
			out = append(out, line)
		}
	}
	return out
}

// Diff is World.Diff for each host, with the host's name before the line.
func (w Worlds) Diff(now Worlds) string {
	hosts := maps.Clone(w)
	maps.Copy(hosts, now)
	var b strings.Builder
	for _, h := range slices.Sorted(maps.Keys(hosts)) {
		for line := range strings.Lines(w[h].Diff(now[h])) {
			fmt.Fprintf(&b, "%s %s", h, line)
		}
	}
	return b.String()
}

// addFiles adds mounts and the files in the private directories. Called in the host.
func (h *Host) addFiles(w World) error {
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		// number, parent, device, root, mount point, options, …, "-", type, source, …
		before, after, _ := strings.Cut(line, " - ")
		if f, t := strings.Fields(before), strings.Fields(after); len(f) > 4 && len(t) > 0 {
			w.add("mount", "%s type %s", f[4], t[0])
		}
	}
	for _, dir := range append(privateDirs[:len(privateDirs):len(privateDirs)], h.lab.opts.Private...) {
		if err := addTree(w, dir); err != nil {
			return err
		}
	}
	return nil
}

// addTree adds what is below dir. A file that goes while it looks is not there.
func addTree(w World, dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != dir {
			err = addFile(w, path, e)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// hashed is the size, in bytes, up to which a file's content counts.
const hashed = 1 << 20

func addFile(w World, path string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		w.add("file", "%s -> %s", path, target)
		return err
	case !mode.IsRegular() || strings.HasSuffix(path, ".log"):
		w.add("file", "%s %v", path, mode)
	case info.Size() > hashed:
		w.add("file", "%s %v %d bytes", path, mode, info.Size())
	default:
		if _, ok := boundNS(path); ok {
			w.add("file", "%s namespace", path)
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		w.add("file", "%s %v %d bytes %x", path, mode, info.Size(), sum[:8])
	}
	return nil
}

// addSysctls adds the settings that hold for a whole namespace.
func (s *Space) addSysctls(w World) error {
	return s.Do(func() error {
		paths := []string{"ipv4/ip_forward"}
		for _, dir := range []string{"ipv4/conf/all", "ipv4/conf/default", "ipv6/conf/all", "ipv6/conf/default", "bridge"} {
			entries, err := os.ReadDir("/proc/sys/net/" + dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, e := range entries {
				paths = append(paths, dir+"/"+e.Name())
			}
		}
		for _, p := range paths {
			// Some cannot be read until they were written (stable_secret).
			if v, err := os.ReadFile("/proc/sys/net/" + p); err == nil {
				w.add("sysctl", "%s = %s", p, bytes.TrimSpace(v))
			}
		}
		return nil
	})
}

// addSockets adds what listens.
func (s *Space) addSockets(w World) error {
	out, err := s.Run("ss", "-Hlntuwx")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		// kind, state, two queues, address, peer; for unix the addresses are a path and an inode
		if f := strings.Fields(line); len(f) > 4 {
			w.add("socket", "%s %s", f[0], f[4])
		}
	}
	return nil
}
