package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
)

const (
	busybox    = "/bin/busybox"
	pauseImage = "localhost/weave-e2e-pause:1" // of pods: it runs for ever
)

// makeImage writes an image with nothing but busybox, as "docker save" would:
// the form that podman and containerd both load, with no registry anywhere.
func makeImage(file string) error {
	if file == "" {
		return errors.New("-image is needed")
	}
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	layer, err := busyboxLayer()
	if err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	sum := sha256.Sum256(layer)
	entries := []entry{{name: "layer.tar", body: layer}}
	var images []map[string]any
	for i, command := range [][]string{{"/bin/sh"}, {"sleep", "1000000"}} {
		config, err := json.Marshal(map[string]any{
			"architecture": goruntime.GOARCH, "os": "linux",
			"config": map[string]any{"Cmd": command, "Env": []string{"PATH=/bin"}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
		})
		if err != nil {
			return err
		}
		name := fmt.Sprintf("config%d.json", i)
		entries = append(entries, entry{name: name, body: config})
		images = append(images, map[string]any{"Config": name, "RepoTags": []string{[]string{image, pauseImage}[i]}, "Layers": []string{"layer.tar"}})
	}
	manifest, err := json.Marshal(images)
	if err != nil {
		return err
	}
	text, err := archive(append(entries, entry{name: "manifest.json", body: manifest}))
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// entry is a file, a link (to) or, with a name that ends in a slash, a directory.
type entry struct {
	name, to string
	body     []byte
}

func busyboxLayer() ([]byte, error) {
	path, err := exec.LookPath("busybox") // the static one: nothing else will be in the image
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, err
	}
	entries := []entry{{name: "bin/"}, {name: "etc/"}, {name: "tmp/"}, {name: "proc/"}, {name: "sys/"}, {name: "dev/"}, {name: "etc/resolv.conf"}, {name: "bin/busybox", body: program}}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			entries = append(entries, entry{name: "bin/" + applet, to: busybox})
		}
	}
	return archive(entries)
}

func archive(entries []entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o755, Size: int64(len(e.body)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		switch {
		case e.to != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.to
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
