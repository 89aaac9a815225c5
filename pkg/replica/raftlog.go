package replica

import (
	"context"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// memory is the log as raft reads it: raft's own MemoryStorage, but that a
// snapshot for somebody who is far behind is made when it is asked for. It must
// hold the receiver in its configuration, so an old one would not do.
type memory struct {
	*raft.MemoryStorage
	conf     Conf // at start
	snapshot func() (*raftpb.Snapshot, error)
}

// InitialState gives the configuration as of the last entry that the core has
// replayed itself, not as of the snapshot.
func (m *memory) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hard, _, err := m.MemoryStorage.InitialState()
	return hard, m.conf.proto(), err
}

func (m *memory) Snapshot() (*raftpb.Snapshot, error) { return m.snapshot() }

func (s Snapshot) proto() *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: s.Data, Metadata: &raftpb.SnapshotMetadata{
		ConfState: s.Conf.proto(), Index: new(s.Index), Term: new(s.Term),
	}}
}

func (h Hard) proto() *raftpb.HardState {
	return &raftpb.HardState{Term: new(h.Term), Vote: new(h.Vote), Commit: new(h.Commit)}
}

// newMemory fills the log from what was saved.
func newMemory(saved Saved) (*memory, error) {
	m := &memory{MemoryStorage: raft.NewMemoryStorage()}
	if saved.Snapshot.Index > 0 {
		if err := m.ApplySnapshot(saved.Snapshot.proto()); err != nil {
			return nil, fmt.Errorf("snapshot %d: %w", saved.Snapshot.Index, err)
		}
	}
	next := saved.Snapshot.Index + 1
	var entries []*raftpb.Entry
	for _, e := range saved.Entries {
		if e.Index < next {
			continue // kept for those who are behind; the snapshot has it
		}
		if e.Index != next {
			return nil, fmt.Errorf("the log has entry %d where %d should be", e.Index, next)
		}
		entries = append(entries, e.proto())
		next++
	}
	if saved.Hard.Commit >= next || saved.Hard.Commit < saved.Snapshot.Index {
		return nil, fmt.Errorf("the log goes from %d to %d, but %d is said to be committed", saved.Snapshot.Index+1, next-1, saved.Hard.Commit)
	}
	if err := m.Append(entries); err != nil {
		return nil, fmt.Errorf("log of %d entries: %w", len(entries), err)
	}
	return m, m.SetHardState(saved.Hard.proto())
}

// raftLogger hands raft's own words on, at a level below ours. Its panics are
// panics: raft goes on after none of them.
type raftLogger struct {
	log  *slog.Logger // nil: nobody reads it
	talk bool         // debug level is on
}

func newLogger(log *slog.Logger) raftLogger {
	if log == nil || !log.Enabled(context.Background(), slog.LevelWarn) {
		return raftLogger{}
	}
	return raftLogger{log, log.Enabled(context.Background(), slog.LevelDebug)}
}

func (l raftLogger) Debug(...any)          {}
func (l raftLogger) Debugf(string, ...any) {}
func (l raftLogger) Info(v ...any)         { l.debugf("%s", fmt.Sprint(v...)) }
func (l raftLogger) Warning(v ...any)      { l.debugf("%s", fmt.Sprint(v...)) }
func (l raftLogger) Fatal(v ...any)        { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panic(v ...any)        { panic(fmt.Sprint(v...)) }

func (l raftLogger) Infof(f string, v ...any)    { l.debugf(f, v...) }
func (l raftLogger) Warningf(f string, v ...any) { l.debugf(f, v...) }
func (l raftLogger) Fatalf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
func (l raftLogger) Panicf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }

func (l raftLogger) Error(v ...any) {
	if l.log != nil {
		l.log.Warn(fmt.Sprint(v...))
	}
}

func (l raftLogger) Errorf(f string, v ...any) {
	if l.log != nil {
		l.log.Warn(fmt.Sprintf(f, v...))
	}
}

func (l raftLogger) debugf(f string, v ...any) {
	if l.talk {
		l.log.Debug(fmt.Sprintf(f, v...))
	}
}
