package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// oldCommit is the version that a cluster is upgraded from, and back to: of those that
// landed, the last that knows one network only. It is to be moved with each release.
const oldCommit = "42d97b632eb02318e4e1fcb544c6849eb80597b9"

// oldVersion is what the old version calls itself here.
const oldVersion = "v0.0.0-old"

// The environment of the isolated child: where the old version is and which, or why it is not.
const (
	oldVariable   = "WEAVE_E2E_OLD"
	oldIsVariable = "WEAVE_E2E_OLD_IS"
	noOldVariable = "WEAVE_E2E_NO_OLD"
	sameVariable  = "WEAVE_E2E_OLD_IS_THIS"
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
	commit, is, why := findOld()
	if why != "" {
		fmt.Fprintln(os.Stderr, "NO UPGRADE IS TESTED:", why)
		return os.Setenv(noOldVariable, why)
	}
	fmt.Fprintln(os.Stderr, "the upgrade is tested from", is)
	dir, err := os.MkdirTemp("", tempName+"old-")
	if err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(dir, 0o755), buildCommit(commit, dir)); err != nil {
		os.RemoveAll(dir)
		return err
	}
	return errors.Join(os.Setenv(oldVariable, dir), os.Setenv(oldIsVariable, is), os.Setenv(sameVariable, strconv.FormatBool(commit != oldCommit)))
}

// findOld describes the old version, or says why it cannot be had. In a shallow clone,
// which has no other commit, this one takes its place: the way is the same, but for what
// an old version cannot read.
func findOld() (commit, is, why string) {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", "../.."}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	if _, err := git("rev-parse", "HEAD"); err != nil {
		return "", "", "this tree is in no git repository: there is no old version to upgrade from"
	}
	const form = "--format=%h of %cs, %s"
	is, err := git("log", "-1", form, oldCommit)
	if shallow, _ := git("rev-parse", "--is-shallow-repository"); err != nil && shallow == "true" {
		is, err = git("log", "-1", form, "HEAD")
		return "HEAD", "this very commit, for lack of the older one in a shallow clone (git fetch --unshallow): " + is, ""
	}
	if err != nil {
		return "", "", fmt.Sprintf("commit %s is not here: git fetch", oldCommit)
	}
	if _, err := git("merge-base", "--is-ancestor", oldCommit, "HEAD"); err != nil {
		return "", "", fmt.Sprintf("%s is not among the commits that this tree comes after", is)
	}
	return oldCommit, is, ""
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
	build.Dir, build.Env = dir, append(os.Environ(), "BIN="+filepath.Join(dir, "bin"), "VERSION="+oldVersion)
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
	given   []given
}

// given is an address that was another host's before a container got it.
type given struct {
	netip.Addr
	by int
}

func TestAnUpgradeAndTheWayBackCostNoContainerItsAddressOrAPacket(t *testing.T) {
	old := os.Getenv(oldVariable)
	if old == "" {
		t.Skip(os.Getenv(noOldVariable))
	}
	t.Log("from", os.Getenv(oldIsVariable))
	const hosts = 3
	u := startOld(t, old, hosts)
	before, err := u.status(0)
	if err != nil || before.Version != oldVersion {
		t.Fatalf("version %q, %v", before.Version, err)
	}
	same := os.Getenv(sameVariable) == "true"
	if out, err := u.lab.Host(0).Run(weaveCmd, "net", "list"); err == nil && !same {
		t.Fatalf("the old version is to know one network only, and lists %s", out)
	}
	flows := []*traffic{u.startTraffic(u.have[0], u.have[1]), u.startTraffic(u.have[2], u.have[0])}

	oldBin := filepath.Join(old, "bin")
	for _, dir := range []string{bin, oldBin, bin} {
		for i := range hosts {
			u.switchTo(i, dir)
		}
		u.allReachAll()
		if dir == bin {
			u.aNetworkComesAndGoes()
		}
		u.addressesAreGiven()
		u.whatWasGivenStaysGiven()
		u.ledgerIsWrittenAndReadByAll()
	}
	if !same {
		u.refusesWhatItCannotRead(0, oldBin)
	}
	for i, f := range flows {
		if sent, lost := f.stop(); lost != 0 || sent == 0 {
			t.Errorf("flow %d: %d of %d packets lost", i, lost, sent)
		} else {
			t.Logf("flow %d: %d packets, none lost", i, sent)
		}
	}
	u.isOneClusterAs(before)
	u.leavesNothing()
}

