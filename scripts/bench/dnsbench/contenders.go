package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const (
	ours     = "weave"
	dnsmasq  = "dnsmasq"
	coredns  = "CoreDNS"
	aardvark = "aardvark-dns"
	floor    = "bare miekg/dns"
)

// contender is a server that is measured.
type contender struct {
	name, addr string
	process
}

// process is a server that was started.
type process struct {
	pid int
	end func() error
}

func processOf(d *netlab.Daemon, err error) (process, error) {
	if err != nil {
		return process{}, err
	}
	return process{d.PID(), d.Stop}, nil
}

// queries is the file of what this one is asked for: aardvark-dns has its own domain.
func (c *contender) queries(kind string) string {
	if c.name == aardvark && kind == local {
		return local + "-podman"
	}
	return kind
}

// contenders starts all that there are; also on an error, what was started is returned.
func (w *world) contenders(n int) ([]*contender, error) {
	var all []*contender
	for i, s := range []struct {
		name  string
		start func(addr string, n int) (process, error)
	}{{ours, w.ours}, {dnsmasq, w.dnsmasq}, {coredns, w.coreDNS}, {aardvark, w.aardvarkDNS}, {floor, w.floor}} {
		c := &contender{name: s.name, addr: serverAddr(i).String()}
		var err error
		if c.process, err = s.start(c.addr, n); err != nil {
			return all, fmt.Errorf("start %s: %w", s.name, err)
		}
		if c.end == nil {
			continue
		}
		all = append(all, c)
		if err := w.answers(c); err != nil {
			return all, err
		}
	}
	return all, nil
}

// answers waits until a contender answers for its last name.
func (w *world) answers(c *contender) error {
	return netlab.Wait(patience, c.name+" answers", func() error {
		text, err := os.ReadFile(w.file(c.queries(local)))
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(string(text), " ")
		out, err := w.client.Run("dig", "+short", "+tries=1", "+time=2", "@"+c.addr, name)
		if err == nil && net.ParseIP(strings.TrimSpace(out)) == nil {
			err = fmt.Errorf("%s is %q", name, out)
		}
		return err
	})
}

func (w *world) ours(addr string, n int) (process, error) { return w.own("ours", addr, n) }

func (w *world) floor(addr string, n int) (process, error) { return w.own("bare", addr, n) }

func (w *world) own(daemon, addr string, n int) (process, error) {
	return processOf(w.start(daemon, addr+" "+strconv.Itoa(n)+" "+upstreamAddr))
}

// hosts writes the names as /etc/hosts has them.
func (w *world) hosts(n int) (string, error) {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "%v c%d.weave.local\n", nameAddr(i), i)
	}
	return w.file("hosts"), os.WriteFile(w.file("hosts"), b.Bytes(), 0o644)
}

func (w *world) dnsmasq(addr string, n int) (process, error) {
	hosts, err := w.hosts(n)
	if err != nil {
		return process{}, err
	}
	return processOf(w.host.Start("/usr/sbin/dnsmasq", "-k", "-C", "/dev/null", "-u", "root", "--pid-file=", "--no-hosts", "--addn-hosts="+hosts,
		"--no-resolv", "--server="+strings.Replace(upstreamAddr, ":", "#", 1), "--listen-address="+addr, "--bind-interfaces",
		"--cache-size="+strconv.Itoa(2*forwardedNames)))
}

func (w *world) coreDNS(addr string, n int) (process, error) {
	if w.coredns == "" {
		return process{}, nil
	}
	hosts, err := w.hosts(n)
	if err != nil {
		return process{}, err
	}
	conf := fmt.Sprintf("weave.local {\n bind %s\n errors\n hosts %s {\n  ttl 1\n }\n}\n. {\n bind %s\n errors\n cache\n forward . %s\n}\n", addr, hosts, addr, upstreamAddr)
	if err := os.WriteFile(w.file("Corefile"), []byte(conf), 0o600); err != nil {
		return process{}, err
	}
	return processOf(w.host.Start(w.plan.coredns, "-conf", w.file("Corefile")))
}

// aardvarkDNS puts itself into the background.
func (w *world) aardvarkDNS(addr string, n int) (process, error) {
	if w.aardvark == "" {
		return process{}, nil
	}
	dir := w.file("aardvark")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return process{}, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%064x %s  client\n", addr, 1<<20, clientAddr)
	for i := range n {
		fmt.Fprintf(&b, "%064x %v  c%d\n", i+1, nameAddr(i), i)
	}
	if err := os.WriteFile(dir+"/bench", b.Bytes(), 0o600); err != nil {
		return process{}, err
	}
	if _, err := w.host.Run(w.aardvark, "--config", dir, "-p", "53", "run"); err != nil {
		return process{}, err
	}
	text, err := os.ReadFile(dir + "/aardvark.pid")
	if err != nil {
		return process{}, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return process{pid, func() error { return syscall.Kill(pid, syscall.SIGTERM) }}, err
}
