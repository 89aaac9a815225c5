package overlay

import "testing"

func TestOnlyTheNetworksOfChangedRecordsAreNamed(t *testing.T) {
	v := NewView()
	on := func(network string) *Endpoint {
		e := endpoint("10.32.0.2")
		e.Network = network
		return e
	}
	v.Inherit("inherited", Plan{})
	for _, step := range []struct {
		what   string
		do     func()
		red    bool
		blue   bool
		others bool
	}{
		{"a host has spoken", func() { v.SetHost("a", &Host{VTEP: vtepA}) }, true, true, true},
		{"nothing", func() {}, false, false, false},
		{"an endpoint has come", func() { v.SetEndpoint("a", "ep/1", on("red")) }, true, false, false},
		{"it has moved to another network", func() { v.SetEndpoint("a", "ep/1", on("blue")) }, true, true, false},
		{"it is gone", func() { v.SetEndpoint("a", "ep/1", nil) }, false, true, false},
		{"it is gone again", func() { v.SetEndpoint("a", "ep/1", nil) }, false, false, false},
		{"one that is not valid has come", func() { v.SetEndpoint("a", "ep/2", &Endpoint{Network: "red", MAC: []byte{1}}) }, false, false, false},
		{"one is to be compared", func() { v.Touch("blue") }, false, true, false},
		{"the host is gone", func() { v.SetHost("a", nil) }, true, true, true},
	} {
		step.do()
		got := v.TakeChanged()
		if got.Has("red") != step.red || got.Has("blue") != step.blue || got.Has("green") != step.others {
			t.Errorf("%s: red %v, blue %v, others %v", step.what, got.Has("red"), got.Has("blue"), got.Has("green"))
		}
	}
	v.Disinherit()
	if got := v.TakeChanged(); !got.Has("inherited") || got.Has("red") {
		t.Errorf("disinherited: %+v", got)
	}
}
