package place

import (
	"strings"
	"testing"
)

const someID = "0123456789abcdef0123456789abcdef"

func TestAStateDirectoryKnowsItsHome(t *testing.T) {
	for name, c := range map[string]struct {
		made, now Home
		elsewhere bool
	}{
		"the same":        {Home{"m", "s"}, Home{"m", "s"}, false},
		"another machine": {Home{"m", "s"}, Home{"n", "s"}, true},
		"the machine with a system installed anew":  {Home{"m", "s"}, Home{"m", "r"}, false},
		"no id of hardware, another system":         {Home{"", "s"}, Home{"", "r"}, true},
		"no id of hardware, the same system":        {Home{"", "s"}, Home{"", "s"}, false},
		"--machine-id on the copy alone":            {Home{"", "s"}, Home{"given", "r"}, true},
		"--machine-id given for the first time":     {Home{"", "s"}, Home{"given", "s"}, false},
		"--machine-id no more":                      {Home{"given", "s"}, Home{"", "s"}, false},
		"nothing to compare":                        {Home{"", "s"}, Home{"m", ""}, false},
		"made by a router that noted nothing of it": {Home{}, Home{"m", "s"}, false},
	} {
		if got := c.made.Elsewhere(c.now); got != c.elsewhere {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !(Home{}).Nowhere() || (Home{"m", ""}).Nowhere() || (Home{"", "s"}).Nowhere() {
		t.Error("Nowhere")
	}
}

func TestTheSystemsIdIsDerivedAndNeverPartOfAPlace(t *testing.T) {
	files := map[string]string{"etc/machine-id": someID, "proc/sys/kernel/random/boot_id": "b1"}
	root := machine(t, files)
	p := here(root, "")
	h := homeOf(root, p)
	if p.Machine != "" || h.System == "" || strings.Contains(someID, h.System) || h != homeOf(root, p) {
		t.Errorf("%+v, %+v", p, h)
	}
	files["etc/machine-id"] = strings.Repeat("1", 32)
	if other := homeOf(machine(t, files), p); other.System == h.System {
		t.Error("another id, the same system")
	}
	for _, bad := range []string{"", "uninitialized", strings.Repeat("0", 32), someID[:30]} {
		files["etc/machine-id"] = bad
		if h := homeOf(machine(t, files), p); !h.Nowhere() {
			t.Errorf("%q makes %+v", bad, h)
		}
	}
}

func TestABoardsSerialNumberStandsInWhereThereIsNoOtherId(t *testing.T) {
	files := map[string]string{"proc/device-tree/serial-number": "10000000abcdef\x00"}
	p := here(machine(t, files), "")
	if p.Machine == "" {
		t.Fatal("it is not used")
	}
	files["sys/class/dmi/id/product_uuid"] = "9d0b1a20-1111-4222-8333-944455556666"
	if q := here(machine(t, files), ""); q.Machine != here(machine(t, board("9d0b1a20-1111-4222-8333-944455556666")), "").Machine {
		t.Error("it counts beside the id of the board")
	}
	if p := here(machine(t, map[string]string{"proc/device-tree/serial-number": "0000000000000000\x00"}), ""); p.Machine != "" {
		t.Errorf("zeros make %+v", p)
	}
}
