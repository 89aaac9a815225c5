package ctl

import (
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// PathTrace is what the router remembers of the calls about containers.
const PathTrace = "/v1/trace" // TraceRequest -> Trace

// TraceRequest asks for the calls about one container, or about all.
type TraceRequest struct {
	// Container is a container's id, a name that it has here, or had last, or a beginning
	// of its id that no other container has; "": all containers, or the one of NetNS.
	Container string `json:"container,omitempty"`

	// NetNS is the namespace of a container that has an interface or an address here.
	NetNS attachment.NSID `json:"netns,omitzero"`

	Last int `json:"last,omitempty"` // the latest so many; 0: all that are kept
}

// Trace answers TraceRequest.
type Trace struct {
	Calls  []TracedCall `json:"calls"`           // as they began, the oldest first
	Since  time.Time    `json:"since"`           // nothing is known of what was before
	Missed uint64       `json:"missed"`          // calls since the router's start that made room for later ones
	Claims []Attachment `json:"claims,omitzero"` // what that container has now; with Container only
}

// TracedCall is one call about one attachment. What the router did by itself is one too:
// Call is "reconcile" then, or "collect".
type TracedCall struct {
	At      time.Time      `json:"at"`
	Took    time.Duration  `json:"took"`
	Call    string         `json:"call"` // "allocate" for PathAllocate
	Key     attachment.Key `json:"key"`
	Network string         `json:"network,omitempty"` // the ledger's name, where the call says it
	Names   []string       `json:"names,omitempty"`   // that it gives the attachment
	TraceID string         `json:"trace_id,omitempty"`
	Detail  string         `json:"detail,omitempty"` // what was asked and what came of it
	Steps   []TracedStep   `json:"steps,omitempty"`
	Code    uint           `json:"code,omitempty"` // 0: it succeeded
	Error   string         `json:"error,omitempty"`
	Running bool           `json:"running,omitempty"` // it has not ended yet

	// NoCommit: the main plugin is not ours, and says nothing when its ADD has ended.
	NoCommit bool `json:"no_commit,omitempty"`

	// Remark is what follows from the calls before and after it: that an ADD failed in
	// the plugin, say, where the router cannot see.
	Remark string `json:"remark,omitempty"`
}

// TracedStep is a part of a call.
type TracedStep struct {
	After time.Duration `json:"after"` // from the beginning of the call to its first time
	Took  time.Duration `json:"took"`  // of all its times
	What  string        `json:"what"`
	Times int           `json:"times,omitempty"` // that it was done in a row, if more than once
}
