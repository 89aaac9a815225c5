package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The name is looked at by the test binary, run again as a router runs itself.
func TestARouterThatExecutedItselfKeepsItsName(t *testing.T) {
	const again = "WEAVER_TEST_AGAIN"
	if os.Getenv(again) != "" {
		keepName()
		name, err := os.ReadFile("/proc/self/comm")
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.Write(name)
		os.Exit(0)
	}
	cmd := exec.Command(itself, "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), again+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const most = 15 // bytes of a name, by the kernel
	name := filepath.Base(program)
	if got := strings.TrimSpace(string(out)); got != name[:min(len(name), most)] {
		t.Errorf("it is called %q, and the program %q", got, name)
	}
}
