package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// device is what one has received and sent: bytes, packets, drops.
func device(in, packetsIn, dropsIn, out, packetsOut, dropsOut uint64) netdev.Traffic {
	return netdev.Traffic{ReceivedBytes: in, ReceivedPackets: packetsIn, ReceivedDropped: dropsIn, SentBytes: out, SentPackets: packetsOut, SentDropped: dropsOut}
}

// two samples of busy, two seconds apart.
func two() (from, to sample) {
	s := busy()
	veth := s.Attachments[0].Veth
	from = sample{at: noon, status: s, devices: map[string]netdev.Traffic{
		"weave-vx": device(1000, 10, 0, 2000, 20, 5),
		veth:       device(0, 0, 0, 0, 0, 0),
	}}
	to = sample{at: noon.Add(2 * time.Second), status: s, devices: map[string]netdev.Traffic{
		"weave-vx":        device(3001000, 2010, 4, 2400, 24, 5),
		veth:              device(500, 4, 1, 250000, 200, 0),
		"vethabcdefghijk": device(90, 1, 0, 90, 1, 0), // came between them
	}}
	return from, to
}

func TestRatesAreOfASecondAndSeenFromTheContainer(t *testing.T) {
	from, to := two()
	if r := ratesOf("weave-vx", from, to); r != (rates{1500000, 200, 1000, 2, 2, 9}) {
		t.Errorf("got %+v", r)
	}
	if r := ratesOf(busy().Attachments[0].Veth, from, to).turned(); r.in != 125000 || r.out != 250 || r.packetsIn != 100 || r.packetsOut != 2 || r.dropped != 1 {
		t.Errorf("got %+v", r)
	}
	if r := ratesOf("vethabcdefghijk", from, to); r.in != 0 {
		t.Errorf("one that was not there before: %+v", r)
	}
	to.devices["weave-vx"] = netdev.Traffic{ReceivedBytes: 600, ReceivedPackets: 6, SentBytes: 3000, SentPackets: 30}
	if r := ratesOf("weave-vx", from, to); r.in != 300 || r.out != 1500 {
		t.Errorf("one that was made anew: %+v", r)
	}
	for b, want := range map[float64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 99400: "99.4 kB", 123456: "123 kB", 1.5e6: "1.5 MB", 2e15: "2000 TB"} {
		if got := size(b); got != want {
			t.Errorf("%v: %q, want %q", b, got, want)
		}
	}
}

func TestThePictureOfTop(t *testing.T) {
	from, to := two()
	var b bytes.Buffer
	x := top{app: &app{now: func() time.Time { return noon }}}
	x.draw(&b, from, to)
	golden(t, "top", b.String())
	b.Reset()
	to.err = errors.New("the weave router does not answer at /s\nstart it")
	x.draw(&b, from, to)
	if !strings.Contains(b.String(), "does not answer at /s; what follows is of before\n") || !strings.Contains(b.String(), "1.5 MB") {
		t.Errorf("without a router the rates go on: %s", b.String())
	}
}

func TestOnceShowsOneSecondAndEnds(t *testing.T) {
	code, out, errs := weave(t, false, nil, "top", "--once", "--socket", router(t, busy()))
	if code != 0 || errs != "" || !strings.Contains(out, "\nCONTAINER") || strings.Contains(out, "\x1b") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}

func TestWithoutATerminalTopShowsOneSecondAndEnds(t *testing.T) {
	code, out, errs := weave(t, false, nil, "top", "--socket", router(t, busy()))
	if code != 0 || errs != "" || strings.Count(out, "\nCONTAINER") != 1 || strings.Contains(out, "\x1b") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}

// watched runs top for some seconds of a bubble's time.
func watched(t *testing.T, d time.Duration, screen func() (int, int, bool), answers func(n int) error) (out string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var b bytes.Buffer
		n := 0
		x := top{app: &app{out: &b, paint: true, now: time.Now, screen: screen}, read: func() map[string]netdev.Traffic { return nil },
			ask: func(context.Context) (ctl.Status, error) { n++; return busy(), answers(n) }}
		done := make(chan error)
		go func() { done <- x.watch(ctx) }()
		time.Sleep(d)
		synctest.Wait()
		cancel()
		err, out = <-done, b.String()
	})
	return out, err
}

