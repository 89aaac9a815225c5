package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/doctor"
)

// presence is who answers, of those that a plug needs.
type presence struct {
	attachd bool  // false: it does not run, and the command does the work
	hung    error // attachd runs and does not answer
	router  error // it does not answer
}

// whoAnswers asks attachd and the router at once whether they are there, so that nobody
// waits for the work of one that hangs.
func (a *app) whoAnswers(ctx context.Context) (p presence) {
	asked := make(chan error, 1)
	go func() { asked <- a.ask(ctx, ctl.PathReady, nil) }()
	p.attachd, p.hung = a.attachdAnswers(ctx)
	if err := <-asked; err != nil && exitCode(err) == exitNoRouter {
		p.router = err
	}
	return p
}

// attachdAnswers reports whether attachd is there; an error when it runs and does not answer.
func (a *app) attachdAnswers(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	err := ctl.New(a.attachSocket(), 0).Call(ctx, ctl.PathReady, nil, nil)
	switch {
	case errors.Is(err, unix.EAGAIN) || err != nil && ctx.Err() != nil:
		return true, exit{exitNoRouter, fmt.Errorf("weave attachd does not answer at %s, "+hangs+": it hangs, was stopped (SIGSTOP), or this host is far too busy\n"+
			"see what it does with: journalctl -u weave-attachd; ps -C weave -o pid,stat,time,args\na restart takes nothing from any container: systemctl restart weave-attachd", a.attachSocket())}
	case ctl.NotSent(err):
		return false, nil
	}
	return true, nil // it answers, if only that it does not know the question
}

// byAttachd makes one of attachd's calls.
func (a *app) byAttachd(ctx context.Context, path string, in, out any) error {
	err := ctl.New(a.attachSocket(), 0).Call(ctx, path, in, out)
	if err != nil && (ctl.IsUnavailable(err) || ctx.Err() != nil) {
		return fmt.Errorf("weave attachd took the call and did not answer; it may have been done: see weave ps before you try again")
	}
	return err
}

// waitingFor says what is wrong with attachd where endpoints of this host wait for it; ""
// when nothing is, or nobody waits.
func (a *app) waitingFor(ctx context.Context, h *here) string {
	all, _ := h.intents().All() // what cannot be read is told by ps
	n := 0
	for _, i := range all {
		if i.Road == attach.ByCNI { // the others come back by their runtimes
			n++
		}
	}
	if n == 0 {
		return ""
	}
	there, hung := a.attachdAnswers(ctx)
	switch {
	case hung != nil:
		return fmt.Sprintf("weave attachd does not answer, though it runs, and keeps %s of this host: systemctl restart weave-attachd", count(n, "plug"))
	case !there:
		return fmt.Sprintf("weave attachd does not run: %s of this host will not come back with the containers: start it with: weave attachd", count(n, "plug"))
	}
	return ""
}

// attachdFinding is doctor's, of that.
func (a *app) attachdFinding(ctx context.Context) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, lookIn)
	defer cancel()
	if what := a.waitingFor(ctx, &here{state: stateDir}); what != "" {
		return []doctor.Finding{{Check: "attachd", Level: doctor.Warning, What: what}}
	}
	return nil
}
