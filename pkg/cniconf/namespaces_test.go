package cniconf

import (
	"os"
	"syscall"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

func TestTheOwnNamespaceIsInhabited(t *testing.T) {
	inhabited, _, err := livingNamespaces("/proc")
	if err != nil {
		t.Skipf("needs root to look into other processes: %v", err)
	}
	st, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	if !inhabited[attachment.NSID{Dev: uint64(sys.Dev), Ino: sys.Ino}] {
		t.Error("it is not listed")
	}
}

func TestMountsOfNamespacesAreRead(t *testing.T) {
	for line, want := range map[string]attachment.NSID{
		"100 25 0:4 net:[4026532281] /run/netns/a rw shared:1 - nsfs nsfs rw": {Dev: 4, Ino: 4026532281},
		"101 25 0:4 mnt:[4026532282] /run/x rw - nsfs nsfs rw":                {},
		"102 25 0:4 net:[x] /run/netns/b rw - nsfs nsfs rw":                   {},
		"": {},
	} {
		if got, ok := mountedNamespace(line); ok != want.Known() || ok && got != want {
			t.Errorf("%q: got %v, %v", line, got, ok)
		}
	}
}
