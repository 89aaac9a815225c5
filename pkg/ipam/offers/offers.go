// Package offers keeps, among the notes of the state directory, what a host is giving
// back: once an offer is written the host allocates nothing of it, though it crash or
// lose its power, until the ledger has answered.
package offers

import (
	"encoding/json"
	"fmt"

	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
)

// Notes is what keeps the text. What Put has written is on the disk when it returns.
type Notes interface {
	Get(name string) ([]byte, error) // nil when there is none
	Put(name string, note []byte) error
}

const name = "offers"

// Notebook is the allocator's Offers.
type Notebook struct{ notes Notes }

// New keeps offers in these notes.
func New(notes Notes) Notebook { return Notebook{notes} }

// Load reads them. A note that cannot be read is an error: a host that
// does not know what it gave away may not allocate.
func (n Notebook) Load() (list []allot.Offer, err error) {
	b, err := n.notes.Get(name)
	if err == nil && b != nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read offers: %w", err)
	}
	for _, o := range list {
		for _, r := range o.Ranges {
			if !r.Valid() {
				return nil, fmt.Errorf("read offers: network %s: no range: %v", o.Network, r)
			}
		}
	}
	return list, nil
}

// Save writes all in the place of those that were there.
func (n Notebook) Save(list []allot.Offer) error {
	b, err := json.Marshal(list)
	if err == nil {
		err = n.notes.Put(name, b)
	}
	if err != nil {
		return fmt.Errorf("write offers: %w", err)
	}
	return nil
}
