package names

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What scripts/fuzz.sh sets for TestNoneOfManyPacketsDoesHarm.
const (
	packetsEnv = "FUZZ_PACKETS" // how many, over all targets
	seedEnv    = "FUZZ_SEED"    // the same seed and corpora: the same packets, on any number of processors
	corpusEnv  = "FUZZ_CORPUS"  // a directory like testdata/fuzz with more to begin with
)

// fuzzTarget is a target of the fuzzer as the volume run drives it.
type fuzzTarget struct {
	name    string
	seeds   []packet
	check   func() check
	share   uint64 // of all packets, in percent: the last is no packet, and slow
	textual bool   // the bytes are joined texts
	layout  string // of a file of its corpus: b bytes, s a text, n the number, f the flag
}

func volumeTargets(t testing.TB) []fuzzTarget {
	return []fuzzTarget{
		{"FuzzHandle", handleSeeds(t), handleCheck, 45, false, "bf"},
		{"FuzzUpstreamAnswer", upstreamSeeds(t), func() check { return upstreamCheck(t) }, 25, false, "bf"},
		{"FuzzCachedAnswer", cacheSeeds(t), func() check { return cacheCheck(t) }, 25, false, "bnf"},
		{"FuzzSet", setSeeds(), setCheck, 5, true, "sssnss"},
	}
}

// chunk is how many packets come of one generator: a part of the run that one goroutine does.
const chunk = 50_000

// TestNoneOfManyPacketsDoesHarm is the fuzzer's other half: no eye for coverage, and a
// hundred times as many packets. A packet that fails is written to testdata/fuzz, and is
// from then on a test of its target.
func TestNoneOfManyPacketsDoesHarm(t *testing.T) {
	packets, seed := fromEnv(t, packetsEnv, 200_000), fromEnv(t, seedEnv, 1)
	targets := volumeTargets(t)
	for i := range targets {
		targets[i].readCorpus(t, filepath.Join("testdata", "fuzz"))
		if dir := os.Getenv(corpusEnv); dir != "" {
			targets[i].readCorpus(t, dir)
		}
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // little lives, much dies
	for _, x := range targets {
		n := (packets*x.share + 99) / 100
		begin := time.Now()
		deep := x.volume(t, n, seed)
		took := time.Since(begin)
		t.Logf("%s: %d packets from %d of its corpus, seed %d, in %v: %.0f/s; %d%% got past the first look",
			x.name, n, len(x.seeds), seed, took.Round(time.Millisecond), float64(n)/took.Seconds(), deep*100/max(n, 1))
		if !t.Failed() && n >= 1000 && deep < n/20 { // then the mutator is no good
			t.Errorf("%s: only %d packets of %d were more than turned away", x.name, deep, n)
		}
	}
}

func fromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// volume checks n packets on all processors, and says how many were deep.
func (x fuzzTarget) volume(t *testing.T, n, seed uint64) uint64 {
	var next, deep atomic.Uint64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !t.Failed() {
				c := next.Add(1) - 1
				if c*chunk >= n {
					return
				}
				deep.Add(x.chunk(t, min(chunk, n-c*chunk), rand.New(rand.NewPCG(seed, c))))
			}
		})
	}
	wg.Wait()
	return deep.Load()
}

