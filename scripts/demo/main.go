// Command demo shows what weave does, on three hosts in network namespaces:
// containers on different hosts reach each other by address and by name, and
// go on doing so while every router is dead. scripts/demo.sh builds what it
// needs and runs it.
//
// It exits with 0 if every step held, 1 if one did not (it says which and why),
// 130 when it was interrupted. Nothing of it remains on the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// config is what the command line says.
type config struct {
	bin      string        // directory with our programs, cnitool and portmap
	conflist string        // the network list to be fitted and installed
	dead     time.Duration // how long all routers stay dead
	svg      string        // where to keep a picture of the cluster; "": nowhere
}

const (
	exitFailed      = 1
	exitInterrupted = 130
)

var errInterrupted = errors.New("interrupted")

func main() {
	if err := netlab.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(exitFailed)
	}
	var c config
	flag.StringVar(&c.bin, "bin", "bin", "the directory of our programs, cnitool and portmap")
	flag.StringVar(&c.conflist, "conflist", "conflist/10-weave.conflist", "the network list to be installed")
	flag.DurationVar(&c.dead, "dead", 5*time.Second, "how long all routers stay dead under traffic")
	flag.StringVar(&c.svg, "svg", "", "keep a picture of the cluster in this file")
	flag.Parse()
	os.Exit(run(c))
}

// run does all steps and returns the exit code.
func run(c config) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stop := onSignal(func() { cancel(errInterrupted) })
	defer stop()
	limit := 2*time.Minute + c.dead // a busy machine included; each wait has its own bound
	ctx, expire := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %v", limit))
	defer expire()

	p := newPrinter(os.Stdout, os.Getenv)
	start := time.Now()
	err := show(ctx, c, p)
	switch {
	case err == nil:
		p.done("All of it held, in %s.", seconds(time.Since(start)))
		return 0
	case errors.Is(context.Cause(ctx), errInterrupted):
		p.failed("interrupted; all of it is gone")
		return exitInterrupted
	}
	p.failed("%v", err)
	return exitFailed
}

// show makes the lab, walks through the steps and takes the lab away again.
func show(ctx context.Context, c config, p *printer) (err error) {
	lab, err := netlab.Open(netlab.Options{Hosts: 3, Bin: c.bin, RouterArgs: []string{"--secret-file", secretFile}})
	if err != nil {
		return fmt.Errorf("make three hosts: %w", err)
	}
	d := &demo{config: c, lab: lab, out: p}
	defer func() {
		if cerr := lab.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("take the hosts away: %w", cerr)
		}
	}()
	err = d.walk(ctx)
	if err != nil && !errors.Is(context.Cause(ctx), errInterrupted) {
		d.showLogs()
	}
	return err
}

// onSignal calls f at the first signal that asks this program to end; the second ends it.
func onSignal(f func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-signals:
			signal.Stop(signals)
			f()
		case <-quit:
			signal.Stop(signals)
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}
