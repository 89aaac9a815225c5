package ctl

import "time"

// PathTraffic asks what the devices of this host had done a moment ago, so that rates up to
// now can be told at once.
const PathTraffic = "/v1/traffic" // GET -> Traffic; CodeTryAgain in the first moments of a router

// Traffic is what the devices of the host had done at one moment.
type Traffic struct {
	Age     time.Duration            `json:"age"` // how long ago that was: from 1 s to 6 s, unless the host is far too busy
	Devices map[string]DeviceTraffic `json:"devices"`
}

// DeviceTraffic is what a device has done since it is there, as the host sees it: what a
// container sends, the host's end of its veth receives.
type DeviceTraffic struct {
	ReceivedBytes   uint64 `json:"received_bytes"`
	ReceivedPackets uint64 `json:"received_packets"`
	ReceivedDropped uint64 `json:"received_dropped"`
	SentBytes       uint64 `json:"sent_bytes"`
	SentPackets     uint64 `json:"sent_packets"`
	SentDropped     uint64 `json:"sent_dropped"`
}
