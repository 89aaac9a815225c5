// Package place says where a router runs: on which machine, in which boot of it,
// in which network namespace; and whether the state directory that it found is
// the one that its last life left.
//
// With these two a host proves to the others that an earlier life of its own is
// over, or notices that it is a copy of another. One machine runs one boot at a
// time, and one network namespace one router (the router's lock sees to that);
// neither silence nor time proves anything.
package place

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Place is where one life of a router runs. Its parts are hashes, made to be
// compared: equal when what they stand for is equal, and telling nothing else.
type Place struct {
	Machine string // of the hardware; "" when nothing tells it from others
	Boot    string // of the kernel's start; "" when not known
	NetNS   string // of the network namespace within that boot
}

// Here finds out. machine, if not empty, stands for the hardware instead of what
// the kernel says of it.
func Here(machine string) Place { return here("/", machine) }

func here(root, machine string) Place {
	if machine == "" {
		machine = hardware(root)
	}
	p := Place{Machine: hash("machine", machine), Boot: hash("boot", text(root, "proc/sys/kernel/random/boot_id"))}
	var st syscall.Stat_t
	if syscall.Stat(filepath.Join(root, "proc/self/ns/net"), &st) == nil {
		p.NetNS = hash("netns", fmt.Sprint(st.Dev, ":", st.Ino))
	}
	return p
}

// meaningless are ids that makers put where they had none.
var meaningless = []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "03000200-0400-0500-0006-000700080009"}

// hardware is what is the same in every boot of this machine and differs in a
// clone of it: the id of the board, which a hypervisor gives anew, and the
// addresses burnt into the network cards; without either, the serial number that a
// board's firmware tells. "" when there is none of them.
func hardware(root string) string {
	var parts []string
	if id := strings.ToLower(text(root, "sys/class/dmi/id/product_uuid")); id != "" && !slices.Contains(meaningless, id) {
		parts = append(parts, id)
	}
	cards, _ := filepath.Glob(filepath.Join(root, "sys/class/net/*/device"))
	for _, c := range cards {
		dir := strings.TrimPrefix(filepath.Dir(c), root)
		if mac := text(root, dir, "address"); mac != "" && text(root, dir, "addr_assign_type") == "0" {
			parts = append(parts, mac)
		}
	}
	if len(parts) == 0 {
		if serial := strings.Trim(text(root, "proc/device-tree/serial-number"), "\x00 "); strings.Trim(serial, "0") != "" {
			parts = append(parts, serial)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// text is a file's content without the white space around it; "" when it cannot be read.
func text(path ...string) string {
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// hash is 128 bits of what a value is under a label; "" of nothing.
func hash(label, value string) string {
	if value == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("weave " + label + "\x00" + value))
	return hex.EncodeToString(sum[:16])
}
