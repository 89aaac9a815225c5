package main

import (
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// A ledger as the bench has it: so many hosts, and each has taken four blocks of 256,
// none beside another of its own, so that none are merged.
const (
	blocksEach = 4
	blockSize  = 256
)

var ledgerSubnet = netip.MustParsePrefix("10.0.0.0/8")

func memberID(i int) ledger.MemberID { return ledger.MemberID(i+1) << 40 } // as wide as real ones

func takeOf(i int, seq uint64) ledger.Command {
	id := memberID(i)
	return ledger.Command{From: id, Seq: seq, Take: &ledger.Take{ID: id, Network: "weave", Subnet: ledgerSubnet, Want: blockSize}}
}

func ledgerOf(hosts int) (*ledger.State, error) {
	s := ledger.New()
	apply := func(c ledger.Command) error { return s.Apply(s.Index()+1, c).Error() }
	n := ledger.Network{Name: "weave", Driver: "weave", Subnets: []netip.Prefix{ledgerSubnet}, MTU: 1410}
	if err := apply(ledger.Command{Found: &ledger.Found{Cluster: "bench", Network: n}}); err != nil {
		return nil, err
	}
	for i := range hosts {
		place := ledger.Place{Machine: fmt.Sprintf("%032x", i), Boot: fmt.Sprintf("%032x", i), NetNS: fmt.Sprintf("%032x", i)}
		m := ledger.Member{ID: memberID(i), Name: fmt.Sprintf("host-%04d.example", i), Place: place}
		if err := apply(ledger.Command{Join: &ledger.Join{Member: m}}); err != nil {
			return nil, err
		}
	}
	for k := range blocksEach {
		for i := range hosts {
			if err := apply(takeOf(i, uint64(k+1))); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// printLedgers tells what ledgers of many hosts cost.
func (p plan) printLedgers(out io.Writer) error {
	fmt.Fprintf(out, "\nThe ledger, %d blocks a host (a Take: a copy of the state, and the command applied to it)\n\n", blocksEach)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "hosts\tranges\tsnapshot KiB\tencode ms\tdecode ms\tTake µs\tits bytes in the log\t")
	for _, hosts := range p.members {
		s, err := ledgerOf(hosts)
		if err != nil {
			return fmt.Errorf("a ledger of %d hosts: %w", hosts, err)
		}
		data := s.Dump().Append(nil)
		encode := mean(func() { s.Dump().Append(nil) })
		decode := mean(func() { err = load(data) })
		if err != nil {
			return fmt.Errorf("the snapshot of %d hosts: %w", hosts, err)
		}
		command := takeOf(0, blocksEach+1)
		take := mean(func() {
			c := s.Clone()
			err = c.Apply(c.Index()+1, command).Error()
		})
		if err != nil {
			return fmt.Errorf("a Take among %d hosts: %w", hosts, err)
		}
		fmt.Fprintf(w, "%d\t%d\t%.1f\t%s\t%s\t%.0f\t%d\t\n", hosts, len(s.Owners("weave", ledgerSubnet)), float64(len(data))/1024,
			ms(encode), ms(decode), float64(take.Nanoseconds())/1000, len(command.Append(nil)))
	}
	return w.Flush()
}

func load(data []byte) error {
	d, err := ledger.ParseDump(data)
	if err != nil {
		return err
	}
	_, err = ledger.Load(d)
	return err
}

// mean is what f takes, over a fifth of a second and at least three times.
func mean(f func()) time.Duration {
	n, start := 0, time.Now()
	for ; n < 3 || time.Since(start) < time.Second/5; n++ {
		f()
	}
	return time.Since(start) / time.Duration(n)
}
