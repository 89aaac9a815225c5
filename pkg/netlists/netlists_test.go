package netlists

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/conflist"
)

const (
	id1 = "67ea60624dfc1a6c08ba141c6cc022265e6fff81a44668c0135830a92de0b5e1"
	id2 = "5a624939c64c751c6276f852c2a01e54de49ba2894d922a07feebd2c56834900"
)

func net(name, id string) Network {
	return Network{Network: conflist.Network{Name: name, ID: id, Subnets: []netip.Prefix{netip.MustParsePrefix("10.48.0.0/20")}}, Ready: true}
}

// place is a directory of runtimes with a keeper.
type place struct {
	*testing.T
	dir string
	*Keeper
}

// newPlace has a pattern, as `weave conflist` puts it there.
func newPlace(t *testing.T) place {
	t.Helper()
	p := empty(t)
	p.write(Pattern, p.shipped())
	return p
}

func empty(t *testing.T) place {
	dir := t.TempDir()
	return place{t, dir, New(dir, slog.New(slog.DiscardHandler))}
}

func (p place) shipped() string {
	text, err := os.ReadFile("../../conflist/" + Pattern)
	if err != nil {
		p.Fatal(err)
	}
	return string(text)
}

func (p place) write(name, text string) {
	p.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
		p.Fatal(err)
	}
}

func (p place) read(name string) string {
	text, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		return ""
	}
	return string(text)
}

// names are all files but the pattern.
func (p place) names() string {
	p.Helper()
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		p.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != Pattern {
			names = append(names, e.Name())
		}
	}
	return strings.Join(names, " ")
}

// to has the keeper do one pass.
func (p place) to(want ...Network) {
	p.Want(want)
	p.sync()
}

func (p place) content() {
	p.Helper()
	if got := p.Problems(); len(got) != 0 {
		p.Errorf("problems: %q", got)
	}
}

func (p place) complains(words ...string) {
	p.Helper()
	got := p.Problems()
	if len(got) != 1 {
		p.Fatalf("problems: %q", got)
	}
	for _, w := range words {
		if !strings.Contains(got[0], w) {
			p.Errorf("%q is not in %q", w, got[0])
		}
	}
}

func TestListsComeAndGoWithTheirNetworks(t *testing.T) {
	p := newPlace(t)
	p.sync()
	if got := p.names(); got != "" {
		t.Errorf("before anything is known: %s", got)
	}
	p.to(net("blue", id1), net("red", id2))
	if got := p.names(); got != "weave-blue.conflist weave-red.conflist" {
		t.Errorf("got %s", got)
	}
	if got := p.File("weave"); got != filepath.Join(p.dir, Pattern) {
		t.Errorf("the file of the default network is %q", got)
	}
	if got := p.File("blue"); got != filepath.Join(p.dir, "weave-blue.conflist") {
		t.Errorf("the file of blue is %q", got)
	}
	l, err := libcni.NetworkConfFromFile(p.File("red"))
	if err != nil || l.Name != "red" || len(l.Plugins) != 3 {
		t.Errorf("got %+v, %v", l, err)
	}
	p.to(net("red", id2))
	if got := p.names(); got != "weave-red.conflist" || p.File("blue") != "" {
		t.Errorf("got %s, and blue's is %q", got, p.File("blue"))
	}
	p.content()
}

func TestANetworkThatIsNotReadyGetsNoListButKeepsTheOneItHas(t *testing.T) {
	p := newPlace(t)
	blue := net("blue", id1)
	blue.Ready = false
	p.to(blue)
	if got := p.names(); got != "" || p.File("blue") != "" {
		t.Errorf("got %s", got)
	}
	p.to(net("blue", id1))
	again := place{t, p.dir, New(p.dir, p.log)} // the router was started again
	again.to(blue)
	if got := p.names(); got != "weave-blue.conflist" || again.File("blue") == "" {
		t.Errorf("got %s, %q", got, again.File("blue"))
	}
	again.content()
}

func TestAChangeOfThePatternIsInEveryList(t *testing.T) {
	p := newPlace(t)
	p.to(net("blue", id1))
	before := p.read("weave-blue.conflist")
	p.write(Pattern, strings.Replace(p.shipped(), `"1.0.0"]`, `"1.0.0", "1.1.0"]`, 1))
	p.sync()
	if got := p.read("weave-blue.conflist"); !strings.Contains(got, `"1.1.0"]`) || strings.Contains(before, "1.1.0") {
		t.Errorf("got %s", got)
	}
	p.content()
}

