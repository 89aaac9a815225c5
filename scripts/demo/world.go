package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// ignored is what may differ when the containers are gone, and why.
var ignored = []struct{ line, what string }{
	{"file /var/lib/cni", "/var/lib/cni (libcni's own cache)"},
	{"file /var/lib/weave/", "/var/lib/weave/ (the ledger: a log, it only grows)"},
	{"file /run/weave/witness", "/run/weave/witness (how often the state was changed)"},
	{"file /run/weave/claims/resting-", "/run/weave/claims/resting-* (freed addresses, kept back for 30 s)"},
}

func worldOptions() (o netlab.WorldOptions) {
	for _, i := range ignored {
		o.Ignore = append(o.Ignore, i.line)
	}
	return o
}

// compare looks at all hosts until they are as they were without containers.
func (d *demo) compare(ctx context.Context) error {
	var diff string
	err := wait(ctx, 15*time.Second, "the hosts are as before the first ADD", func() error {
		now, err := d.lab.World(worldOptions())
		if err != nil {
			return err
		}
		if diff = d.before.Diff(now); diff != "" {
			return errors.New("they are not")
		}
		return nil
	})
	if ctx.Err() != nil {
		return err
	}
	if err != nil && diff != "" {
		for _, l := range firstLines(diff, 20) {
			d.out.line("%s", l)
		}
		return fmt.Errorf("%d lines of what the hosts look like differ from before the first ADD", strings.Count(strings.TrimSpace(diff), "\n")+1)
	}
	if err != nil {
		return err
	}
	d.out.line("nothing: of %s lines that describe the hosts, 0 differ from before the first ADD", grouped(lines(d.before)))
	d.out.line("compared: %s", strings.Join(sections(d.before), ", "))
	for i, ig := range ignored {
		word := "ignored: "
		if i > 0 {
			word = "         "
		}
		d.out.line("%s %s", word, ig.what)
	}
	return nil
}

// lines counts what a world holds.
func lines(all netlab.Worlds) (n uint64) {
	for _, w := range all {
		for _, section := range w {
			n += uint64(len(section))
		}
	}
	return n
}

// sections names, in words and in order, the sections that hold anything on any host.
func sections(all netlab.Worlds) (names []string) {
	for _, s := range []struct{ key, word string }{
		{"link", "links"}, {"addr", "addresses"}, {"route", "routes"}, {"rule", "rules"}, {"neigh", "neighbours"}, {"fdb", "FDB"},
		{"nft", "nft"}, {"sysctl", "sysctls"}, {"mount", "mounts"}, {"file", "files"}, {"socket", "sockets"}, {"process", "processes"},
	} {
		for _, w := range all {
			if len(w[s.key]) > 0 {
				names = append(names, s.word)
				break
			}
		}
	}
	return names
}

func firstLines(s string, n int) []string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(all) <= n {
		return all
	}
	return append(all[:n:n], fmt.Sprintf("… and %d more", len(all)-n))
}
