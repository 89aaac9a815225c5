package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire"
	"github.com/weave-cni/weave-cni/pkg/wire/cursor"
)

// A frame is packed by hand, all but its rarest bodies, which are CBOR: nine in ten
// are heartbeats and acknowledgements of some 40 bytes, and the simulator, which
// runs this very code, would spend a third of its time on reflection.
//
//	format, kind, flags, hops: a byte each
//	cluster: its length in a byte, and the bytes
//	from, to, life, about: 8 bytes each, big endian; about only if flagged
//	body, by kind: a packed message of raft, CBOR, or words in UTF-8
//
// In the body numbers are varints.
const format = 1

const (
	flagTrial = 1 << iota
	flagAbout
	flagReject
	flagHandedOver
)

var be = binary.BigEndian

// handedOver is raft's word for a vote that must not wait for the old leader to be
// silent. Never written to.
var handedOver = []byte("CampaignTransfer")

// pack encodes a frame.
func (f *frame) pack(codec wire.Codec) ([]byte, error) {
	if len(f.Cluster) > ledger.MaxName {
		return nil, fmt.Errorf("cluster id of %d bytes", len(f.Cluster))
	}
	b := make([]byte, 0, f.sizeHint())
	b = append(b, format, f.Kind, f.flags(), f.Hops, byte(len(f.Cluster)))
	b = append(b, f.Cluster...)
	for _, n := range []uint64{uint64(f.From), uint64(f.To), uint64(f.Life)} {
		b = be.AppendUint64(b, n)
	}
	if f.About != 0 {
		b = be.AppendUint64(b, uint64(f.About))
	}
	var body any
	switch f.Kind {
	case kindRaft:
		return f.Raft.pack(b, f.Part), nil
	case kindRefused, kindGone, kindObjection:
		return append(b, f.Words...), nil
	case kindPropose:
		return f.Command.Append(b), nil
	case kindJoin:
		body = f.Member
	case kindCheck:
		body = f.Check
	case kindAnswer:
		body = f.Answer
	default:
		return nil, fmt.Errorf("frame of kind %d", f.Kind)
	}
	c, err := codec.Encode(body)
	return append(b, c...), err
}

func (f *frame) sizeHint() int {
	n := 64 + len(f.Cluster) + len(f.Words)
	if f.Raft != nil {
		for _, e := range f.Raft.Entries {
			n += len(e.Data) + 16
		}
	}
	if f.Part != nil {
		n += len(f.Part.Data) + 64 + 10*len(f.Raft.Snapshot.Conf.Learners)
	}
	return n
}

func (f *frame) flags() (flags byte) {
	if f.Trial {
		flags |= flagTrial
	}
	if f.About != 0 {
		flags |= flagAbout
	}
	if f.Raft != nil && f.Raft.Reject {
		flags |= flagReject
	}
	if f.Raft != nil && f.Raft.HandedOver {
		flags |= flagHandedOver
	}
	return flags
}

// pack appends a message; the index of an entry follows from its place.
func (m *message) pack(b []byte, p *part) []byte {
	b = append(b, byte(m.Type))
	for _, n := range []uint64{m.Term, m.LogTerm, m.Index, m.Commit, m.RejectHint, uint64(len(m.Entries))} {
		b = binary.AppendUvarint(b, n)
	}
	for _, e := range m.Entries {
		b = append(binary.AppendUvarint(b, e.Term), e.Kind)
		b = append(binary.AppendUvarint(b, uint64(len(e.Data))), e.Data...)
	}
	if m.Snapshot == nil || p == nil {
		return b
	}
	s := m.Snapshot
	for _, n := range []uint64{s.Index, s.Term, uint64(p.N), uint64(p.Of)} {
		b = binary.AppendUvarint(b, n)
	}
	for _, ids := range [][]uint64{s.Conf.Voters, s.Conf.Learners, s.Conf.Outgoing} {
		b = binary.AppendUvarint(b, uint64(len(ids)))
		for _, id := range ids {
			b = be.AppendUint64(b, id)
		}
	}
	return append(b, p.Data...)
}

// parcel is the memory of one frame at a time, so that frames of raft, the most by
// far, cost next to none. What is in it is valid until the next is.
type parcel struct {
	f       frame
	m       message
	entries []Entry
}

// decode is decodeFrame into p.
func (p *parcel) decode(codec wire.Codec, b []byte) (*frame, error) {
	f, err := p.unpack(codec, b)
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return f, nil
}

// unpack decodes a frame; what it says is not checked yet. It keeps nothing of b.
func (p *parcel) unpack(codec wire.Codec, b []byte) (*frame, error) {
	if len(b) > gossip.MaxMessage {
		return nil, fmt.Errorf("%d bytes", len(b))
	}
	r := reader{cursor.New(b)}
	if r.Byte() != format {
		return nil, errors.New("not of a known format")
	}
	p.f, p.m = frame{}, message{Entries: p.entries[:0]}
	f := &p.f
	f.Kind = r.Byte()
	flags := r.Byte()
	f.Hops = r.Byte()
	f.Cluster = string(r.Bytes(uint64(r.Byte())))
	f.From, f.To, f.Life = ledger.MemberID(r.Fixed()), ledger.MemberID(r.Fixed()), Life(r.Fixed())
	if f.Trial = flags&flagTrial != 0; flags&flagAbout != 0 {
		f.About = Life(r.Fixed())
	}
	if r.Bad() || !utf8.ValidString(f.Cluster) {
		return nil, errors.New("header")
	}
	if f.Kind != kindRaft {
		return f, f.unpackBody(codec, r.Rest())
	}
	f.Raft = &p.m
	f.Raft.Reject, f.Raft.HandedOver = flags&flagReject != 0, flags&flagHandedOver != 0
	if f.Part = r.message(f.Raft); !r.Done() {
		return nil, errors.New("raft message")
	}
	p.entries = p.m.Entries[:0]
	return f, nil
}