func TestAListThatSomebodyChangedOrRemovedIsWrittenAgain(t *testing.T) {
	p := newPlace(t)
	p.to(net("blue", id1))
	want := p.read("weave-blue.conflist")
	p.sync() // finds nothing to do, and looks again all the same
	p.write("weave-blue.conflist", strings.Replace(want, "portmap", "portman", 1))
	p.sync()
	if got := p.read("weave-blue.conflist"); got != want {
		t.Errorf("changed: got %s", got)
	}
	if err := os.Remove(filepath.Join(p.dir, "weave-blue.conflist")); err != nil {
		t.Fatal(err)
	}
	p.sync()
	if got := p.read("weave-blue.conflist"); got != want {
		t.Errorf("removed: got %q", got)
	}
}

func TestAListThatIsAsItShouldBeIsNotTouched(t *testing.T) {
	p := newPlace(t)
	p.to(net("blue", id1))
	before, err := os.Stat(p.File("blue"))
	if err != nil {
		t.Fatal(err)
	}
	p.sync()
	again := place{t, p.dir, New(p.dir, p.log)}
	again.to(net("blue", id1))
	after, err := os.Stat(p.File("blue"))
	if err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("%v: it was written again", err)
	}
}

func TestANetworkThatCameAgainUnderItsNameHasTheNewID(t *testing.T) {
	p := newPlace(t)
	p.to(net("blue", id1))
	p.to(net("blue", id2))
	if got := p.read("weave-blue.conflist"); !strings.Contains(got, id2) || strings.Contains(got, id1) {
		t.Errorf("got %s", got)
	}
}

func TestFilesOfOthersAreNeverTouched(t *testing.T) {
	const plugins = `"plugins":[{"type":"bridge"}]}`
	for text, words := range map[string][]string{
		`{"name":"blue",` + plugins:                      nil, // the operator's own list of that network
		`{"name":"green",` + plugins:                     {"weave-blue.conflist", `the list of "green"`, "rename it"},
		`{"name":"green","weave.managed":"x",` + plugins: {"rename it"}, // a copy of one of ours
		`{"name":"blue","weave.managed":"",` + plugins:   nil,
		`garbage`: {"weave-blue.conflist", "no network list", "move it away"},
		``:        {"no network list"},
	} {
		p := newPlace(t)
		p.write("weave-blue.conflist", text)
		for range 2 {
			p.to(net("blue", id1))
			if words == nil {
				p.content()
			} else {
				p.complains(words...)
			}
		}
		if (p.File("blue") != "") != (words == nil) {
			t.Errorf("%s: runtimes see blue by %q", text, p.File("blue"))
		}
		p.to()
		if err := p.Clear(); err != nil {
			t.Error(err)
		}
		if got := p.read("weave-blue.conflist"); got != text || p.names() != "weave-blue.conflist" {
			t.Errorf("%s: is now %q, in %s", text, got, p.names())
		}
	}
}

// runtimesTake is what libcni, and so most runtimes, take for a network: its first plugin.
func (p place) runtimesTake(network string) string {
	p.Helper()
	l, err := libcni.LoadNetworkConf(p.dir, network)
	if err != nil {
		p.Fatal(err)
	}
	return l.Plugins[0].Network.Type
}

func TestNoListIsWrittenWhereAnotherFileHasTheNetworksName(t *testing.T) {
	const list, single = `{"cniVersion":"1.0.0","name":"blue","plugins":[{"type":"bridge"}]}`, `{"cniVersion":"1.0.0","name":"blue","type":"bridge"}`
	for other, text := range map[string]string{
		"nerdctl-blue.conflist": list, // sorts before ours
		"zz-blue.conflist":      list, // and after it
		"blue.conf":             single,
		"blue.json":             single,
		".blue.conflist":        list,
		"weave-green.conflist":  list,
		"00-blue.conflist":      strings.Replace(list, `"plugins"`, `"weave.managed":"`+id1+`","plugins"`, 1), // a copy of one of ours
	} {
		t.Run(other, func(t *testing.T) {
			p := newPlace(t)
			p.write(other, text)
			for range 2 {
				p.to(net("blue", id1), net("red", id2))
				p.complains(filepath.Join(p.dir, other), `the name of network "blue"`, "writes no weave-blue.conflist", "another name, or remove it")
			}
			if got := p.runtimesTake("blue"); got != "bridge" || p.read("weave-blue.conflist") != "" || p.File("blue") != "" || p.File("red") == "" {
				t.Errorf("runtimes take %q; the files are %s; blue's is %q, red's %q", got, p.names(), p.File("blue"), p.File("red"))
			}
			if got := p.read(other); got != text {
				t.Errorf("it is now %q", got)
			}
			if err := os.Remove(filepath.Join(p.dir, other)); err != nil {
				t.Fatal(err)
			}
			p.sync()
			p.content()
			if got := p.runtimesTake("blue"); got != "weave-net" || p.File("blue") != filepath.Join(p.dir, "weave-blue.conflist") {
				t.Errorf("runtimes take %q; blue's file is %q", got, p.File("blue"))
			}
		})
	}
}

