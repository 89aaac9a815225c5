package ctl

import "testing"

func TestADeviceIsANetworksOnlyWithTwelveDigitsOfAnID(t *testing.T) {
	for name, want := range map[string]string{
		"sb-0123456789ab": "0123456789ab", "wv-0123456789ab": "", "sb-storage": "", "sb-0123456789a": "",
		"sb-0123456789abc": "", "sb-0123456789aB": "", "0123456789ab": "", "": "",
	} {
		if got := DeviceID(name, LocalPrefix); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
