package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// oldCommit is the version that a cluster is upgraded from, and back to: the one that
// landed last. It is to be moved with each version.
const oldCommit = "b35987391d8c666961b879152dafd86ec4046b42"

// The environment of the isolated child: where the old version is, or why it is not.
const (
	oldVariable   = "WEAVE_E2E_OLD"
	noOldVariable = "WEAVE_E2E_NO_OLD"
)

// buildOld builds the old version, its binaries in bin and its network lists in conflist,
// if the tests that are run are to have it.
func buildOld() error {
	flag.Parse()
	if run := flag.Lookup("test.run").Value.String(); run != "" {
		if wanted, err := regexp.MatchString(run, "TestAnUpgradeAndTheWayBackCostNoContainerItsAddressOrAPacket"); err != nil || !wanted {
			return nil // the testing package complains of the expression
		}
	}
	commit := oldCommit
	if !isHere(commit) { // a shallow clone: at least the change of programs is tested
		fmt.Fprintf(os.Stderr, "commit %s is not here: the upgrade is tested from HEAD to HEAD; git fetch --unshallow\n", commit[:7])
		commit = "HEAD"
	}
	if !isHere(commit) {
		return os.Setenv(noOldVariable, "this tree is in no git repository: there is no old version to upgrade from")
	}
	dir, err := os.MkdirTemp("", tempName+"old-")
	if err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(dir, 0o755), buildCommit(commit, dir)); err != nil {
		os.RemoveAll(dir)
		return err
	}
	return os.Setenv(oldVariable, dir)
}

func isHere(commit string) bool {
	return exec.Command("git", "-C", "../..", "cat-file", "-e", commit+"^{commit}").Run() == nil
}

// buildCommit checks a commit out below a directory, without a trace in the repository,
// and builds it there.
func buildCommit(commit, dir string) error {
	archive := exec.Command("git", "-C", "../..", "archive", commit)
	unpack := exec.Command("tar", "-x", "-C", dir)
	pipe, err := archive.StdoutPipe()
	if err != nil {
		return err
	}
	unpack.Stdin = pipe
	if err := archive.Start(); err != nil {
		return err
	}
	out, err := unpack.CombinedOutput()
	_, _ = io.Copy(io.Discard, pipe) // should tar have ended early
	if err := errors.Join(err, archive.Wait()); err != nil {
		return fmt.Errorf("check out %s: %w\n%s", commit, err, out)
	}
	build := exec.Command("./build.sh")
	build.Dir, build.Env = dir, append(os.Environ(), "BIN="+filepath.Join(dir, "bin"), "VERSION=v0.0.0-old")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", commit, err, out)
	}
	return nil
}

// upgrade is a cluster whose hosts change versions.
type upgrade struct {
	*cluster
	old     string
	routers map[int]*netlab.Daemon
	have    []*container
}

func TestAnUpgradeAndTheWayBackCostNoContainerItsAddressOrAPacket(t *testing.T) {
	old := os.Getenv(oldVariable)
	if old == "" {
		t.Skip(os.Getenv(noOldVariable))
	}
	const hosts = 3
	u := upgrade{old: old, routers: map[int]*netlab.Daemon{}}
	u.cluster = newCluster(t, hosts, netlab.Options{Bin: filepath.Join(old, "bin"), PluginDirs: []string{bin}})
	u.waitVoters(hosts)
	for i := range hosts {
		u.oldConflist(i)
		u.routers[i] = u.lab.Host(i).Router()
		u.have = append(u.have, u.add(i, fmt.Sprint("c", i), named(fmt.Sprint("c", i))))
	}
	u.allReachAll()
	before, err := u.status(0)
	if err != nil || before.Version != "v0.0.0-old" {
		t.Fatalf("version %q, %v", before.Version, err)
	}
	flows := []*traffic{u.startTraffic(u.have[0], u.have[1]), u.startTraffic(u.have[2], u.have[0])}

	for _, dir := range []string{bin, filepath.Join(old, "bin")} {
		for i := range hosts {
			u.switchTo(i, dir)
		}
		u.allReachAll()
		u.ledgerIsWrittenAndReadByAll()
	}
	for i, f := range flows {
		if sent, lost := f.stop(); lost != 0 || sent == 0 {
			t.Errorf("flow %d: %d of %d packets lost", i, lost, sent)
		} else {
			t.Logf("flow %d: %d packets, none lost", i, sent)
		}
	}
	u.isOneClusterAs(before)
	for _, ct := range u.have {
		u.del(ct)
	}
	for i := range hosts {
		u.wait("nothing is left of the containers", func() error {
			s, err := u.status(i)
			if n := len(s.Attachments); err == nil && n != 0 {
				err = fmt.Errorf("%d attachments", n)
			}
			return err
		})
	}
}

// oldConflist installs the old version's network list, which no upgrade replaces.
func (u *upgrade) oldConflist(i int) {
	u.t.Helper()
	const name = "10-weave.conflist"
	b, err := os.ReadFile(filepath.Join(u.old, "conflist", name))
	if err == nil {
		err = u.lab.Host(i).WriteFile("/etc/cni/net.d/"+name, string(b), 0o644)
	}
	if err != nil {
		u.t.Fatal(err)
	}
}

