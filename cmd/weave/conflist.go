package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/conflist"
	"github.com/weave-cni/weave-cni/pkg/doctor"
)

type conflistFlags struct {
	name    string
	plugins []string
	asked   string
	out     string
}

func (a *app) conflist() *cobra.Command {
	var f conflistFlags
	c := &cobra.Command{
		Use:   "conflist [flags] FILE…",
		Short: "Fit network lists to the plugins of this host and install them",
		Long: `conflist reads CNI network lists, asks every plugin that they start which
versions of CNI it speaks, writes into each list the versions that all of them
speak, and prints it or puts it where runtimes read it.

The plugins are looked for as a runtime does: the first directory that has one
counts. A list is replaced in one step; one that is as it should be is not touched.`,
		Example: "  weave conflist --out /etc/cni/net.d conflist/10-weave.conflist",
		Args: func(_ *cobra.Command, files []string) error {
			if len(files) == 0 {
				return errors.New("conflist: no FILE is given; want: weave conflist [flags] FILE…")
			}
			return nil
		},
		RunE: does(func(ctx context.Context, files []string) error {
			if f.name != "" && len(files) > 1 {
				return exit{exitUsage, fmt.Errorf("--name names one network, but %d files are given", len(files))}
			}
			for _, file := range files {
				if err := a.fit(ctx, file, f); err != nil {
					return err
				}
			}
			a.sayUnread(f.out)
			return nil
		}),
	}
	c.Flags().StringVar(&f.name, "name", "", "give the network this name")
	c.Flags().StringArrayVar(&f.plugins, "plugin-dir", conflist.PluginDirs(), "a directory in which the runtime finds plugins; may be repeated, in the runtime's order")
	c.Flags().StringVar(&f.asked, "versions-from", "", "ask the plugins in this directory first: for those that are about to be installed")
	c.Flags().StringVar(&f.out, "out", "-", `the directory to install into, or "-" to print`)
	return c
}

// fit does one file.
func (a *app) fit(ctx context.Context, file string, f conflistFlags) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	l, err := conflist.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	name := filepath.Base(file)
	if f.name != "" && f.name != l.Name() {
		if err := l.SetName(f.name); err != nil {
			return err
		}
		name = "weave-" + f.name + ".conflist" // two networks from one file do not overwrite each other
	}
	dirs := f.plugins
	if f.asked != "" {
		dirs = append([]string{f.asked}, dirs...)
	}
	spoken, err := conflist.Ask(ctx, l, dirs)
	var missing *conflist.Missing
	if errors.As(err, &missing) {
		return fmt.Errorf("%s: %w\nit is elsewhere: name its directory by --plugin-dir; else: %s", file, err, doctor.HowToInstall(missing.Plugin, f.plugins))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := l.Fit(spoken); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return a.put(f.out, name, l)
}

func (a *app) put(dir, name string, l *conflist.List) error {
	if dir == "-" {
		_, err := a.out.Write(l.Encode())
		return err
	}
	_, missing := os.Stat(dir)
	changed, err := conflist.Install(dir, name, l.Encode())
	if err != nil {
		return err
	}
	if errors.Is(missing, fs.ErrNotExist) {
		fmt.Fprintf(a.err, "weave: the directory %s was not there, and is made\n", dir)
	}
	did := "is as it should be"
	if changed {
		did = "installed"
	}
	fmt.Fprintf(a.out, "%s: network %s at CNI %s, %s\n", filepath.Join(dir, name), l.Name(), strings.Join(l.Versions(), " "), did)
	return nil
}

// sayUnread warns of a runtime that does not read what was just installed.
func (a *app) sayUnread(dir string) {
	if why := doctor.ReadsNoLists(dir); why != "" {
		fmt.Fprintln(a.err, "weave: "+why)
	}
}
