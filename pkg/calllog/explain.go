package calllog

import (
	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// The calls that tell how an ADD went on where the router cannot see, as
// ctl.TracedCall.Call names them.
const (
	Allocate  = "allocate"
	Commit    = "commit"
	Detach    = "detach"
	Release   = "release"
	Reconcile = "reconcile" // the router by itself, when it compared with the kernel
	Collect   = "collect"   // CNI's GC
)

// stage is how far an attachment's ADD has come.
type stage int

const (
	unknown   stage = iota
	given           // it has addresses; a commit is to come
	committed       // it stands
)

// The remarks.
const (
	remarkFailed    = "ADD had its address and failed in the plugin, or in a plugin after it, before it told the router: the runtime's log says why"
	remarkKilled    = "ADD had its address and ended without a word: the plugin or its runtime was killed, or the namespace went; the router took the address back"
	remarkWaiting   = "no commit has come since: ADD still runs in the plugin, or was killed there; the router takes the address back by itself"
	remarkVethGone  = "the interface was gone without a DEL that this router saw: its namespace or link was deleted"
	remarkCollected = "no DEL came: the runtime's GC did not list it any more"
)

// explain adds remarks to calls that are in order: what each attachment's calls together say.
func explain(calls []ctl.TracedCall) {
	stages := map[attachment.Key]stage{}
	allocated := map[attachment.Key]int{} // index of the allocate that a commit is to follow
	for i := range calls {
		c := &calls[i]
		was := stages[c.Key]
		stages[c.Key] = next(*c, was)
		c.Remark = remark(*c, was)
		switch {
		case stages[c.Key] != given:
			delete(allocated, c.Key)
		case c.Call == Allocate:
			allocated[c.Key] = i
		}
	}
	for _, i := range allocated {
		calls[i].Remark = remarkWaiting
	}
}

// next is the stage after a call.
func next(c ctl.TracedCall, was stage) stage {
	failed := c.Code != 0 || c.Running
	switch c.Call {
	case Allocate:
		switch {
		case failed || was == committed: // one that stands asks again
			return was
		case c.NoCommit:
			return committed
		}
		return given
	case Commit:
		switch {
		case c.Running:
			return was
		case failed:
			return unknown // why is in its error
		}
		return committed
	case Detach, Release, Reconcile, Collect:
		if !failed {
			return unknown
		}
	}
	return was
}

// remark is what a call says at the stage that the ones before have brought.
func remark(c ctl.TracedCall, was stage) string {
	switch {
	case c.Call == Reconcile && was == given:
		return remarkKilled
	case c.Call == Reconcile:
		return remarkVethGone
	case c.Call == Collect && was != given:
		return remarkCollected
	case (c.Call == Detach || c.Call == Release || c.Call == Collect) && was == given:
		return remarkFailed
	}
	return ""
}
