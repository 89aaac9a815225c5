package hostfw

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// forwardRules lists every rule of ours that the given program sees.
func forwardRules(l *lab, program string) string {
	var ours []string
	for line := range strings.Lines(l.host.sh(program + " -S")) {
		if strings.Contains(line, "--comment weave") {
			ours = append(ours, line)
		}
	}
	return strings.Join(ours, "")
}

func TestWhereDockerDropsForwardedPacketsOursAreAccepted(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			need(t, program)
			l := newLab(t)
			l.host.sh(program + " -P FORWARD DROP && " + program + " -N DOCKER-USER && " + program + " -A DOCKER-USER -j RETURN && " + program + " -I FORWARD -j DOCKER-USER")
			want(t, "before", noTCP(t, l.c1, l.out, "192.0.2.9:80"), "")
			for range 3 {
				l.apply(t, labRules())
			}
			want(t, "out", tcp(t, l.c1, l.out, "192.0.2.9:80"), "192.0.2.1")
			want(t, "a stranger's connection to a container", noTCP(t, l.out, l.c1, "10.32.0.2:80"), "")
			want(t, "another's bridge", noTCP(t, l.d, l.out, "192.0.2.9:80"), "")
			got := forwardRules(l, program)
			if n := strings.Count(got, "-A DOCKER-USER"); n != 2 || strings.Count(got, "\n") != 2 {
				t.Errorf("want two rules, in DOCKER-USER:\n%s", got)
			}

			l.host.sh(program + " -t nat -A PREROUTING -p tcp -d 192.0.2.1 --dport 8080 -j DNAT --to-destination 10.32.0.2:8080")
			var from string
			l.published(t, &from)
			want(t, "a published port", from, "192.0.2.9")

			l.host.do(func() {
				if err := l.fw.Remove(); err != nil {
					t.Error(err)
				}
			})
			if got := forwardRules(l, program); got != "" {
				t.Errorf("left behind:\n%s", got)
			}
		})
	}
}

// published connects from outside to port 8080 of the host, which leads to c1.
func (l *lab) published(t *testing.T, from *string) {
	h := l.c1.serve(t, "10.32.0.2:8080")
	if out, err := l.out.try("timeout 30 bash -c 'exec 3<>/dev/tcp/192.0.2.1/8080; cat <&3'"); err == nil {
		*from = strings.TrimSpace(out)
	}
	h()
}

func TestADropAtTheEndOfForwardCountsAndAnAcceptingPolicyDoesNot(t *testing.T) {
	need(t, "iptables", "ip6tables")
	l := newLab(t)
	l.host.sh("iptables -A FORWARD -d 198.51.100.1 -j DROP && ip6tables -A FORWARD -m conntrack --ctstate INVALID -j DROP")
	l.apply(t, labRules())
	if got := forwardRules(l, "iptables") + forwardRules(l, "ip6tables"); got != "" {
		t.Errorf("an intended drop was got around:\n%s", got)
	}
	l.host.sh("iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited && ip6tables -P FORWARD DROP")
	if l.intact(t) {
		t.Error("a new drop was not noticed")
	}
	l.apply(t, labRules())
	if a, b := forwardRules(l, "iptables"), forwardRules(l, "ip6tables"); strings.Count(a, "-A FORWARD") != 2 || strings.Count(b, "-A FORWARD") != 2 {
		t.Errorf("got\n%s%s", a, b)
	}
	want(t, "out v6", tcp(t, l.c1, l.out, "[2001:db8::9]:80"), "2001:db8::1")

	l.host.sh("iptables -F")
	l.host.sh("iptables -P FORWARD DROP")
	if l.intact(t) {
		t.Error("iptables -F was not noticed")
	}
	l.apply(t, labRules())
	want(t, "after -F", tcp(t, l.c1, l.out, "192.0.2.9:80"), "192.0.2.1")

	r := labRules()
	r.Networks[0].Bridge = "weave2"
	l.apply(t, r)
	if got := forwardRules(l, "iptables"); strings.Contains(got, " weave ") && !strings.Contains(got, "weave2 ") || strings.Count(got, "\n") != 2 {
		t.Errorf("rules of a bridge that is gone are still there:\n%s", got)
	}
	l.host.sh("iptables -P FORWARD ACCEPT && ip6tables -P FORWARD ACCEPT")
	l.apply(t, r)
	if got := forwardRules(l, "iptables") + forwardRules(l, "ip6tables"); got != "" {
		t.Errorf("no drop any more, but accepts:\n%s", got)
	}
}

