package doctor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// program runs one of the host's programs that only show something, and keeps the first
// most bytes of what it says. It does not outlive ctx by much.
func program(ctx context.Context, most int, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin:/usr/local/sbin", "LC_ALL=C")
	if path, err := lookPath(name); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	cmd.WaitDelay = 100 * time.Millisecond
	out := &first{most: most}
	var complaint first
	complaint.most = 1 << 10
	cmd.Stdout, cmd.Stderr = out, &complaint
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil && complaint.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	if out.cut {
		out.WriteString("\n… cut here\n")
	}
	return out.Bytes(), err
}

// lookPath finds what only root has in its PATH, too.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if err != nil {
			path, err = exec.LookPath(dir + name)
		}
	}
	return path, err
}

// first keeps the first bytes and swallows the rest.
type first struct {
	bytes.Buffer
	most int
	cut  bool
}

func (f *first) Write(p []byte) (int, error) {
	room := max(f.most-f.Len(), 0)
	f.cut = f.cut || len(p) > room
	f.Buffer.Write(p[:min(room, len(p))])
	return len(p), nil
}

const mostRules = 32 << 20 // bytes of a listing of rules

// gatherFirewall lists the rules of others. Nothing is loaded by it: iptables-save shows
// only tables that are there.
func gatherFirewall(ctx context.Context) Firewall {
	var f Firewall
	out, err := program(ctx, mostRules, "nft", "-j", "list", "ruleset")
	var chains []Chain
	if err == nil {
		chains, err = parseNFT(out)
	}
	switch {
	case errors.Is(err, exec.ErrNotFound):
		f.Unread = append(f.Unread, "rules of nftables are not looked at: the program nft is not installed (apt-get install nftables)")
	case err != nil:
		f.Unread = append(f.Unread, fmt.Sprintf("rules of nftables are not looked at: %v", err))
	}
	seen := map[string]bool{} // what iptables shows, and nft too
	for _, w := range []struct{ family, table string }{{"ip", "ip_tables_names"}, {"ip6", "ip6_tables_names"}} {
		own, unread := iptablesOf(ctx, w.family, w.table, chains)
		seen[w.family] = slices.ContainsFunc(own, func(c Chain) bool { return !strings.HasSuffix(c.Tool, "-legacy") })
		f.Chains, f.Unread = append(f.Chains, own...), append(f.Unread, unread...)
	}
	for _, c := range chains {
		if c.Table != "filter" || !seen[c.Family] {
			f.Chains = append(f.Chains, c)
		}
	}
	f.Known = knownFirewalls(f.Chains)
	if f.Late = ctx.Err() != nil && len(f.Unread) > 0; f.Late {
		f.Unread = nil // that is why
	}
	return f
}

// iptablesOf lists both worlds in which iptables may have rules of a family: inside
// nftables, which nft shows as a table "filter", and beside it. Only of a table that is
// there: the old program makes the one that it is asked for.
func iptablesOf(ctx context.Context, family, legacyTables string, nft []Chain) (out []Chain, unread []string) {
	name := map[string]string{"ip": "iptables", "ip6": "ip6tables"}[family]
	inside := slices.ContainsFunc(nft, func(c Chain) bool {
		return c.Family == family && c.Table == "filter" && c.Name == strings.ToUpper(c.Name)
	})
	legacy := slices.Contains(strings.Fields(readText("/proc/self/net/"+legacyTables)), "filter")
	for _, w := range []struct {
		there    bool
		tool     string
		programs []string
	}{
		{inside, name, []string{name + "-nft-save"}},
		{legacy, name + "-legacy", []string{name + "-legacy-save", name + "-save"}},
	} {
		if !w.there {
			continue
		}
		var text []byte
		err := error(exec.ErrNotFound)
		for _, p := range w.programs {
			if errors.Is(err, exec.ErrNotFound) {
				text, err = program(ctx, mostRules, p, "-t", "filter")
			}
		}
		if err != nil && w.there && w.tool != name { // those inside nftables are looked at as nft shows them
			unread = append(unread, fmt.Sprintf("rules of %s are not looked at: %v", w.tool, err))
		}
		if err == nil {
			out = append(out, parseSave(w.tool, family, string(text))...)
		}
	}
	return out, unread
}

// knownFirewalls are those that give themselves away by their chains.
func knownFirewalls(chains []Chain) []string {
	var out []string
	for _, c := range chains {
		for begin, name := range map[string]string{"DOCKER": "docker", "ufw-": "ufw", "KUBE-": "kube-proxy"} {
			if strings.HasPrefix(c.Name, begin) {
				out = append(out, name)
			}
		}
		if c.Table == "firewalld" || strings.HasPrefix(c.Name, "FORWARD_IN_ZONES") {
			out = append(out, "firewalld")
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// native turns a number of this machine into the order of the net.
func native(b []byte) (out [4]byte) {
	binary.BigEndian.PutUint32(out[:], binary.NativeEndian.Uint32(b))
	return out
}
