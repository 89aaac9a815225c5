package place

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Home is where a state directory is at home, kept in it. Equal parts are equal
// hashes. System tells installations apart where the hardware has no id, and only
// that: a clone of a disk has it too. So it is no part of a Place, of which equality
// proves something.
type Home struct {
	Machine string `cbor:"1,keyasint,omitempty"` // Place.Machine
	System  string `cbor:"2,keyasint,omitempty"` // of /etc/machine-id; "" when there is none
}

// HomeOf is the home of a state directory that is used at p.
func HomeOf(p Place) Home { return homeOf("/", p) }

func homeOf(root string, p Place) Home { return Home{p.Machine, system(root)} }

// Elsewhere reports whether a state directory with this home is used on another
// machine now. Where nothing can be compared it is not known, and no.
func (h Home) Elsewhere(now Home) bool {
	if h.Machine != "" && now.Machine != "" {
		return h.Machine != now.Machine
	}
	return h.System != "" && now.System != "" && h.System != now.System
}

// Nowhere reports whether nothing tells the machine from others.
func (h Home) Nowhere() bool { return h.Machine == "" && h.System == "" }

// system is what stands for /etc/machine-id, which is confidential: an id of this
// application's own, derived with it as the key (machine-id(5)).
func system(root string) string {
	id, err := hex.DecodeString(text(root, "etc/machine-id"))
	if err != nil || len(id) != 16 || strings.Trim(string(id), "\x00") == "" {
		return ""
	}
	mac := hmac.New(sha256.New, id)
	mac.Write([]byte("weave machine"))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
