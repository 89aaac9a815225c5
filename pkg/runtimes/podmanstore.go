package runtimes

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// podmanStore is where podman keeps its containers unless storage.conf says otherwise.
const podmanStore = "/var/lib/containers/storage"

var graphRoot = regexp.MustCompile(`(?m)^\s*graphroot\s*=\s*["']([^"']+)["']`)

// Empty reports whether podman surely has no container, without asking it: that takes a
// process of some hundred ms. Whatever it was made from, a container has a directory of
// its own in podman's storage, DRIVER-containers/ID, as long as it is there. False where
// no such storage is seen: then only podman knows.
func (Podman) Empty() bool {
	if os.Geteuid() != 0 {
		return false // another user's containers are elsewhere
	}
	seen := false
	for _, root := range podmanStores() {
		dirs, _ := filepath.Glob(filepath.Join(root, "*-containers"))
		for _, d := range dirs {
			entries, err := os.ReadDir(d)
			if err != nil || slices.ContainsFunc(entries, os.DirEntry.IsDir) {
				return false
			}
			seen = true
		}
	}
	return seen
}

// podmanStores are the usual place, and every one that a storage.conf names.
func podmanStores() []string {
	out := []string{podmanStore}
	files := []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"}
	if f := os.Getenv("CONTAINERS_STORAGE_CONF"); f != "" { // in the place of both, as podman has it
		out, files = nil, []string{f}
	}
	for _, f := range files {
		text, _ := os.ReadFile(f) // most hosts have one of them
		for _, m := range graphRoot.FindAllSubmatch(text, -1) {
			out = append(out, string(m[1]))
		}
	}
	return out
}
