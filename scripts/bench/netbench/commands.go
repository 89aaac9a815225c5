package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// What a command may take: with a router that answers, and with one that does not.
const (
	promisedAnswer = 100 * time.Millisecond
	promisedReason = 2 * time.Second
)

// command is one of weave's, and how it ends without a router: with exit code 3 and the
// reason, or as ever.
type command struct {
	line   string
	alone  bool // does its work without the router too
	finds  bool // fails when it finds something wrong with this machine
	queues bool // waits for the other hosts' deletions, one after the other in this one kernel
}

// questions change nothing.
func questions(network, container string) []command {
	return []command{
		{line: "status"}, {line: "status --json"}, {line: "status peers"}, {line: "status ipam"}, {line: "status dns"}, {line: "status overlay"},
		{line: "status topology"}, {line: "status topology --dot"}, {line: "status topology --svg"},
		{line: "ps"}, {line: "net list"}, {line: "net list --no-trunc"}, {line: "net inspect " + network}, {line: "trace"}, {line: "trace " + container},
		{line: "report --json"}, {line: "report --out -", alone: true}, {line: "doctor --plugin-dir /opt/cni/bin", alone: true, finds: true}, {line: "version", alone: true},
		{line: "conflist /etc/cni/net.d/10-weave.conflist", alone: true}, {line: "secret new", alone: true}, {line: "top --once"},
	}
}

// orders each undo what the one before did.
func orders(network, peer string) []command {
	return []command{
		{line: "net create bench-asked"}, {line: "net label bench-asked tier=db"}, {line: "net rm bench-asked", queues: true},
		{line: "connect " + peer}, {line: "forget " + peer},
	}
}

// measureCommands times weave's commands on host 0: with its router well, stopped, gone.
func (c *cluster) measureCommands(list []dweller) error {
	if c.asks == 0 {
		return nil
	}
	network, container := "weave", "none"
	if len(list) > 0 {
		network, container = list[0].network.Name, list[0].Name()
	}
	title("The commands of weave on host 0, %d times each, with %d containers in the cluster", c.asks, len(list))
	all := append(questions(network, container), orders("bench-asked", c.lab.Host(1).Addr().String())...)
	well, queued, err := c.whenWell(all)
	if err != nil {
		return err
	}
	r := c.lab.Host(0).Router()
	if err := r.Pause(); err != nil {
		return err
	}
	hung, hungMost, err := c.whenAway(all, "though it runs")
	if err != nil {
		return err
	}
	if err := r.Resume(); err != nil {
		return err
	}
	if err := r.Stop(); err != nil {
		return err
	}
	gone, goneMost, err := c.whenAway(all, "does not answer")
	if err != nil {
		return err
	}
	rows := []string{"ms\tmin\tp50\tmax\tstopped\tgone"}
	for i, x := range all {
		rows = append(rows, strings.Join([]string{x.line, ms(well[i].quantile(0)), ms(well[i].quantile(.5)), ms(well[i].quantile(1)), ms(hung[i]), ms(gone[i])}, "\t"))
	}
	table(rows...)
	fmt.Printf("\nnet rm waits for all hosts, which share this kernel: to delete a bridge and a tunnel on each of the %d others takes it %s ms\n", c.hosts-1, ms(queued))
	var slowest time.Duration
	for i, x := range all {
		took := well[i].quantile(.5)
		if x.queues {
			took -= queued
		}
		slowest = max(slowest, took)
	}
	bar("the slowest median, router well, without that", slowest, promisedAnswer)
	bar("the slowest, router stopped", hungMost, promisedReason)
	bar("the slowest, router gone", goneMost, promisedReason)
	if err := r.Restart(); err != nil {
		return err
	}
	return c.start0()
}

// start0 waits for the first router after its restart.
func (c *cluster) start0() error {
	if err := c.ready(0); err != nil {
		return err
	}
	return netlab.Wait(patience, "host 0 has its peers again", func() error { return c.allPeers(0) })
}

// whenWell calls each command some times, in turns. queued is what of those that queue is
// the other hosts': the median of as many deletions by ip, between them.
func (c *cluster) whenWell(all []command) (took []times, queued time.Duration, err error) {
	took = make([]times, len(all))
	var others times
	for range c.asks {
		for i, x := range all {
			t, text, err := c.weave(x)
			if err != nil && !x.finds {
				return nil, 0, fmt.Errorf("weave %s: %w\n%s", x.line, err, text)
			}
			took[i] = append(took[i], t)
		}
		t, err := c.deletions()
		if err != nil {
			return nil, 0, err
		}
		others = append(others, t)
	}
	return took, others.quantile(.5), nil
}

// deletions is how long it takes to delete a network's devices on all hosts but one, with
// what the program that deletes them takes for itself taken off.
func (c *cluster) deletions() (took time.Duration, err error) {
	const group = "424242"
	for _, h := range c.lab.Hosts()[1:] {
		if _, err := h.Run("sh", "-ec", `ip link add bench-br type bridge; ip link add bench-vx type vxlan id 1 dstport 6799 nolearning
			for d in bench-br bench-vx; do ip link set $d group `+group+`; done
			ip link set bench-vx master bench-br; ip addr add 198.18.0.1/24 dev bench-br
			ip link set bench-br up; ip link set bench-vx up`); err != nil {
			return 0, err
		}
		start := time.Now()
		if _, err := h.Run("ip", "link", "show", "group", group); err != nil {
			return 0, err
		}
		shown := time.Now()
		if _, err := h.Run("ip", "link", "del", "group", group); err != nil {
			return 0, err
		}
		took += time.Since(shown) - shown.Sub(start)
	}
	return took, nil
}

// whenAway calls each command once, while no router answers: each that needs one is to
// end with 3 and the reason.
func (c *cluster) whenAway(all []command, reason string) (took []time.Duration, slowest time.Duration, err error) {
	for _, x := range all {
		t, text, err := c.weave(x)
		code := 0
		if exit, ok := err.(*exec.ExitError); ok {
			code = exit.ExitCode()
		} else if err != nil {
			return nil, 0, fmt.Errorf("weave %s: %w", x.line, err)
		}
		if !x.alone && (code != 3 || !strings.Contains(text, reason)) {
			return nil, 0, fmt.Errorf("weave %s: ended with %d and without %q:\n%s", x.line, code, reason, text)
		}
		took, slowest = append(took, t), max(slowest, t)
	}
	return took, slowest, nil
}

// weave runs a command on host 0, and answers with what it printed.
func (c *cluster) weave(x command) (took time.Duration, text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := c.lab.Host(0).Command(ctx, weave, strings.Fields(x.line)...)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	return time.Since(start), string(out), err
}
