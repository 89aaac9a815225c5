package runtimes

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/protobuf/types/known/anypb"
)

// saying is a podman that fails with a text, which it says in podman's own way.
func saying(t *testing.T, text, exit string) Podman {
	file := filepath.Join(t.TempDir(), "podman")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho 'Error: "+text+"' >&2\nexit "+exit+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return Podman{Program: file}
}

func TestOnlyPodmansWordThatItHasNoSuchContainerProvesThatItIsGone(t *testing.T) {
	c := Container{Runtime: NamePodman, ID: "ab12"}
	for text, gone := range map[string]bool{
		"inspecting object: no such container ab12":                             true,
		"no such object: \"ab12\"":                                              true,
		`no container with name or ID "ab12" found: no such container`:          true,
		"stat /var/lib/containers/storage/db.sql: no such file or directory":    false,
		"opening /containers/ab12/config.json: no such file or directory":       false,
		"inspecting object: no such container cd34":                             false,
		"container ab12: network inspection mismatch: asked to join 1 networks": false,
	} {
		if _, err := saying(t, text, "125").Look(t.Context(), c); err == nil || errors.Is(err, ErrGone) != gone {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestPodmanKnowsANetworkOrNotOrCouldNotBeAsked(t *testing.T) {
	if knows, err := saying(t, "", "0").Knows(t.Context(), "weave"); !knows || err != nil {
		t.Errorf("it knows it: %v, %v", knows, err)
	}
	if knows, err := saying(t, "", "1").Knows(t.Context(), "weave"); knows || err != nil {
		t.Errorf("it does not: %v, %v", knows, err)
	}
	if knows, err := saying(t, "stat /x: no such file or directory", "125").Knows(t.Context(), "weave"); knows || err == nil {
		t.Errorf("it could not be asked: %v, %v", knows, err)
	}
}

func TestDisconnectAsksPodmanNothingBefore(t *testing.T) {
	c := Container{Runtime: NamePodman, ID: "ab12"}
	file := filepath.Join(t.TempDir(), "podman")
	script := "#!/bin/sh\n[ \"$1 $2 $3 $4\" = 'network disconnect weave ab12' ] && exit 0\necho 'Error: network inspection mismatch' >&2\nexit 125\n"
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (Podman{Program: file}).Disconnect(t.Context(), c, "weave"); err != nil {
		t.Errorf("of a container that cannot be inspected: %v", err)
	}
	for text, ok := range map[string]bool{
		"container ab12 is not connected to network weave":                     true,
		`no container with name or ID "ab12" found: no such container`:         true,
		"unable to find network with name or ID weave: network not found":      false,
		"stat /var/lib/containers/storage/db.sql: no such file or directory":   false,
		"error configuring network namespace: cni plugin failed: try it again": false,
	} {
		if err := saying(t, text, "125").Disconnect(t.Context(), c, "weave"); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := (Podman{Program: "no-such-podman"}).Disconnect(t.Context(), c, "weave"); !errors.Is(err, ErrAbsent) {
		t.Errorf("without podman: %v", err)
	}
}

// pod is what containerd has of a CRI container.
func pod(id, kind, more string) *containers.Container {
	spec := `{"annotations":{"io.kubernetes.cri.sandbox-id":"sb","io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"prod"` + more + `},
		"linux":{"namespaces":[{"type":"network","path":"/proc/self/ns/net"}]}}`
	return &containers.Container{ID: id, Labels: map[string]string{criKind: kind}, Spec: &anypb.Any{Value: []byte(spec)}}
}

func TestAContainerOfAPodStandsForItsPod(t *testing.T) {
	app := fromContainerd("k8s.io", pod("c1", "container", `,"io.kubernetes.cri.container-name":"nginx"`), &task.Process{Status: task.Status_RUNNING, Pid: 77})
	old := fromContainerd("k8s.io", pod("c0", "container", `,"io.kubernetes.cri.container-name":"nginx-old"`), &task.Process{Status: task.Status_STOPPED, Pid: 76})
	sandbox := fromContainerd("k8s.io", pod("sb", "sandbox", ""), &task.Process{Status: task.Status_RUNNING, Pid: 70})
	f := Finder{[]Runtime{shelf{name: NameContainerd, has: []Container{app, old, sandbox}}}}
	for _, text := range []string{"nginx", "c1", "nginx-old", "web-0", "prod/web-0", "sb", "cri:k8s.io/c1"} {
		c, err := f.Find(t.Context(), text)
		if err != nil || c.Ref() != "cri:k8s.io/sb" || c.CNI != "sb" || c.PID != 70 || c.Shares != "" {
			t.Errorf("%s: got %+v, %v", text, c, err)
		}
	}
}
