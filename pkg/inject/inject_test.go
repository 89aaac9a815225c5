package inject

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }

const hostText = "nameserver 192.0.2.53\nsearch host.example\n"

// stage is a host with one container's file in a runtime's state.
type stage struct {
	t    *testing.T
	dir  Dir
	id   string // the runtime's
	file string
	root string // the container's, to be
}

func newStage(t *testing.T) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces and mounts")
	}
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, id: strings.Repeat("0123456789abcdef", 4), root: filepath.Join(top, "rootfs")}
	host := NewHost([]string{filepath.Join(top, "state")})
	host.Etc = filepath.Join(top, "etc")
	host.Others = []string{filepath.Join(top, "other.conf")}
	s.dir = Dir{filepath.Join(top, "run", "resolv"), host}
	s.file = filepath.Join(top, "state", "1935db59", "containers", "default", s.id, fileName)
	s.put(filepath.Join(host.Etc, fileName), hostText)
	s.put(filepath.Join(s.root, "etc", fileName), "")
	s.put(s.file, "nameserver 9.9.9.9\nsearch corp\noptions ndots:2\n")
	return s
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) put(path, text string) {
	s.t.Helper()
	s.must(errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)))
}

func (s *stage) text(path string) string {
	s.t.Helper()
	b, err := os.ReadFile(path)
	s.must(err)
	return string(b)
}

func (s *stage) is(what, path, want string) {
	s.t.Helper()
	if got := s.text(path); got != want {
		s.t.Errorf("%s: %s is\n%s\nwant\n%s", what, path, got, want)
	}
}

// start starts a process in namespaces of its own, in which src is bound over a file, as
// runc has it when nerdctl's hook calls the plugins.
func (s *stage) start(src, over string) Container {
	s.t.Helper()
	return s.run(`mount --bind "$1" "$2"; echo; exec sleep 3600`, src, over)
}

// run runs a script in namespaces of its own until it has written a line, and leaves it.
func (s *stage) run(script, src, over string) Container {
	s.t.Helper()
	cmd := exec.Command("unshare", "--mount", "--net", "sh", "-euc", script, "sh", src, over)
	out, err := cmd.StdoutPipe()
	s.must(err)
	cmd.Stderr = os.Stderr
	s.must(cmd.Start())
	s.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	_, err = bufio.NewReader(out).ReadString('\n')
	s.must(err)
	netns := fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
	var st unix.Stat_t
	s.must(unix.Stat(netns, &st))
	return Container{ID: "default-" + s.id, NetNS: netns, NS: attachment.NSID{Dev: uint64(st.Dev), Ino: st.Ino}}
}

func (s *stage) usual() Container { return s.start(s.file, filepath.Join(s.root, "etc", fileName)) }

func entry(hash, server string) Entry {
	return Entry{Owner: Owner{Hash: hash, Network: "net-" + hash}, Servers: []netip.Addr{netip.MustParseAddr(server)}, Domain: hash + ".local"}
}

// add is what an ADD does.
func (s *stage) add(c Container, e Entry) {
	s.t.Helper()
	f, err := s.dir.Host.Find(c)
	if err != nil || f == nil {
		s.t.Fatalf("Find: %v, %v", f, err)
	}
	defer f.Close()
	_, err = s.dir.Servers(f)
	s.must(err)
	s.must(s.dir.Put(f, e))
}

func (s *stage) del(hash string) string {
	s.t.Helper()
	said, err := s.dir.Remove(hash)
	s.must(err)
	return said
}

