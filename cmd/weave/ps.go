package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

func (a *app) ps() *cobra.Command {
	var state string
	var asJSON bool
	c := &cobra.Command{
		Use:   "ps",
		Short: "Show the container interfaces of this host",
		Long: `ps shows the container interfaces of this host, and the endpoints that were plugged and
are not there: "planned" before their container has started, "plugged" after it, with why.
ENDPOINT is what unplug takes.`,
		Args: cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			var s ctl.Status
			if err := a.ask(ctx, ctl.PathStatus, &s); err != nil {
				return err
			}
			plugs := a.plugsOfHost(ctx, cmp.Or(state, s.StateDir))
			all := a.entries(s, plugs)
			a.addWhy(ctx, all)
			if asJSON {
				return a.printJSON(all)
			}
			a.showAttachments(s.Name, all)
			return nil
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	c.Flags().StringVar(&state, "state-dir", "", "the directory whose plugs has what is plugged (default: the router's)")
	c.Flags().Lookup("state-dir").Hidden = true
	return c
}

// plugsOfHost has what is plugged, in a state directory or, where none is known, as a router
// of an older version does not tell it, in the one that the router reports.
func (a *app) plugsOfHost(ctx context.Context, state string) attach.Intents {
	if state == "" {
		return plugsOf(a.reported(ctx))
	}
	return attach.Intents{Dir: filepath.Join(state, "plugs")}
}

// entry is one endpoint: as the router has it, or, where it has none, as it was plugged.
type entry struct {
	ctl.Attachment
	EndpointID string            `json:"endpointID,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"` // given when it was plugged
	Why        string            `json:"why,omitempty"`    // it is planned or plugged, and not there

	called string // what plug and unplug take for the container, where its id is none
}

// States of what the router has no attachment of.
const (
	statePlanned = "planned" // its container was not started since
	statePlugged = "plugged" // it was made, in a life of the container that may have ended
)

// addWhy says of those that are plugged and not there what they wait for, as far as
// attachd knows.
func (a *app) addWhy(ctx context.Context, all []entry) {
	waits := func(e entry) bool { return e.State == statePlanned || e.State == statePlugged }
	if !slices.ContainsFunc(all, waits) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	var known ctl.Plugs
	unsaid := "the router does not know it: it is just coming back, or of other plugins"
	if err := ctl.New(a.attachSocket(), 0).Call(ctx, ctl.PathNetPlugs, nil, &known); err != nil {
		unsaid = "weave attachd, which knows why, does not answer"
	}
	for i, e := range all {
		why, _, _ := strings.Cut(known.Waiting[e.EndpointID], "\n")
		switch {
		case !waits(e):
		case e.State == statePlanned:
			all[i].Why = cmp.Or(why, "its container has not started")
		default:
			all[i].Why = cmp.Or(why, unsaid)
		}
	}
}

// entries are those of the router, then those that are only plugged.
func (a *app) entries(s ctl.Status, plugs attach.Intents) []entry {
	plugged, err := plugs.All()
	if err != nil {
		fmt.Fprintf(a.err, "weave: what is plugged is not shown whole: %v\n", err)
	}
	return withPlugged(s, plugged)
}

func withPlugged(s ctl.Status, plugged []attach.Intent) []entry {
	intents := map[string]attach.Intent{}
	for _, i := range plugged {
		intents[i.ID] = i
	}
	all := []entry{}
	for _, t := range containers(s) {
		e := entry{Attachment: t}
		if t.Key.ContainerID != "" {
			e.EndpointID = t.Key.EndpointID()
		}
		if i, plugged := intents[e.EndpointID]; plugged {
			e.Labels, e.called = i.Wish.Labels, refOf(i)
		}
		delete(intents, e.EndpointID)
		all = append(all, e)
	}
	for _, i := range plugged { // in their order
		if _, only := intents[i.ID]; !only {
			continue
		}
		e := entry{
			Attachment: ctl.Attachment{Key: i.Key, MAC: i.Wish.MAC, Names: i.Wish.Names, State: statePlanned},
			EndpointID: i.ID, Labels: i.Wish.Labels, called: refOf(i),
		}
		if i.Life != (attach.Life{}) {
			e.State = statePlugged
		}
		if ip := i.Wish.IP; ip.IsValid() {
			e.Addresses = []netip.Prefix{inSubnet(s, ip)}
		}
		e.Key.Network = i.Network()
		all = append(all, e)
	}
	return all
}

// inSubnet is an address with the length that it has on a network of this host.
func inSubnet(s ctl.Status, ip netip.Addr) netip.Prefix {
	bits := ip.BitLen()
	for _, n := range s.Networks {
		if i := slices.IndexFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(ip) }); i >= 0 {
			bits = n.Subnets[i].Bits()
		}
	}
	return netip.PrefixFrom(ip, bits)
}

