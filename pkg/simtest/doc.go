// Package simtest runs whole clusters in one goroutine, in virtual time, by a seed:
// the real ledger, replica, allocator, records and founding, over a network and on
// machines that fail in every way that they are meant to stand. After every step it
// asserts that no address can be used by two machines and no ledger disagrees; at the
// end, when all is healed, that nothing is lost, leaked or stuck.
//
// One seed is one schedule, exactly. A seed that was bad is printed, and Replay
// gives its trace. Each mistake of Mutations must be caught, else the simulator is
// too tame.
//
// # What a machine is
//
//	state directory   identity, ledger, offers   survives a crash and a reboot; may be lost, or put back from a copy
//	run directory     witness, claim files       survives a crash; a reboot empties it; may be lost
//	kernel            veths, the bridge          survives a crash; a reboot empties it, with the containers
//	router            everything else            a crash ends it, at any point where it writes something
//
// # What is assumed
//
// Saved is saved: a write that was acknowledged is there after a crash. A machine
// runs one boot at a time, a clone of it has another Place.Machine. A state directory
// that is put back from an old copy is noticed by its witness in the same boot; after
// a reboot only others can know better. So the simulator puts an old copy back after
// a reboot only while those who heard a later life of that host, or count on its log,
// are a majority of the voters that it can reach before it is confirmed: with all of
// them away or forgetful at once, an old copy cannot be told from a state that was
// left alone. The operator's words are true: a host that is said to be destroyed is.
// What becomes of them when they are not is a scenario of its own, "misuse", which
// asserts less.
package simtest
