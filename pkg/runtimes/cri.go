package runtimes

// Keys that containerd's CRI writes on what it makes.
const (
	criKind      = "io.cri-containerd.kind"         // label: "sandbox", "container"
	criSandbox   = "io.kubernetes.cri.sandbox-id"   // annotation
	criPod       = "io.kubernetes.cri.sandbox-name" // annotation
	criPodSpace  = "io.kubernetes.cri.sandbox-namespace"
	criContainer = "io.kubernetes.cri.container-name"
)

// isCRI completes a container that a kubelet or crictl made, and says whether it
// is one. What is attached is the pod: its containers share the sandbox's
// namespace, and its id is the one in CNI's calls.
func isCRI(c *Container, labels, notes map[string]string) bool {
	kind := labels[criKind]
	if kind == "" {
		return false
	}
	c.Runtime = NameCRI
	c.CNI = notes[criSandbox]
	if c.CNI == "" {
		c.CNI = c.ID
	}
	switch pod := notes[criPod]; {
	case kind == "sandbox" && pod != "":
		c.Names = []string{pod, notes[criPodSpace] + "/" + pod}
	case notes[criContainer] != "":
		c.Names = []string{notes[criContainer]}
	}
	if kind == "container" && c.CNI != c.ID {
		c.Shares = NameCRI + ":" + c.CNI // it ends and is made anew while the pod lives
	}
	if c.NetNS != "" {
		c.State = Running // a pod's namespace is there before its first process
	}
	return true
}
