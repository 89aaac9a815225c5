package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const (
	ours      = "weave-ipam"
	reference = "host-local"
)

// key names a contender.
type key struct {
	name     string // its plugin
	existing int
}

// contender is a plugin on a host of its own, with reservations there already.
type contender struct {
	key
	host *netlab.Host
	ns   *netlab.Container // of every call: what is timed does not look into it
}

const config = `{"cniVersion": "1.0.0", "name": "weave", "type": "weave-net", "ipam": %s}`

var sections = map[string]string{
	ours:      `{"type": "weave-ipam"}`,
	reference: `{"type": "host-local", "ranges": [[{"subnet": "10.32.0.0/12"}]]}`,
}

// prepare makes the contender ready for its first call.
func (c *contender) prepare() (err error) {
	if c.ns, err = c.host.NewContainer("bench"); err != nil {
		return err
	}
	if c.name == reference {
		return c.fillStore()
	}
	r, err := c.host.StartRouter("--init", "new")
	if err != nil {
		return err
	}
	if err := c.waitReady(); err != nil {
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(r.Log()))
	}
	if err := c.fillRouter(); err != nil {
		return err
	}
	// Read back from its files, as a router has them that was updated since.
	if err := r.Restart(); err != nil {
		return err
	}
	return c.waitReady()
}

func (c *contender) waitReady() error {
	return c.host.Router().WaitFor(20*time.Second, "ADD can be served", func() error {
		_, err := c.host.Run("/opt/cni/bin/weave", "status")
		return err
	})
}

// pair attaches and detaches a container, and tells how long each call took. An
// error is of the bench; a call that fails is a time of 0.
func (c *contender) pair(id string) (add, del time.Duration, err error) {
	err = c.host.Do(func() error {
		add = c.call("ADD", id)
		del = c.call("DEL", id)
		return nil
	})
	return add, del, err
}

// call runs the plugin. The thread is on the host.
func (c *contender) call(verb, id string) time.Duration {
	cmd := exec.Command(filepath.Join("/opt/cni/bin", c.name))
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+id, "CNI_NETNS="+c.ns.Path(), "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(config, sections[c.name]))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err == nil && verb == "ADD" {
		err = oneAddress(out.Bytes())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nipambench: %s with %d existing: %s: %v: %s\n", c.name, c.existing, verb, err, out.Bytes())
		return 0
	}
	return took
}

func oneAddress(result []byte) error {
	var r struct{ IPs []struct{ Address string } }
	if err := json.Unmarshal(result, &r); err != nil {
		return err
	}
	if len(r.IPs) != 1 {
		return errors.New("want one address")
	}
	return nil
}
