package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// matrix says who reached whom.
type matrix struct {
	all   []*container
	cells [][]reached // by index of the one who pings, then of the pinged
}

// reached is one pair: why it did not work, nil where it did.
type reached struct{ byAddr, byName error }

// matrix lets each container ping each other one, at the same time as the
// others do. What does not work is tried again until limit has passed since the
// beginning: a name may be a moment on its way to the other hosts.
func (d *demo) matrix(ctx context.Context, limit time.Duration) matrix {
	m := matrix{all: d.containers, cells: make([][]reached, len(d.containers))}
	end := time.Now().Add(limit)
	var wg sync.WaitGroup
	for i, from := range m.all {
		m.cells[i] = make([]reached, len(m.all))
		wg.Go(func() {
			for j, to := range m.all {
				if i != j {
					m.cells[i][j] = reached{
						byAddr: until(ctx, end, func() error { return from.pingAddr(ctx, to) }),
						byName: until(ctx, end, func() error { return from.pingName(ctx, to) }),
					}
				}
			}
		})
	}
	wg.Wait()
	return m
}

// until tries at least once, and again until it works or the time has come.
func until(ctx context.Context, end time.Time, try func() error) error {
	for {
		err := try()
		if err == nil || time.Now().After(end) || pause(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

func (c *container) pingAddr(ctx context.Context, to *container) error {
	_, err := c.run(ctx, 5*time.Second, "ping", "-n", "-c1", "-W2", to.addr.Addr().String())
	return err
}

// pingName pings as a user does, and looks whether the answers came from the right one.
func (c *container) pingName(ctx context.Context, to *container) error {
	out, err := c.run(ctx, 5*time.Second, "ping", "-c1", "-W2", to.Name())
	if err == nil && !strings.Contains(out, "("+to.addr.Addr().String()+")") {
		err = fmt.Errorf("%s should be %v: %s", to.Name(), to.addr.Addr(), strings.TrimSpace(out))
	}
	return err
}

// rows is the table: a line for each that pings, a column for each that is pinged.
func (m matrix) rows() [][]cell {
	head := []string{"from", "", ""}
	for _, to := range m.all {
		head = append(head, to.Name())
	}
	rows := [][]cell{header(head...)}
	for i, from := range m.all {
		r := []cell{text(from.Host().Name()), text(from.Name()), text(from.addr.Addr().String())}
		for j := range m.all {
			r = append(r, m.mark(i, j))
		}
		rows = append(rows, r)
	}
	return rows
}

func (m matrix) mark(i, j int) cell {
	if i == j {
		return coloured("·", dim)
	}
	var c cell
	for _, err := range []error{m.cells[i][j].byAddr, m.cells[i][j].byName} {
		if err == nil {
			c.parts = append(c.parts, part{"✓", green})
		} else {
			c.parts = append(c.parts, part{"✗", red})
		}
	}
	return c
}

// count is the matrix in words.
func (m matrix) count() string {
	byAddr, byName, pairs := 0, 0, 0
	m.each(func(_, _ int, r reached) {
		pairs++
		if r.byAddr == nil {
			byAddr++
		}
		if r.byName == nil {
			byName++
		}
	})
	return fmt.Sprintf("%d of %d by address, %d of %d by name", byAddr, pairs, byName, pairs)
}

// err is nil if all reached all; otherwise it tells the first that did not, and why.
func (m matrix) err() (err error) {
	bad := 0
	m.each(func(i, j int, r reached) {
		if why := errors.Join(r.byAddr, r.byName); why != nil {
			if bad++; err == nil {
				err = fmt.Errorf("%s on %s does not reach %s on %s: %w", m.all[i].Name(), m.all[i].Host().Name(), m.all[j].Name(), m.all[j].Host().Name(), why)
			}
		}
	})
	if bad > 1 {
		err = fmt.Errorf("%d pairs; the first: %w", bad, err)
	}
	return err
}

func (m matrix) each(f func(i, j int, r reached)) {
	for i, row := range m.cells {
		for j, r := range row {
			if i != j {
				f(i, j, r)
			}
		}
	}
}
