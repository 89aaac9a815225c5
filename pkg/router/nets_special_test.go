package router

import (
	"net/netip"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

func TestASubnetThatNobodyCanUseIsRefused(t *testing.T) {
	r := &Router{config: Config{ForceRange: true}} // so that no route of this host matters
	for subnet, ok := range map[string]bool{
		"127.8.0.0/16": false, "224.0.0.0/24": false, "169.254.0.0/16": false, "0.0.0.0/8": false, "240.0.0.0/8": false, "0.0.0.0/0": false,
		"fe80::/64": false, "ff02::/64": false, "::/64": false, "::/0": false,
		"10.2.45.0/24": true, "198.18.0.0/16": true, "223.255.255.0/24": true, "fd00:1::/64": true, "2001:db8::/64": true,
	} {
		err := r.checkSubnets(ledger.New(), []netip.Prefix{netip.MustParsePrefix(subnet)})
		if ok && err != nil {
			t.Errorf("%s: %v", subnet, err)
		} else if !ok {
			coded(t, err, ctl.CodeInvalidConfig, subnet, "choose another --subnet")
		}
	}
}
