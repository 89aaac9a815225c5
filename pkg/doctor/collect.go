package doctor

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
)

// Piece is one file of a report.
type Piece struct {
	Name string
	Text []byte
}

const mostPiece = 256 << 10 // bytes

// Collect gathers what the host says of our devices, for an issue: links, routes, the
// forwarding entries, our rules, the last words of router and attachd. Each piece is of bounded size,
// and what cannot be had says why. It changes nothing.
func Collect(ctx context.Context) []Piece {
	commands := map[string][]string{
		"links.txt":    {"ip", "-d", "-s", "link", "show"},
		"addrs.txt":    {"ip", "addr", "show"},
		"routes.txt":   {"ip", "route", "show", "table", "all"},
		"routes6.txt":  {"ip", "-6", "route", "show", "table", "all"},
		"neigh.txt":    {"ip", "neigh", "show"},
		"nft-ours.txt": {"nft", "list", "table", "inet", "weave"},
		"nft-port.txt": {"nft", "list", "table", "bridge", "weave"},
		"log.txt":      {"journalctl", "-u", "weaver", "-n", "1000", "--no-pager", "-o", "short-iso"},
		"attachd.txt":  {"journalctl", "-u", "weave-attachd", "-n", "1000", "--no-pager", "-o", "short-iso"},
		"kernel.txt":   {"uname", "-a"},
	}
	var mu sync.Mutex
	var out []Piece
	var together sync.WaitGroup
	for name, argv := range commands {
		together.Go(func() {
			text, err := program(ctx, mostPiece, argv[0], argv[1:]...)
			if err != nil {
				text = fmt.Appendf(text, "%s: %v\n", strings.Join(argv, " "), err)
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, Piece{name, text})
		})
	}
	together.Go(func() {
		tables := forwardingOf(ctx)
		mu.Lock()
		defer mu.Unlock()
		out = append(out, tables...)
	})
	together.Wait()
	slices.SortFunc(out, func(a, b Piece) int { return strings.Compare(a.Name, b.Name) })
	return out
}

const (
	mostTables = 50       // tunnels of which a report has the entries
	mostFDB    = 16 << 20 // bytes of the entries of all devices
)

// forwardingOf are the forwarding entries of our tunnels, a piece each, from one listing of
// those of all devices: a process for each would be hundreds.
func forwardingOf(ctx context.Context) []Piece {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var tunnels []string
	for _, d := range all {
		if isTunnel(d.Name) && len(tunnels) < mostTables {
			tunnels = append(tunnels, d.Name)
		}
	}
	if len(tunnels) == 0 {
		return nil
	}
	text, err := program(ctx, mostFDB, "bridge", "fdb", "show")
	if err != nil {
		text = nil
	}
	tables := entriesOf(string(text))
	var out []Piece
	for _, name := range tunnels {
		table := first{most: mostPiece}
		_, _ = table.Write([]byte(tables[name])) // into memory
		if table.cut {
			table.WriteString("\n… cut here\n")
		}
		if err != nil {
			fmt.Fprintf(&table.Buffer, "bridge fdb show: %v\n", err)
		}
		out = append(out, Piece{"fdb-" + name + ".txt", table.Bytes()})
	}
	return out
}

// entriesOf splits a listing of forwarding entries by device. A line is then as a listing of
// that device alone has it, which does not name it.
func entriesOf(text string) map[string]string {
	tables := map[string]*strings.Builder{}
	for line := range strings.Lines(text) {
		before, after, found := strings.Cut(line, " dev ")
		if !found {
			continue
		}
		device, rest, more := strings.Cut(after, " ")
		if !more {
			device, rest = strings.TrimSuffix(device, "\n"), "\n"
		}
		if tables[device] == nil {
			tables[device] = &strings.Builder{}
		}
		tables[device].WriteString(before + " " + rest)
	}
	out := map[string]string{}
	for device, b := range tables {
		out[device] = b.String()
	}
	return out
}
