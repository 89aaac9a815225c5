package netlab

import (
	"errors"
	"time"
)

// TB is what netlab needs of a testing.T or testing.B.
type TB interface {
	Helper()
	Name() string
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
}

// New makes a lab for a test, which skips where this machine allows no
// namespaces. The lab closes with the test, and the test fails if something
// stays behind; if it failed before, the end of every daemon's log is shown.
func New(t TB, o Options) *Lab {
	t.Helper()
	l, err := Open(o)
	if errors.Is(err, ErrNotIsolated) {
		t.Skipf("%v", err)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.showLogs(t)
		}
		if err := l.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return l
}

func (l *Lab) showLogs(t TB) {
	l.mu.Lock()
	daemons := l.daemons
	l.mu.Unlock()
	for _, d := range daemons {
		state := "still running"
		if s := d.State(); s != nil {
			state = s.String()
		}
		t.Logf("log of %s on %s (%s):%s", d.path, d.in.where, state, indented(d.Log()))
	}
}

// settle is how long the kernel may take to be done with what was deleted.
const settle = 30 * time.Second

// Watch looks at every host now and returns a function that fails the test
// unless, within half a minute of its call, every host looks the same again.
func (l *Lab) Watch(t TB, o WorldOptions) func() {
	t.Helper()
	before, err := l.World(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return func() {
		t.Helper()
		if err := l.waitWorld(settle, before, o); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// waitWorld waits until the hosts look like before.
func (l *Lab) waitWorld(limit time.Duration, before Worlds, o WorldOptions) error {
	return Wait(limit, "the world is as it was", func() error {
		now, err := l.World(o)
		if err != nil {
			return err
		}
		if diff := before.Diff(now); diff != "" {
			return errors.New("it differs:\n" + diff)
		}
		return nil
	})
}
