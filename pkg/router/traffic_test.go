package router

import (
	"testing"
	"time"
)

func TestOfTheDevicesTheLatestReadingThatIsOldEnoughIsTold(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	var x traffic
	if _, ok := x.since(start); ok {
		t.Error("nothing was read, and something is told")
	}
	x.add(start, []byte("first"))
	if _, ok := x.since(start.Add(trafficOld / 2)); ok {
		t.Error("a reading that is too young for rates is told")
	}
	x.add(start.Add(trafficEvery), []byte("second"))
	for after, want := range map[time.Duration]string{
		trafficEvery: "first", trafficEvery + trafficOld - 1: "first", trafficEvery + trafficOld: "second", 3 * trafficEvery: "second",
	} {
		if is, ok := x.since(start.Add(after)); !ok || string(is.text) != want {
			t.Errorf("after %v: %q, %v, want %s", after, is.text, ok, want)
		}
	}
}
