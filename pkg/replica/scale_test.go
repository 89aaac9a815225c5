package replica

import (
	"fmt"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// BenchmarkLedgerOf tells what a ledger of n hosts with four blocks each costs.
func BenchmarkLedgerOf(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		s := ledger.New()
		s.Apply(1, *foundCommand("c1"))
		for i := range n {
			s.Apply(s.Index()+1, ledger.Command{Join: &ledger.Join{Member: ledger.Member{ID: ledger.MemberID(i+1) << 40, Name: fmt.Sprintf("host-%04d.example", i)}}})
		}
		for i := range 4 * n {
			id := ledger.MemberID(i%n+1) << 40
			s.Apply(s.Index()+1, ledger.Command{From: id, Seq: uint64(i + 1), Take: &ledger.Take{ID: id, Network: "weave", Subnet: subnet6, Want: 256}})
		}
		data := EncodeLedger(s)
		b.Run(fmt.Sprintf("%d/snapshot", n), func(b *testing.B) {
			for b.Loop() {
				EncodeLedger(s)
			}
			b.ReportMetric(float64(len(data)), "bytes")
		})
		b.Run(fmt.Sprintf("%d/load", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := decodeImage(s.Index(), data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%d/take", n), func(b *testing.B) {
			for b.Loop() {
				c := s.Clone()
				c.Apply(c.Index()+1, ledger.Command{Take: &ledger.Take{ID: 1 << 40, Network: "weave", Subnet: subnet6, Want: 256}})
			}
		})
	}
}