// chunk checks n packets of one generator. It ends at the first that fails.
func (x fuzzTarget) chunk(t *testing.T, n uint64, r *rand.Rand) (deep uint64) {
	m := mutator{Rand: r, seeds: x.seeds, textual: x.textual}
	check := x.check()
	var given packet
	defer func() {
		if p := recover(); p != nil {
			x.found(t, given, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	var room []byte
	for range n {
		given = m.next()
		room = append(room[:0], given.bytes...) // check may write into it
		isDeep, err := check(packet{room, given.number, given.flag})
		if err != nil {
			x.found(t, given, err)
			return deep
		}
		if isDeep {
			deep++
			m.keep(given)
		}
	}
	return deep
}

// found reports a packet that failed, and makes it one of the target's corpus.
func (x fuzzTarget) found(t *testing.T, p packet, err error) {
	text := x.encode(p)
	path := filepath.Join("testdata", "fuzz", x.name, fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:16])
	if bad := os.MkdirAll(filepath.Dir(path), 0o755); bad != nil {
		t.Error(bad)
	}
	if bad := os.WriteFile(path, []byte(text), 0o644); bad != nil {
		t.Error(bad)
	}
	t.Errorf("%s: %v\npacket %x, number %d, flag %v; now in %s, so that\n\tgo test -run '^%s$/%s' ./pkg/names\nhas it again",
		x.name, err, p.bytes, p.number, p.flag, path, x.name, filepath.Base(path))
}

// encode makes a file of the target's corpus.
func (x fuzzTarget) encode(p packet) string {
	out, texts := "go test fuzz v1\n", split(p.bytes)
	i := 0
	for _, kind := range x.layout {
		switch kind {
		case 'b':
			out += fmt.Sprintf("[]byte(%q)\n", p.bytes)
		case 's':
			out += fmt.Sprintf("string(%q)\n", texts[i])
			i++
		case 'n':
			out += fmt.Sprintf("uint16(%d)\n", p.number)
		case 'f':
			out += fmt.Sprintf("bool(%v)\n", p.flag)
		}
	}
	return out
}

// decode reads one: the lines TYPE(VALUE) behind the first.
func (x fuzzTarget) decode(file string) (p packet, err error) {
	var texts []string
	_, rest, _ := strings.Cut(file, "\n")
	for line := range strings.Lines(rest) {
		kind, value, _ := strings.Cut(strings.TrimSuffix(strings.TrimSpace(line), ")"), "(")
		switch kind {
		case "[]byte", "string":
			var s string
			if s, err = strconv.Unquote(value); err == nil {
				texts = append(texts, s)
			}
		case "uint16":
			var n uint64
			n, err = strconv.ParseUint(value, 0, 16)
			p.number = uint16(n)
		case "bool":
			p.flag, err = strconv.ParseBool(value)
		default:
			err = fmt.Errorf("a value of type %q", kind)
		}
		if err != nil {
			return p, err
		}
	}
	switch {
	case x.textual && len(texts) == setTexts:
		p.bytes = join(texts...)
	case !x.textual && len(texts) == 1:
		p.bytes = []byte(texts[0])
	default:
		return p, fmt.Errorf("%d texts", len(texts))
	}
	return p, nil
}

// readCorpus adds what a directory has for the target.
func (x *fuzzTarget) readCorpus(t *testing.T, dir string) {
	paths, err := filepath.Glob(filepath.Join(dir, x.name, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := x.decode(string(file))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		x.seeds = append(x.seeds, p)
	}
}

func TestAPacketThatFailedIsOneOfTheCorpus(t *testing.T) {
	for _, x := range volumeTargets(t) {
		for _, p := range x.seeds {
			got, err := x.decode(x.encode(p))
			if x.layout == "bf" {
				p.number = 0
			}
			if err != nil || !bytes.Equal(got.bytes, p.bytes) || got.number != p.number || got.flag != p.flag {
				t.Errorf("%s: %+v became %+v, %v", x.name, p, got, err)
			}
		}
	}
}

const (
	longest = cacheLargest + 512 // bytes of a packet
	recent  = 256                // packets that were deep
)

// mutator makes packets of a target's corpus, and of those among them that got deep.
type mutator struct {
	*rand.Rand
	seeds   []packet
	kept    []packet
	textual bool
	buf     []byte
}

// keep remembers a few of the packets that got deep, the last ones, for a while.
func (m *mutator) keep(p packet) {
	if m.IntN(64) != 0 {
		return
	}
	p.bytes = slices.Clone(p.bytes)
	if len(m.kept) < recent {
		m.kept = append(m.kept, p)
		return
	}
	m.kept[m.IntN(recent)] = p
}

func (m *mutator) any() packet {
	if n := len(m.kept); n > 0 && m.IntN(2) == 0 {
		return m.kept[m.IntN(n)]
	}
	return m.seeds[m.IntN(len(m.seeds))]
}

// next makes a packet. It is good until the next one.
func (m *mutator) next() packet {
	p := m.any()
	m.buf = append(m.buf[:0], p.bytes...)
	for {
		m.mutate()
		if m.IntN(2) == 0 {
			break
		}
	}
	m.buf = m.buf[:min(len(m.buf), longest)]
	p.bytes = m.buf
	switch m.IntN(16) {
	case 0:
		p.flag = !p.flag
	case 1:
		p.number = m.odd()
	}
	return p
}

// mutate does one thing to the packet. What goes by the form of a DNS message does some
// thing or other to one that has none.
func (m *mutator) mutate() {
	b := m.buf
	if len(b) == 0 {
		m.buf = append(b, m.any().bytes...)
		return
	}
	i := m.place()
	switch m.IntN(12) {
	case 0:
		b[i] ^= 1 << m.IntN(8)
	case 1:
		b[i] = byte(m.Uint32())
	case 2:
		b[i] = oddBytes[m.IntN(len(oddBytes))]
	case 3: // a length that is a lie, or a type, a class
		m.put16(i, m.odd())
	case 4: // a length that is nearly right
		m.put16(i, uint16(len(b)-i+m.IntN(5)-3))
	case 5: // a pointer to anywhere
		m.put16(i, 0xc000|uint16(m.IntN(len(b)+2)))
	case 6: // a pointer to itself, or about
		m.put16(i, 0xc000|uint16(max(i+m.IntN(5)-2, 0)))
	case 7: // a label that ends elsewhere
		b[m.label()] = byte(m.IntN(maxLabel + 4))
	case 8: // more or fewer records than there are
		m.put16(min(4+2*m.IntN(4), len(b)-1), uint16(m.IntN(5)))
	case 9:
		m.buf = b[:i]
	case 10: // a part twice: records, as often as not
		j := min(i+1+m.IntN(64), len(b))
		if m.IntN(2) == 0 {
			j = len(b)
		}
		m.buf = slices.Insert(b, i, slices.Clone(b[i:j])...)
		m.more(answers)
	case 11: // the end of another
		o := m.any().bytes
		m.buf = append(b[:i], o[min(i, len(o)):]...)
	}
}

var oddBytes = [...]byte{0, 1, maxLabel, maxLabel + 1, 0x7f, 0x80, 0xbf, 0xc0, 0xc1, 0xff, '.', 'A', '\\'}

func (m *mutator) odd() uint16 {
	odd := [...]uint16{0, 1, 2, 41, 63, 64, 255, 256, plainUDP, maxUDP, 0x7fff, 0x8000, 0xc000, 0xc00c, 0xffff, uint16(m.Uint32())}
	return odd[m.IntN(len(odd))]
}

// put16 writes n, as far as there is room.
func (m *mutator) put16(i int, n uint16) {
	if i+2 <= len(m.buf) {
		binary.BigEndian.PutUint16(m.buf[i:], n)
	}
}

// more counts one record more in a section, half of the time.
func (m *mutator) more(section int) {
	if !m.textual && len(m.buf) >= headerLen && m.IntN(2) == 0 {
		bump(m.buf, section)
	}
}

// place is an offset to do something at. Most are behind the question, for of a packet
// with another question all the rest is never read; every second one of those is where a
// record begins, or its type, class, time or length.
func (m *mutator) place() int {
	b := m.buf
	if m.textual || len(b) <= headerLen || m.IntN(4) == 0 {
		return m.IntN(len(b))
	}
	off := headerLen + skipName(b[headerLen:]) + 4
	if off >= len(b) {
		return m.IntN(len(b))
	}
	if m.IntN(2) == 0 {
		return off + m.IntN(len(b)-off)
	}
	for range m.IntN(8) {
		_, n := readRR(b[off:])
		if n == 0 || off+n >= len(b) {
			break
		}
		off += n
	}
	parts := [...]int{0, 0, 2, 4, 6, 10, 12}
	return min(off+parts[m.IntN(len(parts))], len(b)-1)
}

// label is where a label of the question begins.
func (m *mutator) label() int {
	b, off := m.buf, headerLen
	if len(b) <= headerLen {
		return m.IntN(len(b))
	}
	for range m.IntN(4) {
		next := off + 1 + int(b[off])
		if b[off] == 0 || next >= len(b) {
			break
		}
		off = next
	}
	return off
}
