package meshlink

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// meshLog takes mesh's own lines. They are for whoever looks for a fault in mesh:
// what an operator needs the carrier says. So they are of level debug, and at
// most a few a second.
type meshLog struct {
	log    *slog.Logger
	seldom *seldom
}

const meshLines = 20 // a second

// Printf is mesh.Logger.
func (m meshLog) Printf(format string, args ...any) {
	if !m.log.Enabled(context.Background(), slog.LevelDebug) || !m.seldom.below("mesh", meshLines, time.Second) {
		return
	}
	m.log.Debug("mesh: " + strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// seldom keeps one cause from filling a log.
type seldom struct {
	mu    sync.Mutex
	spent map[string]spell
}

type spell struct {
	begin time.Time
	n     int
}

// below reports whether there were fewer than n of a kind in the running period.
func (s *seldom) below(kind string, n int, period time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spent == nil {
		s.spent = map[string]spell{}
	}
	now, sp := time.Now(), s.spent[kind]
	if now.Sub(sp.begin) > period {
		sp = spell{begin: now}
	}
	sp.n++
	s.spent[kind] = sp
	return sp.n <= n
}

// ok is below for things that are worth a line every ten seconds.
func (s *seldom) ok(kind string) bool { return s.below(kind, 1, 10*time.Second) }