func (s *stage) leftovers() (names []string) {
	entries, err := os.ReadDir(s.dir.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.must(err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) == 0 {
		return []string{s.dir.Path} // empty, and there
	}
	return names
}

func TestARuntimesFileIsWrittenInPlaceAndRestored(t *testing.T) {
	s := newStage(t)
	before, c := s.text(s.file), s.usual()
	var was, is unix.Stat_t
	s.must(unix.Stat(s.file, &was))
	for range 2 { // nerdctl calls DEL, then ADD, at each start
		s.del("a")
		s.add(c, entry("a", "10.32.0.1"))
		got := s.text(s.file)
		for _, want := range []string{"\nnameserver 10.32.0.1\n", "\nsearch a.local corp\n", "\noptions ndots:2\n"} {
			if !strings.Contains(got, want) || strings.Contains(got, "\nnameserver 9.9.9.9\n") {
				t.Errorf("got\n%s", got)
			}
		}
	}
	s.must(unix.Stat(s.file, &is))
	if is.Ino != was.Ino || is.Mode != was.Mode {
		t.Error("it is another file")
	}
	if said := s.del("a"); said != "" {
		t.Error(said)
	}
	s.is("after DEL", s.file, before)
	if got := s.leftovers(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestSeveralNetworksComeAndGoInAnyOrder(t *testing.T) {
	s := newStage(t)
	before, c := s.text(s.file), s.usual()
	for _, gone := range [][]string{{"a", "b", "c"}, {"c", "b", "a"}, {"b", "a", "c"}} {
		for i, h := range []string{"a", "b", "c", "b"} { // once more is once
			s.add(c, entry(h, fmt.Sprintf("10.%d.0.1", 32+i%3)))
		}
		if got := s.text(s.file); !strings.Contains(got, "\nnameserver 10.32.0.1\nsearch a.local b.local c.local corp\n") || strings.Count(got, "nameserver") != 2 {
			t.Errorf("got\n%s", got)
		}
		s.del(gone[0])
		s.del(gone[1])
		if got := s.text(s.file); !strings.Contains(got, "\nsearch "+gone[2]+".local corp\n") {
			t.Errorf("%v: got\n%s", gone, got)
		}
		s.del(gone[2])
		s.is(fmt.Sprint(gone), s.file, before)
	}
}

func TestNetworksOfOneContainerComeTogether(t *testing.T) {
	s := newStage(t)
	before, c := s.text(s.file), s.usual()
	hashes := []string{"a", "b", "c", "d", "e", "f"}
	var all sync.WaitGroup
	for _, h := range hashes {
		all.Go(func() {
			f, err := s.dir.Host.Find(c)
			if err == nil {
				defer f.Close()
				err = s.dir.Put(f, entry(h, "10.32.0.1"))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got := s.text(s.file)
	for _, h := range hashes {
		if !strings.Contains(got, " "+h+".local") {
			t.Errorf("%s is not in\n%s", h, got)
		}
	}
	for _, h := range hashes {
		all.Go(func() {
			if _, err := s.dir.Remove(h); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.is("after all", s.file, before)
}

func TestWhatOthersWroteStays(t *testing.T) {
	s := newStage(t)
	c := s.usual()
	s.add(c, entry("a", "10.32.0.1"))
	s.put(s.file, s.text(s.file)+"options edns0\n")
	s.add(c, entry("b", "10.48.0.1"))
	s.put(s.file, s.text(s.file)+"# mine\n")
	if said := s.del("a"); !strings.Contains(said, "was changed since") {
		t.Errorf("said %q", said)
	}
	if said := s.del("b"); said != "" {
		t.Errorf("said %q", said)
	}
	s.is("edited", s.file, "nameserver 9.9.9.9\nsearch corp\noptions ndots:2\noptions edns0\n# mine\n")

	s.add(c, entry("a", "10.32.0.1"))
	s.put(s.file, "nameserver 1.1.1.1\n") // nothing of ours is in it any more
	s.del("a")
	s.is("rewritten", s.file, "nameserver 1.1.1.1\n")

	s.add(c, entry("a", "10.32.0.1"))
	s.put(s.file+".new", "nameserver 8.8.8.8\n")
	s.must(os.Rename(s.file+".new", s.file))
	if said := s.del("a"); !strings.Contains(said, "another file now") {
		t.Errorf("said %q", said)
	}
	s.is("replaced", s.file, "nameserver 8.8.8.8\n")
}

func TestALostStateCostsNoLineOfTheUsers(t *testing.T) {
	s := newStage(t)
	before, c := s.text(s.file), s.usual()
	s.add(c, entry("a", "10.32.0.1"))
	s.must(os.RemoveAll(s.dir.Path))
	s.add(c, entry("a", "10.32.0.1"))
	s.del("a")
	s.is("after all", s.file, before)

	s.add(c, entry("a", "10.32.0.1"))
	for _, n := range s.leftovers() {
		s.put(filepath.Join(s.dir.Path, n), "{")
	}
	if _, err := s.dir.Remove("a"); err == nil {
		t.Error("a broken state is not told")
	}
	s.add(c, entry("b", "10.32.0.1"))
	s.del("b")
	s.is("after a broken state", s.file, before)
}

// A file of somebody else's that must not change, whatever stands in the place of ours.
func (s *stage) victim() string {
	v := filepath.Join(filepath.Dir(s.root), "victim")
	s.put(v, "secret\n")
	return v
}

func (s *stage) remove() { s.must(os.RemoveAll(s.file)) }

func TestHostileFilesAreLeftAlone(t *testing.T) {
	const elsewhere = "in no runtime's directory of this container"
	other := strings.Repeat("f", 64)
	for name, x := range map[string]struct {
		make  func(s *stage, victim string) (bind string) // before the mount
		after func(s *stage, victim string)               // and after it
		why   string
	}{
		"a hard link": {make: func(s *stage, v string) string { s.remove(); s.must(os.Link(v, s.file)); return s.file }, why: "it has 2 names"},
		"a FIFO":      {make: func(s *stage, _ string) string { s.remove(); s.must(unix.Mkfifo(s.file, 0o644)); return s.file }, why: "no regular file"},
		"a device": {make: func(s *stage, _ string) string {
			s.remove()
			s.must(unix.Mknod(s.file, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))))
			return s.file
		}, why: "no regular file"},
		"a socket": {make: func(s *stage, _ string) string {
			s.remove()
			s.must(unix.Mknod(s.file, unix.S_IFSOCK|0o644, 0))
			return s.file
		}, why: "no regular file"},
		"a symbolic link in its place": {after: func(s *stage, v string) { s.remove(); s.must(os.Symlink(v, s.file)) }, why: elsewhere},
		"a symbolic link in its path": {after: func(s *stage, v string) {
			at := filepath.Dir(s.file)
			s.must(errors.Join(os.Rename(at, at+".away"), os.Symlink(at+".away", at)))
		}, why: elsewhere},
		"another file in its place": {after: func(s *stage, _ string) { s.remove(); s.put(s.file, "new\n") }, why: elsewhere},
		"no file any more":          {after: func(s *stage, _ string) { s.remove() }, why: elsewhere},
		"a directory": {make: func(s *stage, _ string) string {
			s.remove()
			s.must(errors.Join(os.Mkdir(s.file, 0o755), os.Remove(filepath.Join(s.root, "etc", fileName)), os.Mkdir(filepath.Join(s.root, "etc", fileName), 0o755)))
			return s.file
		}, why: "no regular file"},
		"a huge file": {make: func(s *stage, _ string) string { s.must(os.Truncate(s.file, 1<<40)); return s.file }, why: "more than any resolv.conf"},
		"binary junk": {make: func(s *stage, _ string) string { s.put(s.file, "\x7fELF\x00\x01"); return s.file }, why: "it is no text"},
		"a read-only file system": {make: func(s *stage, _ string) string {
			at := filepath.Dir(s.file)
			s.must(unix.Mount("tmpfs", at, "tmpfs", 0, ""))
			s.t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
			s.put(s.file, hostText)
			s.must(unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			return s.file
		}, why: "read-only"},
		"the host's own":                     {make: func(s *stage, _ string) string { s.dir.Host.Etc = filepath.Dir(s.file); return s.file }, why: "the host's own"},
		"the host's own, elsewhere":          {make: func(s *stage, _ string) string { return filepath.Join(s.dir.Host.Etc, fileName) }, why: elsewhere},
		"a user's own file":                  {make: func(_ *stage, v string) string { return v }, why: elsewhere},
		"a file of another name":             {make: func(s *stage, _ string) string { s.put(s.file+".x", "x"); return s.file + ".x" }, why: elsewhere},
		"another container's":                {make: func(s *stage, _ string) string { p := strings.Replace(s.file, s.id, other, 1); s.put(p, "x"); return p }, why: elsewhere},
		"a volume below the state directory": {make: func(s *stage, _ string) string { p := strings.Replace(s.file, s.id, "vol", 1); s.put(p, "x"); return p }, why: elsewhere},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			victim := s.victim()
			bind := s.file
			if x.make != nil {
				bind = x.make(s, victim)
			}
			c := s.start(bind, filepath.Join(s.root, "etc", fileName))
			if x.after != nil {
				x.after(s, victim)
			}
			f, err := s.dir.Host.Find(c)
			var l *Left
			switch {
			case f != nil:
				t.Errorf("taken: %s", f.path)
				f.Close()
			case !errors.As(err, &l) || !strings.Contains(err.Error(), x.why):
				t.Errorf("said %v, want %q", err, x.why)
			}
			s.is("the victim", victim, "secret\n")
		})
	}
}

// What a mountinfo says may be over by the time that the path is opened.
func TestAPathIsOpenedAsItWasFoundOrNotAtAll(t *testing.T) {
	for name, x := range map[string]struct {
		swap func(s *stage, victim string)
		why  string
	}{
		"a symbolic link": {func(s *stage, v string) { s.remove(); s.must(os.Symlink(v, s.file)) }, "it is a symbolic link"},
		"a symbolic link to a FIFO": {func(s *stage, v string) {
			s.remove()
			s.must(errors.Join(unix.Mkfifo(v+".fifo", 0o644), os.Symlink(v+".fifo", s.file)))
		}, "it is a symbolic link"},
		"a link of /proc": {func(s *stage, _ string) { s.remove(); s.must(os.Symlink("/proc/self/fd/0", s.file)) }, "it is a symbolic link"},
		"a symbolic link in its path": {func(s *stage, v string) {
			at := filepath.Dir(s.file)
			s.must(errors.Join(os.Rename(at, at+".away"), os.Symlink(at+".away", at)))
		}, "a symbolic link in its path"},
		"another file": {func(s *stage, _ string) { s.must(os.Rename(s.file, s.file+".was")); s.put(s.file, "new\n") }, "another file in its place"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			victim := s.victim()
			over := filepath.Join(s.root, "etc", fileName)
			c := s.start(s.file, over)
			x.swap(s, victim)
			pid, _ := processOf(c.NetNS)
			process, err := unix.Open("/proc/"+pid, unix.O_PATH|unix.O_CLOEXEC, 0)
			s.must(err)
			defer unix.Close(process)
			if f, err := s.dir.Host.openBound(process, s.file, over); f != nil || err == nil || !strings.Contains(err.Error(), x.why) {
				t.Errorf("got %v, %v, want %q", f, err, x.why)
			}
		})
	}
}

func TestAFileSwappedAfterTheCheckIsNotTheOneThatIsWritten(t *testing.T) {
	s := newStage(t)
	victim, c := s.victim(), s.usual()
	f, err := s.dir.Host.Find(c)
	s.must(err)
	defer f.Close()
	s.must(errors.Join(os.Rename(s.file, s.file+".was"), os.Symlink(victim, s.file)))
	s.must(s.dir.Put(f, entry("a", "10.32.0.1")))
	s.is("the victim", victim, "secret\n")
	if got := s.text(s.file + ".was"); !strings.Contains(got, "nameserver 10.32.0.1") {
		t.Errorf("got\n%s", got)
	}
	if _, err := s.dir.Remove("a"); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("DEL: %v", err)
	}
	s.is("the victim after DEL", victim, "secret\n")
}

func TestOnlyAProcessInNamespacesOfItsOwnIsAContainer(t *testing.T) {
	s := newStage(t)
	c := s.usual()
	for what, change := range map[string]func(*Container){
		"another namespace":      func(c *Container) { c.NS.Ino++ },
		"no process":             func(c *Container) { c.NetNS = "/proc/999999999/ns/net" },
		"a thread":               func(c *Container) { c.NetNS = strings.Replace(c.NetNS, "/ns/", "/task/1/ns/", 1) },
		"a namespace of another": func(c *Container) { c.NetNS = "/run/netns/cni-1" },
		"ours": func(c *Container) {
			var st unix.Stat_t
			s.must(unix.Stat("/proc/self/ns/net", &st))
			*c = Container{ID: c.ID, NetNS: fmt.Sprintf("/proc/%d/ns/net", os.Getpid()), NS: attachment.NSID{Dev: uint64(st.Dev), Ino: st.Ino}}
		},
	} {
		x := c
		change(&x)
		if f, err := s.dir.Host.Find(x); f != nil || err != nil {
			t.Errorf("%s: %v, %v", what, f, err)
		}
	}
}

func TestANamedNamespaceGetsAFileThatGoesWithIt(t *testing.T) {
	s := newStage(t)
	c := Container{ID: "cnitool-1", NetNS: "/run/netns/web", Named: "web"}
	file := filepath.Join(s.dir.Host.Etc, "netns", "web", fileName)
	for range 2 {
		s.add(c, entry("a", "10.32.0.1"))
		s.add(c, entry("b", "10.48.0.1"))
		if got := s.text(file); !strings.Contains(got, "\nnameserver 10.32.0.1\nsearch a.local b.local host.example\n") {
			t.Errorf("got\n%s", got)
		}
		s.del("b")
		s.del("a")
		if _, err := os.Stat(filepath.Dir(file)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %v", err)
		}
	}
	s.put(file, "nameserver 9.9.9.9\n") // a person's
	s.add(c, entry("a", "10.32.0.1"))
	s.del("a")
	s.is("a person's", file, "nameserver 9.9.9.9\n")

	s.must(os.RemoveAll(filepath.Dir(file)))
	s.add(c, entry("a", "10.32.0.1"))
	s.must(os.RemoveAll(s.dir.Path)) // the host was rebooted
	s.add(c, entry("a", "10.32.0.1"))
	s.del("a")
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after a reboot: %v", err)
	}

	s.must(os.RemoveAll(filepath.Dir(file)))
	s.add(c, entry("a", "10.32.0.1"))
	s.put(file, s.text(file)+"options edns0\n")
	s.del("a")
	s.is("made and then edited", file, hostText+"options edns0\n")

	s.must(os.RemoveAll(filepath.Dir(file)))
	s.must(os.Symlink(filepath.Dir(s.victim()), filepath.Dir(file)))
	if f, err := s.dir.Host.Find(c); err == nil && f != nil && s.dir.Put(f, entry("a", "10.32.0.1")) == nil {
		t.Error("written through a symbolic link")
	}
}

// ADD of one network has the file open while DEL of the other takes it away.
func TestAFileThatAnotherNetworksDELRemovedIsMadeAnew(t *testing.T) {
	s := newStage(t)
	c := Container{ID: "cnitool-1", NetNS: "/run/netns/web", Named: "web"}
	s.add(c, entry("a", "10.32.0.1"))
	f, err := s.dir.Host.Find(c)
	s.must(err)
	defer func() { f.Close() }()
	s.del("a")
	s.must(s.dir.Put(f, entry("b", "10.48.0.1")))
	if got := s.text(f.path); !strings.Contains(got, "\nnameserver 10.48.0.1\nsearch b.local host.example\n") {
		t.Errorf("got\n%s", got)
	}
	s.del("b")
	if _, err := os.Stat(filepath.Dir(f.path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

func TestAFileIsLookedAtOnceMoreUnderTheLock(t *testing.T) {
	for why, change := range map[string]func(s *stage){
		"it was removed meanwhile": func(s *stage) { s.remove() },
		"it has 2 names":           func(s *stage) { s.must(os.Link(s.file, s.file+".too")) },
	} {
		s := newStage(t)
		f, err := s.dir.Host.Find(s.usual())
		s.must(err)
		change(s)
		var l *Left
		if err := s.dir.Put(f, entry("a", "10.32.0.1")); !errors.As(err, &l) || !strings.Contains(err.Error(), why) {
			t.Errorf("said %v, want %q", err, why)
		}
		f.Close()
		if got := s.leftovers(); len(got) != 0 {
			t.Errorf("%s: left: %v", why, got)
		}
	}
}

// An ADD that is killed may stop after each of its steps.
func TestACrashWhileAFileIsMadeLeavesNothingForGood(t *testing.T) {
	c, e := Container{ID: "cnitool-1", NetNS: "/run/netns/web", Named: "web"}, entry("a", "10.32.0.1")
	for step, crash := range map[string]func(s *stage, name string, f *File){
		"noted": func(*stage, string, *File) {},
		"made":  func(s *stage, name string, f *File) { _, err := s.dir.ensure(name, f, e); s.must(err) },
		"saved": func(s *stage, name string, f *File) {
			_, err := s.dir.ensure(name, f, e)
			s.must(err)
			s.must(s.dir.save(name, s.dir.current(name, f)))
		},
	} {
		for _, again := range []bool{false, true} { // the runtime tries again, or gives up
			s := newStage(t)
			f, err := s.dir.Host.Find(c)
			s.must(err)
			name := recordName(f.path)
			s.must(os.MkdirAll(s.dir.Path, 0o700))
			s.must(s.dir.note(e.Owner, func(a *attached) { a.File = name }))
			crash(s, name, f)
			f.Close()
			if again {
				s.add(c, e)
				if got := s.text(f.path); !strings.Contains(got, "\nsearch a.local host.example\n") {
					t.Errorf("%s, and again: got\n%s", step, got)
				}
			}
			s.del("a")
			if _, err := os.Stat(filepath.Dir(f.path)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s, again %v: left: %v", step, again, err)
			}
			if got := s.leftovers(); len(got) != 0 {
				t.Errorf("%s, again %v: left: %v", step, again, got)
			}
		}
	}
}

func TestTheContainersOwnServersAreKnown(t *testing.T) {
	s := newStage(t)
	for text, want := range map[string][]string{
		"nameserver 9.9.9.9\nnameserver 2620:fe::fe\n": {"9.9.9.9", "2620:fe::fe"},
		"nameserver ::ffff:9.9.9.9\n":                  {"9.9.9.9"},
		"nameserver 192.0.2.53\n":                      nil, // the host's
		"nameserver 192.0.2.53\nnameserver 9.9.9.9\n":  {"192.0.2.53", "9.9.9.9"},
		"nameserver 198.51.100.1\n":                    nil, // the host's too, in another place
		"":                                             nil,
		"nameserver fe80::1%eth0\nnameserver 127.0.0.1\nnameserver x\nnameserver 224.0.0.1": nil,
	} {
		s.put(s.dir.Host.Others[0], "nameserver 198.51.100.1\n")
		s.must(os.RemoveAll(s.dir.Path))
		s.remove()
		s.put(s.file, text)
		c := s.usual()
		for _, after := range []bool{false, true} { // another network's ADD
			f, err := s.dir.Host.Find(c)
			s.must(err)
			var got []string
			servers, err := s.dir.Servers(f)
			s.must(err)
			for _, a := range servers {
				got = append(got, a.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q, after another %v: got %v, want %v", text, after, got, want)
			}
			s.must(s.dir.Put(f, entry("a", "10.32.0.1")))
			f.Close()
		}
	}
}

// asks gives the servers that the router would be told of.
func (s *stage) asks(c Container) string {
	s.t.Helper()
	f, err := s.dir.Host.Find(c)
	s.must(err)
	defer f.Close()
	servers, err := s.dir.Servers(f)
	s.must(err)
	return fmt.Sprint(servers)
}

func TestServersThatTheContainerItselfMayHaveWrittenAreNotAsked(t *testing.T) {
	s := newStage(t)
	c := s.usual()
	is := func(what, want string) {
		t.Helper()
		if got := s.asks(c); got != want {
			t.Errorf("%s: asks %s, want %s", what, got, want)
		}
	}
	is("new", "[9.9.9.9]")
	for what, edit := range map[string]func(){
		"left":                  func() {},
		"added to":              func() { s.put(s.file, s.text(s.file)+"nameserver 10.255.255.53\n") },
		"written anew":          func() { s.put(s.file, "nameserver 10.255.255.53\n") },
		"emptied":               func() { s.put(s.file, "") },
		"written, DEL was lost": func() { s.must(os.RemoveAll(s.dir.Path)); s.put(s.file, "nameserver 10.255.255.53\n") },
		"made to be left alone by DEL": func() {
			s.put(s.file, "\x00")
			if _, err := s.dir.Remove("a"); err == nil {
				t.Error("DEL says nothing of a file that it leaves alone")
			}
			s.put(s.file, "nameserver 10.255.255.53\n")
		},
	} {
		s.add(c, entry("a", "10.32.0.1"))
		is("another network's", "[9.9.9.9]")
		edit()
		is(what, "[9.9.9.9]")
		s.del("a")
		is(what+", and started again", "[9.9.9.9]")
		if left := s.leftovers(); left != nil {
			t.Errorf("%s: left: %v", what, left)
		}
	}
	s.put(s.file+".new", "nameserver 8.8.8.8\n")
	s.must(os.Rename(s.file+".new", s.file))
	c = s.usual()
	is("a new file of the runtime", "[8.8.8.8]")
}

func TestWhereServersCannotBeNotedNoneAreAsked(t *testing.T) {
	s := newStage(t)
	at := filepath.Dir(s.file)
	s.must(unix.Mount("ramfs", at, "ramfs", 0, ""))
	t.Cleanup(func() { s.must(unix.Unmount(at, unix.MNT_DETACH)) })
	for text, why := range map[string]string{"nameserver 9.9.9.9\n": "[9.9.9.9] are not asked", hostText: ""} {
		s.put(s.file, text)
		f, err := s.dir.Host.Find(s.usual())
		s.must(err)
		defer f.Close()
		if got, err := s.dir.Servers(f); got != nil || (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%q: asks %v, %v", text, got, err)
		}
		s.must(s.dir.Put(f, entry("a", "10.32.0.1")))
		s.del("a")
		s.is("after DEL", s.file, text)
	}
}

func TestServersInTheFileOfAContainerThatRunsAreNotAsked(t *testing.T) {
	s := newStage(t)
	c := s.run(`mount -t tmpfs none "$2"; cd "$2"; mkdir etc; : > etc/resolv.conf; mount --bind "$1" etc/resolv.conf
		for d in usr bin lib lib64; do
			if [ -L /$d ]; then cp -P /$d $d; elif [ -e /$d ]; then mkdir $d; mount --rbind /$d $d; fi
		done
		exec chroot . sh -c 'echo; exec sleep 3600'`, s.file, s.root)
	for _, what := range []string{"attached while it runs", "attached again"} {
		if got := s.asks(c); got != "[]" {
			t.Errorf("%s: asks %s", what, got)
		}
		s.add(c, entry("a", "10.32.0.1"))
		s.del("a")
	}
	if got := s.asks(s.usual()); got != "[]" {
		t.Errorf("started again: asks %s", got)
	}
}

func TestAFileThatNamesAResolverForItsContainerOnlyIsKept(t *testing.T) {
	s := newStage(t)
	c := s.usual()
	ours, host := []netip.Addr{netip.MustParseAddr("10.32.0.1")}, []netip.Addr{netip.MustParseAddr("10.89.0.1"), netip.MustParseAddr("10.32.0.1")}
	for text, want := range map[string]string{
		"nameserver 9.9.9.9\n":                       "",
		"nameserver 10.32.0.1\n":                     "",
		"nameserver 127.0.0.11\n":                    "of the container's own, 127.0.0.11",
		"nameserver 9.9.9.9\nnameserver 10.89.0.1\n": "on this host, 10.89.0.1",
	} {
		s.put(s.file, text)
		f, err := s.dir.Host.Find(c)
		s.must(err)
		if err := f.Keeps(ours, host); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
		f.Close()
	}
}

func FuzzMounts(f *testing.F) {
	f.Add(`36 35 98:0 /var/lib/x\040y/resolv.conf /run/rootfs/etc/resolv.conf rw - ext4 /dev/x rw`, "/var/lib", "98:0")
	f.Add("a b c / /\\777\\04", "/", "c")
	f.Fuzz(func(t *testing.T, text, root, dev string) {
		for _, m := range parseMounts(text) {
			if !filepath.IsAbs(m.root) || !filepath.IsAbs(m.point) {
				t.Fatalf("%+v", m)
			}
		}
		for _, m := range resolvConfs(parseMounts(text)) {
			for _, p := range hostPaths([]mount{{dev, root, "/mnt"}}, m) {
				if p != "/mnt" && !strings.HasPrefix(p, "/mnt/") {
					// ".." in a mountinfo is the kernel's lie; it leads nowhere that keeps() or open() would take.
					if !strings.Contains(m.root, "..") {
						t.Fatalf("%q", p)
					}
				}
			}
		}
	})
}
