package ctl

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestANetworkIsSaidByEitherKeyAndNeverByNone(t *testing.T) {
	for text, want := range map[string]string{
		`{"Endpoint": "blue"}`:                       "blue",
		`{"Network": "blue"}`:                        "blue",
		`{"Network": "blue", "Endpoint": "blue"}`:    "blue",
		`{"Endpoint": "weave://"}`:                   "weave://",
		`{}`:                                         "which network?",
		`{"Endpoint": "blue", "Network": "green"}`:   "which of the two?",
		`{"Endpoint": "blue", "Endpont": "green"}`:   `no key "Endpont"`,
		`{"Endpoint": "blue"} {"Endpoint": "green"}`: "after",
	} {
		var in AttachRequest
		err := json.Unmarshal([]byte(text), &in)
		if err == nil {
			err = in.Settle()
		}
		if err == nil && (in.Endpoint != want || in.Network != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v", text, in, err)
		}
	}
	for text, want := range map[string]string{
		`{"ContainerID": "web", "Network": "blue"}`:  "blue",
		`{"ContainerID": "web", "Endpoint": "blue"}`: "blue",
		`{"EndpointID": "abcd"}`:                     "",
		`{"Endpoint": "blue", "Network": "green"}`:   "which of the two?",
		`{"Container": "web"}`:                       `no key "Container"`,
	} {
		var in DetachRequest
		err := json.Unmarshal([]byte(text), &in)
		if err == nil {
			err = in.Settle()
		}
		if err == nil && (in.Network != want || in.Endpoint != "") || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %+v, %v", text, in, err)
		}
	}
}

func FuzzAttachRequest(f *testing.F) {
	f.Add([]byte(`{"Endpoint": "blue", "ContainerID": "web", "Labels": {"a": "b"}}`))
	f.Add([]byte(`{"Network": "weave://10.2.0.0/16"}{}`))
	f.Add([]byte("[null"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var in AttachRequest
		var out DetachRequest
		_ = json.Unmarshal(text, &out)
		if json.Unmarshal(text, &in) != nil || in.Settle() != nil {
			return
		}
		if in.Endpoint == "" {
			t.Errorf("%q: no network is said", text)
		}
		var coded *Error
		if err := in.Settle(); errors.As(err, &coded) {
			t.Errorf("%q: settled twice: %v", text, err)
		}
	})
}