func TestIptablesKeepsWorkingBesideUs(t *testing.T) {
	need(t, "iptables", "nft")
	l := newLab(t)
	l.apply(t, labRules())
	if out := l.host.sh("nft list tables"); out != "table inet weave\n" {
		t.Errorf("tables made by looking: %q", out)
	}
	l.host.sh("iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE && iptables -A FORWARD -j ACCEPT && ip6tables -A FORWARD -j ACCEPT")
	want(t, "Docker's masquerade", udp(t, l.d, "", l.out, "192.0.2.9", "53", 10), "192.0.2.1")
	want(t, "ours", udp(t, l.c1, "", l.out, "192.0.2.9", "53", 10), "192.0.2.1")
	if !l.intact(t) {
		t.Error("not intact")
	}
}

func TestWithoutAnIptablesProgramTheRestWorks(t *testing.T) {
	need(t, "iptables")
	l := newLab(t)
	l.host.sh("iptables -P FORWARD DROP")
	t.Setenv("PATH", t.TempDir())
	l.apply(t, labRules())
	if !l.intact(t) {
		t.Error("not intact")
	}
}

func TestAFailingIptablesIsAnErrorAndTheTableStands(t *testing.T) {
	need(t, "iptables")
	l := newLab(t)
	l.host.sh("iptables -P FORWARD DROP")
	dir := t.TempDir()
	for _, n := range []string{"iptables", "iptables-nft"} {
		script := "#!/bin/sh\ncase \"$1\" in --version) echo 'iptables v1.8.9 (nf_tables)';; *) echo broken >&2; exit 4;; esac\n"
		if err := os.WriteFile(filepath.Join(dir, n), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var err error
	l.host.do(func() { err = l.fw.Apply(labRules()) })
	if err == nil || !strings.Contains(err.Error(), "iptables") {
		t.Errorf("got %v", err)
	}
	if l.intact(t) {
		t.Error("intact though iptables was not written")
	}
	want(t, "the table", udp(t, l.out, "192.0.2.9", l.host, "192.0.2.1", "6784", 10), "")
}

func TestTheListingIsReadAsItIsMeant(t *testing.T) {
	for line, drops := range map[string]bool{
		"-P FORWARD DROP":                              true,
		"-P FORWARD ACCEPT":                            false,
		"-A FORWARD -j DROP":                           true,
		"-A FORWARD -j REJECT --reject-with icmp-host": true,
		"-A FORWARD -i eth0 -j DROP":                   true,
		"-A FORWARD ! -o eth0 -j DROP":                 true,
		"-A FORWARD -s 10.0.0.0/8 -j DROP":             false,
		"-A FORWARD -p tcp -m tcp --dport 25 -j DROP":  false,
		"-A FORWARD -j DOCKER-USER":                    false,
		"-A FORWARD -i":                                false,
		"-A FORWARD -j":                                false,
		"":                                             false,
	} {
		if got := dropsAll(line); got != drops {
			t.Errorf("%q: %v", line, got)
		}
	}
	ours := acceptsFor("FORWARD", []string{"weave"})
	var lines []string
	for _, a := range append(ours, ours[0]) {
		lines = append(lines, "-A "+a.chain+" "+a.spec)
	}
	lines = append(lines, "-A FORWARD -i docker0 -m comment --comment weaver -j ACCEPT", "-A FORWARD -m comment --comment weave -j DROP")
	s := worldState{drops: true, target: "FORWARD", ours: oursIn("FORWARD", lines)}
	if len(s.ours) != 3 {
		t.Fatalf("ours: %v", s.ours)
	}
	if add, del := s.difference([]string{"weave"}); len(add) != 0 || !slices.Equal(del, ours[:1]) {
		t.Errorf("a second copy: add %v, delete %v", add, del)
	}
}

// serve answers one connection with its sender's address; the function, which is
// called when the client has ended, ends it.
func (s *space) serve(t *testing.T, addr string) (end func()) {
	t.Helper()
	done := make(chan struct{})
	lis := s.listen(t, addr)
	go func() {
		defer close(done)
		c, err := lis.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		host, _, _ := strings.Cut(c.RemoteAddr().String(), ":")
		_, _ = c.Write([]byte(host))
	}()
	return func() { lis.Close(); <-done }
}
