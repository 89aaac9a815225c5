package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// endClaim marks an attachment's claim file as that of a claim that has ended, which the
// router, not being there, cannot: so that the one started next lets the addresses rest
// and gives them to others. Nil also when there is no such claim. Its errors have codes.
func endClaim(socket string, k attachment.Key) error {
	if socket == "" {
		socket = ctl.DefaultSocket
	}
	dir, err := claimsOf(socket)
	if err != nil || dir == "" {
		return err
	}
	if err := os.Rename(filepath.Join(dir, k.Hash()), filepath.Join(dir, ctl.ClaimsResting+k.Hash())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cniconf.Errorf(types.ErrIOFailure, "end the claim of container %s: %v", k.ContainerID, err)
	}
	return nil
}

// claimsOf finds the directory of the claims that were made through a socket: a
// link beside it says so when the two are not in one directory. "": no router has
// been there, so there are none.
func claimsOf(socket string) (string, error) {
	socket, err := followed(socket)
	if err != nil {
		return "", err
	}
	link := socket + ctl.ClaimsLink
	if _, err := os.Lstat(link); err == nil {
		return link, nil // where it leads may be gone, with all that was in it
	}
	beside := filepath.Join(filepath.Dir(socket), ctl.ClaimsDir)
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	if _, err := os.Lstat(socket); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return "", types.NewError(types.ErrTryAgainLater, fmt.Sprintf("no router answers at %s, and where its claims are is not to be found there", socket),
		fmt.Sprintf("neither %s nor %s is there; start weaver, then DEL again", link, beside))
}

// followed is where a path leads in the end, whether or not something is there: a
// router that has gone left links to its socket that lead to nothing.
func followed(path string) (string, error) {
	const most = 16
	for range most {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link, or nothing
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", cniconf.Errorf(types.ErrIOFailure, "socket %s: more than %d links", path, most)
}