// startOld starts a cluster of the old version with a container on each host.
func startOld(t *testing.T, old string, hosts int) *upgrade {
	u := &upgrade{old: old, routers: map[int]*netlab.Daemon{}}
	u.cluster = newCluster(t, hosts, netlab.Options{Bin: filepath.Join(old, "bin"), PluginDirs: []string{bin}})
	u.waitVoters(hosts)
	for i := range hosts {
		u.oldConflist(i)
		u.routers[i] = u.lab.Host(i).Router()
		u.have = append(u.have, u.add(i, fmt.Sprint("c", i), named(fmt.Sprint("c", i))))
	}
	u.allReachAll()
	return u
}

// leavesNothing removes all containers.
func (u *upgrade) leavesNothing() {
	u.t.Helper()
	for _, ct := range u.have {
		u.del(ct)
	}
	for i := range u.n {
		u.wait("nothing is left of the containers", func() error {
			s, err := u.status(i)
			if n := len(s.Attachments); err == nil && n != 0 {
				err = fmt.Errorf("%d attachments", n)
			}
			return err
		})
	}
}

// aNetworkComesAndGoes makes a network, uses it on another host and removes it: entries of
// the ledger that the old version cannot read.
func (u *upgrade) aNetworkComesAndGoes() {
	u.t.Helper()
	n := u.create(0, ctl.NetCreateRequest{Name: "between"}, 0, 1, 2)
	ct := u.addOn(1, "between", n.Name)
	if !n.Subnets[0].Contains(ct.result.addr()) {
		u.t.Errorf("%s is not of %v", ct.result.addr(), n.Subnets)
	}
	if out, err := u.cni(ct.Host(), "del", n.Name, ct.Path(), named("between")); err != nil {
		u.t.Errorf("DEL: %v %s", err, out)
	}
	if err := ct.Delete(); err != nil {
		u.t.Error(err)
	}
	u.wait("host 2 has heard that it is not in use any more", func() error {
		_, err := ask[ctl.NetRemoved](u.cluster, 2, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: n.Name})
		return err
	})
	u.vanished(n)
}

// addressesAreGiven has each host ask for an address in the next one's block, which that
// one gives away by an entry of the ledger.
func (u *upgrade) addressesAreGiven() {
	u.t.Helper()
	for i := range u.n {
		by := (i + 1) % u.n
		g := given{u.spareOf(by), by}
		name := fmt.Sprint("c", len(u.have))
		u.have = append(u.have, u.add(i, name, u.asking(name, g.Addr)))
		u.given = append(u.given, g)
		u.wait(fmt.Sprintf("host %d knows that %s is host %d's now", by, g, i), func() error {
			blocks, err := u.blocksOf(by, i)
			if err == nil && !slices.ContainsFunc(blocks, func(r addr.Range) bool { return r.Contains(g.Addr) }) {
				err = fmt.Errorf("it has %v", blocks)
			}
			return err
		})
	}
}

// whatWasGivenStaysGiven asks those who gave addresses away for them, and looks that no
// two containers have one address.
func (u *upgrade) whatWasGivenStaysGiven() {
	u.t.Helper()
	for i, g := range u.given {
		ns := u.ns(g.by, fmt.Sprint("again", i))
		if got, err := u.tryAdd(ns, "weave", u.asking("again", g.Addr)); err == nil || !strings.Contains(err.Error(), g.String()) {
			u.t.Errorf("host %d, which gave %s away, answers %+v, %v", g.by, g, got, err)
		}
		if err := ns.Delete(); err != nil {
			u.t.Error(err)
		}
	}
	has := map[netip.Addr]string{}
	for _, ct := range u.have {
		if other := has[ct.result.addr()]; other != "" {
			u.t.Errorf("%s and %s both have %s", other, ct.Name(), ct.result.addr())
		}
		has[ct.result.addr()] = ct.Name()
	}
}

