package conflist

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// AnswerIn bounds how long a plugin may take to say which versions it speaks.
// A good one takes a millisecond.
const AnswerIn = 2 * time.Second

// maxAnswer bounds what is kept of a plugin's answer, in bytes.
const maxAnswer = 64 << 10

// Ask asks each plugin that a list starts, as found first in dirs (the order a
// runtime searches them in), which spec versions it speaks.
func Ask(ctx context.Context, l *List, dirs []string) (Spoken, error) {
	spoken := Spoken{}
	for _, p := range l.Plugins() {
		path, err := find(p, dirs)
		if err != nil {
			return nil, err
		}
		if spoken[p], err = versions(ctx, path); err != nil {
			return nil, fmt.Errorf("ask %s for its versions: %w", path, err)
		}
	}
	return spoken, nil
}

// Missing is a plugin that no directory of the runtime has.
type Missing struct {
	Plugin string
	Dirs   []string
}

func (m *Missing) Error() string {
	return fmt.Sprintf("plugin %q is not in %s", m.Plugin, strings.Join(m.Dirs, ", "))
}

func find(plugin string, dirs []string) (string, error) {
	if plugin != filepath.Base(plugin) || strings.HasPrefix(plugin, ".") {
		return "", fmt.Errorf("plugin type %q is not a file name", plugin)
	}
	for _, d := range dirs {
		p := filepath.Join(d, plugin)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return filepath.Abs(p)
		}
	}
	return "", &Missing{Plugin: plugin, Dirs: dirs}
}

// versions runs CNI's VERSION. The variables that VERSION does not need are
// given all the same, as libcni does: there are plugins that insist on them.
func versions(ctx context.Context, path string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, AnswerIn)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=VERSION", "CNI_NETNS=dummy", "CNI_IFNAME=dummy", "CNI_PATH=dummy")
	cmd.Stdin = strings.NewReader(`{"cniVersion":"` + Newest + `"}`)
	var out, complaint bounded
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.WaitDelay = AnswerIn // a child of the plugin may hold the pipes
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer within %v", AnswerIn)
		}
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(append(out.Bytes(), complaint.Bytes()...)))
	}
	return decodeVersions(out.Bytes())
}

func decodeVersions(answer []byte) ([]string, error) {
	var v struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}
	if err := json.Unmarshal(answer, &v); err != nil {
		return nil, fmt.Errorf("undecodable answer %.80q: %w", answer, err)
	}
	if len(v.SupportedVersions) == 0 {
		return nil, errors.New(`no "supportedVersions" in the answer`)
	}
	return v.SupportedVersions, nil
}

// bounded keeps the first maxAnswer bytes and swallows the rest.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxAnswer - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