func TestAListThatIsThereStaysWhenAnotherTakesItsName(t *testing.T) {
	p := newPlace(t)
	p.to(net("blue", id1))
	before := p.read("weave-blue.conflist")
	p.write("zz-blue.conflist", `{"name":"blue","plugins":[{"type":"bridge"}]}`)
	p.sync()
	p.complains("zz-blue.conflist", `the name of network "blue"`, "runtimes differ", "weave-blue.conflist", "remove it")
	if p.read("weave-blue.conflist") != before || p.File("blue") == "" {
		t.Errorf("blue's containers have lost their list: %s, %q", p.names(), p.File("blue"))
	}
	p.to() // the network goes
	p.content()
	p.to(net("blue", id2)) // and comes again, after the other
	p.complains("writes no weave-blue.conflist")
	if got := p.names(); got != "zz-blue.conflist" {
		t.Errorf("files: %s", got)
	}
}

func TestAPatternThatHasANetworksNameKeepsIt(t *testing.T) {
	p := newPlace(t)
	p.write(Pattern, strings.Replace(p.shipped(), `"name": "weave"`, `"name": "blue"`, 1))
	p.to(net("blue", id1), net("red", id2))
	path := filepath.Join(p.dir, Pattern)
	p.complains(path, `the name of network "blue"`, "writes no weave-blue.conflist", "run: weave conflist --name weave --out "+p.dir+" "+path)
	if got := p.names(); got != "weave-red.conflist" || p.File("blue") != "" {
		t.Errorf("files: %s, and blue's is %q", got, p.File("blue"))
	}
	p.write(Pattern, p.shipped())
	p.sync()
	p.content()
	if got := p.names(); got != "weave-blue.conflist weave-red.conflist" {
		t.Errorf("files: %s", got)
	}
}

