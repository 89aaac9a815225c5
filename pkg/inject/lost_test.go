package inject

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rename has a person add a line to a file as sed -i does.
func (s *stage) rename(p string) {
	s.t.Helper()
	s.must(os.WriteFile(p+".new", []byte(s.text(p)+"options ndots:3\n"), 0o644))
	s.must(os.Rename(p+".new", p))
}

func (s *stage) named(name string) string {
	return filepath.Join(s.dir.Host.Etc, "netns", name, fileName)
}

func TestOursAreTakenOutOfANamedNamespacesFileThatAnEditorHasRenamed(t *testing.T) {
	const text = "nameserver 192.0.2.99\nsearch corp\n"
	for _, before := range []string{text, ""} { // "": we make it
		s := newStage(t)
		p, want := s.named("web"), before
		if before != "" {
			s.put(p, before)
		} else {
			want = hostText
		}
		s.add(Container{Named: "web"}, entry("h1", "10.32.0.1"))
		s.rename(p)
		if said := s.del("h1"); !strings.Contains(said, "was changed") {
			t.Errorf("DEL says %q", said)
		}
		s.is("after DEL", p, want+"options ndots:3\n")
		if left := s.leftovers(); left != nil {
			t.Errorf("left: %v", left)
		}
	}
}

func TestAFileOfTwoNetworksThatAnEditorHasRenamedKeepsTheOthersLines(t *testing.T) {
	s := newStage(t)
	p := s.named("web")
	s.put(p, "nameserver 192.0.2.99\n")
	s.add(Container{Named: "web"}, entry("h1", "10.32.0.1"))
	s.add(Container{Named: "web"}, entry("h2", "10.48.0.1"))
	s.rename(p)
	s.del("h1")
	if got := s.text(p); !strings.Contains(got, "\nnameserver 10.48.0.1\n") || strings.Contains(got, "10.32.0.1") {
		t.Errorf("after one DEL:\n%s", got)
	}
	s.del("h2")
	s.is("after both", p, "nameserver 192.0.2.99\noptions ndots:3\n")
}

// A file in which nothing of ours stands is somebody's new one.
func TestANewFileInAnOldOnesPlaceStays(t *testing.T) {
	s := newStage(t)
	p := s.named("web")
	s.add(Container{Named: "web"}, entry("h1", "10.32.0.1"))
	s.put(p+".new", "nameserver 192.0.2.1\n") // beside the old one, whose inode it must not get
	s.must(os.Rename(p+".new", p))
	if said := s.del("h1"); !strings.Contains(said, "another file") {
		t.Errorf("DEL says %q", said)
	}
	s.is("after DEL", p, "nameserver 192.0.2.1\n")
}

// delLost is DEL with the state directory lost.
func (s *stage) delLost(c Container, hash string) string {
	s.t.Helper()
	s.must(os.RemoveAll(s.dir.Path))
	said, err := s.dir.RemoveFrom(c, hash)
	s.must(err)
	return said
}

func TestWithTheStateLostTheFileItselfSaysHowItWas(t *testing.T) {
	s := newStage(t)
	p := s.named("web")
	s.put(p, "nameserver 192.0.2.99\nsearch corp\n")
	c := Container{Named: "web"}
	s.add(c, entry("h1", "10.32.0.1"))
	s.delLost(c, "h1")
	s.is("by hand", p, "nameserver 192.0.2.99\nsearch corp\n")

	c = s.usual()
	was := s.text(s.file)
	s.add(c, entry("h2", "10.32.0.1"))
	s.delLost(c, "h2")
	s.is("the runtime's", s.file, was)
	if got := s.asks(c); got != "[9.9.9.9]" {
		t.Errorf("started again: asks %s", got)
	}
}

func TestWithTheStateLostAFileThatWeMadeGoes(t *testing.T) {
	s := newStage(t)
	p, c := s.named("web"), Container{Named: "web"}
	s.add(c, entry("h1", "10.32.0.1"))
	if said := s.delLost(c, "h1"); said != "" {
		t.Errorf("DEL says %q", said)
	}
	if _, err := os.Lstat(p); err == nil {
		t.Errorf("it is there:\n%s", s.text(p))
	}
	s.add(c, entry("h1", "10.32.0.1"))
	s.rename(p)
	if said := s.delLost(c, "h1"); !strings.Contains(said, "was changed") {
		t.Errorf("DEL says %q", said)
	}
	s.is("one in which somebody has written", p, hostText+"options ndots:3\n")
	if left := s.leftovers(); left != nil {
		t.Errorf("left: %v", left)
	}
}

func TestADELWithoutNotesTakesOutNothingOfAnothers(t *testing.T) {
	s := newStage(t)
	p, c := s.named("web"), Container{Named: "web"}
	s.put(p, "nameserver 192.0.2.99\n")
	s.add(c, entry("h1", "10.32.0.1"))
	was := s.text(p)
	if said, err := s.dir.RemoveFrom(c, "h2"); said != "" || err != nil {
		t.Errorf("DEL of another: %q, %v", said, err)
	}
	s.is("after another's DEL", p, was)
	s.del("h1")
	s.is("after both", p, "nameserver 192.0.2.99\n")
}