// asking is the environment of an ADD for one address.
func (u *upgrade) asking(name string, a netip.Addr) string {
	return fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=%s;IP=%s", name, a)
}

// blocksOf are the blocks of a host as another one knows them.
func (u *upgrade) blocksOf(on, host int) (blocks []addr.Range, err error) {
	s, err := u.status(on)
	for _, subnet := range s.IPAM.Subnets {
		for _, h := range subnet.Hosts {
			if h.Host == u.lab.Host(host).Name() {
				blocks = append(blocks, h.Blocks...)
			}
		}
	}
	return blocks, err
}

// spareOf is an address that a host owns and no container has: high in a block of its,
// because it gives out the low ones first.
func (u *upgrade) spareOf(host int) netip.Addr {
	u.t.Helper()
	blocks, err := u.blocksOf(host, host)
	if err != nil {
		u.t.Fatal(err)
	}
	for _, b := range blocks {
		if a := b.Last.Prev(); b.Contains(a) && !slices.ContainsFunc(u.have, func(ct *container) bool { return ct.result.addr() == a }) {
			return a
		}
	}
	u.t.Fatalf("host %d has nothing to spare in %v", host, blocks)
	return netip.Addr{}
}

// refusesWhatItCannotRead looks that a router of the version in dir does not start where
// the ledger has something that it has no word for, and that nothing is the worse for it.
func (u *upgrade) refusesWhatItCannotRead(i int, dir string) {
	u.t.Helper()
	h := u.lab.Host(i)
	u.wait("a leader is chosen, and takes a label", func() error {
		_, err := h.Run(weaveCmd, "net", "label", "weave", "tier=web")
		return err
	})
	if err := u.routers[i].Stop(); err != nil {
		u.t.Fatal(err)
	}
	if out, err := h.Run(filepath.Join(dir, "weaver"), u.routerArgs(i)...); err == nil || !strings.Contains(out+err.Error(), "this host runs an older version of weave") {
		u.t.Errorf("the old router on a ledger with a label: %v\n%s", err, out)
	}
	u.start(i, bin)
	u.wait("a leader is chosen, and takes the label off", func() error {
		_, err := h.Run(weaveCmd, "net", "label", "weave", "tier-")
		return err
	})
	u.addressesAreKept(i)
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
	u.start(i, dir)
	last := u.have[n]
	u.del(last) // what one version added, the other takes away
	u.have[n] = u.add(i, fmt.Sprint("c", n, "b"), named(fmt.Sprint("c", n)))
	u.addressesAreKept(i)
}

// start starts the router in dir on a host and waits until it is ready, and known to all.
func (u *upgrade) start(i int, dir string) {
	u.t.Helper()
	d, err := u.lab.Host(i).Start(filepath.Join(dir, "weaver"), u.routerArgs(i)...)
	if err != nil {
		u.t.Fatal(err)
	}
	u.routers[i] = d
	err = d.WaitFor(patience, u.lab.Host(i).Name()+" is ready", func() error {
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
}

func (u *upgrade) routerArgs(i int) []string {
	args := []string{"--name", u.lab.Host(i).Name(), "--secret-file", secretFile}
	for j := range u.n {
		if j != i {
			args = append(args, u.lab.Host(j).Addr().String())
		}
	}
	return args
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
		u.have = append(u.have, u.add(i, fmt.Sprint("c", n), u.asking(fmt.Sprint("c", n), netip.AddrFrom4([4]byte{10, byte(40 + i), byte(n), 5}))))
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
			if err == nil && (s.Cluster != before.Cluster || s.Version == before.Version || s.IPAM.Index <= before.IPAM.Index || len(s.IPAM.Voters) != u.n || len(s.Problems) != 0) {
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
