package ledger

import (
	"encoding/hex"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/wire/cursor"
)

func validText(t string) bool {
	if t == "" || len(t) > MaxName {
		return false
	}
	for _, r := range t {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && r != '_' && r != '.' && r != '-' {
			return false
		}
	}
	return true
}

func validHex(t string) bool {
	b, err := hex.DecodeString(t)
	return err == nil && len(b) == 32 && t == strings.ToLower(t)
}

func clip(t string) string {
	if short := cursor.Clip(t, MaxName); short != t {
		return short + "…"
	}
	return t
}
