package claims

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
)

var _ ipam.Files = (*Dir)(nil)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func sample() book.Claim {
	k := attachment.Key{Network: "weave", ContainerID: "c1", IfName: "eth0"}
	return book.Claim{
		Hash: k.Hash(), Key: k, Network: "weave",
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.32.0.5/12"), netip.MustParsePrefix("fd00::5/64")},
		MAC:   net.HardwareAddr{2, 0x42, 10, 32, 0, 5}, OnBridge: true, NetNS: attachment.NSID{Dev: 4, Ino: 4026532000},
		BootID: "b", Names: []string{"web", "web1"}, Decider: ctl.DecidedByVeth, State: book.Attached,
	}
}

func load(t *testing.T, d *Dir) (live, resting []book.Claim, bad []error) {
	t.Helper()
	live, resting, bad, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	return live, resting, bad
}

func TestAClaimComesBackAsItWasSaved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "claims")
	want := sample()
	if err := open(t, dir).Save(want); err != nil {
		t.Fatal(err)
	}
	live, _, bad := load(t, open(t, dir))
	if len(live) != 1 || !reflect.DeepEqual(live[0], want) || len(bad) != 0 {
		t.Errorf("got %+v, %v\nwant %+v", live, bad, want)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, want.Hash): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", path, st.Mode(), err, mode)
		}
	}
}

func TestAnEndedClaimRestsUntilItIsDropped(t *testing.T) {
	d := open(t, t.TempDir())
	c := sample()
	if err := d.Save(c); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to end
		if err := d.Rest(c.Hash); err != nil {
			t.Fatal(err)
		}
	}
	if live, resting, _ := load(t, d); len(live) != 0 || len(resting) != 1 || resting[0].Hash != c.Hash {
		t.Fatalf("live %v, resting %v", live, resting)
	}
	for range 2 {
		if err := d.Drop(c.Hash); err != nil {
			t.Fatal(err)
		}
	}
	if live, resting, _ := load(t, d); len(live)+len(resting) != 0 {
		t.Errorf("live %v, resting %v", live, resting)
	}
}

func TestTheClaimsAreAnnouncedBesideASocketThatIsElsewhere(t *testing.T) {
	dir := t.TempDir()
	run, elsewhere := filepath.Join(dir, "run"), filepath.Join(dir, "made", "on", "demand", "weave.sock")
	d := open(t, filepath.Join(run, "claims"))
	link := elsewhere + ctl.ClaimsLink
	for range 2 { // the second replaces what is there
		if err := d.Announce(elsewhere); err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(link); to != filepath.Join(run, "claims") || err != nil {
			t.Errorf("the link leads to %q, %v", to, err)
		}
	}
	beside := filepath.Join(run, "weave.sock")
	if err := os.Symlink("/nowhere", beside+ctl.ClaimsLink); err != nil { // of a router with another run directory
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Announce(beside); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(beside + ctl.ClaimsLink); err == nil {
		t.Error("the old link leads plugins astray")
	}
	for _, dir := range []string{run, filepath.Dir(elsewhere)} {
		if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestBadFilesArePassedOverAndReported(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	c := sample()
	if err := d.Save(c); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, c.Hash))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"aaaaaaaaaaaaaaaaaaaaaaaaaa": whole[:len(whole)/2],
		"baaaaaaaaaaaaaaaaaaaaaaaaa": nil,
		"caaaaaaaaaaaaaaaaaaaaaaaaa": whole, // under another's name
		"daaaaaaaaaaaaaaaaaaaaaaaaa": make([]byte, maxFile+1),
		c.Hash + ".tmp":              whole[:10],
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "eaaaaaaaaaaaaaaaaaaaaaaaaa")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "faaaaaaaaaaaaaaaaaaaaaaaaa"), 0o700); err != nil {
		t.Fatal(err)
	}
	live, _, bad := load(t, d)
	if len(live) != 1 || live[0].Hash != c.Hash || len(bad) != 6 {
		t.Errorf("live %v, %d bad: %v", live, len(bad), bad)
	}
	if _, err := os.Stat(filepath.Join(dir, c.Hash+".tmp")); err == nil {
		t.Error("the temporary file is still there")
	}
}

func FuzzParse(f *testing.F) {
	d, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	c := sample()
	if err := d.Save(c); err != nil {
		f.Fatal(err)
	}
	b, err := d.root.ReadFile(c.Hash)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"hash":"` + c.Hash + `","addrs":["::ffff:1.2.3.4/120"],"mac":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parse(b, c.Hash)
		if err != nil {
			return
		}
		bk := book.New() // what was let through can be entered and saved
		bk.Put(got)
		bk.Release(got.Hash, 0)
		if err := d.Save(got); err != nil {
			t.Error(err)
		}
	})
}
