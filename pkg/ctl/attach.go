package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// UnmarshalJSON refuses keys that there are not: with one passed over, the container
// would come to another network, or to another address, than was meant.
func (r *AttachRequest) UnmarshalJSON(text []byte) error {
	type plain AttachRequest
	return strictly(text, (*plain)(r))
}

// UnmarshalJSON refuses keys that there are not.
func (r *DetachRequest) UnmarshalJSON(text []byte) error {
	type plain DetachRequest
	return strictly(text, (*plain)(r))
}

func strictly(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err != nil {
		if key, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
			return fmt.Errorf("there is no key %s in this call", key)
		}
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the request")
	}
	return nil
}

// Settle has Endpoint say the network, whichever key did. A request that names none is
// refused: "weave://" is the default network, nothing at all is a mistake.
func (r *AttachRequest) Settle() error {
	switch {
	case r.Endpoint == "" && r.Network == "":
		return Errorf(CodeInvalidConfig, `which network? Endpoint is empty: want a network, such as "blue", or "weave://" for the default one`)
	case r.Endpoint != "" && r.Network != "" && r.Endpoint != r.Network:
		return Errorf(CodeInvalidConfig, "Endpoint is %q and Network %q: which of the two?", r.Endpoint, r.Network)
	case r.Endpoint == "":
		r.Endpoint = r.Network
	}
	r.Network = ""
	return nil
}

// Settle has Network say the network, whichever key did.
func (r *DetachRequest) Settle() error {
	if r.Endpoint != "" && r.Network != "" && r.Endpoint != r.Network {
		return Errorf(CodeInvalidConfig, "Endpoint is %q and Network %q: which of the two?", r.Endpoint, r.Network)
	}
	if r.Network == "" {
		r.Network = r.Endpoint
	}
	r.Endpoint = ""
	return nil
}
