package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire/cursor"
)

// image is what a snapshot holds: the ledger, and where the cluster was forced on.
//
//	format; forks: how many, then index, term and member of each; the ledger
type image struct {
	state *ledger.State
	forks []fork
}

const imageFormat = 1

// fork is a place in the log where the cluster went on without a majority: what hosts
// that were given up had after Index is not part of it. The member tells apart what
// two hosts were told in two parts of a network.
type fork struct {
	index, term uint64 // of the last entry before it; of the first after it, or less
	by          ledger.MemberID
}

// maxForks is more than anybody will live to see.
const maxForks = 1024

func (i image) encode() []byte {
	b := binary.AppendUvarint([]byte{imageFormat}, uint64(len(i.forks)))
	for _, f := range i.forks {
		for _, n := range []uint64{f.index, f.term, uint64(f.by)} {
			b = binary.AppendUvarint(b, n)
		}
	}
	return i.state.Dump().Append(b)
}

// decodeImage reads the snapshot of an entry. It may come from a peer.
func decodeImage(index uint64, data []byte) (i image, err error) {
	fail := func(err error) (image, error) { return image{}, fmt.Errorf("snapshot %d: %w", index, err) }
	c := cursor.New(data)
	if f := c.Byte(); f > imageFormat {
		return fail(fmt.Errorf("%w: format %d, and this version knows %d", ledger.ErrNewer, f, imageFormat))
	} else if f != imageFormat {
		return fail(fmt.Errorf("format %d", f))
	}
	for range c.Count(maxForks, 3) {
		i.forks = append(i.forks, fork{c.Num(), c.Num(), ledger.MemberID(c.Num())})
	}
	if c.Bad() || slices.ContainsFunc(i.forks, func(f fork) bool { return f.index > index }) {
		return fail(errors.New("malformed forks"))
	}
	d, err := ledger.ParseDump(c.Rest())
	if err != nil {
		return fail(err)
	}
	if i.state, err = ledger.Load(d); err != nil {
		return fail(err)
	}
	if i.state.Index() != index {
		return fail(fmt.Errorf("it holds the ledger of entry %d", i.state.Index()))
	}
	return i, nil
}

// EncodeLedger gives the Data of a Snapshot of a ledger that was never forced on, for
// a simulator that begins in the middle.
func EncodeLedger(s *ledger.State) []byte { return image{state: s}.encode() }
