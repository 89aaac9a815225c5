package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/inject"
)

func TestRulesThatCannotBeTakenOutAreStillKnownToTheNextDEL(t *testing.T) {
	noPath := "/" + strings.Repeat("x", 5000) // which fails, and says nothing of what is there
	dir := inject.Dir{Path: filepath.Join(t.TempDir(), "resolv")}
	if err := dir.NoteIntercept(inject.Owner{Hash: "hash", Network: "n"}); err != nil {
		t.Fatal(err)
	}
	takeOut(dir, "hash", noPath, "c")
	if _, ok := dir.Intercepted("hash"); !ok {
		t.Error("forgotten, and the rules may stand")
	}
	takeOut(dir, "hash", filepath.Join(t.TempDir(), "gone"), "c")
	if _, ok := dir.Intercepted("hash"); ok {
		t.Error("kept, though they went with the namespace")
	}
}
