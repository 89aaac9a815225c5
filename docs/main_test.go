// Package docs_test holds the documents to what is there: what they tell people
// to run is run, on two machines, and what they name must exist.
package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// top is the directory of the tree, seen from here.
const top = ".."

// bin holds our binaries, and cnitool and portmap at the versions of go.mod.
var bin string

const (
	binVariable = "WEAVE_DOCS_BIN"
	tempName    = "weave-docs-"
)

// TestMain builds what the tests run, once: the isolated child, which has no way
// to a registry, finds it by the environment and removes it in the end.
func TestMain(m *testing.M) {
	if bin = os.Getenv(binVariable); bin == "" {
		var err error
		if bin, err = build(); err != nil {
			fmt.Fprintln(os.Stderr, "build the binaries:", err)
			os.Exit(1)
		}
	}
	code := netlab.Main(m)
	if strings.HasPrefix(filepath.Base(bin), tempName) {
		os.RemoveAll(bin)
	}
	os.Exit(code)
}

func build() (string, error) {
	dir, err := os.MkdirTemp("", tempName)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	for _, cmd := range []*exec.Cmd{
		exec.Command("./build.sh"),
		exec.Command("go", "build", "-o", dir+"/", "github.com/containernetworking/cni/cnitool", "github.com/containernetworking/plugins/plugins/meta/portmap"),
	} {
		cmd.Dir, cmd.Env = top, append(os.Environ(), "BIN="+dir, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			os.RemoveAll(dir)
			return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	return dir, os.Setenv(binVariable, dir)
}
