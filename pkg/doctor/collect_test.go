package doctor

import "testing"

func TestEntriesOfAllDevicesAreSplitAsThoseOfEachAloneAreShown(t *testing.T) {
	got := entriesOf("33:33:00:00:00:01 dev eth0 self permanent\n" +
		"02:42:0a:20:00:01 dev wx-0123456789ab dst 192.0.2.1 self permanent\n" +
		"00:00:00:00:00:00 dev wx-0123456789ab dst 192.0.2.1 self permanent\n" +
		"02:42:0a:20:00:02 dev last\nno entry at all\n")
	want := map[string]string{
		"eth0": "33:33:00:00:00:01 self permanent\n",
		"wx-0123456789ab": "02:42:0a:20:00:01 dst 192.0.2.1 self permanent\n" +
			"00:00:00:00:00:00 dst 192.0.2.1 self permanent\n",
		"last": "02:42:0a:20:00:02 \n",
	}
	for device, text := range want {
		if got[device] != text {
			t.Errorf("%s: %q, want %q", device, got[device], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %q", got)
	}
}
