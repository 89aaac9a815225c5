package conflist

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// Install writes a file that a runtime watches: at every moment it is whole,
// either as it was or as it is to be. It reports whether anything changed; a
// file that already has the text is not touched, so no runtime reloads.
//
// The temporary file is made inside dir, because a rename from elsewhere is not
// noticed by containerd (it ignores "created" and sees neither a write nor a
// rename within the directory); its name starts with a dot and ends in .tmp,
// because anything ending in .conf, .conflist or .json is read by somebody.
func Install(dir, name string, text []byte) (changed bool, err error) {
	path := filepath.Join(dir, name)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, text) {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("install %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(dir, "."+name+".*.tmp")
	if err != nil {
		return false, fmt.Errorf("install %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // fails once it has been renamed
	if err := fill(tmp, text); err != nil {
		return false, fmt.Errorf("install %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return false, fmt.Errorf("install %s: %w", path, err)
	}
	return true, syncDir(dir)
}

func fill(f *os.File, text []byte) error {
	_, err := f.Write(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// syncDir makes a rename survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
