package router

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

func coded(t *testing.T, err error, code uint, words ...string) {
	t.Helper()
	var e *ctl.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want code %d", err, code)
		return
	}
	for _, w := range words {
		if text := e.Msg + "; " + e.Details; !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}

func TestANetworkIsMeantByItsNameItsIDOrABeginningOfThat(t *testing.T) {
	id := func(head string) string { return head + strings.Repeat("0", 64-len(head)) }
	all := []ledger.Network{{Name: "one", ID: id("abcd1")}, {Name: "two", ID: id("abcd2")}, {Name: "abcd1", ID: id("cd")}, {Name: "4", ID: id("ef")}}
	for ref, want := range map[string]string{"one": "one", id("abcd2"): "two", "abcd2": "two", "ABCD2": "two", "abcd1": "abcd1", "abcd10": "one", "cd00": "abcd1", "4": "4"} {
		if n, err := resolve(all, ref); err != nil || n.Name != want {
			t.Errorf("%q is %q, %v; want %q", ref, n.Name, err, want)
		}
	}
	_, err := resolve(all, "abcd")
	coded(t, err, ctl.CodeAmbiguous, "one (abcd10000000), two (abcd20000000)")
	for _, ref := range []string{"", "three", "abcc", id("abcd1") + "0"} {
		_, err := resolve(all, ref)
		coded(t, err, ctl.CodeInvalidConfig, "abcd1 (cd0000000000)", "one", "two")
	}
	for _, ref := range []string{"e", "cd0"} { // one network's alone
		_, err := resolve(all, ref)
		coded(t, err, ctl.CodeInvalidConfig, "of an id 4 digits or more are wanted", "abcd1 (cd0000000000)")
	}
	for _, ref := range []string{"blu", "three", ""} { // no ids, so nothing of ids is said
		_, err := resolve(all, ref)
		coded(t, err, ctl.CodeInvalidConfig, fmt.Sprintf("no network is called %q", ref))
		if strings.Contains(err.Error(), "an id") || strings.Contains(err.Error(), "no id") {
			t.Errorf("%q: got %v", ref, err)
		}
	}
	for i := range byte(20) {
		all = append(all, ledger.Network{Name: "n" + string('a'+rune(i)), ID: id("eeee")})
	}
	_, err = resolve(all, "eeee")
	coded(t, err, ctl.CodeAmbiguous, "20 networks", "12 more")
}

func FuzzResolve(f *testing.F) {
	f.Add("ab1", "one", strings.Repeat("ab1", 22)[:64])
	f.Fuzz(func(t *testing.T, ref, name, id string) {
		n, err := resolve([]ledger.Network{{Name: name, ID: id}}, ref)
		if err == nil && n.Name != ref && !strings.HasPrefix(n.ID, strings.ToLower(ref)) {
			t.Errorf("%q is %+v", ref, n)
		}
	})
}

func TestANameThatWouldBeTakenForSomethingElseIsRefused(t *testing.T) {
	for _, name := range []string{"net1", "a", "A_b.c-d", "deadbeef", "0123456789a", strings.Repeat("x", 64)} {
		if err := checkName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "-net", ".net", "a b", "a/b", "ä", strings.Repeat("x", 65), "0123456789ab", "ABCDEF012345", strings.Repeat("e", 64)} {
		coded(t, checkName(name), ctl.CodeInvalidConfig)
	}
	for _, name := range []string{"podman", "Bridge", "none", "cni-loopback"} {
		coded(t, checkName(name), ctl.CodeInvalidConfig, "runtimes have for themselves", "choose another")
	}
	for range 200 {
		if err := checkName(randomName(ledger.New())); err != nil {
			t.Error(err)
		}
	}
}

func TestSubnetsAreChosenBesideTheHostsRoutes(t *testing.T) {
	p := netip.MustParsePrefix
	if got := clearOf(pool4, chosenBits4, []netip.Prefix{p("10.32.0.0/12"), p("192.0.2.0/24")}); len(got) != 1 || got[0] != pool4 {
		t.Errorf("routes elsewhere: %v", got)
	}
	routes := []netip.Prefix{p("10.48.7.0/24"), p("10.56.0.0/13")}
	got := clearOf(pool4, chosenBits4, routes)
	size := 0
	for i, x := range got {
		size += 1 << (chosenBits4 - x.Bits())
		for _, o := range append(routes, got[:i]...) {
			if x.Overlaps(o) {
				t.Errorf("%s overlaps %s", x, o)
			}
		}
	}
	if size != 127 { // of the lower half's 128 subnets all but the first
		t.Errorf("%d subnets in %v", size, got)
	}
	if got := choices("c", true, true, []netip.Prefix{p("10.0.0.0/8")}); len(got) != 0 {
		t.Errorf("%v", got)
	}
	both := choices("c", true, true, nil)
	if len(both) != 1 || len(both[0]) != 2 || both[0][1].From != pool6("c") || pool6("c") == pool6("d") || !pool6("c").Addr().IsPrivate() {
		t.Errorf("%v, %v", both, pool6("d"))
	}
}

func TestALabelsKeyIsOneWord(t *testing.T) {
	if err := checkLabels(map[string]string{"tier": "a web, of ours", "example.com/owner_1-x": ""}); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"x y", "a,b", "\t", " "} {
		coded(t, checkLabels(map[string]string{key: "v"}), ctl.CodeInvalidConfig, "without blanks and commas")
	}
}

func TestWithoutAMajorityTheOutcomeStandsFirst(t *testing.T) {
	const why = "no majority: 2 of the 3 voters cannot be reached (b; c); the network goes on, but no block changes hands until they are back"
	err := noMajority(why, "nothing was changed", []string{"b", "c", "d"}, map[string]netip.Addr{"b": netip.MustParseAddr("192.0.2.2"), "c": netip.MustParseAddr("192.0.2.3"), "d": {}})
	const want = "nothing was changed: a change of the networks needs a majority of the voters, and none answers here: " +
		"no majority: 2 of the 3 voters cannot be reached (b; c); b was at 192.0.2.2, c was at 192.0.2.3; everything that exists goes on"
	if err.Error() != want {
		t.Errorf("got %s", err)
	}
}
