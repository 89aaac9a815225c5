package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/miekg/dns"

	"github.com/weave-cni/weave-cni/pkg/names"
)

// daemons are what this program is when it is started by itself, with one argument.
func daemons() map[string]func(arg string) error {
	return map[string]func(string) error{"ours": serveOurs, "bare": serveBare, "upstream": serveUpstream, "silent": beSilent}
}

func untilTold() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM)
}

// serveOurs serves pkg/names as the router does; arg is ADDRESS NAMES UPSTREAM.
func serveOurs(arg string) error {
	addr, n, upstream, err := parse(arg)
	if err != nil {
		return err
	}
	table := names.NewTable()
	for i := range n {
		table.Put(fmt.Sprint(i), []names.Record{{Name: fmt.Sprint("c", i), Network: "bench", Addr: nameAddr(i)}})
	}
	s := names.New(names.Config{
		Domain: "weave.local", Table: table, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Upstreams: func() []string { return []string{upstream} },
	})
	ctx, stop := untilTold()
	defer stop()
	if err := s.Sync(ctx, []names.Listener{{Network: "bench", Addr: addr}}); err != nil {
		return err
	}
	return s.Run(ctx)
}

func parse(arg string) (addr netip.Addr, n int, upstream string, err error) {
	var text string
	if _, err = fmt.Sscan(arg, &text, &n, &upstream); err == nil {
		addr, err = netip.ParseAddr(text)
	}
	return addr, n, upstream, err
}

// serveBare is the least that one writes with the library; arg as for serveOurs.
func serveBare(arg string) error {
	addr, n, _, err := parse(arg)
	if err != nil {
		return err
	}
	table := make(map[string]net.IP, n)
	for i := range n {
		table[fmt.Sprintf("c%d.weave.local.", i)] = nameAddr(i).AsSlice()
	}
	return serve(addr.String()+":53", func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		q := m.Question[0]
		if ip, ok := table[strings.ToLower(q.Name)]; ok && q.Qtype == dns.TypeA {
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: ip}}
		}
		_ = w.WriteMsg(r)
	})
}

// serveUpstream has an address for every name; arg is where.
func serveUpstream(arg string) error {
	return serve(arg, func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		q := m.Question[0]
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600}, A: net.IPv4(198, 51, 100, 7)}}
		_ = w.WriteMsg(r)
	})
}

func serve(addr string, h dns.HandlerFunc) error {
	s := &dns.Server{Addr: addr, Net: "udp", Handler: h}
	ctx, stop := untilTold()
	defer stop()
	defer context.AfterFunc(ctx, func() { _ = s.Shutdown() })()
	return s.ListenAndServe()
}

// beSilent is an upstream that takes queries and answers none.
func beSilent(arg string) error {
	c, err := net.ListenPacket("udp", arg)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, stop := untilTold()
	defer stop()
	<-ctx.Done()
	return nil
}
