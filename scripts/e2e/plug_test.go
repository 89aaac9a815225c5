package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// plug runs `weave net plug --json` on a host.
func (c *cluster) plug(h *netlab.Host, args ...string) (out ctl.Attached, err error) {
	text, err := h.Run("/opt/cni/bin/weave", append([]string{"net", "plug", "--json"}, args...)...)
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal([]byte(text), &out)
}

func (c *cluster) mustPlug(h *netlab.Host, args ...string) ctl.Attached {
	c.t.Helper()
	out, err := c.plug(h, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) unplug(h *netlab.Host, container, endpoint string) {
	c.t.Helper()
	h.MustRun(c.t, "/opt/cni/bin/weave", "net", "unplug", container, endpoint)
}

// attachment is what host 0's router says of an endpoint.
func (c *cluster) attachment(id string) (ctl.Attachment, error) {
	s, err := c.status(0)
	if err != nil {
		return ctl.Attachment{}, err
	}
	for _, t := range s.Attachments {
		if t.Key.EndpointID() == id {
			return t, nil
		}
	}
	return ctl.Attachment{}, fmt.Errorf("the router has no endpoint %.12s", id)
}

func intents(h *netlab.Host) []string {
	out, _ := h.Run("find", "/var/lib/weave/plugs", "-name", "*.json")
	return strings.Fields(out)
}

func noIntents(h *netlab.Host) error {
	if all := intents(h); len(all) > 0 {
		return fmt.Errorf("intents: %q", all)
	}
	return nil
}

func (c *cluster) startAttachd(h *netlab.Host) *netlab.Daemon {
	c.t.Helper()
	d, err := h.Start("/opt/cni/bin/weave", "attachd", "--log-level", "debug")
	if err != nil {
		c.t.Fatal(err)
	}
	c.wait("attachd listens", func() error {
		_, err := h.Run("test", "-S", "/run/weave/attach.sock")
		return err
	})
	return d
}

// endAttachd kills it, so that it finishes nothing.
func (c *cluster) endAttachd(h *netlab.Host, d *netlab.Daemon) {
	c.t.Helper()
	if err := d.Kill(); err != nil {
		c.t.Fatal(err)
	}
	h.MustRun(c.t, "rm", "/run/weave/attach.sock")
}

func TestANamespaceIsPluggedWhereverItIsFoundAndNothingStaysWhenItIsUnplugged(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	h := c.lab.Host(0)
	unchanged := c.watch()
	other := c.add(1, "other", named("other"))
	box := c.ns(0, "box")
	one := c.mustPlug(h, "/var/run/netns/box", "weave")
	two := c.mustPlug(h, "--ip", "10.32.9.9", "--mac", "02:42:00:00:00:99", "--name", "two", "--alias", "deux", box.Path(), "weave://weave")
	three := c.mustPlug(h, box.Path(), "simplebridge")
	for i, at := range []ctl.Attached{one, two, three} {
		if want := fmt.Sprintf("eth%d", i); at.IfName != want {
			t.Errorf("interface %d is %+v", i, at)
		}
		if k := (attachment.Key{Network: at.Network, ContainerID: containerOf(t, h, at.EndpointID), IfName: at.IfName}); k.EndpointID() != at.EndpointID {
			t.Errorf("endpoint %s is not of its key %+v", at.EndpointID, k)
		}
		if _, err := box.Run("ip", "link", "show", "dev", at.IfName); err != nil {
			t.Error(err)
		}
	}
	if two.IP != "10.32.9.9" || two.MAC != "02:42:00:00:00:99" || two.NetworkID == "" || len(two.Gateways) != 1 || !slices.Equal(two.Names, []string{"two", "deux"}) {
		t.Errorf("got %+v", two)
	}
	if !strings.HasPrefix(three.IP, "10.30.") {
		t.Errorf("got %+v", three)
	}
	at, err := c.attachment(one.EndpointID)
	if err != nil || !slices.Equal(at.Names, []string{"box"}) { // from its path
		t.Errorf("got %+v, %v", at, err)
	}
	c.wait("the other host's container reaches it by its name", func() error {
		got, err := c.resolve(other, "deux.weave.local")
		if err == nil && !slices.Equal(got, []string{"10.32.9.9"}) {
			err = fmt.Errorf("deux is %v", got)
		}
		return err
	})
	ps := h.MustRun(t, "/opt/cni/bin/weave", "ps")
	for _, want := range []string{"eth0", "eth1", "two,deux", "10.32.9.9", one.EndpointID[:12], three.EndpointID[:12]} {
		if !strings.Contains(ps, want) {
			t.Errorf("weave ps does not show %q:\n%s", want, ps)
		}
	}
	c.unplug(h, box.Path(), two.EndpointID[:10])
	c.unplug(h, "/var/run/netns/box", "simplebridge")
	if _, err := box.Run("ip", "link", "show", "dev", "eth1"); err == nil {
		t.Error("eth1 is still there")
	}
	box.MustRun(t, "ip", "link", "show", "dev", "eth0")
	c.unplug(h, box.Path(), one.EndpointID)
	if err := noIntents(h); err != nil {
		t.Error(err)
	}
	if err := box.Delete(); err != nil {
		t.Fatal(err)
	}
	c.del(other, named("other"))
	h.MustRun(t, "ip", "link", "del", "simplebr0") // simplebridge leaves its bridge, as the reference does
	unchanged()
}

// containerOf reads the container id from the intent of an endpoint.
func containerOf(t *testing.T, h *netlab.Host, id string) string {
	t.Helper()
	text, err := h.ReadFile("/var/lib/weave/plugs/" + id + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var i struct{ Key attachment.Key }
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		t.Fatal(err)
	}
	return i.Key.ContainerID
}

func TestWhatCannotBePluggedIsRefusedInWordsAndLeavesNothing(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	box := c.ns(0, "box")
	c.mustPlug(h, "--ip", "10.32.0.77", box.Path(), "weave")
	taken := c.add(0, "taken", named("taken")) // by its runtime
	for _, r := range []struct {
		args []string
		want string
	}{
		{[]string{"nothing", "weave"}, `no container "nothing" on this host`},
		{[]string{"pid:999999999", "weave"}, "there is no process 999999999"},
		{[]string{"/run/netns/none", "weave"}, "there is no network namespace"},
		{[]string{box.Path(), "nonet"}, `this host has no network "nonet": there is no list of that name in /etc/cni/net.d, which has weave, simplebridge`},
		{[]string{"--ip", "10.99.0.1", box.Path(), "weave"}, "10.99.0.1"},
		{[]string{"--ip", "10.32.0.77", box.Path(), "weave"}, "10.32.0.77"},
		{[]string{"--ip", "nowhere", box.Path(), "weave"}, `--ip "nowhere": want an address`},
		{[]string{"--mac", "01:00:00:00:00:01", box.Path(), "weave"}, `hardware address "01:`},
		{[]string{"--name", "a b", box.Path(), "weave"}, `name "a b"`},
		{[]string{"--ifname", "eth0", box.Path(), "weave"}, "has an endpoint by eth0 already"},
		{[]string{"--ifname", "eth0", taken.Path(), "weave"}, "has an interface eth0 already"},
		{[]string{"--ifname", "lo", box.Path(), "weave"}, "lo"},
		{[]string{"/proc/self/ns/net", "weave"}, "own"},
	} {
		_, err := c.plug(h, r.args...)
		if err == nil || !strings.Contains(err.Error(), r.want) {
			t.Errorf("%q: got %v, want %q", r.args, err, r.want)
		}
	}
	if all := intents(h); len(all) != 1 {
		t.Errorf("intents: %q", all)
	}
	taken.MustRun(t, "ip", "link", "show", "dev", "eth0")
	links := box.MustRun(t, "ip", "-o", "link")
	if strings.Count(strings.TrimSpace(links), "\n") != 1 {
		t.Errorf("interfaces: %s", links)
	}
	for _, r := range []struct {
		args []string
		want string
	}{
		{[]string{"nothing", "ab"}, `no container "nothing" on this host`},
		{[]string{box.Path(), "zz"}, "no endpoint"},
		{[]string{box.Path(), ""}, "which endpoint?"},
	} {
		_, err := h.Run("/opt/cni/bin/weave", append([]string{"net", "unplug"}, r.args...)...)
		if err == nil || !strings.Contains(err.Error(), r.want) {
			t.Errorf("unplug %q: got %v, want %q", r.args, err, r.want)
		}
	}
}

func TestManyPlugsAtOnceGiveAContainerAsManyInterfaces(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	box := c.ns(0, "box")
	const n = 6
	out, errs := make([]ctl.Attached, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { out[i], errs[i] = c.plug(h, box.Path(), "weave") })
	}
	all.Wait()
	seen := map[string]bool{}
	for i := range n {
		if errs[i] != nil || seen[out[i].IfName] || seen[out[i].EndpointID] || seen[out[i].IP] {
			t.Errorf("got %+v, %v", out[i], errs[i])
		}
		seen[out[i].IfName], seen[out[i].EndpointID], seen[out[i].IP] = true, true, true
	}
	for i := range n {
		if !seen[fmt.Sprintf("eth%d", i)] {
			t.Errorf("no eth%d in %v", i, seen)
		}
	}
}

