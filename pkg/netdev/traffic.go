package netdev

import (
	"os"
	"strconv"
	"strings"
)

// Traffic is what a device has done since it is there: as the host sees it, also of the
// host's end of a veth.
type Traffic struct {
	ReceivedBytes, ReceivedPackets, ReceivedDropped uint64
	SentBytes, SentPackets, SentDropped             uint64
}

// ReadTraffic reads the kernel's table of the devices of this network namespace, whatever
// is mounted at /sys; ParseTraffic understands it. To keep it as it is costs next to nothing.
func ReadTraffic() ([]byte, error) { return os.ReadFile("/proc/thread-self/net/dev") }

// ParseTraffic reads that table: a name, a colon, eight numbers of what was received and
// eight of what was sent, each time bytes, packets, errors, drops. By device.
func ParseTraffic(text string) map[string]Traffic {
	out := map[string]Traffic{}
	for line := range strings.Lines(text) {
		at := strings.LastIndex(line, ":") // a name may have one, too
		if at < 0 {
			continue
		}
		numbers := strings.Fields(line[at+1:])
		if len(numbers) < 16 {
			continue
		}
		n := func(i int) uint64 {
			v, _ := strconv.ParseUint(numbers[i], 10, 64) // the kernel's own numbers
			return v
		}
		out[strings.TrimSpace(line[:at])] = Traffic{n(0), n(1), n(3), n(8), n(9), n(11)}
	}
	return out
}
