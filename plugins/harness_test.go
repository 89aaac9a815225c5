package plugins_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// A netNS is a network namespace that a thread holds; it ends with the thread.
type netNS struct {
	path string
	jobs chan func()
}

func newNetNS(t *testing.T) *netNS {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	return onThread(t, func() error { return unix.Unshare(unix.CLONE_NEWNET) })
}

// join gives a second thread in the namespace, for what must not wait for the first.
func (n *netNS) join(t *testing.T) *netNS {
	return onThread(t, func() error {
		fd, err := unix.Open(n.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Setns(fd, unix.CLONE_NEWNET)
	})
}

func onThread(t *testing.T, enter func() error) *netNS {
	t.Helper()
	n := &netNS{jobs: make(chan func())}
	made, ended := make(chan error), make(chan struct{})
	go hold(n, enter, made, ended)
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.end(); <-ended })
	return n
}

// hold never unlocks its thread, so the runtime ends it, and with it the
// namespace. The process' first thread cannot be ended: it is handed on.
func hold(n *netNS, enter func() error, made chan<- error, ended chan<- struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		inner := make(chan struct{})
		go hold(n, enter, made, inner)
		<-inner
		close(ended)
		runtime.UnlockOSThread()
		return
	}
	defer close(ended)
	err := enter()
	n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	jobs := n.jobs // end forgets it
	made <- err
	for job := range jobs {
		job()
	}
}

// end lets the namespace go. It may be called again.
func (n *netNS) end() {
	if n.jobs != nil {
		close(n.jobs)
		n.jobs = nil
	}
}

// do runs f inside the namespace; processes that f starts are inside too.
func (n *netNS) do(f func()) {
	done := make(chan struct{})
	n.jobs <- func() { defer close(done); f() }
	<-done
}

