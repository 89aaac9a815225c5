package names

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"

	"github.com/miekg/dns"
)

// Table holds the names of all networks, from all hosts. Each record belongs to
// an owner, in practice an endpoint, and goes with it. It is safe for concurrent
// use; a change costs as much as its owner has records, however many others there are.
//
// An address has one owner in a network, the one that said so last. What an earlier
// one still says of it is not answered: word of that one's end is on its way, and
// its name must not lead to somebody else's container meanwhile. Records by hand
// neither take an address nor lose it.
type Table struct {
	mu     sync.RWMutex
	owners map[string]*owned
	names  map[nameKey][]*item
	addrs  map[netip.Addr][]*item
	below  map[nameKey]int // how many names end in this one
	served map[string]bool // hosts whose records are answered; nil: all
	now    uint64          // counts the changes
}

type nameKey struct{ network, name string }

// owned is all that one owner has.
type owned struct {
	name     string // the owner's
	items    []*item
	services []Service
	texts    []string
}

// item knows its places in the two indexes, so that it can be taken out of them
// without a search.
type item struct {
	Record
	owner            *owned
	inNames, inAddrs int
	since            uint64 // when its owner got the address
	away             bool   // its host is
	lost             bool   // another owner got the address later
	hidden           bool   // a name that nobody is told of but as the target of a service
}

// answers reports whether the item is to be answered.
func (it *item) answers() bool { return !it.away && !it.lost && it.Name != "" }

// listed reports whether the item is also to be told of unasked.
func (it *item) listed() bool { return it.answers() && !it.hidden }

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{
		owners: map[string]*owned{}, names: map[nameKey][]*item{}, addrs: map[netip.Addr][]*item{},
		below: map[nameKey]int{},
	}
}

// Put gives an owner these records and no others. Records come from other hosts:
// those that no query could ever name (see ValidName), that lack an address, or that are
// of localhost, which is nobody's to be, are passed over. Names are taken in any case; one
// without a name says only whose the address is.
func (t *Table) Put(owner string, records []Record) {
	t.put(&owned{name: owner, items: usable(records)})
}

// usable are the records as the table has them.
func usable(records []Record) []*item {
	fresh := make([]*item, 0, len(records))
	for _, r := range records {
		name, err := ValidName(r.Name)
		if err != nil && r.Name != "" || !r.Addr.IsValid() || name == localhost {
			continue
		}
		r.Name, r.Addr = name, r.Addr.Unmap().WithZone("")
		fresh = append(fresh, &item{Record: r})
	}
	return fresh
}

func (t *Table) put(o *owned) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now++
	since := map[netip.Addr]uint64{}
	if was := t.owners[o.name]; was != nil {
		for _, it := range was.items {
			since[it.Addr] = it.since
		}
	}
	t.drop(o.name)
	if len(o.items) == 0 {
		return
	}
	t.owners[o.name] = o
	for _, it := range o.items {
		it.owner, it.away, it.since = o, t.isAway(it.Host), cmp.Or(since[it.Addr], t.now)
		t.insert(it)
	}
	t.judge(o.items)
}

// Drop takes away all records of an owner.
func (t *Table) Drop(owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(owner)
}

// SetServed has only the records of these hosts answered, until it is called again; with
// nil, and before the first call, those of all. What the others say of whose an address is
// counts all the same.
func (t *Table) SetServed(hosts map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.served = maps.Clone(hosts)
	for _, o := range t.owners {
		for _, it := range o.items {
			it.away = t.isAway(it.Host)
		}
	}
}

func (t *Table) isAway(host string) bool { return t.served != nil && !t.served[host] }

func (t *Table) drop(owner string) {
	o := t.owners[owner]
	if o == nil {
		return
	}
	for _, it := range o.items {
		t.remove(it)
	}
	delete(t.owners, owner)
	t.judge(o.items)
}

