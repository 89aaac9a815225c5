package router

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink/knownhosts"
)

func TestWhoFoundsWhoJoinsAndWhoWaits(t *testing.T) {
	for _, c := range []struct {
		memory           memory
		others, volatile bool
		untold, told     beginning // without and with --init new
	}{
		{memory: noMemory, untold: founds, told: founds},
		{memory: noMemory, volatile: true, untold: waits, told: founds},
		{memory: noMemory, others: true, untold: goesOn, told: goesOn},
		{memory: noMemory, others: true, volatile: true, untold: goesOn, told: goesOn},
		{memory: blankMemory, untold: waits, told: foundsAnew},
		{memory: blankMemory, volatile: true, untold: waits, told: foundsAnew},
		{memory: blankMemory, others: true, untold: goesOn, told: goesOn},
		{memory: blankMemory, others: true, volatile: true, untold: goesOn, told: goesOn},
		{memory: ledgerMemory, untold: goesOn, told: goesOn},
		{memory: ledgerMemory, volatile: true, untold: goesOn, told: goesOn},
		{memory: ledgerMemory, others: true, untold: goesOn, told: goesOn},
		{memory: ledgerMemory, others: true, volatile: true, untold: goesOn, told: goesOn},
	} {
		for init, want := range map[string]beginning{"": c.untold, InitNew: c.told} {
			s := situation{c.memory, c.others, c.volatile, init}
			if got := s.begin(); got != want {
				t.Errorf("%+v: %d, want %d", s, got, want)
			}
		}
	}
}

func TestAFileSystemInMemoryIsVolatileAndNoOtherIs(t *testing.T) {
	for magic, want := range map[uint32]bool{
		unix.TMPFS_MAGIC: true, unix.RAMFS_MAGIC: true,
		unix.EXT4_SUPER_MAGIC: false, unix.XFS_SUPER_MAGIC: false, unix.BTRFS_SUPER_MAGIC: false, unix.OVERLAYFS_SUPER_MAGIC: false, unix.NFS_SUPER_MAGIC: false, 0: false,
	} {
		if got := inMemory(magic); got != want {
			t.Errorf("%x: %v", magic, got)
		}
	}
	if got, err := isVolatile("/proc"); got || err != nil {
		t.Errorf("/proc: %v, %v", got, err)
	}
	if _, err := isVolatile(t.TempDir() + "/none"); err == nil || !strings.Contains(err.Error(), "/none") {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestWhatAHostThatFoundsNoClusterWaitsFor(t *testing.T) {
	lost := notFounding("/run/x", true)
	for _, words := range []string{"the state directory /run/x is lost at each reboot", "name a PEER", "put --state-dir on a disk", "--init new"} {
		if !strings.Contains(lost, words) {
			t.Errorf("no %q in %q", words, lost)
		}
	}
	if kept := notFounding("/disk", false); strings.Contains(kept, "reboot") || !strings.Contains(kept, "name a PEER, or start with --init new") {
		t.Errorf("%q", kept)
	}
	for _, c := range []struct {
		waiting string
		alone   bool
		want    string
	}{
		{"waits to join, but nobody is reached", true, "waits for a host of a cluster to connect; why"},
		{"waits to join through a: see there", false, "waits to join through a: see there; if no host there has a cluster either: why"},
	} {
		if got := heldBackWaits("why", c.waiting, c.alone); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestThatInitNewDoesNotCountWhereOthersAreKnownIsSaid(t *testing.T) {
	var log bytes.Buffer
	c := Defaults()
	c.Init = InitNew
	r := &Router{config: c, log: slog.New(slog.NewTextHandler(&log, nil)), stateless: true, known: []knownhosts.Host{{Name: "b"}}}
	must(t, r.holdBack())
	if r.heldBack != "" || !strings.Contains(log.String(), "--init new does not count") {
		t.Errorf("%q, log:\n%s", r.heldBack, &log)
	}
}
