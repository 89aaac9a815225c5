package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// topEvery is how often the picture is drawn.
const topEvery = time.Second

func (a *app) top() *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch hosts, networks and containers with their traffic",
		Long: `top shows, anew each second, the other hosts, how many addresses are in use, and what
goes through each network's tunnels and each container's interface: bytes and packets
a second, and packets that were dropped. IN is towards the container, or this host.

It ends with Ctrl-C. --once shows the rates up to now since some moment of the last few
seconds, of which the router has the counters, and ends at once; so does top where its
output is no terminal.`,
		Args: cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			t := top{
				app: a, read: readDevices,
				ago: func(ctx context.Context) (t ctl.Traffic, err error) { return t, a.ask(ctx, ctl.PathTraffic, &t) },
				ask: func(ctx context.Context) (s ctl.Status, err error) { return s, a.ask(ctx, ctl.PathStatus, &s) },
			}
			if _, _, isScreen := t.size(); once || !isScreen {
				return t.once(ctx)
			}
			return t.watch(ctx)
		}),
	}
	c.Flags().BoolVar(&once, "once", false, "show the last seconds and end")
	return c
}

// top is one run of the command.
type top struct {
	*app
	ask  func(context.Context) (ctl.Status, error)
	ago  func(context.Context) (ctl.Traffic, error) // what the router has of a moment ago; it may not have it yet, or be older than that call
	read func() map[string]netdev.Traffic           // by device
}

// sample is what was seen at one time.
type sample struct {
	at      time.Time
	status  ctl.Status
	err     error // the router did not answer; status is of before
	devices map[string]netdev.Traffic
}

func (t top) sample(ctx context.Context, last sample) sample {
	s := sample{at: time.Now(), devices: t.read()}
	if s.status, s.err = t.ask(ctx); s.err != nil {
		s.status = last.status
	}
	return s
}

// before is a sample of a moment ago that the router has kept, with the same answers as now;
// now is then read anew. Without one ok is false.
func (t top) before(ctx context.Context, now *sample) (from sample, ok bool) {
	if t.ago == nil {
		return sample{}, false
	}
	kept, err := t.ago(ctx)
	if err != nil {
		return sample{}, false
	}
	from = *now
	now.at, now.devices = time.Now(), t.read()
	from.at, from.devices = now.at.Add(-kept.Age), map[string]netdev.Traffic{}
	for name, d := range kept.Devices {
		from.devices[name] = netdev.Traffic(d)
	}
	return from, true
}

