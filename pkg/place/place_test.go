package place

import (
	"os"
	"path/filepath"
	"testing"
)

// machine makes a root directory with the files that Here looks at.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func board(uuid string) map[string]string {
	return map[string]string{"sys/class/dmi/id/product_uuid": uuid, "proc/sys/kernel/random/boot_id": "b1"}
}

func TestTheMachineIsTheSameInEveryBootAndAnotherInAClone(t *testing.T) {
	first := here(machine(t, board("9D0B1A20-1111-4222-8333-944455556666")), "")
	files := board("9d0b1a20-1111-4222-8333-944455556666")
	files["proc/sys/kernel/random/boot_id"] = "b2"
	second := here(machine(t, files), "")
	if first.Machine == "" || first.Machine != second.Machine || first.Boot == second.Boot {
		t.Errorf("%+v, after a reboot %+v", first, second)
	}
	if clone := here(machine(t, board("1c2d3e4f-1111-4222-8333-944455556666")), ""); clone.Machine == first.Machine {
		t.Errorf("a clone is taken for the machine: %+v", clone)
	}
}

func TestABurntInAddressTellsMachinesApartAndAMadeUpOneDoesNot(t *testing.T) {
	card := func(mac, kind string) string {
		files := board("")
		files["sys/class/net/eth0/address"], files["sys/class/net/eth0/addr_assign_type"] = mac, kind
		files["sys/class/net/eth0/device/vendor"] = "0x1af4"
		files["sys/class/net/veth1/address"], files["sys/class/net/veth1/addr_assign_type"] = "02:00:00:00:00:09", "0"
		return here(machine(t, files), "").Machine
	}
	if a, b := card("52:54:00:00:00:01", "0"), card("52:54:00:00:00:02", "0"); a == "" || a == b {
		t.Errorf("%q and %q", a, b)
	}
	if m := card("52:54:00:00:00:01", "3"); m != "" {
		t.Errorf("a random address makes %q", m)
	}
}

func TestAnIdThatMakersPutEverywhereIsNone(t *testing.T) {
	if p := here(machine(t, board("03000200-0400-0500-0006-000700080009")), ""); p.Machine != "" {
		t.Errorf("got %+v", p)
	}
}

func TestAGivenMachineStandsForTheHardware(t *testing.T) {
	root := machine(t, board("9d0b1a20-1111-4222-8333-944455556666"))
	if a, b := here(root, "rack 4"), here(root, "rack 5"); a.Machine == b.Machine || a.Machine == here(root, "").Machine {
		t.Errorf("%+v, %+v", a, b)
	}
}

func TestHereKnowsThisBootAndThisNamespace(t *testing.T) {
	if p := Here("m"); p.Boot == "" || p.NetNS == "" || p != Here("m") {
		t.Errorf("got %+v", p)
	}
}

func TestAWitnessTellsAnOldCopyOfTheStateFromTheStateItself(t *testing.T) {
	w := Witness{Member: 7, Generation: 4, Saves: 10, Boot: "b"}
	for name, c := range map[string]struct {
		boot                      string
		member, generation, saves uint64
		want                      Judgement
	}{
		"as it was left":             {"b", 7, 4, 10, Vouched},
		"a crash before the witness": {"b", 7, 4, 11, Vouched},
		"a start that ended at once": {"b", 7, 5, 0, Vouched},
		"a copy of this life":        {"b", 7, 4, 9, OldCopy},
		"a copy of an earlier life":  {"b", 7, 3, 99, OldCopy},
		"another boot":               {"c", 7, 3, 0, Unvouched},
		"a boot that is not known":   {"", 7, 4, 10, Unvouched},
		"another member's state":     {"b", 8, 1, 0, Unvouched},
	} {
		if got := w.Judge(c.boot, c.member, c.generation, c.saves); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := (Witness{}).Judge("b", 7, 1, 0); got != Unvouched {
		t.Errorf("without a witness: %v", got)
	}
}

func TestAWitnessIsReadAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	if w := ReadWitness(dir); w != (Witness{}) {
		t.Errorf("an empty directory has %+v", w)
	}
	want := Witness{Member: 1<<63 + 5, Generation: 2, Boot: "boot"}
	for range 2 { // the second replaces the first
		keeper, err := Testify(dir, want)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(13) {
			if err := keeper.Note(want.Generation, i); err != nil {
				t.Fatal(err)
			}
		}
		if err := keeper.Close(); err != nil {
			t.Fatal(err)
		}
		got, after := ReadWitness(dir), want
		if after.Saves = 12; got != after {
			t.Errorf("got %+v, want %+v", got, after)
		}
		want.Generation++
	}
	if err := os.WriteFile(filepath.Join(dir, witnessFile), []byte("weave-witness 1\nmember zz"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := ReadWitness(dir); w != (Witness{}) {
		t.Errorf("a damaged witness says %+v", w)
	}
}