func (f *frame) unpackBody(codec wire.Codec, b []byte) error {
	switch f.Kind {
	case kindRefused, kindGone, kindObjection:
		f.Words = string(b)
		if !utf8.ValidString(f.Words) {
			return errors.New("words")
		}
		return nil
	case kindPropose:
		cmd, err := ledger.ParseCommand(b)
		f.Command = &cmd
		return err
	case kindJoin:
		f.Member = new(ledger.Member)
		return codec.Decode(b, f.Member)
	case kindCheck:
		f.Check = new(check)
		return codec.Decode(b, f.Check)
	case kindAnswer:
		f.Answer = new(answer)
		return codec.Decode(b, f.Answer)
	}
	return fmt.Errorf("kind %d", f.Kind)
}

// reader is a cursor that knows what pack writes.
type reader struct{ cursor.Cursor }

// message reads what pack wrote.
func (r *reader) message(m *message) *part {
	m.Type = int32(r.Byte())
	for _, n := range []*uint64{&m.Term, &m.LogTerm, &m.Index, &m.Commit, &m.RejectHint} {
		*n = r.Num()
	}
	n := r.Count(maxEntries, 3)
	for i := 0; i < n && !r.Bad(); i++ {
		e := Entry{Index: m.Index + 1 + uint64(i), Term: r.Num(), Kind: r.Byte()}
		if size := r.Num(); size > 0 {
			e.Data = append([]byte(nil), r.Bytes(size)...)
		}
		m.Entries = append(m.Entries, e)
	}
	if r.Bad() || r.Left() == 0 {
		return nil
	}
	s, p := new(snapMeta), new(part)
	m.Snapshot = s
	s.Index, s.Term = r.Num(), r.Num()
	p.N, p.Of = r.Small(maxParts), r.Small(maxParts)
	for _, ids := range []*[]uint64{&s.Conf.Voters, &s.Conf.Learners, &s.Conf.Outgoing} {
		*ids = r.ids()
	}
	p.Data = append([]byte(nil), r.Rest()...)
	return p
}

func (r *reader) ids() (ids []uint64) {
	n := r.Count(maxConf, 8)
	if n == 0 {
		return nil
	}
	ids = make([]uint64, n)
	for i := range ids {
		ids[i] = r.Fixed()
	}
	return ids
}

// raftFrame is a message of raft on its way out.
func (p *parcel) raftFrame(to ledger.MemberID, m *raftpb.Message) *frame {
	p.m = message{
		Type: int32(m.GetType()), Term: m.GetTerm(), LogTerm: m.GetLogTerm(), Index: m.GetIndex(),
		Commit: m.GetCommit(), Reject: m.GetReject(), RejectHint: m.GetRejectHint(),
		HandedOver: bytes.Equal(m.GetContext(), handedOver), Entries: p.entries[:0],
	}
	for _, e := range m.GetEntries() {
		p.m.Entries = append(p.m.Entries, toEntry(e))
	}
	p.entries = p.m.Entries[:0]
	if s := m.GetSnapshot().GetMetadata(); m.GetType() == raftpb.MsgSnap {
		p.m.Snapshot = &snapMeta{s.GetIndex(), s.GetTerm(), toConf(s.GetConfState())}
	}
	p.f = frame{To: to, Kind: kindRaft, Raft: &p.m}
	return &p.f
}

// proto makes raft's message of what was decoded, in memory of its own: what raft
// answers points into it (To: m.From) until Ready has been taken, and there may be
// more messages before that.
func (p *parcel) proto(from, to ledger.MemberID) *raftpb.Message {
	w, x := &p.m, &struct {
		m                                        raftpb.Message
		typ                                      raftpb.MessageType
		from, to, term, log, index, commit, hint uint64
		reject                                   bool
	}{}
	x.typ, x.from, x.to, x.reject = raftpb.MessageType(w.Type), uint64(from), uint64(to), w.Reject
	x.term, x.log, x.index, x.commit, x.hint = w.Term, w.LogTerm, w.Index, w.Commit, w.RejectHint
	m := &x.m
	m.Type, m.From, m.To, m.Term, m.LogTerm = &x.typ, &x.from, &x.to, &x.term, &x.log
	m.Index, m.Commit, m.Reject, m.RejectHint = &x.index, &x.commit, &x.reject, &x.hint
	if w.HandedOver {
		m.Context = handedOver
	}
	if n := len(w.Entries); n > 0 {
		m.Entries = make([]*raftpb.Entry, n)
	}
	for i, e := range w.Entries {
		m.Entries[i] = e.proto()
	}
	return m
}
