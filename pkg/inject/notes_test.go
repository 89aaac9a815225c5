package inject

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

func (s *stage) intercepted(hash string) bool {
	_, ok := s.dir.Intercepted(hash)
	return ok
}

func TestSweepForgetsFilesThatAreGone(t *testing.T) {
	s := newStage(t)
	s.must(s.dir.Sweep()) // of nothing
	s.add(s.usual(), entry("a", "10.32.0.1"))
	s.must(s.dir.NoteIntercept(Owner{Hash: "b"}))
	s.must(s.dir.Sweep())
	if got := s.leftovers(); len(got) != 3 {
		t.Errorf("got %v", got)
	}
	s.remove()
	s.must(s.dir.Sweep())
	if got := s.leftovers(); len(got) != 1 || !s.intercepted("b") {
		t.Errorf("got %v", got)
	}
	s.add(Container{Named: "web"}, entry("a", "10.32.0.1"))
	s.must(os.Remove(s.named("web")))
	s.must(s.dir.Sweep())
	if _, err := os.Lstat(filepath.Dir(s.named("web"))); err == nil {
		t.Error("the directory that we made stays")
	}
}

// What of an attachment could not be taken out is known until it is, whatever else was.
func TestANoteStaysUntilAllThatItSaysHasEnded(t *testing.T) {
	s := newStage(t)
	a := entry("a", "10.32.0.1")
	s.add(s.usual(), a)
	s.must(s.dir.NoteIntercept(a.Owner))
	s.del("a")
	if !s.intercepted("a") {
		t.Error("the file ended the rules' note")
	}
	s.must(s.dir.EndIntercept("a"))
	if got := s.leftovers(); s.intercepted("a") || len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestNotesAreOfOneNetwork(t *testing.T) {
	s := newStage(t)
	ns := attachment.NSID{Dev: 4, Ino: 4026532001}
	a := Owner{Hash: "a", Network: "n", NetNS: "/run/netns/a", NS: ns}
	s.must(s.dir.NoteIntercept(a))
	s.must(s.dir.NoteIntercept(Owner{Hash: "b", Network: "other"}))
	s.put(filepath.Join(s.dir.Path, attachedTo+"c"), "{") // broken
	s.put(filepath.Join(s.dir.Path, attachedTo+"d"), `{"hash":"a","network":"n"}`)
	notes, err := s.dir.Notes("n")
	if err != nil || len(notes) != 1 || notes[0].Owner != a || notes[0].Age < 0 {
		t.Errorf("got %+v, %v", notes, err)
	}
}

// A container comes back, or the next one with its namespace's name, and no DEL has come.
func TestAnEntryOfAFormerNamespaceMakesRoom(t *testing.T) {
	s := newStage(t)
	c := Container{ID: "cnitool-1", NetNS: "/run/netns/web", Named: "web"}
	file := filepath.Join(s.dir.Host.Etc, "netns", "web", fileName)
	in := func(hash, server string, ino uint64) Entry {
		e := entry(hash, server)
		e.NS = attachment.NSID{Dev: 4, Ino: ino}
		return e
	}
	s.add(c, in("a", "10.32.0.1", 1))
	s.add(c, in("b", "10.48.0.1", 1))
	if got := s.text(file); !strings.Contains(got, "\nnameserver 10.32.0.1\nsearch a.local b.local host.example\n") {
		t.Errorf("got\n%s", got)
	}
	s.add(c, in("c", "10.64.0.1", 2)) // others' DEL did not come
	if got := s.text(file); !strings.Contains(got, "\nnameserver 10.64.0.1\nsearch c.local host.example\n") {
		t.Errorf("got\n%s", got)
	}
	if got := s.leftovers(); !slices.Contains(got, attachedTo+"c") || len(got) != 2 {
		t.Errorf("left: %v", got)
	}
	s.del("a") // late
	s.add(c, in("d", "10.80.0.1", 2))
	if got := s.text(file); !strings.Contains(got, "\nnameserver 10.64.0.1\nsearch c.local d.local host.example\n") {
		t.Errorf("got\n%s", got)
	}
	s.del("c")
	s.del("d")
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

func TestTheNoteOfANewerFileOutlivesTheFormerOne(t *testing.T) {
	s := newStage(t)
	one := Container{ID: "cnitool-1", NetNS: "/run/netns/one", Named: "one"}
	two := Container{ID: "cnitool-1", NetNS: "/run/netns/two", Named: "two"}
	s.add(one, entry("a", "10.32.0.1"))
	s.add(two, entry("a", "10.32.0.1"))
	s.must(os.RemoveAll(filepath.Join(s.dir.Host.Etc, "netns", "one")))
	s.must(s.dir.Sweep())
	s.del("a")
	if _, err := os.Stat(filepath.Join(s.dir.Host.Etc, "netns", "two", fileName)); err == nil {
		t.Error("DEL has passed over the file of the second ADD")
	}
}
