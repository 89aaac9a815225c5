package simtest

import (
	"fmt"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// owners is who owns what, in a trace.
func owners(d ledger.Dump) string {
	var b strings.Builder
	for _, n := range d.Networks {
		for _, list := range n.Owners {
			for _, o := range list {
				fmt.Fprintf(&b, "%x:%v-%v ", uint64(o.Member), tail(o.Range.First.String()), tail(o.Range.Last.String()))
			}
			b.WriteString("| ")
		}
	}
	for _, m := range d.Members {
		fmt.Fprintf(&b, "%s=%x", m.Name, uint64(m.ID))
		switch {
		case m.Left:
			b.WriteString("(left)")
		case m.Replaced != 0:
			b.WriteString("(replaced)")
		}
		b.WriteByte(' ')
	}
	return b.String()
}

// tail is the part of an address that differs within a subnet.
func tail(a string) string {
	return a[strings.LastIndexAny(a, ".:"):]
}

func describeMore(c ledger.Command) string {
	switch {
	case c.Retire != nil:
		return fmt.Sprintf("retire %x", uint64(c.Retire.ID))
	case c.AddNetwork != nil:
		return fmt.Sprintf("network %s of %q, %v", c.AddNetwork.Network.Name, c.AddNetwork.Network.Host, c.AddNetwork.Network.Subnets)
	case c.SetLabels != nil:
		return "labels of " + c.SetLabels.Name
	case c.CloseNetwork != nil:
		return fmt.Sprintf("close %s (force %v)", c.CloseNetwork.Name, c.CloseNetwork.Force)
	case c.DelNetwork != nil:
		return "the end of " + c.DelNetwork.Name
	case c.Join != nil:
		return "join " + c.Join.Member.Name
	}
	return "something"
}

// standing is how things are, for a failure.
func (w *World) standing() string {
	var b strings.Builder
	for _, m := range w.machines {
		r := m.proc
		switch {
		case m.dead:
			continue
		case r == nil:
			fmt.Fprintf(&b, "\n  %v down", m)
		case r.core == nil:
			fmt.Fprintf(&b, "\n  %v (%x) founds: %s", m, uint64(r.id), r.found.Waiting())
		default:
			me, _ := r.state.Member(r.id)
			fmt.Fprintf(&b, "\n  %v (%x) at %d of %s, ready %v, leads %v, live %v, %d ADDs wait, owns", m, uint64(r.id), r.state.Index(), r.state.Cluster(), r.ready, r.core.Leading(), me.Live(), len(r.adds))
			for _, s := range w.spaces {
				fmt.Fprintf(&b, " %v", r.state.Owned(w.network.Name, s.prefix, r.id))
			}
			fmt.Fprintf(&b, " (%s)", r.core.Status().Waiting)
		}
	}
	return b.String()
}
