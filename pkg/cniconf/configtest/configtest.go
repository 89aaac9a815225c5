// Package configtest is how each plugin tests the reading of its configuration.
// It is for tests.
package configtest

import (
	"errors"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
)

// args is a CNI_ARGS with a bit of everything that runtimes send.
const args = "IP=10.32.0.5;MAC=02:00:00:00:00:01;K8S_POD_NAME=web;X=a=b;WEAVE_ENDPOINT=weave://?alias%3Dweb"

// Fuzz gives a plugin's decoder configurations and CNI_ARGS: the seeds, what
// testdata/fuzz has, and what the fuzzer thinks of. None may make it panic, and
// what it refuses has a code for it. accepted checks of all else that the rest of
// an ADD can rely on it.
func Fuzz[Config any](f *testing.F, decode func(*cniconf.Call) (Config, error), accepted func(*testing.T, Config, *cniconf.Call), seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s), args)
	}
	f.Fuzz(func(t *testing.T, stdin []byte, env string) {
		args, err := cniconf.ParseArgs(env)
		if err != nil {
			return
		}
		c := &cniconf.Call{
			Key:  attachment.Key{Network: "net1", ContainerID: "c1", IfName: "eth0"},
			Args: args, NetNS: env, CNIVersion: "1.0.0", Stdin: stdin,
		}
		conf, err := decode(c)
		if err != nil {
			mustBeCoded(t, err)
			return
		}
		accepted(t, conf, c)
	})
}

func mustBeCoded(t *testing.T, err error) {
	var coded *types.Error
	if !errors.As(err, &coded) || coded.Code != types.ErrDecodingFailure && coded.Code != types.ErrInvalidNetworkConfig {
		t.Fatalf("refused without its code: %v", err)
	}
}