func TestAFileThatRuntimesDoNotReadOrThatNamesNothingIsInNobodysWay(t *testing.T) {
	p := newPlace(t)
	for name, text := range map[string]string{
		"blue.conflist.off": `{"name":"blue"}`, "a.conflist": `{"name":["blue"]}`, "b.conf": `blue`, "c.json": ``, "d.conflist": `{"plugins":[]}`, "e.json": `"blue"`, "f.conflist": `{"Name":"blue"}`,
	} {
		p.write(name, text)
	}
	if err := os.Mkdir(filepath.Join(p.dir, "dir.conflist"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.to(net("blue", id1))
	p.content()
	if p.File("blue") == "" {
		t.Error("blue has no list")
	}
}

func FuzzAFileHasTheNameThatLibcniFindsInIt(f *testing.F) {
	for _, text := range []string{`{"name":"blue","plugins":[{"type":"x"}]}`, `{"Name":"blue","type":"x"}`, `{"name":"a","NAME":"b","type":"x","plugins":[{"type":"x"}]}`, `{`, `null`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		in := file{text: text}
		list, single := in.network("a.conflist"), in.network("a.conf")
		if l, err := libcni.NetworkConfFromBytes([]byte(text)); err == nil && l.Name != list {
			t.Errorf("as a list it is %q, not %q", l.Name, list)
		}
		if l, err := libcni.NetworkPluginConfFromBytes([]byte(text)); err == nil && l.Network.Name != single {
			t.Errorf("as a plugin's it is %q, not %q", l.Network.Name, single)
		}
	})
}

func TestALinkOrADirectoryIsSomebodyElses(t *testing.T) {
	p := newPlace(t)
	p.to(net("blue", id1))
	ours := filepath.Join(p.dir, "elsewhere")
	if err := os.Rename(p.File("blue"), ours); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(ours, filepath.Join(p.dir, "weave-blue.conflist")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(p.dir, "weave-red.conflist"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(p.dir, "weave-pipe.conflist"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.to(net("red", id2), net("pipe", id2))
	if got := p.Problems(); len(got) != 2 || p.names() != "elsewhere weave-blue.conflist weave-pipe.conflist weave-red.conflist" {
		t.Errorf("problems %q, files %s", got, p.names())
	}
}

func TestWithoutAPatternItSaysWhatToRun(t *testing.T) {
	p := empty(t)
	p.to()
	p.content() // nobody misses it
	notReady := net("green", id2)
	notReady.Ready = false
	p.to(net("blue", id1), notReady)
	p.complains("network blue:", "no "+filepath.Join(p.dir, Pattern), "weave conflist --out "+p.dir+" conflist/10-weave.conflist", "--no-conflists")
	if got := p.names(); got != "" {
		t.Errorf("written: %s", got)
	}
	p.to(net("a", id1), net("b", id2), net("c", id2), net("d", id2))
	p.complains("4 networks (a, b, c, …)")
	p.write(Pattern, `{"name":"weave","plugins":[{"type":"bridge"}]}`)
	p.sync()
	p.complains(`"bridge", want weave-net`, "weave conflist --out")
	p.write(Pattern, `{`)
	p.sync()
	p.complains("no list can be made")
	p.write(Pattern, p.shipped())
	p.sync()
	p.content()
}

func TestWithThePatternGoneTheListsStay(t *testing.T) {
	p := newPlace(t)
	p.to(net("blue", id1))
	if err := os.Remove(filepath.Join(p.dir, Pattern)); err != nil {
		t.Fatal(err)
	}
	p.sync()
	if got := p.names(); got != "weave-blue.conflist" || p.File("blue") == "" {
		t.Errorf("got %s", got)
	}
	p.content()
	p.to()
	if got := p.names(); got != "" {
		t.Errorf("of a network that is gone: %s", got)
	}
}

func TestADirectoryThatCannotBeWrittenIsAProblemUntilItCan(t *testing.T) {
	p := empty(t)
	ownMount(t, p.dir)
	p.write(Pattern, p.shipped())
	p.to(net("red", id2))
	remount := func(flags uintptr) {
		if err := unix.Mount("none", p.dir, "tmpfs", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	p.to(net("blue", id1), net("red", id2))
	p.complains("weave-blue.conflist cannot be written", "read-only", "let weaver write into "+p.dir, "--conflist-dir", "--no-conflists")
	if p.File("blue") != "" {
		t.Error("runtimes see what is not there")
	}
	p.to(net("a", id1), net("b", id1), net("red", id2))
	p.complains("2 network lists, such as weave-a.conflist, cannot")
	p.to()
	p.complains("cannot be removed", "read-only")
	remount(0)
	p.sync() // it tries again, though nothing has changed that it sees
	p.content()
	if got := p.names(); got != "" {
		t.Errorf("left: %s", got)
	}
	remount(unix.MS_RDONLY)
	p.to(net("blue", id1))
	remount(0)
	p.sync()
	p.content()
	if got := p.names(); got != "weave-blue.conflist" {
		t.Errorf("got %s", got)
	}
}

// ownMount mounts a directory that can be made read-only, for root too, for this test's
// thread alone, which ends with the test.
func ownMount(t *testing.T, dir string) {
	t.Helper()
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = unix.Mount("none", dir, "tmpfs", 0, "size=64k")
	}
	if err != nil {
		t.Skipf("needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // before the directory is removed
}

func TestClearRemovesAllThatIsTheRoutersAndNothingElse(t *testing.T) {
	p := newPlace(t)
	p.write("99-other.conflist", "{}")
	p.to(net("blue", id1), net("red", id2))
	p.write(".weave-blue.conflist.123.tmp", "half") // it was killed then
	fresh := New(p.dir, p.log)                      // which was told nothing
	if err := fresh.Clear(); err != nil {
		t.Fatal(err)
	}
	if got := p.names(); got != "99-other.conflist" {
		t.Errorf("got %s", got)
	}
	if p.read(Pattern) == "" {
		t.Error("the pattern is gone")
	}
	if err := New(filepath.Join(p.dir, "none"), p.log).Clear(); err != nil {
		t.Errorf("without a directory: %v", err)
	}
}

func TestWhatAKilledRouterLeftIsSweptOnceItIsOld(t *testing.T) {
	p := newPlace(t)
	p.write(".weave-blue.conflist.1.tmp", "half")
	if err := p.sweep(time.Now().Add(-abandoned)); err != nil || p.names() == "" {
		t.Errorf("somebody may be writing it: %v", err)
	}
	if err := p.sweep(time.Now().Add(time.Hour)); err != nil || p.names() != "" {
		t.Errorf("%v, left: %s", err, p.names())
	}
}

// run runs a keeper until the test ends.
func (p place) run() {
	ctx, cancel := context.WithCancel(p.Context())
	done := make(chan error, 1)
	go func() { done <- p.Keeper.Run(ctx) }()
	p.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.Error(err)
		}
	})
}

func (p place) wait(what string, is func() bool) {
	p.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("not within a minute: %s; there is %q", what, p.names())
		}
	}
}

// containerd's watcher passes over CREATE and CHMOD: what it reloads after must be whole.
func TestAWatcherThatIgnoresCreateSeesEachChangeAndOnlyWholeLists(t *testing.T) {
	p := newPlace(t)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	defer watch.Close()
	if _, err := unix.InotifyAddWatch(fd, p.dir, unix.IN_MODIFY|unix.IN_MOVED_FROM|unix.IN_DELETE); err != nil {
		t.Fatal(err)
	}
	// reload waits for an event and then reads the directory until it is as wanted.
	reload := func(what string, is func(names []string) bool) {
		t.Helper()
		for {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(poll, int(time.Minute/time.Millisecond))
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				t.Fatalf("%s: no event: %v", what, err)
			}
			if _, err := watch.Read(make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))); err != nil {
				t.Fatal(err)
			}
			if is(load(t, p.dir)) {
				return
			}
		}
	}
	p.run()
	p.Want([]Network{net("blue", id1)})
	reload("a list comes", func(names []string) bool { return slices.Contains(names, "blue") })
	p.Want([]Network{net("blue", id2)})
	reload("a list changes", func(names []string) bool {
		if !slices.Contains(names, "blue") {
			t.Error("there was a gap")
		}
		return strings.Contains(p.read("weave-blue.conflist"), id2)
	})
	p.Want(nil)
	reload("a list goes", func(names []string) bool { return !slices.Contains(names, "blue") })
}

