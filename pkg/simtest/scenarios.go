package simtest

// work is what containers do in every scenario.
func work() rates {
	return rates{add: 0.4, del: 0.25, wanted: 0.3, byFile: 0.2, plugin: 0.02, vanish: 0.2}
}

// with changes the rates of work.
func with(change func(*rates)) func(*World) rates {
	return func(*World) rates {
		r := work()
		change(&r)
		return r
	}
}

// Scenarios is the table. Each is a kind of trouble; the last is all of it at once.
func Scenarios() []*Scenario {
	return []*Scenario{
		{
			Name: "network", About: "messages lost, repeated, reordered and late, links cut in one direction or both, routers that stall",
			machines: [2]int{2, 5}, ticks: [2]int{6, 15}, network: true,
			rates: with(func(r *rates) { r.cut, r.isolate, r.split, r.heal, r.stall = 0.03, 0.01, 0.01, 0.05, 0.02 }),
		},
		{
			Name: "crash", About: "routers killed at every point where they write something, one or all, and started again",
			machines: [2]int{2, 5}, ticks: [2]int{6, 14}, network: true, crash: 0.01,
			rates: with(func(r *rates) {
				r.kill, r.killLeader, r.start, r.allRestart, r.heal, r.isolate = 0.02, 0.01, 0.15, 0.003, 0.1, 0.01
			}),
		},
		{
			Name: "gives", About: "a network so small that hosts live on what others give back, crashing between offer and answer",
			machines: [2]int{2, 4}, ticks: [2]int{5, 11}, network: true, crash: 0.01, tight: true, slow: true,
			rates: with(func(r *rates) {
				r.add, r.del, r.wanted, r.plugin, r.byFile = 0.9, 0.6, 0.6, 0, 0
				r.kill, r.killLeader, r.killGiver, r.start, r.heal, r.isolate = 0.02, 0.02, 0.3, 0.5, 0.1, 0.02
			}),
		},
		{
			Name: "forget", About: "state directories, run directories and both are lost under containers that run on",
			machines: [2]int{2, 5}, ticks: [2]int{5, 11}, network: true, crash: 0.003,
			rates: with(func(r *rates) {
				r.byFile = 0
				r.loseState, r.loseRun, r.kill, r.start, r.heal, r.isolate = 0.03, 0.03, 0.01, 0.15, 0.05, 0.01
			}),
		},
		{
			Name: "reboot", About: "machines reboot, with and without their state, one or all at once",
			machines: [2]int{2, 5}, ticks: [2]int{6, 13}, network: true, crash: 0.003,
			rates: with(func(r *rates) {
				r.reboot, r.loseState, r.allReboot, r.start, r.heal, r.isolate = 0.03, 0.01, 0.005, 0.15, 0.05, 0.01
			}),
		},
		{
			Name: "restore", About: "state directories are put back from old copies, in the same boot, after a reboot, without a witness",
			machines: [2]int{3, 4}, ticks: [2]int{3, 7}, crash: 0.003, network: true, tight: true,
			rates: with(func(r *rates) {
				r.add, r.del, r.wanted, r.byFile = 0.8, 0.5, 0.8, 0
				r.backup, r.restore, r.kill, r.reboot, r.start, r.heal = 0.03, 0.5, 0.1, 0.01, 0.7, 0.1
			}),
			setup: func(w *World) {
				for _, m := range w.machines {
					copied := m.state.copy()
					m.backup = &copied
				}
			},
		},
		{
			Name: "clone", About: "machines are cloned, with their state, while the original is cut off or not",
			machines: [2]int{2, 4}, ticks: [2]int{7, 15}, network: true, twins: true, mayDestroy: 1,
			rates: with(func(r *rates) {
				r.byFile = 0
				r.clone, r.backup, r.kill, r.start, r.heal, r.isolate, r.reboot = 0.05, 0.03, 0.01, 0.15, 0.04, 0.02, 0.005
			}),
		},
		{
			Name: "retire", About: "machines are destroyed and retired, by one or by several at once; new ones come under the old name",
			machines: [2]int{3, 5}, ticks: [2]int{4, 9}, network: true, crash: 0.003, mayDestroy: 2, mayGrow: 7,
			rates: with(func(r *rates) {
				r.destroy, r.kill, r.start, r.heal, r.isolate, r.join = 0.03, 0.01, 0.15, 0.05, 0.01, 0.01
			}),
		},
		{
			Name: "voters", About: "hosts join and leave, and voters are replaced while that goes on",
			machines: [2]int{1, 5}, ticks: [2]int{6, 14}, network: true, crash: 0.003, mayGrow: 7,
			rates: with(func(r *rates) {
				r.add, r.del, r.leave, r.join = 0.3, 0.4, 0.08, 0.05
				r.kill, r.killLeader, r.start, r.heal, r.isolate = 0.01, 0.01, 0.15, 0.05, 0.01
			}),
		},
		{
			Name: "first", About: "the first host founds, the others join, all while they crash",
			machines: [2]int{2, 5}, ticks: [2]int{5, 12}, network: true, crash: 0.02, fresh: true,
			rates: with(func(r *rates) { r.kill, r.start, r.heal, r.isolate = 0.02, 0.3, 0.05, 0.01 }),
		},
		{
			Name: "bootstrap", About: "hosts found together, crash while they do, and a minority loses its state",
			machines: [2]int{2, 5}, ticks: [2]int{9, 17}, network: true, crash: 0.01, bootstrap: true,
			rates: with(func(r *rates) {
				r.amnesia, r.kill, r.loseState, r.start, r.heal, r.isolate, r.cut = 0.5, 0.02, 0.02, 0.4, 0.03, 0.06, 0.08
			}),
		},
		{
			Name: "majority", About: "most voters are destroyed for good, and a survivor goes on without them",
			machines: [2]int{2, 5}, ticks: [2]int{7, 16}, network: true, survivors: true,
			rates: with(func(r *rates) { r.kill, r.start, r.heal, r.isolate = 0.01, 0.2, 0.05, 0.02 }),
		},
		{
			Name: "misuse", About: "a host that lives is said to be destroyed; overlaps are shown, not prevented",
			machines: [2]int{3, 4}, ticks: [2]int{5, 11}, network: true, slander: true,
			rates: with(func(r *rates) { r.kill, r.start, r.heal, r.isolate = 0.005, 0.2, 0.05, 0.02 }),
		},
		{
			Name: "registry", About: "networks created, relabelled, removed, with and without force, while hosts are cut off, crash, reboot, join and leave",
			machines: [2]int{2, 4}, ticks: [2]int{4, 9}, network: true, crash: 0.004, mayGrow: 4,
			registry: &registryRates{create: 0.3, label: 0.15, end: 0.4, force: 0.5, add: 0.5, del: 0.1},
			rates: with(func(r *rates) {
				r.add, r.byFile = 0.1, 0
				r.cut, r.isolate, r.split, r.heal, r.stall = 0.02, 0.01, 0.01, 0.1, 0.01
				r.kill, r.killLeader, r.start, r.reboot, r.leave, r.join = 0.01, 0.01, 0.25, 0.01, 0.01, 0.005
			}),
		},
		{
			Name: "revenant", About: "hosts that live are said to be destroyed, their networks removed and made anew under the same names; they come back with bridges and containers",
			machines: [2]int{3, 4}, ticks: [2]int{8, 14}, network: true, slander: true, crash: 0.002,
			registry: &registryRates{create: 0.5, end: 0.4, force: 0.8, add: 0.7, del: 0.02},
			rates: with(func(r *rates) {
				r.add, r.byFile = 0.1, 0
				r.kill, r.start, r.heal, r.isolate = 0.03, 0.1, 0.1, 0.03
			}),
		},
		{
			Name: "everything", About: "all of it at once, clocks that jump, both address families",
			machines: [2]int{3, 4}, ticks: [2]int{5, 11}, network: true, crash: 0.004, mayDestroy: 1, mayGrow: 7,
			rates: with(func(r *rates) {
				r.byFile = 0
				r.cut, r.isolate, r.split, r.heal, r.stall, r.clock = 0.01, 0.01, 0.005, 0.06, 0.01, 0.02
				r.kill, r.killLeader, r.start, r.reboot, r.loseState, r.loseRun = 0.01, 0.005, 0.15, 0.005, 0.005, 0.005
				r.backup, r.restore, r.destroy, r.leave, r.join, r.allReboot, r.allRestart = 0.01, 0.02, 0.005, 0.02, 0.01, 0.001, 0.002
			}),
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