// judge finds out again whose the addresses of these items are.
func (t *Table) judge(items []*item) {
	judged := map[netip.Addr]bool{}
	for _, it := range items {
		if judged[it.Addr] {
			continue
		}
		judged[it.Addr] = true
		same := t.addrs[it.Addr]
		latest := map[string]*item{} // by network
		for _, o := range same {
			if l := latest[o.Network]; !o.ByHand && (l == nil || o.since > l.since) {
				latest[o.Network] = o
			}
		}
		for _, o := range same {
			o.lost = !o.ByHand && o.owner != latest[o.Network].owner
		}
	}
}

func (t *Table) insert(it *item) {
	k := nameKey{it.Network, it.Name}
	it.inNames, it.inAddrs = len(t.names[k]), len(t.addrs[it.Addr])
	t.names[k] = append(t.names[k], it)
	t.addrs[it.Addr] = append(t.addrs[it.Addr], it)
	t.count(k, 1)
}

// count notes under which names one is, or is no more.
func (t *Table) count(k nameKey, n int) {
	for i := range len(k.name) {
		if k.name[i] != '.' {
			continue
		}
		above := nameKey{k.network, k.name[i+1:]}
		if t.below[above] += n; t.below[above] == 0 {
			delete(t.below, above)
		}
	}
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
	t.count(k, -1)
}

// Lookup gives the addresses of a name in a network, each once, in ascending
// order; none when there is no such name. The name is lower-case and relative.
func (t *Table) Lookup(network, name string) []netip.Addr {
	as, _ := t.lookup(nil, network, name, dns.TypeANY, math.MaxInt)
	return as
}

// lookup appends to dst the addresses of a type, each once, and at most so many: see
// services. there says whether the name has any.
func (t *Table) lookup(dst []netip.Addr, network, name string, qtype uint16, most int) (as []netip.Addr, there bool) {
	t.mu.RLock()
	items := t.names[nameKey{network, name}]
	first := anyPlace(items, most)
	for i := range items {
		it := items[(first+i)%len(items)]
		there = there || it.answers()
		if !it.answers() || qtype != dns.TypeANY && !hasType(it.Addr, qtype) {
			continue
		}
		dst = append(dst, it.Addr)
		if len(dst) == most {
			if dst = distinct(dst); len(dst) == most {
				break
			}
		}
	}
	t.mu.RUnlock()
	return distinct(dst), there
}

// distinct sorts addresses, and leaves each once.
func distinct(as []netip.Addr) []netip.Addr {
	slices.SortFunc(as, netip.Addr.Compare)
	return slices.Compact(as)
}

// exists reports whether there is a name, with records of whatever type or with names
// below it.
func (t *Table) exists(network, name string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	k := nameKey{network, name}
	return t.below[k] > 0 || slices.ContainsFunc(t.names[k], (*item).answers) || t.offered(network, name)
}

// Reverse gives the records of an address, of all networks, in order of name.
func (t *Table) Reverse(a netip.Addr) []Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var rs []Record
	for _, it := range t.addrs[a] {
		if it.listed() {
			rs = append(rs, it.Record)
		}
	}
	return sorted(rs)
}

// All gives every record that is answered, by network, name and address.
func (t *Table) All() []Record {
	t.mu.RLock()
	var rs []Record
	for _, o := range t.owners {
		for _, it := range o.items {
			if it.listed() {
				rs = append(rs, it.Record)
			}
		}
	}
	t.mu.RUnlock()
	return sorted(rs)
}

func sorted(rs []Record) []Record {
	slices.SortFunc(rs, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr), cmp.Compare(a.Host, b.Host), handLast(a, b))
	})
	return rs
}

func handLast(a, b Record) int {
	switch {
	case a.ByHand == b.ByHand:
		return 0
	case a.ByHand:
		return 1
	}
	return -1
}

// size is the number of names and of addresses behind them, also of those that are not
// answered now.
func (t *Table) size() (names, records int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for k, items := range t.names {
		if k.name != "" && !items[0].hidden {
			names, records = names+1, records+len(items)
		}
	}
	return names, records
}
