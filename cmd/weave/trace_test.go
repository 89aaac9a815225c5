package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// remembering is a router that remembers calls: it answers at its socket and keeps what
// it was asked.
func remembering(t *testing.T, answer any, status int) (socket string, asked *[]ctl.TraceRequest) {
	t.Helper()
	return answering(t, func(ctl.TraceRequest) (any, int) { return answer, status })
}

// knowing is one that knows some containers.
func knowing(t *testing.T, knows func(ctl.TraceRequest) bool) (socket string, asked *[]ctl.TraceRequest) {
	t.Helper()
	return answering(t, func(in ctl.TraceRequest) (any, int) {
		if knows(in) {
			return story(), http.StatusOK
		}
		return ctl.Error{Code: ctl.CodeUnknownContainer, Msg: "no call"}, http.StatusUnprocessableEntity
	})
}

func answering(t *testing.T, answer func(ctl.TraceRequest) (any, int)) (socket string, asked *[]ctl.TraceRequest) {
	t.Helper()
	asked = new([]ctl.TraceRequest)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+ctl.PathTrace, func(w http.ResponseWriter, r *http.Request) {
		var in ctl.TraceRequest
		_ = json.NewDecoder(r.Body).Decode(&in)
		*asked = append(*asked, in)
		out, status := answer(in)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(out)
	})
	return serve(t, mux), asked
}

func story() ctl.Trace {
	key := attachment.Key{Network: "weave", ContainerID: "3f1d7a22c9b04e5d8f6a", IfName: "eth0"}
	return ctl.Trace{
		Since: noon.Add(-time.Hour), Missed: 2,
		Calls: []ctl.TracedCall{
			{At: noon, Took: 5 * time.Second, Call: "allocate", Key: key, Network: "weave", Detail: "asked for 10.32.0.2", Code: 11, Error: "no address on network \"weave\" yet: no majority",
				Steps: []ctl.TracedStep{{Took: 300 * time.Microsecond, What: "looked for an address here: none yet", Times: 2}, {After: time.Millisecond, Took: 4999 * time.Millisecond, What: "asked the ledger: no majority"}}},
			{At: noon.Add(6 * time.Second), Took: 1234 * time.Microsecond, Call: "allocate", Key: key, Network: "weave", Detail: "10.32.0.2/12", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
				Steps: []ctl.TracedStep{{Took: 900 * time.Microsecond, What: "claim written"}}},
			{At: noon.Add(7 * time.Second), Took: time.Millisecond, Call: "release", Key: key, Remark: "ADD failed in the plugin"},
			{At: noon.Add(8 * time.Second), Took: 2 * time.Second, Call: "detach", Key: key, Running: true},
		},
	}
}

func TestATraceTellsWhatHappenedToAContainer(t *testing.T) {
	of, none := story(), ctl.Trace{Since: noon, Claims: busy().Attachments[:1]}
	for name, c := range map[string]struct {
		args   []string
		answer ctl.Trace
		asked  ctl.TraceRequest
	}{
		"trace":         {nil, of, ctl.TraceRequest{Last: latest}},
		"trace-3f1d":    {[]string{"3f1d"}, of, ctl.TraceRequest{Container: "3f1d"}},
		"trace-json":    {[]string{"3f1d", "--json", "--last", "3"}, of, ctl.TraceRequest{Container: "3f1d", Last: 3}},
		"trace-nothing": {nil, ctl.Trace{Since: noon}, ctl.TraceRequest{Last: latest}},
		"trace-old":     {[]string{"3f1d"}, none, ctl.TraceRequest{Container: "3f1d"}},
	} {
		socket, asked := remembering(t, c.answer, http.StatusOK)
		code, out, errs := weave(t, false, nil, append([]string{"trace", "--socket", socket}, c.args...)...)
		if code != 0 || errs != "" {
			t.Errorf("%s: exit %d, stderr %q", name, code, errs)
		}
		golden(t, name, out)
		if len(*asked) != 1 || (*asked)[0] != c.asked {
			t.Errorf("%s: asked %+v, want %+v", name, *asked, c.asked)
		}
	}
}

// A router that knows the container of one id, and that of one namespace.
func TestATraceTakesWhatAPersonKnowsTheContainerBy(t *testing.T) {
	state := t.TempDir()
	i := web() // podman does not name it to the router
	if err := (attach.Intents{Dir: filepath.Join(state, "plugs")}).Put(i); err != nil {
		t.Fatal(err)
	}
	self, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	own := self.Sys().(*syscall.Stat_t)
	here := attachment.NSID{Dev: uint64(own.Dev), Ino: own.Ino}
	socket, asked := knowing(t, func(in ctl.TraceRequest) bool { return in.Container == i.Key.ContainerID || in.NetNS == here })
	for _, c := range []struct {
		text string
		want []ctl.TraceRequest
	}{
		{i.Key.ContainerID, []ctl.TraceRequest{{Container: i.Key.ContainerID}}},
		{"web", []ctl.TraceRequest{{Container: "web"}, {Container: i.Key.ContainerID}}},
		{"/proc/self/ns/net", []ctl.TraceRequest{{NetNS: here}}},
		{"pid:" + strconv.Itoa(os.Getpid()), []ctl.TraceRequest{{NetNS: here}}},
		{"nobody", []ctl.TraceRequest{{Container: "nobody"}}},
		{"/run/netns/of/nobody", nil},
	} {
		*asked = nil
		code, _, errs := weave(t, false, nil, "trace", c.text, "--socket", socket, "--state-dir", state)
		if !slices.Equal(*asked, c.want) || (code == 0) == strings.Contains(c.text, "nobody") {
			t.Errorf("%s: exit %d, %q, asked %+v", c.text, code, errs, *asked)
		}
	}
}

func TestATraceOfNobodyEndsWithWhatToDo(t *testing.T) {
	socket, _ := remembering(t, ctl.Error{Code: ctl.CodeAmbiguous, Msg: `2 containers begin with "3"`, Details: "31, 32"}, http.StatusUnprocessableEntity)
	code, out, errs := weave(t, false, nil, "trace", "3", "--socket", socket)
	if code != exitFailed || out != "" || !strings.Contains(errs, "31, 32") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if code, _, errs := weave(t, false, nil, "trace", "--last", "-1"); code != exitUsage || !strings.Contains(errs, "--last") {
		t.Errorf("exit %d, %q", code, errs)
	}
	if code, _, _ := weave(t, false, nil, "trace", "--socket", "/nowhere"); code != exitNoRouter {
		t.Errorf("without a router: exit %d", code)
	}
}
