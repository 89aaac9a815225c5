package doctor

import (
	"context"
	"fmt"
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
	for _, d := range devices() {
		if isTunnel(d.Name) && len(commands) < 60 {
			commands["fdb-"+d.Name+".txt"] = []string{"bridge", "fdb", "show", "dev", d.Name}
		}
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
	together.Wait()
	slices.SortFunc(out, func(a, b Piece) int { return strings.Compare(a.Name, b.Name) })
	return out
}
