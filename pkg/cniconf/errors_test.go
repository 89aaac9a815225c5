package cniconf

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

func TestEveryErrorHasACode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want uint
	}{
		{errors.New("x"), 999},
		{fmt.Errorf("a: %w", types.NewError(7, "x", "")), 7},
		{fmt.Errorf("a: %w", ctl.Errorf(ctl.CodeNetworkFull, "x")), 100},
		{fmt.Errorf("a: %w", netdev.ErrExists), CodeExists},
		{fmt.Errorf("a: %w", netdev.ErrBridgeFull), 102},
		{fmt.Errorf("a: %w", netdev.ErrNSGone), 3},
		{fmt.Errorf("a: %w", context.DeadlineExceeded), 11},
		{Join(nil, errors.New("x"), types.NewError(7, "y", "")), 999},
		{Join(types.NewError(11, "y", "d"), errors.New("x")), 11},
	} {
		if got := Coded(c.err); got.Code != c.want || got.Msg == "" {
			t.Errorf("%v: got %+v, want code %d", c.err, got, c.want)
		}
	}
	if Coded(nil) != nil || Join(nil, nil) != nil {
		t.Error("no error became one")
	}
	if got := Join(types.NewError(11, "y", "d"), types.NewError(11, "y", "d")).Error(); got != "y; d" {
		t.Errorf("twice the same: got %q", got)
	}
	if got := Join(types.NewError(11, "y", "d"), errors.New("x")).Error(); got != "y; d; x" {
		t.Errorf("got %q", got)
	}
}