// refOf is how a person names the container of a plug of which CNI's id is no runtime's;
// "" where the id does.
func refOf(i attach.Intent) string {
	switch c := i.Container; {
	case c.Runtime == runtimes.NamePath:
		return c.ID
	case c.Runtime == runtimes.NamePID:
		return c.Runtime + ":" + c.ID
	case c.Runtime == runtimes.NameContainerd && len(c.ID) < 64: // a name, of which only the whole counts
		return c.Namespace + "/" + c.ID
	case c.Runtime == runtimes.NameContainerd:
		return c.Namespace + "/" + short(c.ID)
	}
	return ""
}

// containers are the attachments of containers: not the host's own addresses on
// its bridges, whose keys no container can have. By container, interface and address.
func containers(s ctl.Status) []ctl.Attachment {
	all := slices.DeleteFunc(slices.Clone(s.Attachments), func(t ctl.Attachment) bool { return strings.HasPrefix(t.Key.ContainerID, ".") })
	slices.SortStableFunc(all, func(x, y ctl.Attachment) int {
		return cmp.Or(cmp.Compare(x.Key.ContainerID, y.Key.ContainerID), cmp.Compare(x.Key.IfName, y.Key.IfName),
			slices.CompareFunc(x.Addresses, y.Addresses, netip.Prefix.Compare))
	})
	return all
}

func (a *app) showAttachments(host string, all []entry) {
	rows := [][]string{{"CONTAINER", "ENDPOINT", "NETWORK", "INTERFACE", "ADDRESS", "MAC", "NAMES", "HOST END", "STATE"}}
	for _, t := range all {
		rows = append(rows, []string{
			orDash(cmp.Or(t.called, short(t.Key.ContainerID))), orDash(short(t.EndpointID)), orDash(t.Key.Network), orDash(t.Key.IfName),
			orDash(join(t.Addresses)), orDash(t.MAC), orDash(strings.Join(t.Names, ",")), orDash(t.Veth), strings.TrimSuffix(t.State+": "+t.Why, ": ") + notOursAlone(host, t.Attachment),
		})
	}
	table(a.out, rows)
	a.sayLost(all)
}

// notOursAlone marks the addresses of an attachment that another host has, or may have.
func notOursAlone(host string, t ctl.Attachment) string {
	var b strings.Builder
	for _, at := range t.Contested {
		var is []string
		switch at.Owner {
		case "":
		case host:
			is = append(is, "in a block of a former life of this host")
		default:
			is = append(is, "in a block of "+at.Owner)
		}
		if at.UsedBy != "" {
			is = append(is, "in use on "+at.UsedBy+" too")
		}
		fmt.Fprintf(&b, "; %s is %s", at.Address, strings.Join(is, ", "))
	}
	return b.String()
}

// sayLost explains the attachments whose claim files were lost.
func (a *app) sayLost(all []entry) {
	var kernelOnly, nameless int
	for _, t := range all {
		if t.Key.ContainerID == "" {
			kernelOnly++
		}
		if t.NamesLost {
			nameless++
		}
	}
	if kernelOnly == 0 {
		return
	}
	fmt.Fprintf(a.out, "\n%s known from the kernel only: without a container id until DEL and ADD, which nothing here needs\n", count(kernelOnly, "attachment"))
	if nameless > 0 {
		fmt.Fprintf(a.out, "%s of these may have lost names: another host's router that remembers them, or DEL and ADD, gives them back\n", number(uint64(nameless)))
	}
}
