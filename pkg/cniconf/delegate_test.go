package cniconf

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// script puts an IPAM plugin written in shell on CNI_PATH.
func script(t *testing.T, body string) *Call {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "fake"), []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CNI_PATH", ":"+filepath.Join(dir, "missing")+":"+dir)
	t.Setenv("CNI_COMMAND", "ADD")
	return &Call{CNIVersion: "1.0.0", Stdin: []byte(`{"the":"stdin"}`)}
}

func TestADelegatedPluginSeesTheVerbTheEnvironmentAndAllOfStdin(t *testing.T) {
	t.Setenv("CNI_CONTAINERID", "c1")
	c := script(t, `echo "$CNI_COMMAND $CNI_CONTAINERID $(cat)"`)
	out, err := c.Delegate(t.Context(), "fake", "DEL")
	if err != nil || string(out) != "DEL c1 {\"the\":\"stdin\"}\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestADelegatedPluginsErrorIsHandedOn(t *testing.T) {
	c := script(t, `echo '{"code":11,"msg":"later","details":"d"}'; exit 1`)
	if _, err := c.Delegate(t.Context(), "fake", "ADD"); code(err) != 11 || err.Error() != "later; d" {
		t.Errorf("got %v", err)
	}
	c = script(t, `echo 'out of order' >&2; exit 3`)
	if _, err := c.Delegate(t.Context(), "fake", "ADD"); code(err) != 999 || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("got %v", err)
	}
	c = script(t, `echo 'rubbish'; exit 3`)
	if _, err := c.Delegate(t.Context(), "fake", "ADD"); code(err) != 999 {
		t.Errorf("got %v", err)
	}
}

func TestADelegatedPluginThatHangsIsEndedWithItsChildren(t *testing.T) {
	c := script(t, `sleep 600 & sleep 600`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := c.Delegate(ctx, "fake", "ADD"); code(err) != 11 {
		t.Errorf("got %v, want code 11", err)
	}
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("took %v", d)
	}
}

func TestADelegatedPluginThatPrintsWithoutEndIsAnError(t *testing.T) {
	c := script(t, `head -c 3000000 /dev/zero`)
	if out, err := c.Delegate(t.Context(), "fake", "ADD"); code(err) != 999 || len(out) > maxOutput {
		t.Errorf("got %d bytes, %v", len(out), err)
	}
}

func TestABadResultOfADelegatedPluginIsCode6(t *testing.T) {
	c := script(t, `echo '{"ips":[null]}'`)
	if r, err := c.DelegateAdd(t.Context(), "fake"); code(err) != 6 {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestAPluginThatIsNotThereIsNamed(t *testing.T) {
	c := script(t, "")
	for _, name := range []string{"other", "missing", ""} {
		if _, err := c.Delegate(t.Context(), name, "ADD"); code(err) != 7 || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestABinaryThatIsBeingReplacedIsTriedAgain(t *testing.T) {
	c := script(t, `echo '{}'`)
	file := filepath.Join(filepath.SplitList(os.Getenv("CNI_PATH"))[2], "fake")
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	var closed atomic.Bool
	defer time.AfterFunc(200*time.Millisecond, func() { closed.Store(true); f.Close() }).Stop()
	if out, err := c.Delegate(t.Context(), "fake", "ADD"); err != nil || string(out) != "{}\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if !closed.Load() {
		t.Error("it ran while the file was open for writing")
	}
}

func TestADelegatedPluginThatComplainsWithoutEndIsServedAllTheSame(t *testing.T) {
	c := script(t, `head -c 100000 /dev/zero >&2; echo '{}'`)
	if out, err := c.Delegate(t.Context(), "fake", "ADD"); err != nil || string(out) != "{}\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestADelegatedPluginThatClosesStdoutAndHangsIsEnded(t *testing.T) {
	c := script(t, `exec >&- ; sleep 600`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := c.Delegate(ctx, "fake", "ADD"); code(err) != 11 || time.Since(begin) > time.Minute {
		t.Errorf("got %v after %v, want code 11", err, time.Since(begin))
	}
}
