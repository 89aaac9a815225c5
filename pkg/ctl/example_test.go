package ctl_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// A program that asks the router of this host, and tells its refusals apart.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	router := ctl.New("", 2*time.Second) // at the usual socket; a restart of the router is waited out

	var status ctl.Status
	if err := router.Call(ctx, ctl.PathStatus, nil, &status); err != nil {
		log.Fatal(err)
	}
	fmt.Println(status.Name, len(status.Peers))

	var network ctl.Network
	err := router.Call(ctx, ctl.PathNetwork, ctl.NetworkRequest{Name: "weave"}, &network)
	var refused *ctl.Error
	switch {
	case ctl.IsUnavailable(err):
		fmt.Println("no router runs")
	case errors.As(err, &refused):
		fmt.Println("refused, code", refused.Code)
	default:
		fmt.Println(network.Bridge, network.MTU)
	}
}
