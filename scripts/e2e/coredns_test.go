//go:build coredns

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// corefile is the stub that docs/names.md gives for CoreDNS, with these gateways in the
// place of the page's, in a server that answers on a port of its own.
func corefile(t *testing.T, gateways []string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/names.md")
	if err != nil {
		t.Fatal(err)
	}
	_, stub, there := strings.Cut(string(page), "```text\nweave.local:53 {")
	stub, _, ends := strings.Cut(stub, "```")
	const example = "10.32.0.1 10.32.2.0"
	if !there || !ends || !strings.Contains(stub, example) {
		t.Fatal("docs/names.md has no such stub")
	}
	return "weave.local:5353 {" + strings.Replace(stub, example, strings.Join(gateways, " "), 1)
}

// scripts/e2e/dns.sh builds the program, which takes minutes, and runs this.
func TestCoreDNSWithTheStubOfTheDocsFindsContainersOfAllHosts(t *testing.T) {
	program := os.Getenv("COREDNS")
	if program == "" {
		t.Fatal("COREDNS names no program: run scripts/e2e/dns.sh coredns")
	}
	c := newCluster(t, 2, netlab.Options{})
	web, db := c.add(0, "web"), c.add(1, "db")
	h := c.lab.Host(0)
	text := corefile(t, []string{web.result.DNS.Nameservers[0], db.result.DNS.Nameservers[0]})
	if err := h.WriteFile("/run/Corefile", text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Start(program, "-conf", "/run/Corefile"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"web.weave.local": web.result.addr().String(), "db.weave.local": db.result.addr().String(),
		"db.weave.weave.local": db.result.addr().String(), "nobody.weave.local": "",
	} {
		c.wait("CoreDNS answers for "+name, func() error {
			out, err := h.Run("dig", "+noall", "+comments", "+answer", "+time=2", "+tries=1", "-p", "5353", "@127.0.0.1", name)
			switch {
			case err != nil:
				return err
			case want == "" && !strings.Contains(out, "NXDOMAIN"), want != "" && !strings.Contains(out, want):
				return fmt.Errorf("want %q, got %s", want, out)
			}
			return nil
		})
	}
}
