package knownhosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// targets is the form on disk of the hosts that somebody named to a running router. They
// are kept whether anybody answers there or not, until they are forgotten by hand.
type targets struct {
	Peers []string `json:"peers"` // HOST:PORT each
}

// LoadTargets reads them. No file is no error; whether each can be dialled is for the
// caller to see.
func LoadTargets(path string) ([]string, error) {
	b, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("read the PEERs that were named: %w", err)
	}
	if b == nil {
		return nil, nil
	}
	return decodeTargets(b)
}

func decodeTargets(b []byte) ([]string, error) {
	var in targets
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("read the PEERs that were named: %w", err)
	}
	return in.Peers[:min(len(in.Peers), MaxHosts)], nil
}

// SaveTargets writes them in the place of the last ones; none: the file goes.
func SaveTargets(path string, peers []string) error {
	var err error
	if len(peers) > 0 {
		err = replace(path, targets{peers})
	} else if err = os.Remove(path); errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("write the PEERs that were named: %w", err)
	}
	return nil
}
