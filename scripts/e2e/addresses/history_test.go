package addresses

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	one = netip.MustParseAddr("10.32.0.1")
	two = netip.MustParseAddr("fd00::2")
)

// op is a call of a holder on host 0, with times in seconds.
func op(k Kind, holder string, a netip.Addr, call, ret int) Op {
	o := Op{Kind: k, Holder: holder, Addr: a, Call: time.Duration(call) * time.Second, Return: time.Duration(ret) * time.Second}
	if ret < 0 {
		o.Return = Never
	}
	return o
}

func TestHistoriesThatAreRight(t *testing.T) {
	for name, ops := range map[string][]Op{
		"nothing":                         nil,
		"one after the other":             {op(Add, "a", one, 0, 1), op(Del, "a", one, 2, 3), op(Add, "b", one, 4, 5)},
		"given again while the DEL runs":  {op(Add, "a", one, 0, 1), op(Del, "a", one, 2, 9), op(Add, "b", one, 3, 4)},
		"given again in the same instant": {op(Add, "a", one, 0, 1), op(Del, "a", one, 2, 3), op(Add, "b", one, 3, 4)},
		"a DEL whose end nobody saw":      {op(Add, "a", one, 0, 1), op(Del, "a", one, 2, -1)},
		"and the address given again":     {op(Add, "a", one, 0, 1), op(Del, "a", one, 2, -1), op(Add, "b", one, 5, 6)},
		"two addresses":                   {op(Add, "a", one, 0, 1), op(Add, "b", two, 0, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			if bad := Check(ops); len(bad) != 0 {
				t.Errorf("found %v", bad)
			}
		})
	}
}

func TestHistoriesThatAreWrong(t *testing.T) {
	for name, ops := range map[string][]Op{
		"two holders at once":           {op(Add, "a", one, 0, 1), op(Add, "b", one, 2, 3)},
		"two ADDs at the same time":     {op(Add, "a", one, 0, 5), op(Add, "b", one, 0, 5)},
		"given again before the DEL":    {op(Add, "a", one, 0, 1), op(Add, "b", one, 2, 3), op(Del, "a", one, 4, 5), op(Del, "b", one, 6, 7)},
		"given back by another":         {op(Add, "a", one, 0, 1), op(Del, "b", one, 2, 3)},
		"given twice while the DEL ran": {op(Add, "a", one, 0, 1), op(Del, "a", one, 2, 9), op(Add, "b", one, 3, 4), op(Add, "c", one, 5, 6)},
	} {
		t.Run(name, func(t *testing.T) {
			if bad := Check(ops); len(bad) != 1 || bad[0].Addr != one {
				t.Errorf("found %v", bad)
			}
		})
	}
}

// TestTheSmallestOffendingHistoryIsShown hides one wrong pair among a thousand right ones.
func TestTheSmallestOffendingHistoryIsShown(t *testing.T) {
	var ops []Op
	for i := range 1000 {
		name, start := fmt.Sprintf("c%d", i), 10*i
		ops = append(ops, op(Add, name, one, start, start+2), op(Del, name, one, start+4, start+6), op(Add, name, two, start, start+2), op(Del, name, two, start+4, start+6))
	}
	ops = append(ops, op(Add, "thief", one, 5003, 5003), op(Del, "thief", one, 5005, 5006))
	bad := Check(ops)
	if len(bad) != 1 {
		t.Fatalf("found %v", bad)
	}
	want := []Op{op(Add, "c500", one, 5000, 5002), op(Add, "thief", one, 5003, 5003), op(Del, "c500", one, 5004, 5006), op(Del, "thief", one, 5005, 5006)}
	if fmt.Sprint(bad[0].Ops) != fmt.Sprint(want) {
		t.Errorf("shown:\n%v", bad[0])
	}
}