// load reads all lists as go-cni does: one that is not whole is an error.
func load(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		l, err := libcni.ConfListFromFile(f)
		if os.IsNotExist(err) || err != nil && strings.Contains(err.Error(), "no such file") {
			continue // it went meanwhile
		}
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		names = append(names, l.Name)
	}
	return names
}

func TestWhoMadeANetworkCanWaitForItsList(t *testing.T) {
	p := newPlace(t)
	notReady := net("blue", id1)
	notReady.Ready = false
	p.Want([]Network{notReady})
	p.run()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.Await(ctx, id1) // does not wait for ever
	done := make(chan bool)
	go func() { p.Await(t.Context(), id1); done <- p.File("blue") != "" }()
	p.Want([]Network{net("blue", id1)})
	if !<-done {
		t.Error("there is no list")
	}
	p.Await(t.Context(), id1)
	if err := os.Remove(filepath.Join(p.dir, Pattern)); err != nil {
		t.Fatal(err)
	}
	p.Want([]Network{net("red", id2)})
	p.Await(t.Context(), id2) // which cannot be written
	p.complains("network red:")
}

func TestManyNetworksComeAndGoAndNothingStays(t *testing.T) {
	const many = 200
	p := newPlace(t)
	p.run()
	var all []Network
	for i := range many {
		all = append(all, net(fmt.Sprintf("n%03d", i), id1))
		p.Want(all)
	}
	p.wait("all are there", func() bool { return p.File("n199") != "" })
	if got := len(strings.Fields(p.names())); got != many {
		t.Errorf("%d files", got)
	}
	p.Want(nil)
	p.wait("none is there", func() bool { return p.names() == "" })
}

func TestWithoutADirectoryItDoesNothing(t *testing.T) {
	k := New("", slog.New(slog.DiscardHandler))
	k.Want([]Network{net("blue", id1)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Run(ctx); err != nil || len(k.Problems()) != 0 || k.File("blue") != "" || k.Clear() != nil {
		t.Errorf("%v, %q", err, k.Problems())
	}
}
