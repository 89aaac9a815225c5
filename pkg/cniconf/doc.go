// Package cniconf is what the four plugins have in common: how they are called,
// how they read and check their configuration, how they delegate, undo, answer
// and fail. Main runs a Plugin; Call is one invocation of it.
//
// A plugin is started for one call, does it and ends, so the package counts
// start-up time: it takes nothing from CNI's libraries that brings much along,
// and does at start only what the verb needs.
//
// Limits: stdin 1 MiB, CNI_ARGS 64 KiB. ADD, DEL and CHECK end within 15 s, GC
// within 30 s, STATUS within 3 s; a call that cannot end on its own is ended,
// with code 11.
package cniconf

// Version is what the plugins say of themselves. The build stamps it with
// -ldflags "-X github.com/weave-cni/weave-cni/pkg/cniconf.Version=v1.2.3".
var Version = "v0.1.0"

// supported lists the versions of CNI's protocol that the plugins speak.
func supported() []string { return []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} }
