package runtimes

import (
	"encoding/json"
	"fmt"
)

// isNerdctl completes a container that nerdctl made, and says whether it is one.
func isNerdctl(c *Container, labels map[string]string) bool {
	name, ok := labels["nerdctl/name"]
	if _, managed := labels["nerdctl/namespace"]; !ok && !managed {
		return false
	}
	c.Runtime = NameNerdctl
	if name != "" {
		c.Names = []string{name}
	}
	var networks []string
	if json.Unmarshal([]byte(labels["nerdctl/networks"]), &networks) == nil {
		for _, n := range networks {
			if n != "none" && n != "host" {
				c.Networks = append(c.Networks, n)
			}
		}
	}
	if c.State == Running && c.PID > 0 && !c.HostNet {
		// nerdctl makes no namespace itself; one it names is another process's, which may have ended.
		c.NetNS = fmt.Sprintf("/proc/%d/ns/net", c.PID)
	}
	return true
}
