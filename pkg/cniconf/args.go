package cniconf

import (
	"fmt"
	"strings"
)

// MaxArgs bounds CNI_ARGS, in bytes.
const MaxArgs = 64 << 10

// Args is CNI_ARGS: "KEY=VALUE;KEY=VALUE". A key given twice has its last
// value, because runtimes append what their own caller asked for.
type Args map[string]string

// ParseArgs reads CNI_ARGS. It takes every key, known or not, and '=' inside a
// value; it refuses a part with no '=' at all, which is a request cut short,
// and a text longer than MaxArgs.
func ParseArgs(s string) (Args, error) {
	if len(s) > MaxArgs {
		return nil, fmt.Errorf("CNI_ARGS has %d bytes, at most %d are taken", len(s), MaxArgs)
	}
	args := Args{}
	for part := range strings.SplitSeq(s, ";") {
		if part == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("CNI_ARGS: %q: want KEY=VALUE;KEY=VALUE", clip(part))
		}
		args[key] = value
	}
	return args, nil
}

// clip keeps foreign text in a message short.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
