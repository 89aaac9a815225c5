package conflist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// object is a JSON object that keeps the order of its keys, and the values as they
// were read.
type object struct {
	fields []field
}

type field struct {
	key   string
	value json.RawMessage
}

func parseObject(text []byte) (object, error) {
	var o object
	dec := json.NewDecoder(bytes.NewReader(text))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return o, errors.New("not a JSON object")
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return o, err
		}
		f := field{key: tok.(string)} // a key: the decoder accepts nothing else here
		if o.get(f.key) != nil {
			return o, fmt.Errorf("key %q occurs twice", f.key)
		}
		if err := dec.Decode(&f.value); err != nil {
			return o, fmt.Errorf("%s: %w", f.key, err)
		}
		o.fields = append(o.fields, f)
	}
	if _, err := dec.Token(); err != nil {
		return o, err
	}
	if dec.More() {
		return o, errors.New("text after the object")
	}
	return o, nil
}

func (o *object) get(key string) json.RawMessage {
	for _, f := range o.fields {
		if f.key == key {
			return f.value
		}
	}
	return nil
}

// set replaces a field in its place; one that is new comes after the field `after`.
func (o *object) set(key, after string, value any) {
	raw, _ := json.Marshal(value) // strings, truth values, and what was decoded: they always encode
	at := 0
	for i, f := range o.fields {
		if f.key == key {
			o.fields[i].value = raw
			return
		}
		if f.key == after {
			at = i + 1
		}
	}
	o.fields = slices.Insert(o.fields, at, field{key, raw})
}

func (o *object) drop(keys ...string) {
	o.fields = slices.DeleteFunc(o.fields, func(f field) bool { return slices.Contains(keys, f.key) })
}

func (o *object) text(key string) (s string) {
	if json.Unmarshal(o.get(key), &s) != nil {
		return ""
	}
	return s
}

// MarshalJSON writes the fields in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o.fields {
		if i > 0 {
			b.WriteByte(',')
		}
		key, _ := json.Marshal(f.key) // a string always encodes
		b.Write(append(append(key, ':'), f.value...))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
