package netlists

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/weave-cni/weave-cni/pkg/conflist"
)

// abandoned is the age at which the temporary file of a list is nobody's any more.
const abandoned = time.Minute

// look reads the pattern, and all other files that runtimes read. What is wrong with a
// directory that cannot be read is seen when something is to be written. What was
// understood of the same texts at the last look is kept: there may be hundreds.
func look(dir string, last sight) sight {
	s := sight{pattern: read(dir, Pattern, last.pattern), files: map[string]file{}, derived: last.derived}
	if s.derived == nil {
		s.derived = map[string]derived{}
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		name := e.Name()
		if !slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(name)) || name == Pattern {
			continue
		}
		if f := read(dir, name, last.files[name]); !f.missing {
			s.files[name] = f
		}
	}
	return s
}

// matching are the names in a directory that match a pattern.
func matching(dir, pattern string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if ok, _ := filepath.Match(pattern, e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	return names
}

// stamp tells a file from what it was before. The zero stamp tells nothing.
type stamp struct {
	inode          uint64
	size           int64
	written, moved time.Time // mtime, ctime
}

// settled is how old a file has to be for its stamp to tell: one that is written twice
// within a tick of the kernel's clock has the same.
const settled = 2 * time.Second

// stampOf is that of a regular file, read now.
func stampOf(f fs.FileInfo, now time.Time) stamp {
	st, ok := f.Sys().(*syscall.Stat_t)
	moved := time.Time{}
	if ok {
		moved = time.Unix(st.Ctim.Unix())
	}
	if !ok || !f.Mode().IsRegular() || now.Sub(moved) < settled {
		return stamp{}
	}
	return stamp{st.Ino, f.Size(), f.ModTime(), moved}
}

// read reads a file and what it says, unless it is as it was at the last look.
func read(dir, name string, was file) file {
	path := filepath.Join(dir, name)
	itself, err := os.Lstat(path)
	var now stamp
	if err == nil {
		if now = stampOf(itself, time.Now()); now != (stamp{}) && now == was.stamp {
			return was
		}
	}
	f := readText(path, itself, err).understood(name, was)
	if f.err == "" {
		f.stamp = now // else it is tried again: a router may be short of descriptors for a moment
	}
	return f
}

// readText reads a file, or the one that a link leads to; nothing that could block.
func readText(path string, itself fs.FileInfo, err error) file {
	var text []byte
	if err == nil {
		var st fs.FileInfo
		if st, err = os.Stat(path); err == nil && !st.Mode().IsRegular() {
			err = errors.New("not a regular file")
		}
	}
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return file{err: err.Error(), missing: errors.Is(err, fs.ErrNotExist)}
	}
	return file{text: string(text), regular: itself.Mode().IsRegular()}
}

// act writes and removes, says what failed, and takes it out of what there is.
func (k *Keeper) act(p *plan) (problems []string) {
	failed := map[string]error{}
	for _, name := range slices.Sorted(maps.Keys(p.write)) {
		if changed, err := conflist.Install(k.dir, name, []byte(p.write[name])); err != nil {
			failed[name] = err
		} else if changed {
			k.log.Info("network list is written", "file", filepath.Join(k.dir, name))
		}
	}
	if len(failed) > 0 {
		problems = append(problems, k.unwritten(failed))
		maps.DeleteFunc(p.have, func(_, name string) bool { return failed[name] != nil })
	}
	for _, name := range p.remove {
		path := filepath.Join(k.dir, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, fmt.Sprintf("the list of a network that is gone cannot be removed: %v; remove it, and let weaver write into %s", err, k.dir))
		} else {
			k.log.Info("network list is removed", "file", path)
		}
	}
	return problems
}

// unwritten is one sentence for all lists that could not be written: the reason is the same.
func (k *Keeper) unwritten(failed map[string]error) string {
	names := slices.Sorted(maps.Keys(failed))
	what := names[0]
	if n := len(names); n > 1 {
		what = fmt.Sprintf("%d network lists, such as %s,", n, what)
	}
	return fmt.Sprintf("%s cannot be written: %v; let weaver write into %s, or start it with --conflist-dir or --no-conflists", what, failed[names[0]], k.dir)
}

// sweep removes temporary files of lists that are older than that: the router that made
// them was killed.
func (k *Keeper) sweep(before time.Time) error {
	var errs []error
	for _, name := range matching(k.dir, "."+conflist.FileName("*")+".*.tmp") {
		path := filepath.Join(k.dir, name)
		if st, err := os.Stat(path); err == nil && st.ModTime().Before(before) {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

// Clear removes every list that the router has written. Run has ended.
func (k *Keeper) Clear() error {
	if k.dir == "" {
		return nil
	}
	errs := []error{k.sweep(time.Now())}
	for _, name := range decide(look(k.dir, sight{}), nil).remove {
		if err := os.Remove(filepath.Join(k.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
