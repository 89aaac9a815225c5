package hostfw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// socketBuffer holds the largest transaction and its acknowledgements.
	socketBuffer = 4 << 20
	// answerTimeout bounds one exchange with the kernel, which answers in milliseconds.
	answerTimeout = 5 * time.Second
	// elemsPerMessage keeps a message's list below the 64 KiB that an attribute can hold.
	elemsPerMessage = 256
)

// link is one connection to nftables. After an error of a method other than
// compare its socket may hold stale answers: close it.
type link struct {
	nft *nftables.Conn
	raw *netlink.Conn // the same socket, for deadlines and for what the library lacks
}

func dial() (*link, error) {
	l := &link{}
	// Too small a buffer is found out when a transaction needs it.
	tune := func(c *netlink.Conn) error {
		l.raw = c
		_ = c.SetReadBuffer(socketBuffer)
		_ = c.SetWriteBuffer(socketBuffer)
		return nil
	}
	var err error
	l.nft, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(tune))
	if err != nil {
		return nil, err
	}
	if _, err := l.generation(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *link) close() { _ = l.nft.CloseLasting() }

// deadline is set before each exchange, so that none waits for ever.
func (l *link) deadline() error { return l.raw.SetDeadline(time.Now().Add(answerTimeout)) }

// flush sends what has been queued as one transaction.
func (l *link) flush() error {
	if err := l.deadline(); err != nil {
		return err
	}
	return l.nft.Flush()
}

// generation is the kernel's count of committed transactions, of everybody.
func (l *link) generation() (uint32, error) {
	if err := l.deadline(); err != nil {
		return 0, err
	}
	answers, err := l.raw.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN),
			Flags: netlink.Request,
		},
		Data: []byte{unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, err
	}
	for _, a := range answers {
		if len(a.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(a.Data[4:])
		if err != nil {
			return 0, err
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), ad.Err()
			}
		}
	}
	return 0, errors.New("no generation in the kernel's answer")
}

func ourTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
}

// replace writes the whole table in one transaction. Adding it first makes the
// deletion succeed when there is none.
func (l *link) replace(p plan) error {
	t := l.nft.AddTable(ourTable())
	l.nft.DelTable(t)
	l.nft.AddTable(t)
	for _, s := range p.sets {
		set := s.spec
		set.Table = t
		if err := l.nft.AddSet(&set, nil); err != nil {
			return fmt.Errorf("set %q: %w", set.Name, err)
		}
		if err := l.addElems(&set, s.elems); err != nil {
			return err
		}
	}
	for _, c := range p.chains {
		chain := l.nft.AddChain(&nftables.Chain{Table: t, Name: c.name, Type: c.kind, Hooknum: &c.hook, Priority: &c.prio})
		for _, r := range c.rules {
			l.nft.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r.exprs, UserData: comment(r.comment)})
		}
	}
	return l.flush()
}

func comment(s string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, s)
}

func (l *link) addElems(s *nftables.Set, es []nftables.SetElement) error {
	for part := range slices.Chunk(es, elemsPerMessage) {
		if err := l.nft.SetAddElements(s, part); err != nil {
			return fmt.Errorf("set %q: %w", s.Name, err)
		}
	}
	return nil
}

func (l *link) delElems(s *nftables.Set, es []nftables.SetElement) error {
	for part := range slices.Chunk(es, elemsPerMessage) {
		if err := l.nft.SetDeleteElements(s, part); err != nil {
			return fmt.Errorf("set %q: %w", s.Name, err)
		}
	}
	return nil
}

// updatePeers writes the difference of the peer sets in one transaction. It fails
// when the kernel's sets are not as old has them.
func (l *link) updatePeers(old, p plan) error {
	for i, s := range p.sets {
		if s.spec.Name != setPeers4 && s.spec.Name != setPeers6 {
			continue
		}
		set := s.spec
		set.Table, set.ID = ourTable(), 0 // an ID is known only in the transaction that made the set
		gone, fresh := difference(old.sets[i].elems, s.elems)
		if err := errors.Join(l.delElems(&set, gone), l.addElems(&set, fresh)); err != nil {
			return err
		}
	}
	return l.flush()
}

func difference(old, now []nftables.SetElement) (gone, fresh []nftables.SetElement) {
	a, b := elemIndex(old), elemIndex(now)
	for k, e := range a {
		if _, kept := b[k]; !kept {
			gone = append(gone, e)
		}
	}
	for k, e := range b {
		if _, had := a[k]; !had {
			fresh = append(fresh, e)
		}
	}
	return gone, fresh
}

