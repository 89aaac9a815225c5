package cniconf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// Delegation is written out here instead of taken from CNI's pkg/invoke because
// that links OpenTelemetry (1.6 MB and its start-up time into every call), reads
// a plugin's output without a bound and looks CNI_PATH up for any text.

const busyRetry = 50 * time.Millisecond // between tries at a binary that is being written

// CheckDelegate accepts the type of a plugin that may be delegated to: a plain
// file name, and none of our main and meta plugins, which would call themselves.
func CheckDelegate(plugin string) error {
	if err := CheckName("ipam.type", plugin); err != nil {
		return fmt.Errorf("ipam.type %q: want the file name of an IPAM plugin", clip(plugin))
	}
	switch plugin {
	case "weave-net", "simplebridge", "weavedns":
		return fmt.Errorf("ipam.type %q: that is no IPAM plugin", plugin)
	}
	return nil
}

// Delegate runs the IPAM plugin of the call's configuration with a verb and
// gives what it printed. The plugin sees this call's environment and its whole
// stdin, as CNI wants it; when ctx ends it is killed. An error is a
// *types.Error: the plugin's own, or one that says why there is none.
func (c *Call) Delegate(ctx context.Context, plugin, verb string) ([]byte, error) {
	if err := CheckDelegate(plugin); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	path, err := find(plugin, os.Getenv("CNI_PATH"))
	if err != nil {
		return nil, err
	}
	for {
		out, err := c.run(ctx, path, verb)
		if !errors.Is(err, syscall.ETXTBSY) {
			return out, delegated(ctx, plugin, verb, out, err)
		}
		select {
		case <-ctx.Done():
			return nil, delegated(ctx, plugin, verb, nil, err)
		case <-time.After(busyRetry):
		}
	}
}

// DelegateAdd runs the IPAM plugin's ADD and decodes its result.
func (c *Call) DelegateAdd(ctx context.Context, plugin string) (*current.Result, error) {
	out, err := c.Delegate(ctx, plugin, "ADD")
	if err != nil {
		return nil, err
	}
	r, err := DecodeResult(out, c.CNIVersion)
	if err != nil {
		return nil, Errorf(types.ErrDecodingFailure, "result of IPAM plugin %q: %v", plugin, err)
	}
	return r, nil
}

// DelegateDel has the IPAM plugin release the attachment's addresses. A type that
// is none is passed over: no ADD has come past such a configuration.
func (c *Call) DelegateDel(ctx context.Context, plugin string) error {
	if CheckDelegate(plugin) != nil {
		return nil
	}
	_, err := c.Delegate(ctx, plugin, "DEL")
	return err
}

func (c *Call) run(ctx context.Context, path, verb string) ([]byte, error) {
	p, err := startChild(path, environ(verb), c.Stdin)
	if err != nil {
		return nil, err
	}
	out, said, err := p.wait(ctx)
	if len(said) > 0 {
		_, _ = os.Stderr.Write(said) // for whoever watches; the outcome does not depend on it
		if err != nil && len(out) == 0 {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(said))
		}
	}
	return out, err
}

// delegated turns a failed run into a coded error; nil when it did not fail.
func delegated(ctx context.Context, plugin, verb string, out []byte, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return Errorf(types.ErrTryAgainLater, "IPAM plugin %q did not finish %s in time", plugin, verb)
	}
	e := &types.Error{}
	if json.Unmarshal(out, e) == nil && e.Msg != "" {
		return e
	}
	return Errorf(types.ErrInternal, "IPAM plugin %q failed %s without saying why: %v", plugin, verb, err)
}

func find(plugin, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			continue // would be the working directory
		}
		file := filepath.Join(dir, plugin)
		if fi, err := os.Stat(file); err == nil && fi.Mode().IsRegular() {
			return file, nil
		}
	}
	return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("failed to find plugin %q", plugin), "looked in CNI_PATH="+clip(path))
}
