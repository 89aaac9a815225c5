package replica

import (
	"errors"
	"fmt"
	"log/slog"
)

// errOlder says what to do about what a newer version has written.
var errOlder = errors.New("this host runs an older version of weave than the one that wrote its ledger: upgrade it")

// newer is a ledger that came from a peer and that this version cannot read.
type newer struct {
	words string
	at    uint64 // tick
}

// halt stops before a committed entry that cannot be read: to pass it over would give
// this host another ledger than the others have, for good. What is this host's own stays
// its own, as in a partition: only its own command, or the end of its membership, takes
// it away, and of the latter it hears; see askWhetherGone. An upgraded version replays the
// entry: it is in the log, and nothing after it was applied. That an own command took
// something away is possible only where a newer version ran here before; see rewound.
func (c *Core) halt(index uint64, why error) {
	c.halted = unreadable(index, why)
	c.lead, c.leading, c.changed = 0, false, true
	c.report("the ledger stands still", "why", c.halted)
}

func unreadable(index uint64, why error) string {
	return fmt.Sprintf("entry %d of the ledger cannot be read (%v): this host runs an older version of weave than the one that wrote it: upgrade it", index, why)
}

// report tells the log what should never be.
func (c *Core) report(msg string, args ...any) {
	if c.log != nil {
		c.log.With(slog.Uint64("index", c.state.Index())).Error(msg, args...)
	}
}
