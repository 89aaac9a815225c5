package ctl

// Where the router keeps a file for each attachment's claim, named by Key.Hash. A plugin
// has to know: without a router it ends a claim itself.
const (
	ClaimsDir     = "claims"   // in the run directory, which is the socket's unless ...
	ClaimsLink    = ".claims"  // ... a link SOCKET.claims leads elsewhere
	ClaimsResting = "resting-" // before the name of the file of a claim that has ended, while its addresses rest
)
