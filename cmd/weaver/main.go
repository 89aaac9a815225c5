// Command weaver is the router: one on each host.
//
//	weaver [flags] [PEER…]
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/router"
)

// version is stamped by build.sh.
var version = "v0.1.0"

// exitLeft is for whoever starts the router again: it is not to be. docs/weaver.service
// has it too.
const exitLeft = 10

func main() {
	keepName()
	told, err := untilTold(func(ctx context.Context) error { return command().ExecuteContext(ctx) })
	if errors.Is(err, router.ErrAgain) {
		if told {
			return
		}
		err = unix.Exec(itself, os.Args, os.Environ())
	}
	if errors.Is(err, router.ErrLeft) {
		os.Exit(exitLeft)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "weaver:", asRoot(err, os.Geteuid()))
		os.Exit(exitCode(err))
	}
}

// itself is the program that runs, also where its file was replaced or removed meanwhile.
const itself = "/proc/self/exe"

// keepName gives a process that has executed itself its program's name again: the kernel
// takes "exe" from the path. By its name ps -C finds it, and whoever asks who has a port.
func keepName() {
	const name = "/proc/self/comm" // of the whole process, whichever thread writes
	now, err := os.ReadFile(name)
	if err != nil || strings.TrimSpace(string(now)) != filepath.Base(itself) {
		return
	}
	if program, err := os.Executable(); err == nil {
		_ = os.WriteFile(name, []byte(filepath.Base(program)), 0) // a name that stays is no reason not to run
	}
}

// misused is a flag that there is not, or a value that is none.
type misused struct{ error }

func (m misused) Unwrap() error { return m.error }

// exitCode is 2 where the program was used wrongly, as weave's is.
func exitCode(err error) int {
	if errors.As(err, new(misused)) {
		return 2
	}
	return 1
}

// untilTold runs f until it ends, its context until SIGTERM or SIGINT comes, and reports
// whether one came. After it has returned such a signal ends the process at once, so that
// none is lost where the program is started again in its place.
func untilTold(f func(context.Context) error) (told bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	ends, watched := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(ends, unix.SIGTERM, unix.SIGINT)
	go func() {
		defer close(watched)
		select {
		case <-ends:
			told = true
			cancel()
		case <-ctx.Done():
		}
	}()
	err = f(ctx)
	signal.Stop(ends) // and what has come is in ends, or was taken
	cancel()
	<-watched
	return told || len(ends) > 0, err
}

// asRoot adds what to do about an error that a user other than root gets for being one.
func asRoot(err error, uid int) error {
	if uid != 0 && errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: run it as root", err)
	}
	return err
}

// flags are the texts behind those fields of a router.Config that are no texts.
type flags struct {
	config    router.Config
	advertise string
	ranges    string
	range6    string
	noDNS     bool
	noLists   bool
	logLevel  string
	file      string // --config
	check     bool
	set       *pflag.FlagSet
}

func command() *cobra.Command {
	f := flags{config: router.Defaults()}
	cmd := &cobra.Command{
		Use:   "weaver [flags] [PEER…]",
		Short: "The weave router: one on each host",
		Long: `The weave router: one on each host.

With PEERs (HOST or HOST:PORT) it joins their cluster; without, on a host that has
no state yet, it founds one. A host that has state goes on where it was. One whose
state directory is lost at each reboot (tmpfs, ramfs) founds none without --init new:
it waits for another host to connect.

Each flag --some-flag can also be given as WEAVE_SOME_FLAG in the environment, and as
some-flag: VALUE in the configuration file, PEERs as peers: [HOST, …]. A flag wins over
the environment, that over the file, and that over the default.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, peers []string) error {
			c, err := f.gather(peers, os.LookupEnv, os.ReadFile)
			if err != nil {
				return err
			}
			if f.check {
				_, err := io.WriteString(cmd.OutOrStdout(), c.effective(f.set))
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.level}))
			return router.Run(cmd.Context(), c.config, log)
		},
	}
	f.register(cmd.Flags())
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return misused{fmt.Errorf("%w; `weaver --help` shows all flags", err)}
	})
	return cmd
}

func (f *flags) register(s *pflag.FlagSet) {
	f.set = s
	c := &f.config
	s.StringVar(&c.Name, "name", "", "this host's name in the cluster (default: from the machine id)")
	s.StringSliceVar(&c.Bootstrap, "bootstrap", nil, "names of the hosts that found the cluster together, this one among them; the same on all of them")
	s.StringVar(&c.Init, "init", "", "\"new\": found a cluster although the state directory is lost at each reboot, or although this host was to join one before")
	s.StringVar(&f.advertise, "advertise", "", "address at which other hosts reach this one (default: that of the route to the first PEER, or the default route)")
	s.Uint16Var(&c.Port, "port", c.Port, "TCP port for gossip between hosts")
	s.Uint16Var(&c.VXLANPort, "vxlan-port", c.VXLANPort, "UDP port for the overlay")
	s.Uint16Var(&c.MeshPort, "mesh-port", c.MeshPort, "TCP port on loopback that the router needs for itself")
	s.StringVar(&f.ranges, "range", router.DefaultRange, "IPv4 addresses of the default network, when this host founds the cluster; \"\" for none")
	s.StringVar(&f.range6, "range6", "", "IPv6 addresses of the default network, when this host founds the cluster")
	s.BoolVar(&c.ForceRange, "force-range", false, "take the range although a route of this host overlaps it")
	s.IntVar(&c.MTU, "mtu", c.MTU, "MTU of the default network, when this host founds the cluster")
	s.StringVar(&c.RunDir, "run-dir", c.RunDir, "directory that survives a restart, not a reboot")
	s.StringVar(&c.StateDir, "state-dir", c.StateDir, "directory that survives both")
	s.StringVar(&c.Socket, "socket", "", "control socket (default: weave.sock in the run directory)")
	s.StringVar(&c.ConflistDir, "conflist-dir", c.ConflistDir, "directory in which runtimes look for network lists; each network gets one there")
	s.BoolVar(&f.noLists, "no-conflists", false, "write no network lists")
	s.StringVar(&c.Machine, "machine-id", "", "what tells this machine from every other, a clone of it too (default: the id of its board and the addresses burnt into its network cards, else the serial number in the device tree; a copied state directory is told by /etc/machine-id too)")
	s.StringVar(&c.SecretFile, "secret-file", "", "file with the cluster secret, as \"weave secret new\" prints it; without one anybody may join")
	s.BoolVar(&f.noDNS, "no-dns", false, "serve no names")
	s.StringVar(&c.DNSDomain, "dns-domain", c.DNSDomain, "domain of the containers' names")
	s.StringSliceVar(&c.DNSUpstream, "dns-upstream", nil, "servers for all other names, as IP or IP:port (default: those of /etc/resolv.conf)")
	s.BoolVar(&c.DNSStopRebind, "dns-stop-rebind", false, "take addresses of private networks, of this cluster's and of loopback out of those servers' answers")
	s.StringSliceVar(&c.DNSRebindOK, "dns-rebind-ok", nil, "domains whose names may have such addresses all the same")
	s.StringVar(&c.MetricsAddr, "metrics-addr", "", "IP:port at which to serve metrics to Prometheus, such as 127.0.0.1:6782 (default: they are not served)")
	s.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	s.StringVar(&f.file, "config", defaultFile, "file with flags and PEERs, in YAML; the default one may be missing")
	s.BoolVar(&f.check, "check-config", false, "say what is wrong with flags, environment, file and what they name, or print what counts and where it comes from, and end")
}
