package netdev

import "testing"

const trafficTable = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
weave-vx: 5000000    4000    0    2    0     0          0         0  7000000    6000    0    3    0     0       0          0
a:b: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
short: 1 2 3
`

func TestTheKernelsTableOfDevicesIsRead(t *testing.T) {
	got := ParseTraffic(trafficTable)
	if len(got) != 3 {
		t.Errorf("got %v", got)
	}
	if d := got["weave-vx"]; d != (Traffic{5000000, 4000, 2, 7000000, 6000, 3}) {
		t.Errorf("got %+v", d)
	}
	if d := got["a:b"]; d.ReceivedDropped != 4 || d.SentDropped != 12 {
		t.Errorf("got %+v", d)
	}
	text, err := ReadTraffic()
	if _, lo := ParseTraffic(string(text))["lo"]; err != nil || !lo {
		t.Errorf("the kernel's own: %v, %q", err, text)
	}
}

func FuzzTraffic(f *testing.F) {
	f.Add(trafficTable)
	f.Fuzz(func(t *testing.T, text string) { ParseTraffic(text) })
}