// once shows the rates of the last seconds; of one that it waits for where the router has
// no counters of a moment ago.
func (t top) once(ctx context.Context) error {
	now := t.sample(ctx, sample{})
	if now.err != nil {
		return now.err
	}
	before, ok := t.before(ctx, &now)
	if !ok {
		if !wait(ctx, topEvery) {
			return ctx.Err()
		}
		before, now = now, t.sample(ctx, now)
	}
	t.draw(t.out, before, now)
	return nil
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// What a terminal is told: another screen without a cursor, and the one of before.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTheTop    = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// watch draws until ctx ends, on a terminal on a screen of its own; elsewhere one
// picture after the other.
func (t top) watch(ctx context.Context) error {
	last := t.sample(ctx, sample{})
	if last.err != nil {
		return last.err
	}
	_, _, isScreen := t.size()
	if isScreen {
		fmt.Fprint(t.out, enterScreen)
		defer fmt.Fprint(t.out, leaveScreen)
	}
	tick := time.NewTicker(topEvery)
	defer tick.Stop()
	if from, ok := t.before(ctx, &last); ok {
		t.show(isScreen, from, last)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := t.sample(ctx, last)
		if ctx.Err() != nil {
			return nil
		}
		t.show(isScreen, last, now)
		last = now
	}
}

// show draws one picture of several: on a screen in the place of the one before.
func (t top) show(isScreen bool, from, to sample) {
	if rows, columns, ok := t.size(); isScreen && ok {
		var b strings.Builder
		t.draw(&b, from, to)
		fmt.Fprint(t.out, fit(b.String(), rows, columns))
		return
	}
	t.draw(t.out, from, to)
	fmt.Fprintln(t.out)
}

// size is that of the terminal, if it is one that can be drawn on.
func (t top) size() (rows, columns int, ok bool) {
	if t.screen == nil {
		return 0, 0, false
	}
	return t.screen()
}

// screenOf asks a terminal for its size; no file is one when TERM says that it is dumb.
func screenOf(f *os.File, env func(string) string) func() (rows, columns int, ok bool) {
	return func() (int, int, bool) {
		w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil || env("TERM") == "dumb" || w.Row == 0 || w.Col == 0 {
			return 0, 0, false
		}
		return int(w.Row), int(w.Col), true
	}
}

// fit is a picture as a terminal of that size can show it: no line too many or too
// long, and nothing left of the picture before.
func fit(picture string, rows, columns int) string {
	lines := strings.Split(strings.TrimRight(picture, "\n"), "\n")
	if len(lines) > rows {
		lines = append(lines[:rows-1], fmt.Sprintf("… %d lines more", len(lines)-rows+1))
	}
	for i, l := range lines {
		lines[i] = cut(l, columns) + clearLine
	}
	return toTheTop + strings.Join(lines, "\r\n") + clearBelow
}

// cut shortens a line to that many columns, of which the codes of colours take none.
func cut(line string, columns int) string {
	seen, coloured, in := 0, false, false
	for i, r := range line {
		switch {
		case r == '\x1b':
			coloured, in = true, true
		case in:
			in = r != 'm'
		default:
			if seen++; seen > columns {
				if coloured {
					return line[:i] + "\x1b[0m"
				}
				return line[:i]
			}
		}
	}
	return line
}

// draw shows what happened between two samples.
func (t top) draw(w io.Writer, from, to sample) {
	s := to.status
	state := t.paint.in(green, "ready")
	switch {
	case to.err != nil:
		first, _, _ := strings.Cut(to.err.Error(), "\n")
		state = t.paint.in(red, first+"; what follows is of before")
	case s.Error != nil:
		state = t.paint.in(red, "not ready: "+s.Error.Error())
	}
	fmt.Fprintf(w, "%s  up %s, %s  %s\n", s.Name, span(s.Uptime), t.cluster(s), state)
	for _, p := range s.Problems {
		fmt.Fprintln(w, t.paint.in(amber, "problem")+"  "+p)
	}
	rows := append([][]string{{"peers", t.peersLine(s.Peers)}}, addressRows(s)...)
	table(w, append(rows, []string{"rates", fmt.Sprintf("of the last %.1f s", to.at.Sub(from.at).Seconds())}))
	fmt.Fprintln(w)
	table(w, t.hostRows(s))
	fmt.Fprintln(w)
	table(w, networkRows(from, to))
	fmt.Fprintln(w)
	table(w, containerRows(from, to))
}

// hostRows are the other hosts, with how many endpoints they have on all networks.
func (t top) hostRows(s ctl.Status) [][]string {
	endpoints := map[string]int{}
	for _, r := range s.Overlay {
		endpoints[r.Host] += r.Endpoints
	}
	rows := [][]string{{"HOST", t.paint.in(plain, "STATE"), "ENDPOINTS"}}
	for _, p := range s.Peers {
		rows = append(rows, []string{peerName(p), t.paint.in(orPlain(peerColours[p.State]), p.State), fmt.Sprint(endpoints[p.Name])})
	}
	return rows
}

// rates are what went by in a second.
type rates struct {
	in, out               float64 // bytes
	packetsIn, packetsOut float64
	drops                 float64
	dropped               uint64 // packets, since the device is there
}

func (r rates) cells() []string {
	return []string{size(r.in), size(r.out), whole(r.packetsIn), whole(r.packetsOut), whole(r.drops), number(r.dropped)}
}

var rateHead = []string{"IN/s", "OUT/s", "PACKETS IN/s", "OUT/s", "DROPS/s", "DROPPED"}

// ratesOf is what a device did between two samples. A device that was made anew
// between them counts from its beginning.
func ratesOf(device string, from, to sample) rates {
	old, now := from.devices[device], to.devices[device]
	if now.ReceivedBytes < old.ReceivedBytes || now.SentBytes < old.SentBytes {
		old = netdev.Traffic{}
	} else if _, known := from.devices[device]; !known {
		old = now
	}
	seconds := max(to.at.Sub(from.at).Seconds(), 0.001)
	per := func(now, old uint64) float64 { return float64(now-min(old, now)) / seconds }
	return rates{
		in: per(now.ReceivedBytes, old.ReceivedBytes), out: per(now.SentBytes, old.SentBytes),
		packetsIn: per(now.ReceivedPackets, old.ReceivedPackets), packetsOut: per(now.SentPackets, old.SentPackets),
		drops: per(drops(now), drops(old)), dropped: drops(now),
	}
}

func drops(t netdev.Traffic) uint64 { return t.ReceivedDropped + t.SentDropped }

// turned is seen from the other end of a veth: what the host's end receives, the
// container has sent.
func (r rates) turned() rates {
	r.in, r.out, r.packetsIn, r.packetsOut = r.out, r.in, r.packetsOut, r.packetsIn
	return r
}

func networkRows(from, to sample) [][]string {
	rows := [][]string{append([]string{"NETWORK", "DEVICE"}, rateHead...)}
	for _, n := range to.status.Networks {
		if n.Device != "" {
			rows = append(rows, append([]string{n.Name, n.Device}, ratesOf(n.Device, from, to).cells()...))
		}
	}
	return rows
}

// containerRows are the containers' interfaces here, the busiest first.
func containerRows(from, to sample) [][]string {
	type line struct {
		ctl.Attachment
		rates
	}
	var lines []line
	for _, t := range containers(to.status) {
		l := line{Attachment: t}
		if t.Veth != "" {
			l.rates = ratesOf(t.Veth, from, to).turned()
		}
		lines = append(lines, l)
	}
	slices.SortStableFunc(lines, func(a, b line) int { return -cmp.Compare(a.in+a.out, b.in+b.out) })
	rows := [][]string{append([]string{"CONTAINER", "NETWORK", "INTERFACE", "ADDRESS"}, rateHead...)}
	for _, l := range lines {
		cells := l.cells()
		if l.Veth == "" { // another main plugin's: its device is not known
			cells = []string{"-", "-", "-", "-", "-", "-"}
		}
		rows = append(rows, append([]string{orDash(short(l.Key.ContainerID)), orDash(l.Key.Network), orDash(l.Key.IfName), orDash(join(l.Addresses))}, cells...))
	}
	return rows
}

// size is a number of bytes in the unit in which it is short.
func size(b float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	for i, u := range units {
		if b < 999.5 || i == len(units)-1 {
			if b >= 99.5 || i == 0 {
				return fmt.Sprintf("%.0f %s", b, u)
			}
			return fmt.Sprintf("%.1f %s", b, u)
		}
		b /= 1000
	}
	return ""
}

func whole(f float64) string { return number(uint64(f + 0.5)) }

func readDevices() map[string]netdev.Traffic {
	text, _ := netdev.ReadTraffic() // without it there are no rates, and all else is shown
	return netdev.ParseTraffic(string(text))
}