func always(int) error { return nil }

func TestTheScreenIsGivenBackWhenItIsInterrupted(t *testing.T) {
	terminal := func() (int, int, bool) { return 12, 60, true }
	out, err := watched(t, 3500*time.Millisecond, terminal, always)
	if err != nil || !strings.HasPrefix(out, enterScreen) || !strings.HasSuffix(out, leaveScreen) || strings.Count(out, toTheTop) != 3 {
		t.Fatalf("%v, %q", err, out)
	}
	for _, picture := range strings.Split(strings.TrimSuffix(out, leaveScreen), toTheTop)[1:] {
		lines := strings.Split(picture, "\r\n")
		if len(lines) != 12 || !strings.Contains(lines[11], "lines more") {
			t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
		}
		for _, l := range lines {
			for _, code := range []string{clearLine, clearBelow, "\x1b[0m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[39m"} {
				l = strings.ReplaceAll(l, code, "")
			}
			if n := utf8.RuneCountInString(l); n > 60 || strings.Contains(l, "\x1b") {
				t.Errorf("%d columns: %q", n, l)
			}
		}
	}
}

func TestOnATerminalWithoutASizeOnePictureFollowsTheOther(t *testing.T) {
	out, err := watched(t, 2500*time.Millisecond, nil, always)
	if err != nil || strings.Count(out, "CONTAINER") != 2 || strings.Contains(out, "\x1b[?") || strings.Contains(out, toTheTop) {
		t.Errorf("%v, %q", err, out)
	}
}

func TestARouterThatGoesAwayDoesNotEndIt(t *testing.T) {
	gone := errors.New("gone")
	out, err := watched(t, 3500*time.Millisecond, nil, func(n int) error {
		if n == 3 {
			return gone
		}
		return nil
	})
	if err != nil || strings.Count(out, "gone; what follows is of before") != 1 || strings.Count(out, "alpha  up") != 3 {
		t.Errorf("%v, %q", err, out)
	}
	if _, err = watched(t, time.Second, nil, func(int) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("one that was never there: %v", err)
	}
}

// With a router that keeps counters nothing is waited for: in a bubble, time that passes is
// time that was slept.
func TestWithCountersOfAMomentAgoThePictureComesAtOnceAndSaysOverHowLong(t *testing.T) {
	from, to := two()
	kept := ctl.Traffic{Age: 3400 * time.Millisecond, Devices: map[string]ctl.DeviceTraffic{}}
	for name, d := range from.devices {
		kept.Devices[name] = ctl.DeviceTraffic(d)
	}
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		x := top{app: &app{out: &b, now: time.Now}, read: func() map[string]netdev.Traffic { return to.devices },
			ask: func(context.Context) (ctl.Status, error) { return busy(), nil },
			ago: func(context.Context) (ctl.Traffic, error) { return kept, nil }}
		start := time.Now()
		if err := x.once(t.Context()); err != nil || time.Since(start) != 0 {
			t.Errorf("%v, it waited %v", err, time.Since(start))
		}
		out := strings.Join(strings.Fields(b.String()), " ")
		if !strings.Contains(out, "rates of the last 3.4 s ") || !strings.Contains(out, " weave-vx 882 kB 118 B 588 ") { // 3 000 000 bytes in 3.4 s
			t.Errorf("got %s", b.String())
		}
		b.Reset()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- x.watch(ctx) }()
		synctest.Wait()
		if strings.Count(b.String(), "of the last 3.4 s") != 1 {
			t.Errorf("the first picture is not there at once: %s", b.String())
		}
		cancel()
		<-done
	})
}

func TestWithARouterThatHasNoCountersOfBeforeOnceWaitsForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		x := top{app: &app{out: &b, now: time.Now}, read: func() map[string]netdev.Traffic { return nil },
			ask: func(context.Context) (ctl.Status, error) { return busy(), nil },
			ago: func(context.Context) (ctl.Traffic, error) { return ctl.Traffic{}, errors.New("404") }}
		start := time.Now()
		if err := x.once(t.Context()); err != nil || time.Since(start) != topEvery || !strings.Contains(b.String(), "of the last 1.0 s") {
			t.Errorf("%v, it waited %v: %s", err, time.Since(start), b.String())
		}
	})
}