func elemIndex(es []nftables.SetElement) map[string]nftables.SetElement {
	m := make(map[string]nftables.SetElement, len(es))
	for _, e := range es {
		m[fmt.Sprintf("%x-%x end=%t", e.Key, e.KeyEnd, e.IntervalEnd)] = e
	}
	return m
}

// remove deletes the table; nil when there is none.
func (l *link) remove() error {
	l.nft.DelTable(l.nft.AddTable(ourTable()))
	return l.flush()
}

func mismatch(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMismatch, fmt.Sprintf(format, args...))
}

// compare reads the table and reports the first difference from p as ErrMismatch.
func (l *link) compare(p plan) error {
	if err := l.deadline(); err != nil {
		return err
	}
	t, err := l.nft.ListTableOfFamily(tableName, nftables.TableFamilyINet)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return mismatch("no table %q", tableName)
	case err != nil:
		return fmt.Errorf("read table: %w", err)
	case t.Flags != 0:
		return mismatch("table %q has flags %#x", tableName, t.Flags)
	}
	if err := l.compareChains(p); err != nil {
		return err
	}
	if err := l.compareSets(p); err != nil {
		return err
	}
	for _, c := range p.chains {
		if err := l.compareRules(c); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) compareChains(p plan) error {
	all, err := l.nft.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("read chains: %w", err)
	}
	have := map[string]*nftables.Chain{}
	for _, c := range all {
		if c.Table != nil && c.Table.Name == tableName {
			have[c.Name] = c
		}
	}
	if len(have) != len(p.chains) {
		return mismatch("%d chains instead of %d", len(have), len(p.chains))
	}
	for _, w := range p.chains {
		c := have[w.name]
		if c == nil || c.Hooknum == nil || c.Priority == nil || c.Policy == nil ||
			c.Type != w.kind || *c.Hooknum != w.hook || *c.Priority != w.prio || *c.Policy != nftables.ChainPolicyAccept {
			return mismatch("chain %q", w.name)
		}
	}
	return nil
}

func (l *link) compareSets(p plan) error {
	sets, err := l.nft.GetSets(ourTable())
	if err != nil {
		return fmt.Errorf("read sets: %w", err)
	}
	if len(sets) != len(p.sets) {
		return mismatch("%d sets instead of %d", len(sets), len(p.sets))
	}
	for _, w := range p.sets {
		i := slices.IndexFunc(sets, func(s *nftables.Set) bool { return s.Name == w.spec.Name })
		if i < 0 || sets[i].Interval != w.spec.Interval || sets[i].KeyType.Bytes != w.spec.KeyType.Bytes {
			return mismatch("set %q", w.spec.Name)
		}
		es, err := l.nft.GetSetElements(sets[i])
		if err != nil {
			return fmt.Errorf("read set %q: %w", w.spec.Name, err)
		}
		if gone, fresh := difference(w.elems, es); len(gone)+len(fresh) > 0 {
			return mismatch("set %q misses %d elements and has %d others", w.spec.Name, len(gone), len(fresh))
		}
	}
	return nil
}

func (l *link) compareRules(w plannedChain) error {
	rules, err := l.nft.GetRules(ourTable(), &nftables.Chain{Name: w.name})
	if err != nil {
		return fmt.Errorf("read rules of chain %q: %w", w.name, err)
	}
	if len(rules) != len(w.rules) {
		return mismatch("chain %q: %d rules instead of %d", w.name, len(rules), len(w.rules))
	}
	for i, r := range rules {
		if !bytes.Equal(r.UserData, comment(w.rules[i].comment)) || !sameExprs(r.Exprs, w.rules[i].exprs) {
			return mismatch("chain %q: rule %d (%s)", w.name, i, w.rules[i].comment)
		}
	}
	return nil
}

// sameExprs compares what the kernel tells with what was meant, apart from what
// differs by nature: the counters' values.
func sameExprs(have, want []expr.Any) bool {
	return slices.EqualFunc(have, want, func(h, w expr.Any) bool {
		if _, ok := w.(*expr.Counter); ok {
			_, ok = h.(*expr.Counter)
			return ok
		}
		return reflect.DeepEqual(h, w)
	})
}
