package runtimes

import (
	"encoding/json"
	"fmt"
)

// object is a JSON object of which only some keys are looked at: the others stay
// as they are, whatever version of the specification they come from.
type object map[string]json.RawMessage

type ociHook struct {
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Env     []string `json:"env,omitempty"`
	Timeout *int     `json:"timeout,omitempty"`
}

const phase = "createRuntime"

// open reads a specification down to the list of its hooks of our phase.
func open(spec []byte) (whole, hooks object, list []json.RawMessage, err error) {
	if err = json.Unmarshal(spec, &whole); err != nil {
		return nil, nil, nil, err
	}
	if whole == nil {
		return nil, nil, nil, fmt.Errorf("it is %.20s, not an object", spec)
	}
	if text := whole["hooks"]; text != nil {
		if err = json.Unmarshal(text, &hooks); err != nil {
			return nil, nil, nil, fmt.Errorf("hooks: %w", err)
		}
	}
	if text := hooks[phase]; text != nil {
		if err = json.Unmarshal(text, &list); err != nil {
			return nil, nil, nil, fmt.Errorf("hooks.%s: %w", phase, err)
		}
	}
	if hooks == nil {
		hooks = object{}
	}
	return whole, hooks, list, nil
}

func closed(whole, hooks object, list []json.RawMessage) ([]byte, error) {
	delete(hooks, phase)
	if len(list) > 0 {
		text, err := json.Marshal(list)
		if err != nil {
			return nil, err
		}
		hooks[phase] = text
	}
	delete(whole, "hooks")
	if len(hooks) > 0 {
		text, err := json.Marshal(hooks)
		if err != nil {
			return nil, err
		}
		whole["hooks"] = text
	}
	return json.Marshal(whole)
}

// withHook appends a hook in the place of an older one of the same last argument.
func withHook(spec []byte, h Hook) ([]byte, error) {
	whole, hooks, list, err := open(spec)
	if err != nil {
		return nil, err
	}
	list, _ = without(list, h.Args[len(h.Args)-1])
	timeout := hookTimeout
	text, err := json.Marshal(ociHook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: &timeout})
	if err != nil {
		return nil, err
	}
	return closed(whole, hooks, append(list, text))
}

// withoutHook is nil when there is nothing to take away.
func withoutHook(spec []byte, last string) ([]byte, error) {
	whole, hooks, list, err := open(spec)
	if err != nil {
		return nil, err
	}
	list, found := without(list, last)
	if !found {
		return nil, nil
	}
	return closed(whole, hooks, list)
}

func without(list []json.RawMessage, last string) (rest []json.RawMessage, found bool) {
	for _, text := range list {
		var h ociHook
		if json.Unmarshal(text, &h) == nil && len(h.Args) > 0 && h.Args[len(h.Args)-1] == last {
			found = true
			continue
		}
		rest = append(rest, text)
	}
	return rest, found
}
