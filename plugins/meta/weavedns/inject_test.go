package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/inject"
)

func TestRulesThatCannotBeTakenOutAreStillKnownToTheNextDEL(t *testing.T) {
	noPath := "/" + strings.Repeat("x", 5000) // which fails, and says nothing of what is there
	dir := inject.Dir{Path: filepath.Join(t.TempDir(), "resolv")}
	if err := dir.NoteIntercept(inject.Owner{Hash: "hash", Network: "n"}); err != nil {
		t.Fatal(err)
	}
	takeOut(dir, "hash", noPath, "c", inject.Container{})
	if _, ok := dir.Intercepted("hash"); !ok {
		t.Error("forgotten, and the rules may stand")
	}
	takeOut(dir, "hash", filepath.Join(t.TempDir(), "gone"), "c", inject.Container{})
	if _, ok := dir.Intercepted("hash"); ok {
		t.Error("kept, though they went with the namespace")
	}
}

func TestTheFileOfANamedNamespaceIsFoundAtADELAfterTheNamespace(t *testing.T) {
	call := &cniconf.Call{Key: attachment.Key{ContainerID: "c"}, Given: "/run/netns/web"} // NetNS: it is gone
	for want, conf := range map[string]*config{"web": {}, "": {Inject: injectResult}} {
		if got := conf.leaving(call); got.Named != want {
			t.Errorf("inject %q: named %q, want %q", conf.Inject, got.Named, want)
		}
	}
	pod := *call
	pod.Args = cniconf.Args{"K8S_POD_NAMESPACE": "default"}
	if got := new(config).leaving(&pod); got != (inject.Container{}) {
		t.Errorf("of a pod, whose file is the cluster's: %+v", got)
	}
}
