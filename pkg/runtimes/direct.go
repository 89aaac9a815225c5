package runtimes

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

var procNet = regexp.MustCompile(`^/proc/([0-9]+)/ns/net$`)

// direct reads the texts that need no runtime: pid:N and paths.
func direct(text string) (c Container, is bool, err error) {
	if m := procNet.FindStringSubmatch(text); m != nil {
		text = NamePID + ":" + m[1]
	}
	if number, ok := strings.CutPrefix(text, NamePID+":"); ok {
		c, err := byPID(number)
		return c, true, err
	}
	if strings.HasPrefix(text, "/") {
		c, err := byPath(text)
		return c, true, err
	}
	return Container{}, false, nil
}

func byPID(number string) (Container, error) {
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 0 {
		return Container{}, ctl.Errorf(ctl.CodeUnknownContainer, "pid:%s: want the number of a process", number)
	}
	start, err := Started(pid)
	if err != nil {
		return Container{}, ctl.Errorf(ctl.CodeUnknownContainer, "there is no process %d", pid)
	}
	// With the time it was started at, so that a later process of that number is another container.
	return Container{
		Runtime: NamePID, ID: number, CNI: fmt.Sprintf("pid-%d-%d", pid, start),
		State: Running, PID: pid, NetNS: fmt.Sprintf("/proc/%d/ns/net", pid),
	}, nil
}

// byPath takes the path as the container: what is attached there comes back when
// another namespace is bound to it.
func byPath(path string) (Container, error) {
	path = filepath.Clean(path)
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		path = "/run/" + rest // one place by two names is one container
	}
	sum := sha256.Sum256([]byte(path))
	c := Container{Runtime: NamePath, ID: path, CNI: "netns-" + hex.EncodeToString(sum[:10]), State: Running, NetNS: path}
	if _, err := os.Stat(path); err != nil {
		return Container{}, ctl.Errorf(ctl.CodeUnknownContainer, "%s: there is no network namespace: %v", path, err)
	}
	return c, nil
}

// again looks such a container up anew. A path that is not there may come back.
func again(c Container) (Container, error) {
	if c.Runtime == NamePath {
		_, err := os.Stat(c.ID)
		if c.NetNS, c.State = c.ID, Running; err != nil {
			c.NetNS, c.State = "", Stopped
		}
		return c, nil
	}
	now, err := byPID(c.ID)
	if err != nil || now.CNI != c.CNI {
		return Container{}, fmt.Errorf("process %s: %w", c.ID, ErrGone)
	}
	return now, nil
}

// Started is when a process was started, in clock ticks since the boot: with its
// number it names the process for as long as the machine is up.
func Started(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return startOf(string(b))
}

var errNoStat = errors.New("no /proc/PID/stat")

// startOf reads the 22nd field; the second may have blanks and brackets in it.
func startOf(stat string) (uint64, error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errNoStat
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("%w: of a process that lives: %w", errNoStat, fs.ErrNotExist)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
