package router

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestAHostThatServesNoNamesSaysSoWhereItIsAskedForThem(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 1})
	a := startOn(t, lab.Host(0), func(c *Config) { c.Name, c.DNS = "a", false })
	a.until("a founds", ready)
	_, err := a.hand(ctl.PathDNSAdd, ctl.HandName{Name: "db", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")}})
	must(t, err)
	client := ctl.New(a.config.Socket, 0)
	var found ctl.LookupReply
	if err := client.Call(t.Context(), ctl.PathDNSLookup, ctl.LookupRequest{Name: "db"}, &found); err != nil || !found.Unserved || len(found.Records) != 1 {
		t.Errorf("lookup: %+v, %v", found, err)
	}
	err = client.Call(t.Context(), ctl.PathDNSTrace, ctl.QueriesRequest{Container: "x"}, nil)
	if err == nil || !strings.Contains(err.Error(), "this host serves no names (--no-dns)") {
		t.Errorf("trace: %v", err)
	}
}
