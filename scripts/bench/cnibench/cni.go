package main

import (
	"context"
	"fmt"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// callTakes bounds one call; one that takes longer has failed.
const callTakes = 60 * time.Second

// calls attach and detach a container. They are made on a thread that is in
// the host's namespaces, several at once.
type calls interface {
	add(c *netlab.Container) error
	del(c *netlab.Container) error
}

const weaveList = `{"cniVersion": "1.0.0", "name": "weave", "plugins": [
	{"type": "weave-net", "hairpinMode": true, "ipam": {"type": "weave-ipam"}},
	{"type": "weavedns"}]}`

const nothingList = `{"cniVersion": "1.0.0", "name": "bench", "plugins": [{"type": "nothing"}, {"type": "nothing"}, {"type": "nothing"}]}`

func bridgeList(masquerade bool) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "bench", "plugins": [
		{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": %t, "ipMasqBackend": "iptables",
		 "ipam": {"type": "host-local", "subnet": "10.60.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}}]}`, masquerade)
}

// cni calls a network list through libcni.
type cni struct {
	lib  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

func newCNI(list string) (calls, error) {
	l, err := libcni.NetworkConfFromBytes([]byte(list))
	if err != nil {
		return nil, err
	}
	return &cni{libcni.NewCNIConfigWithCacheDir([]string{"/opt/cni/bin"}, "/var/lib/cni", nil), l}, nil
}

// runtimeConf is what a runtime says of a container; the name is one that a name server can use.
func runtimeConf(c *netlab.Container) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: c.Name(), NetNS: c.Path(), IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", c.Name()}},
	}
}

func (n *cni) add(c *netlab.Container) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTakes)
	defer cancel()
	_, err := n.lib.AddNetworkList(ctx, n.list, runtimeConf(c))
	return err
}

func (n *cni) del(c *netlab.Container) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTakes)
	defer cancel()
	return n.lib.DelNetworkList(ctx, n.list, runtimeConf(c))
}
