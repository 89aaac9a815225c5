package netdev

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestADumpThatWasInterruptedAnywhereDecidesNothing(t *testing.T) {
	const intr = unix.NLM_F_DUMP_INTR
	done := make([]byte, 4)
	refused := binary.NativeEndian.AppendUint32(nil, uint32(1<<32-uint64(unix.EPERM)))
	for name, tc := range map[string]struct {
		first, last, other uint16
		verdict            []byte
		want               error
	}{
		"clean":                 {verdict: done},
		"at an entry":           {first: intr, verdict: done, want: netlink.ErrDumpInterrupted},
		"at the end":            {last: intr, verdict: done, want: netlink.ErrDumpInterrupted},
		"refused":               {verdict: refused, want: unix.EPERM},
		"somebody else's was":   {other: intr, verdict: done},
		"refused, interrupted":  {first: intr, verdict: refused, want: unix.EPERM},
		"an old kernel's short": {verdict: nil},
	} {
		t.Run(name, func(t *testing.T) {
			entries := 0
			p := pass{seq: 7, entry: func([]byte) { entries++ }}
			p.take(unix.NlMsghdr{Type: unix.RTM_NEWLINK, Seq: 7, Flags: tc.first}, nil)
			p.take(unix.NlMsghdr{Type: unix.RTM_NEWLINK, Seq: 6, Flags: tc.other}, nil)
			p.take(unix.NlMsghdr{Type: unix.RTM_NEWLINK, Seq: 7}, nil)
			if p.done {
				t.Error("done before the end")
			}
			p.take(unix.NlMsghdr{Type: unix.NLMSG_DONE, Seq: 7, Flags: tc.last}, tc.verdict)
			if !p.done || entries != 2 || !errors.Is(p.verdict(), tc.want) {
				t.Errorf("done %v, %d entries, verdict %v, want %v", p.done, entries, p.verdict(), tc.want)
			}
		})
	}
}

func TestTheKernelsWordsComeWithItsErrors(t *testing.T) {
	h := newSpace(t)
	h.in(func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.close()
		errs := c.batch(
			request(unix.RTM_NEWLINK, 0, infoUp(loopback)),
			request(unix.RTM_NEWLINK, 0, info(0), nameAttr(unix.IFLA_IFNAME, "nothing")),
			request(unix.RTM_NEWADDR, unix.NLM_F_CREATE, newAddr(99, prefixes("10.0.0.1/8")[0]).Data...),
			request(unix.RTM_NEWLINK, 0, infoUp(loopback)),
		)
		for i, want := range []error{nil, unix.ENODEV, unix.ENODEV, nil} {
			if !errors.Is(errs[i], want) {
				t.Errorf("message %d: got %v, want %v", i, errs[i], want)
			}
		}
		if errs[2] == nil || errs[2].Error() == unix.ENODEV.Error() {
			t.Errorf("no words: %v", errs[2])
		}
		return nil
	})
}
