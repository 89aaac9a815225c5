package main

import (
	"errors"
	"fmt"
)

// losses are the phases of a traffic, in order.
type losses []loss

var errLost = errors.New("not all is answered")

func (all losses) rows() [][]cell {
	rows := [][]cell{header("routers", ">time", ">sent", ">answered", ">lost")}
	for _, l := range all {
		lost := number(l.lost())
		lost.parts[0].colour = green
		if l.lost() > 0 {
			lost.parts[0].colour = red
		}
		rows = append(rows, []cell{text(l.phase), toTheRight(seconds(l.took)), number(l.sent), number(l.answered), lost})
	}
	return rows
}

// err is nil if nothing was lost, and enough was sent for that to say something.
func (all losses) err() error {
	for _, l := range all {
		if l.lost() > 0 {
			return fmt.Errorf("routers %s: %d of %d datagrams were lost", l.phase, l.lost(), l.sent)
		}
		if float64(l.sent) < l.took.Seconds()*least {
			return fmt.Errorf("routers %s: this machine is too busy, only %d datagrams could be sent in %s", l.phase, l.sent, seconds(l.took))
		}
	}
	return nil
}
