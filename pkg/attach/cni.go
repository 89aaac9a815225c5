package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// codeExists is our plugins' word for: the container or the host has the interface already.
const codeExists = 110

// CNI does ADD and DEL as a runtime does, by libcni.
type CNI struct {
	ConfDir    string   // of the network lists
	PluginDirs []string // in the order in which they are looked through

	// CacheDir is libcni's, and of nobody else: a runtime's GC ends what it finds
	// in its cache and does not know.
	CacheDir string
}

func (c CNI) lib() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(c.PluginDirs, c.CacheDir, nil)
}

// list finds a network's list by name, in the order of the files. A file that
// cannot be read is somebody else's trouble, unless it is the one.
func (c CNI) list(network string) (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(c.ConfDir, []string{".conflist"})
	if err != nil {
		return nil, fmt.Errorf("read the network lists: %w", err)
	}
	slices.Sort(files)
	var have, bad []string
	for _, file := range files {
		l, err := libcni.NetworkConfFromFile(file)
		switch {
		case err != nil:
			bad = append(bad, err.Error())
		case l.Name == network:
			return l, nil
		default:
			have = append(have, l.Name)
		}
	}
	return nil, noList(c.ConfDir, network, have, bad)
}

// missing: there is no list of a network; sure when every file could be read.
type missing struct {
	error
	sure bool
}

func (m missing) Unwrap() error { return m.error }

func noList(dir, network string, have, bad []string) error {
	e := ctl.Errorf(ctl.CodeInvalidConfig, "this host has no network %q", network)
	e.Details = "there is no list of that name in " + dir
	if len(have) > 0 {
		e.Details += ", which has " + firstOf(have)
	}
	if len(bad) > 0 {
		e.Details += "; not read: " + strings.Join(bad, "; ")
	}
	return missing{e, len(bad) == 0}
}

// firstOf are the first few of the networks with a list, and how many more there are.
func firstOf(names []string) string {
	const most = 8
	if more := len(names) - most; more > 0 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more (`weave net list`)", more)
	}
	return strings.Join(names, ", ")
}

// conf is one attachment as libcni wants it.
func (i Intent) conf(netns string) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{
		ContainerID: i.Key.ContainerID, NetNS: netns, IfName: i.Key.IfName,
		Args: [][2]string{{"IgnoreUnknown", "1"}},
	}
	set := func(key, value string) {
		if value != "" {
			rt.Args = append(rt.Args, [2]string{key, value})
		}
	}
	if len(i.Wish.Names) > 0 {
		set("WEAVE_HOSTNAME", i.Wish.Names[0])
	}
	if i.Wish.IP.IsValid() {
		set("IP", i.Wish.IP.String())
	}
	set("MAC", i.Wish.MAC)
	set("WEAVE_ENDPOINT", i.Wish.Endpoint)
	if len(i.Wish.Names) > 1 {
		rt.CapabilityArgs = map[string]any{"aliases": map[string][]string{i.Key.Network: i.Wish.Names[1:]}}
	}
	return rt
}

// add is ADD; what it made is undone when it fails.
func (c CNI) add(ctx context.Context, i Intent, netns string) (*types100.Result, error) {
	l, err := c.list(i.Key.Network)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, addIn)
	defer cancel()
	r, err := c.lib().AddNetworkList(bounded, l, i.conf(netns))
	if err == nil {
		var full *types100.Result
		if full, err = types100.NewResultFromResult(r); err == nil {
			return full, nil
		}
	}
	nothing := madeNothing(l, err)
	err = coded(fmt.Errorf("add %s: %w", i, err), err)
	if nothing {
		return nil, err // what is there is another's, and DEL would take it
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), delIn)
	defer cancel()
	if e := c.lib().DelNetworkList(undo, l, i.conf(netns)); e != nil {
		err = errors.Join(err, fmt.Errorf("and undo it: %w", e))
	}
	return nil, err
}

// madeNothing reports whether an ADD ended at its first plugin, one of ours, because the
// interface is there already. From a later one, or one of others, the code says nothing
// of what was made.
func madeNothing(l *libcni.NetworkConfigList, err error) bool {
	var said *types.Error
	if !errors.As(err, &said) || said.Code != codeExists || len(l.Plugins) == 0 {
		return false
	}
	first := l.Plugins[0].Network.Type
	again := slices.ContainsFunc(l.Plugins[1:], func(p *libcni.PluginConfig) bool { return p.Network.Type == first })
	return (first == "weave-net" || first == "simplebridge") && !again && strings.HasPrefix(err.Error(), fmt.Sprintf("plugin type=%q ", first))
}

// del is DEL, with the list of the ADD if there is no other any more. netns is ""
// when the namespace is gone.
func (c CNI) del(ctx context.Context, i Intent, netns string) error {
	ctx, cancel := context.WithTimeout(ctx, delIn)
	defer cancel()
	rt := i.conf(netns)
	l, err := c.cached(i.Key.Network, rt)
	if err != nil {
		l, err = c.list(i.Key.Network)
		var none missing
		if errors.As(err, &none) && (none.sure || i.Life == (Life{})) {
			return nil // an ADD would have left its list: nothing was made, and there is nothing to do it with
		}
		if err != nil {
			return err
		}
	}
	if err := c.lib().DelNetworkList(ctx, l, rt); err != nil {
		return coded(fmt.Errorf("remove %s: %w", i, err), err)
	}
	return nil
}

// check is CHECK of what an earlier ADD made. It fails where that proves nothing.
func (c CNI) check(ctx context.Context, i Intent, netns string) error {
	ctx, cancel := context.WithTimeout(ctx, delIn)
	defer cancel()
	rt := i.conf(netns)
	l, err := c.cached(i.Key.Network, rt)
	if err != nil {
		return err
	}
	if l.DisableCheck {
		return errors.New("the list has CHECK switched off")
	}
	return c.lib().CheckNetworkList(ctx, l, rt)
}

func (c CNI) cached(network string, rt *libcni.RuntimeConf) (*libcni.NetworkConfigList, error) {
	text, _, err := c.lib().GetNetworkListCachedConfig(&libcni.NetworkConfigList{Name: network}, rt)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, errors.New("not cached")
	}
	return libcni.NetworkConfFromBytes(text)
}

// coded gives an error the code that a plugin has failed with. That the router did not
// answer is CodeTryAgain, whoever handed it on and with what code.
func coded(err, cause error) error {
	var said *types.Error
	if errors.As(cause, &said) {
		e := &ctl.Error{Code: said.Code, Msg: said.Msg, Details: said.Details}
		if ctl.TellsNoAnswer(e.Error()) {
			e.Code = ctl.CodeTryAgain
		}
		return e
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return ctl.Errorf(ctl.CodeTryAgain, "%v", err)
	}
	var known *ctl.Error
	switch {
	case errors.As(cause, &known):
		return err
	case ctl.TellsNoAnswer(cause.Error()):
		return ctl.Errorf(ctl.CodeTryAgain, "%v", err)
	}
	return ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
}
