package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// A knock is the first thing a client says, in the clear, as one more name in
// TLS's list of application protocols: a random number and its MAC under a key
// derived from the secret. It spares a router the cost of a handshake with a
// stranger, and tells the stranger nothing. It proves nothing: one who has
// overheard a knock can repeat it, and then fails at the certificate.
const (
	knockPrefix = "weave-knock-"
	knockBytes  = 16 // of nonce, and of MAC
)

// ErrStranger is why a connection without a knock is turned away.
var ErrStranger = errors.New("the other side does not hold this cluster's secret")

func knock(key []byte) (string, error) {
	nonce := make([]byte, knockBytes)
	if _, err := rand.Read(nonce); err != nil {
		return "", err
	}
	return knockPrefix + hex.EncodeToString(append(nonce, knockMAC(key, nonce)...)), nil
}

func checkKnock(key []byte, protos []string) error {
	for _, p := range protos {
		text, ok := strings.CutPrefix(p, knockPrefix)
		b, err := hex.DecodeString(text)
		if ok && err == nil && len(b) == 2*knockBytes && hmac.Equal(b[knockBytes:], knockMAC(key, b[:knockBytes])) {
			return nil
		}
	}
	return ErrStranger
}

// LooksLikeKnock reports whether a client's protocols have a knock among them,
// whatever secret it was made with. Anybody can send one.
func LooksLikeKnock(protos []string) bool {
	return slices.ContainsFunc(protos, func(p string) bool { return strings.HasPrefix(p, knockPrefix) })
}

func knockMAC(key, nonce []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(nonce)
	return m.Sum(nil)[:knockBytes]
}