// world is what a failed or undone call must not change: devices with their
// addresses, but for the loopback, which every ADD sets up, and what the kernel
// gives a device by itself some time after it came up.
func (n *netNS) world(t *testing.T) string {
	t.Helper()
	var lines []string
	n.do(func() {
		links, err := net.Interfaces()
		if err != nil {
			t.Error(err)
		}
		for _, l := range links {
			if l.Flags&net.FlagLoopback != 0 {
				continue
			}
			addrs, err := l.Addrs()
			if err != nil {
				t.Error(err)
			}
			addrs = slices.DeleteFunc(addrs, func(a net.Addr) bool { return strings.HasPrefix(a.String(), "fe80:") })
			lines = append(lines, fmt.Sprint(l.Name, l.HardwareAddr, l.MTU, addrs))
		}
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// A machine is a host of its own: its namespace, the state of its IPAM plugins,
// and, when started, a router.
type machine struct {
	*netNS
	t   *testing.T
	dir string
	cni *libcni.CNIConfig
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{netNS: newNetNS(t), t: t, dir: t.TempDir()}
	m.cni = libcni.NewCNIConfigWithCacheDir([]string{bin}, filepath.Join(m.dir, "cache"), nil)
	return m
}

func (m *machine) socket() string { return filepath.Join(m.dir, "run", "weave.sock") }

// answer is what one run of a plugin gave.
type answer struct {
	rc     int
	stdout string
	stderr string
	took   time.Duration
}

func (a answer) err() *types.Error {
	if a.rc == 0 {
		return nil
	}
	e := &types.Error{}
	d := json.NewDecoder(strings.NewReader(a.stdout))
	if err := d.Decode(e); err != nil {
		e.Msg = fmt.Sprintf("no JSON on stdout: %q (%v), stderr %q", a.stdout, err, a.stderr)
	} else if d.More() {
		e.Code, e.Msg = 0, "two documents on stdout: "+a.stdout
	}
	return e
}

func (a answer) result(t *testing.T) *current.Result {
	t.Helper()
	if a.rc != 0 {
		t.Fatalf("failed: %v", a.err())
	}
	var head struct{ CNIVersion string }
	if err := json.Unmarshal([]byte(a.stdout), &head); err != nil {
		t.Fatalf("%v in %q", err, a.stdout)
	}
	if head.CNIVersion < "1" {
		t.Fatalf("a result of version %s is to be read otherwise", head.CNIVersion)
	}
	r := &current.Result{}
	if err := json.Unmarshal([]byte(a.stdout), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// run starts a plugin on the machine. env is added to a complete ADD's.
func (m *machine) run(plugin, stdin string, env ...string) answer {
	m.t.Helper()
	base := []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_PATH=" + bin, "PATH=" + os.Getenv("PATH")}
	cmd := exec.Command(filepath.Join(bin, plugin))
	cmd.Env = append(base, env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	var startErr error
	m.do(func() { startErr = cmd.Start() })
	if startErr != nil {
		return answer{rc: 126, stderr: startErr.Error()}
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return answer{cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(begin)}
}

// runAtOnce is run of a call that is to wait for nobody. What a plugin waits for
// it waits for as long as its Patience or longer, each time; a machine that is
// busy with something else is not that late each time.
func (m *machine) runAtOnce(plugin, stdin string, env ...string) (a answer) {
	m.t.Helper()
	for range 5 {
		if a = m.run(plugin, stdin, env...); a.took < cniconf.Patience {
			return a
		}
	}
	m.t.Errorf("%s %.200v took %v, each time", plugin, env, a.took)
	return a
}

// conf is a plugin's configuration with keys added.
func conf(version, plugin string, keys map[string]any) string {
	all := map[string]any{"cniVersion": version, "name": "net1", "type": plugin}
	for k, v := range keys {
		all[k] = v
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err) // a test's own value
	}
	return string(b)
}

// reserved lists host-local's reservations.
func (m *machine) reserved() []string {
	files, _ := filepath.Glob(filepath.Join(m.dir, "hostlocal", "*", "*.*.*.*"))
	return files
}

func (m *machine) hostLocal() map[string]any {
	if _, err := os.Stat("/usr/lib/cni/host-local"); err != nil {
		m.t.Skip("needs /usr/lib/cni/host-local (apt-get install containernetworking-plugins)")
	}
	return map[string]any{"type": "host-local", "subnet": "10.77.0.0/24", "dataDir": filepath.Join(m.dir, "hostlocal"),
		"routes": []any{map[string]any{"dst": "0.0.0.0/0"}}}
}

// A router is a stand-in for the real one: pkg/ctl, served, with its state in memory.
type router struct {
	m      *machine
	inside *netNS // its own thread on the machine

	mu        sync.Mutex
	addrs     map[string][]netip.Prefix // by Key.Hash
	next      int
	committed map[string]ctl.CommitRequest
	names     map[string][]string
	requests  map[string][]json.RawMessage // by path
	fail      map[string]*ctl.Error        // by path
	driver    string                       // of its networks
	stop      func()
}

func (m *machine) startRouter() *router {
	m.t.Helper()
	r := &router{m: m, inside: m.join(m.t), addrs: map[string][]netip.Prefix{}, next: 2, committed: map[string]ctl.CommitRequest{},
		names: map[string][]string{}, requests: map[string][]json.RawMessage{}, fail: map[string]*ctl.Error{}, driver: ctl.DriverWeave}
	r.start()
	return r
}

func (r *router) start() {
	r.m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.m.socket()), 0o700); err != nil {
		r.m.t.Fatal(err)
	}
	l, err := net.Listen("unix", r.m.socket())
	if err != nil {
		r.m.t.Fatal(err)
	}
	s := &http.Server{Handler: r}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	var once sync.Once
	r.stop = func() { once.Do(func() { s.Close(); <-done }) }
	r.m.t.Cleanup(r.stop)
}

func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body := &bytes.Buffer{}
	_, _ = body.ReadFrom(req.Body)
	r.mu.Lock()
	r.requests[req.URL.Path] = append(r.requests[req.URL.Path], body.Bytes())
	failure := r.fail[req.URL.Path]
	r.mu.Unlock()
	var out any = struct{}{}
	var err error
	if failure != nil {
		err = failure
	} else {
		out, err = r.answer(req.URL.Path, body.Bytes())
	}
	if err != nil {
		e, ok := err.(*ctl.Error)
		if !ok {
			e = ctl.Errorf(ctl.CodeInternal, "%v", err)
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		out = e
	}
	_ = json.NewEncoder(w).Encode(out)
}

const (
	routerBridge = "weave"
	routerMTU    = 1410
)

var routerSubnet = netip.MustParsePrefix("10.32.0.1/12")

func (r *router) answer(path string, body []byte) (any, error) {
	var k ctl.KeyRequest
	if len(body) > 0 {
		if err := json.Unmarshal(body, &k); err != nil {
			return nil, err
		}
	}
	hash := k.Key.Hash()
	switch path {
	case ctl.PathNetwork:
		return r.network(body)
	case ctl.PathAllocate:
		return r.allocate(body)
	case ctl.PathDetach:
		var err error
		r.inside.do(func() { err = netdev.Detach(k.Key.Veth(), hash) })
		return struct{}{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch path {
	case ctl.PathRelease:
		delete(r.addrs, hash)
		delete(r.committed, hash)
		delete(r.names, hash)
	case ctl.PathReserved:
		var in ctl.ReservedRequest
		_ = json.Unmarshal(body, &in)
		for _, a := range in.Addresses {
			if !slices.ContainsFunc(r.addrs[hash], func(p netip.Prefix) bool { return p.Addr() == a }) {
				return nil, ctl.Errorf(ctl.CodeUnknownContainer, "%s is not held", a)
			}
		}
	case ctl.PathCommit:
		var in ctl.CommitRequest
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		r.committed[hash] = in
	case ctl.PathCollect:
		return ctl.CollectReply{}, nil
	case ctl.PathRegister:
		var in ctl.RegisterRequest
		_ = json.Unmarshal(body, &in)
		r.names[hash] = in.Names
		return ctl.Resolver{Servers: []netip.Addr{routerSubnet.Addr()}, Domain: "weave.local"}, nil
	case ctl.PathForget:
		delete(r.names, hash)
	case ctl.PathNames:
		return ctl.RegisteredNames{Names: r.names[hash]}, nil
	case ctl.PathReady:
		return ctl.Ready{}, nil
	default:
		return nil, fmt.Errorf("no such call: %s", path)
	}
	return struct{}{}, nil
}

func (r *router) network(body []byte) (any, error) {
	var in ctl.NetworkRequest
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	name, subnet, err := r.place(in)
	if err != nil {
		return nil, err
	}
	bridge := routerBridge
	if name == blue {
		bridge = blueBridge
	}
	mac := attachment.MACFor(subnet.Addr())
	r.inside.do(func() {
		err = netdev.EnsureBridge(netdev.Bridge{Name: bridge, MAC: mac, MTU: routerMTU, Addrs: []netip.Prefix{subnet}})
	})
	return ctl.Network{ID: "x", Name: name, Driver: r.driver, Bridge: bridge, MAC: mac.String(), MTU: routerMTU, Gateways: []netip.Addr{subnet.Addr()}}, err
}

func (r *router) allocate(body []byte) (any, error) {
	var in ctl.AllocateRequest
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	name, subnet, err := r.place(ctl.NetworkRequest{Name: in.Network, Endpoint: in.Endpoint})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	hash := in.Key.Hash()
	if p := asked(in.Endpoint); r.addrs[hash] == nil && p.IsValid() {
		r.addrs[hash] = []netip.Prefix{p}
	}
	if r.addrs[hash] == nil {
		for _, s := range in.Requested {
			a, err := netip.ParseAddr(strings.Split(s, "/")[0])
			if err != nil {
				return nil, err
			}
			r.addrs[hash] = append(r.addrs[hash], netip.PrefixFrom(a, routerSubnet.Bits()))
		}
		if len(in.Requested) == 0 {
			first := subnet.Addr().As4()
			a := netip.AddrFrom4([4]byte{first[0], first[1], byte(r.next >> 8), byte(r.next)})
			r.next++
			r.addrs[hash] = []netip.Prefix{netip.PrefixFrom(a, subnet.Bits())}
		}
	}
	out := ctl.AllocateReply{Network: name}
	for _, p := range r.addrs[hash] {
		out.Addresses = append(out.Addresses, ctl.Address{Address: p, Gateway: subnet.Addr()})
	}
	return out, nil
}

// held counts what the router holds for attachments.
func (r *router) held() (addresses, committed, names int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.addrs), len(r.committed), len(r.names)
}

func (r *router) last(t *testing.T, path string, into any) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.requests[path]
	if len(all) == 0 {
		t.Fatalf("no call of %s", path)
	}
	if err := json.Unmarshal(all[len(all)-1], into); err != nil {
		t.Fatal(err)
	}
}

func (r *router) setFail(path string, e *ctl.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail[path] = e
}

// list makes a network list of libcni of plugin configurations.
func (m *machine) list(version string, plugins ...string) *libcni.NetworkConfigList {
	m.t.Helper()
	text := fmt.Sprintf(`{"cniVersion":%q,"name":"net1","plugins":[%s]}`, version, strings.Join(plugins, ","))
	l, err := libcni.ConfListFromBytes([]byte(text))
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}

// through calls libcni inside the machine.
func (m *machine) through(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), 60*time.Second)
	defer cancel()
	var err error
	m.do(func() { err = f(ctx) })
	return err
}

var bin string // the plugins, built

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil { // most of those that are parallel wait
		panic(err)
	}
	dir, err := os.MkdirTemp("", "plugins")
	if err == nil {
		bin = dir
		err = build(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the plugins:", err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func build(dir string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/",
		"./main/weave-net", "./main/simplebridge", "./ipam/weave-ipam", "./meta/weavedns")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	for _, reference := range []string{"host-local", "ptp"} {
		if err := os.Symlink("/usr/lib/cni/"+reference, filepath.Join(dir, reference)); err != nil {
			return err
		}
	}
	return nil
}
