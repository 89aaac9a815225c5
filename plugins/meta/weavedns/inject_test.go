package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/inject"
)

func TestRulesThatCannotBeTakenOutAreStillKnownToTheNextDEL(t *testing.T) {
	noNS := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(noNS, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := inject.Dir{Path: filepath.Join(t.TempDir(), "resolv")}
	c := &cniconf.Call{Key: attachment.Key{Network: "n", ContainerID: "c", IfName: "eth0"}, NetNS: noNS}
	if err := dir.NoteIntercept(c.Key.Hash()); err != nil {
		t.Fatal(err)
	}
	if takeOut(dir, c); !dir.Intercepted(c.Key.Hash()) {
		t.Error("forgotten, and the rules may stand")
	}
	c.NetNS += ".gone"
	if takeOut(dir, c); dir.Intercepted(c.Key.Hash()) {
		t.Error("kept, though they went with the namespace")
	}
}
