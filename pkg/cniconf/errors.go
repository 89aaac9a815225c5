package cniconf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// Codes of the plugins' own, next to ctl's from 100 on.
const (
	// CodeExists: the container or the host already has the interface.
	CodeExists = 110
	// CodeNotAsAdded: CHECK found something other than what ADD left.
	CodeNotAsAdded = 111
)

// Errorf makes a coded error without details.
func Errorf(code uint, format string, args ...any) *types.Error {
	return types.NewError(code, fmt.Sprintf(format, args...), "")
}

// Problems collects everything that is wrong with a configuration, so that its
// writer sees all of it at once.
type Problems []string

// Add notes a problem.
func (p *Problems) Add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// Check notes an error unless it is nil.
func (p *Problems) Check(err error) {
	if err != nil {
		*p = append(*p, err.Error())
	}
}

// maxListed is how many problems an error lists; the rest it counts.
const maxListed = 16

// Err is nil without problems, else one error with code 7 that lists them.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	if more := len(p) - maxListed; more > 0 {
		p = append(p[:maxListed:maxListed], fmt.Sprintf("and %d more", more))
	}
	return types.NewError(types.ErrInvalidNetworkConfig, "invalid network configuration", strings.Join(p, "; "))
}

// Join makes one error of several, with the code of the first; nil of none. What two
// say alike it says once.
func Join(errs ...error) error {
	var first *types.Error
	var rest []string
	for _, err := range errs {
		switch {
		case err == nil:
		case first == nil:
			first = Coded(err)
		case Coded(err).Error() == first.Error() || slices.Contains(rest, err.Error()):
		default:
			rest = append(rest, err.Error())
		}
	}
	switch {
	case first == nil:
		return nil
	case len(rest) > 0:
		if first.Details != "" {
			rest = append([]string{first.Details}, rest...)
		}
		return types.NewError(first.Code, first.Msg, strings.Join(rest, "; "))
	}
	return first
}

// Coded gives the error as a plugin prints it. An error that has a code, ours or a delegated plugin's,
// keeps it; the kernel's refusals that have a meaning for the caller get one; the rest is code 999.
func Coded(err error) *types.Error {
	var plugin *types.Error
	var router *ctl.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &plugin):
		return plugin
	case errors.As(err, &router):
		return types.NewError(router.Code, router.Msg, router.Details)
	case errors.Is(err, netdev.ErrExists):
		return types.NewError(CodeExists, err.Error(), "the attachment exists already, or another interface has its name: DEL it first")
	case errors.Is(err, netdev.ErrBridgeFull):
		return types.NewError(ctl.CodeBridgeFull, err.Error(), "a Linux bridge takes 1023 ports: spread the containers over more hosts or networks")
	case errors.Is(err, netdev.ErrNSGone):
		return types.NewError(types.ErrUnknownContainer, err.Error(), "the container's network namespace is gone")
	case errors.Is(err, context.DeadlineExceeded):
		return types.NewError(types.ErrTryAgainLater, "not finished in time", err.Error())
	default:
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
}
