package simtest

// Scenarios is the table. Each is a kind of trouble; "everything" is all of it at once.
func Scenarios() []*Scenario {
	return []*Scenario{
		{
			Name: "network", About: "messages lost, repeated, reordered and late, links cut in one direction or both, routers that stall",
			machines: [2]int{2, 5}, ticks: [2]int{40, 80}, network: true,
			rates: func(*World) rates {
				return rates{add: 0.5, del: 0.3, wanted: 0.3, byFile: 0.2, plugin: 0.02, vanish: 0.2, cut: 0.03, isolate: 0.01, split: 0.01, heal: 0.05, stall: 0.02}
			},
		},
		{
			Name: "crash", About: "routers killed at every point where they write something, and started again",
			machines: [2]int{2, 5}, ticks: [2]int{40, 80}, network: true, crash: 0.01,
			rates: func(*World) rates {
				return rates{add: 0.5, del: 0.3, wanted: 0.3, byFile: 0.2, plugin: 0.02, vanish: 0.2, kill: 0.02, killLeader: 0.01, start: 0.15, allRestart: 0.003, heal: 0.1, isolate: 0.01}
			},
		},
	}
}

// ByName finds a scenario; nil when there is none.
func ByName(name string) *Scenario {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s
		}
	}
	return nil
}