func TestTheAttachCallOfTheSeedGivesTheAddressThatItNames(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	box := c.ns(0, "box")
	d := c.startAttachd(h)
	unchanged := intents(h)
	var n ctl.Net
	err := post(h, ctl.DefaultSocket, ctl.PathNetCreate, ctl.NetCreateRequest{Name: "net1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}}, &n)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct{ endpoint, ip, on string }{
		{"10.2.45.3/24", "10.2.45.3", "10.2.45.3/24"},
		{"weave://10.2.45.4/16", "10.2.45.4", "10.2.45.4/16"},
		{"weave://10.2.67.0/24", "10.2.67.", "/24"},
		{"weave://net1?alias=here", "10.2.", "/16"},
		{n.ID[:5], "10.2.", "/16"},
	} {
		var out ctl.Attached
		c.wait("it is attached to "+call.endpoint, func() error { // the network has just been made
			return post(h, ctl.DefaultSocket, ctl.PathNetAttach, map[string]any{"Endpoint": call.endpoint, "ContainerID": box.Path()}, &out)
		})
		on := box.MustRun(t, "ip", "-o", "-4", "addr", "show", "dev", out.IfName)
		if !strings.HasPrefix(out.IP, call.ip) || len(out.Addresses) != 1 || !strings.Contains(on, " "+out.Addresses[0].String()+" ") || !strings.Contains(out.Addresses[0].String(), call.on) {
			t.Errorf("%s: got %+v, and in it %s", call.endpoint, out, on)
		}
		if err := post(h, ctl.DefaultSocket, ctl.PathNetDetach, ctl.DetachRequest{EndpointID: out.EndpointID}, nil); err != nil {
			t.Errorf("%s: %v", call.endpoint, err)
		}
		if _, err := box.Run("ip", "link", "show", "dev", out.IfName); err == nil {
			t.Errorf("%s: %s stays", call.endpoint, out.IfName)
		}
	}
	err = post(h, ctl.DefaultSocket, ctl.PathNetAttach, map[string]any{"Endpoint": "10.200.45.0/24", "ContainerID": box.Path()}, nil)
	if err == nil || !strings.Contains(err.Error(), "weave net create --subnet 10.200.45.0/24") {
		t.Errorf("got %v", err)
	}
	if all := intents(h); !slices.Equal(all, unchanged) {
		t.Errorf("intents: %q", all)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// post is the call of the seed, by the socket at path, as seen on a host.
func post(h *netlab.Host, socket, path string, in, out any) error {
	return h.Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return ctl.New(socket, 0).Call(ctx, path, in, out)
	})
}

func TestTheRouterPassesTheAttachCallOnAndSaysWhatToStartWhenNobodyTakesIt(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	box := c.ns(0, "box")
	request := map[string]any{"Endpoint": "weave://weave", "ContainerID": box.Path()}
	err := post(h, ctl.DefaultSocket, ctl.PathNetAttach, request, nil)
	var coded *ctl.Error
	if !errors.As(err, &coded) || coded.Code != ctl.CodeNotAvailable || !strings.Contains(coded.Details, "start it with: weave attachd") {
		t.Errorf("without attachd: %v", err)
	}
	d := c.startAttachd(h)
	if mode := h.MustRun(t, "stat", "-c", "%a", "/run/weave/attach.sock"); strings.TrimSpace(mode) != "600" {
		t.Errorf("the socket's mode is %s", mode)
	}
	if _, err := h.Run("/opt/cni/bin/weave", "attachd"); err == nil || !strings.Contains(err.Error(), "another weave attachd runs") {
		t.Errorf("a second one: %v", err)
	}
	var out ctl.Attached
	if err := post(h, ctl.DefaultSocket, ctl.PathNetAttach, request, &out); err != nil {
		t.Fatal(err)
	}
	if at, err := c.attachment(out.EndpointID); err != nil || out.IP == "" || at.Addresses[0].Addr().String() != out.IP {
		t.Errorf("got %+v, %+v, %v", out, at, err)
	}
	// With a namespace given the id is the caller's own, as in an ADD.
	request = map[string]any{"Endpoint": "weave://", "ContainerID": "ca88a6e", "NetNS": box.Path(), "IfName": "wv0", "Names": []string{"db"}}
	if err := post(h, ctl.DefaultSocket, ctl.PathNetAttach, request, &out); err != nil {
		t.Fatal(err)
	}
	if want := (attachment.Key{Network: "weave", ContainerID: "ca88a6e", IfName: "wv0"}); out.EndpointID != want.EndpointID() || !slices.Equal(out.Names, []string{"db"}) {
		t.Errorf("got %+v", out)
	}
	err = post(h, ctl.DefaultSocket, ctl.PathNetAttach, map[string]any{"Endpoint": "nonet", "ContainerID": box.Path()}, nil)
	if !errors.As(err, &coded) || coded.Code != ctl.CodeInvalidConfig {
		t.Errorf("on no network: %v", err)
	}
	if err := post(h, ctl.DefaultSocket, ctl.PathNetDetach, ctl.DetachRequest{ContainerID: "ca88a6e", Network: "weave"}, nil); err != nil {
		t.Error(err)
	}
	if err := post(h, ctl.AttachSocket, ctl.PathNetDetach, ctl.DetachRequest{ContainerID: box.Path(), Network: "weave"}, nil); err != nil {
		t.Error(err)
	}
	if err := noIntents(h); err != nil {
		t.Error(err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := h.Run("test", "-e", "/run/weave/attach.sock"); err == nil {
		t.Error("attachd ended and left its socket")
	}
}

func TestWhatIsPluggedComesBackWithItsContainerAndGoesWithItsProcess(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	box := c.ns(0, "box")
	d := c.startAttachd(h)
	out := c.mustPlug(h, "--name", "kept", box.Path(), "weave")
	for _, life := range []string{"while attachd runs", "while it does not"} {
		if life != "while attachd runs" {
			c.endAttachd(h, d)
		}
		if err := box.Delete(); err != nil {
			t.Fatal(err)
		}
		box = c.ns(0, "box")
		if life != "while attachd runs" {
			d = c.startAttachd(h)
		}
		c.wait("the endpoint is back: "+life, func() error {
			if _, err := box.Run("ip", "link", "show", "dev", out.IfName); err != nil {
				return err
			}
			at, err := c.attachment(out.EndpointID)
			if err == nil && (at.State != "attached" || !slices.Equal(at.Names, []string{"kept"})) {
				err = fmt.Errorf("it is %+v", at)
			}
			return err
		})
	}
	c.unplug(h, box.Path(), out.EndpointID)

	process, err := box.Start("/bin/sleep", "100000")
	if err != nil {
		t.Fatal(err)
	}
	out = c.mustPlug(h, fmt.Sprintf("pid:%d", process.PID()), "weave")
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.wait("the endpoint went with the process", func() error {
		if _, err := c.attachment(out.EndpointID); err == nil {
			return errors.New("the router has it")
		}
		if _, err := box.Run("ip", "link", "show", "dev", out.IfName); err == nil {
			return errors.New("the namespace has it")
		}
		return noIntents(h)
	})
}

func TestAttachdIsStartedByItsFirstCaller(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	box := c.ns(0, "box")
	var l *net.UnixListener
	err := h.Do(func() (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: ctl.AttachSocket, Net: "unix"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l.Close()
	// The service manager: it starts attachd with the socket when somebody calls, and has it after it again.
	called := func() {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, int(patience.Milliseconds()))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n != 1 || err != nil {
				t.Fatalf("nobody called: %v", err)
			}
			return
		}
	}
	serve := func() func() {
		ctx, cancel := context.WithCancel(t.Context())
		cmd := h.Command(ctx, "/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec "+filepath.Join(bin, "weave")+" attachd")
		cmd.ExtraFiles = []*os.File{f}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return func() { cancel(); cmd.Wait() }
	}
	for _, ifname := range []string{"eth0", "eth1"} {
		var out ctl.Attached
		var err error
		var plug sync.WaitGroup
		plug.Go(func() { out, err = c.plug(h, box.Path(), "weave") })
		called()
		stop := serve()
		plug.Wait()
		if err != nil || out.IfName != ifname {
			t.Errorf("got %+v, %v", out, err)
		}
		stop()
		h.MustRun(t, "test", "-S", ctl.AttachSocket)
	}
}