// switchTo brings a host to the version in dir, as docs/upgrading.md says: plugins and
// command by renaming, then the router. Containers are added in between and after it.
func (u *upgrade) switchTo(i int, dir string) {
	u.t.Helper()
	h := u.lab.Host(i)
	h.MustRun(u.t, "sh", "-euc", `for p in weave-net weave-ipam weavedns simplebridge weave weaver; do
	ln -s "$0/$p" "/opt/cni/bin/.$p.new"
	mv -T "/opt/cni/bin/.$p.new" "/opt/cni/bin/$p"
done`, dir)
	n := len(u.have)
	u.have = append(u.have, u.add(i, fmt.Sprint("c", n), named(fmt.Sprint("c", n))))
	if err := u.routers[i].Stop(); err != nil {
		u.t.Fatal(err)
	}
	args := []string{"--name", h.Name(), "--secret-file", secretFile}
	for j := range u.n {
		if j != i {
			args = append(args, u.lab.Host(j).Addr().String())
		}
	}
	d, err := h.Start(filepath.Join(dir, "weaver"), args...)
	if err != nil {
		u.t.Fatal(err)
	}
	u.routers[i] = d
	err = d.WaitFor(patience, h.Name()+" is ready", func() error {
		s, err := u.status(i)
		if err == nil && s.Error != nil {
			err = s.Error
		}
		return err
	})
	if err != nil {
		u.t.Fatal(err)
	}
	u.waitPeers()
	last := u.have[n]
	u.del(last) // what one version added, the other takes away
	u.have[n] = u.add(i, fmt.Sprint("c", n, "b"), named(fmt.Sprint("c", n)))
	u.addressesAreKept(i)
}

// addressesAreKept looks that a host's router knows its containers by their addresses and names.
func (u *upgrade) addressesAreKept(i int) {
	u.t.Helper()
	u.wait(fmt.Sprintf("router %d knows its containers", i), func() error {
		s, err := u.status(i)
		if err != nil {
			return err
		}
		known := map[string]string{}
		for _, a := range s.Attachments {
			if len(a.Addresses) > 0 {
				known[a.Addresses[0].Addr().String()] = strings.Join(a.Names, " ")
			}
		}
		for _, ct := range u.have {
			if ct.Host() != u.lab.Host(i) {
				continue
			}
			if name, ok := known[ct.result.addr().String()]; !ok || !strings.HasPrefix(ct.Name(), name) || name == "" {
				return fmt.Errorf("%s at %s: it has %v", ct.Name(), ct.result.addr(), known)
			}
		}
		return nil
	})
}

// allReachAll pings from the first containers to all, and looks one of each host's up.
func (u *upgrade) allReachAll() {
	u.t.Helper()
	for _, from := range u.have[:u.n] {
		for _, to := range u.have {
			u.wait(from.Name()+" reaches "+to.Name(), func() error { return u.ping(from, to.result.addr()) })
		}
		for _, to := range u.have[:u.n] {
			u.wait(from.Name()+" finds "+to.Name(), func() error {
				got, err := u.resolve(from, to.Name()+".weave.local")
				if err == nil && (len(got) != 1 || got[0] != to.result.addr().String()) {
					err = fmt.Errorf("got %v", got)
				}
				return err
			})
		}
	}
}

// ledgerIsWrittenAndReadByAll has each host ask for an address out of the pool, which
// takes a decision, and waits until every host has read all of them.
func (u *upgrade) ledgerIsWrittenAndReadByAll() {
	u.t.Helper()
	for i := range u.n {
		n := len(u.have)
		u.have = append(u.have, u.add(i, fmt.Sprint("c", n), fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=c%d;IP=10.4%d.%d.5", n, i, n)))
	}
	u.wait("all have one ledger", func() error {
		var index []uint64
		for i := range u.n {
			s, err := u.status(i)
			if err != nil {
				return err
			}
			index = append(index, s.IPAM.Index)
		}
		for _, x := range index {
			if x != index[0] || x == 0 {
				return fmt.Errorf("entries %v", index)
			}
		}
		return nil
	})
}

// isOneClusterAs looks that it is the cluster of before, that has read what was written
// since, and that no host has lost its identity.
func (u *upgrade) isOneClusterAs(before ctl.Status) {
	u.t.Helper()
	for i := range u.n {
		u.wait(fmt.Sprintf("host %d is in the cluster of before", i), func() error {
			s, err := u.status(i)
			if err == nil && (s.Cluster != before.Cluster || s.Version != before.Version || s.IPAM.Index <= before.IPAM.Index || len(s.IPAM.Voters) != u.n || len(s.Problems) != 0) {
				err = fmt.Errorf("cluster %s, version %s, entry %d, voters %v, problems %v; before %s, %s, entry %d",
					s.Cluster, s.Version, s.IPAM.Index, s.IPAM.Voters, s.Problems, before.Cluster, before.Version, before.IPAM.Index)
			}
			return err
		})
		if out := u.lab.Host(i).MustRun(u.t, "ls", "/var/lib/weave"); strings.Contains(out, ".old") {
			u.t.Errorf("host %d has set its state aside: %s", i, out)
		}
	}
}
