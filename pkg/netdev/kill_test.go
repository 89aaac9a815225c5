package netdev

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

const victimEnv = "NETDEV_TEST_VICTIM"

// TestMain runs the tests, or is the process that one of them kills.
func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) == "" {
		os.Exit(m.Run())
	}
	fmt.Println("ready")
	if err := victim(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// victim attaches until it is killed, each time another container.
func victim() error {
	ns, err := OpenNS("/proc/self/fd/3")
	if err != nil {
		return err
	}
	for {
		i := rand.IntN(1 << 30)
		v := vethFor(i, ns)
		v.IfName = fmt.Sprintf("e%d", i)
		v.MAC = []byte{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		if err := Attach(v); err != nil {
			return err
		}
	}
}

func TestAKilledPluginLeavesNoLinkWithoutAnAlias(t *testing.T) {
	h, c := newBridge(t), newSpace(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	kills := 40
	if testing.Short() {
		kills = 5
	}
	for range kills {
		h.in(func() error { return startAndKill(c, time.Duration(r.IntN(20_000))*time.Microsecond) })
	}
	var ports []Port
	h.in(func() (err error) { ports, err = Ports(); return err })
	if len(ports) == 0 {
		t.Error("no victim got as far as to make a link")
	}
	for _, p := range ports {
		if p.Alias == "" {
			t.Errorf("%s has no alias", p.Name)
		}
		if p.Master != "weave" {
			t.Errorf("%s is not in the bridge", p.Name)
		}
	}
	t.Logf("%d victims left %d links", kills, len(ports))
}

// startAndKill runs a victim in this thread's namespace and kills it some time after it was ready.
func startAndKill(c space, after time.Duration) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(c.fd)), "ns")}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = cmd.ExtraFiles[0].Close()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return err
	}
	<-time.After(after) // the moment of the kill is what is varied, not a wait for something
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		return fmt.Errorf("the victim ended by itself: %v", err)
	}
	return nil
}
