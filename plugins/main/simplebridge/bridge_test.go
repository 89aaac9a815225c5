package main

import "testing"

func TestABridgeIsTheRoutersByItsWholeFormOnly(t *testing.T) {
	for _, own := range []string{"sb-storage", "sb-0123456789a", "wv-storage", "simplebr0"} {
		if ofANetwork(own) || routers(own) {
			t.Errorf("%s is the operator's", own)
		}
	}
	if !ofANetwork("sb-0123456789ab") || !routers("wv-0123456789ab") || !routers("weave") {
		t.Error("a bridge of the router's is not known as one")
	}
}
