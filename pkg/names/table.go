package names

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
)

// Table holds the names of all networks, from all hosts. Each record belongs to
// an owner, in practice an endpoint, and goes with it. It is safe for concurrent
// use; a change costs as much as its owner has records, however many others there are.
type Table struct {
	mu     sync.RWMutex
	owners map[string][]*item
	names  map[nameKey][]*item
	addrs  map[netip.Addr][]*item
}

type nameKey struct{ network, name string }

// item knows its places in the two indexes, so that it can be taken out of them
// without a search.
type item struct {
	Record
	inNames, inAddrs int
}

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{owners: map[string][]*item{}, names: map[nameKey][]*item{}, addrs: map[netip.Addr][]*item{}}
}

// Put gives an owner these records and no others. Records come from other hosts:
// those that no query could ever name (see ValidName) or that lack an address are
// passed over. Names are taken in any case.
func (t *Table) Put(owner string, records []Record) {
	fresh := make([]*item, 0, len(records))
	for _, r := range records {
		name, err := ValidName(r.Name)
		if err != nil || !r.Addr.IsValid() {
			continue
		}
		r.Name, r.Addr = name, r.Addr.Unmap().WithZone("")
		fresh = append(fresh, &item{Record: r})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(owner)
	for _, it := range fresh {
		t.insert(it)
	}
	if len(fresh) > 0 {
		t.owners[owner] = fresh
	}
}

// Drop takes away all records of an owner.
func (t *Table) Drop(owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(owner)
}

func (t *Table) drop(owner string) {
	for _, it := range t.owners[owner] {
		t.remove(it)
	}
	delete(t.owners, owner)
}

func (t *Table) insert(it *item) {
	k := nameKey{it.Network, it.Name}
	it.inNames, it.inAddrs = len(t.names[k]), len(t.addrs[it.Addr])
	t.names[k] = append(t.names[k], it)
	t.addrs[it.Addr] = append(t.addrs[it.Addr], it)
}

// remove puts the last of each list into the place that becomes free.
func (t *Table) remove(it *item) {
	k := nameKey{it.Network, it.Name}
	same := t.names[k]
	last := same[len(same)-1]
	same[it.inNames], last.inNames = last, it.inNames
	same[len(same)-1] = nil
	if t.names[k] = same[:len(same)-1]; len(same) == 1 {
		delete(t.names, k)
	}

	same = t.addrs[it.Addr]
	last = same[len(same)-1]
	same[it.inAddrs], last.inAddrs = last, it.inAddrs
	same[len(same)-1] = nil
	if t.addrs[it.Addr] = same[:len(same)-1]; len(same) == 1 {
		delete(t.addrs, it.Addr)
	}
}

// Lookup gives the addresses of a name in a network, each once, in ascending
// order; none when there is no such name. The name is lower-case and relative.
func (t *Table) Lookup(network, name string) []netip.Addr {
	return t.lookup(nil, network, name)
}

// lookup appends to dst.
func (t *Table) lookup(dst []netip.Addr, network, name string) []netip.Addr {
	t.mu.RLock()
	for _, it := range t.names[nameKey{network, name}] {
		dst = append(dst, it.Addr)
	}
	t.mu.RUnlock()
	if len(dst) < 2 {
		return dst
	}
	slices.SortFunc(dst, netip.Addr.Compare)
	return slices.Compact(dst)
}

// Reverse gives the records of an address, of all networks, in order of name.
func (t *Table) Reverse(a netip.Addr) []Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var rs []Record
	for _, it := range t.addrs[a] {
		rs = append(rs, it.Record)
	}
	return sorted(rs)
}

// All gives every record, by network, name and address.
func (t *Table) All() []Record {
	t.mu.RLock()
	var rs []Record
	for _, items := range t.owners {
		for _, it := range items {
			rs = append(rs, it.Record)
		}
	}
	t.mu.RUnlock()
	return sorted(rs)
}

func sorted(rs []Record) []Record {
	slices.SortFunc(rs, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr), cmp.Compare(a.Host, b.Host))
	})
	return rs
}

// size is the number of names and of records.
func (t *Table) size() (names, records int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, items := range t.owners {
		records += len(items)
	}
	return len(t.names), records
}
