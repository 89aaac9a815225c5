package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/doctor"
)

const (
	collectIn = 1700 * time.Millisecond // what the host says, beside what the router does
	maxPart   = 4 << 20                 // bytes of one part of a report

	stateDir = "/var/lib/weave" // the router's and attachd's, unless they were told otherwise
)

func (a *app) report() *cobra.Command {
	var asJSON bool
	var out string
	c := &cobra.Command{
		Use:   "report",
		Short: "Gather the state of this host into one file, for an issue",
		Long: `report writes one compressed archive for an issue: the router's status and the state
of each of its parts, what "weave doctor" finds, versions, links, routes, forwarding
entries and rules of weave, what is plugged, and the ends of the router's and attachd's
logs. The cluster secret is in none of it; names and addresses of hosts and containers are. It works without a router.

With --json it prints the router's part alone.`,
		Args: cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			if asJSON {
				return a.reportJSON(ctx)
			}
			return a.reportFile(ctx, out)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the state of every part of the router as JSON")
	c.Flags().StringVar(&out, "out", "", `the file to write, "-" for the standard output (default: weave-report-HOST-TIME.tar.gz here)`)
	c.MarkFlagsMutuallyExclusive("json", "out")
	return c
}

func (a *app) reportJSON(ctx context.Context) error {
	var r json.RawMessage
	if err := a.ask(ctx, ctl.PathReport, &r); err != nil {
		return err
	}
	if err := a.printJSON(r); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func (a *app) reportFile(ctx context.Context, out string) error {
	host, pieces := a.gather(ctx)
	pieces = withoutSecrets(pieces, secretsOf(pieces))
	name := fmt.Sprintf("weave-report-%s-%s", fileName(host), a.now().UTC().Format("20060102-150405"))
	text, err := pack(name, a.now(), pieces)
	if err != nil {
		return err
	}
	if out == "-" {
		_, err := a.out.Write(text)
		return err
	}
	file, err := create(out, name)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Close()); err != nil {
		os.Remove(file.Name())
		return fmt.Errorf("write the report: %w", err)
	}
	fmt.Fprintf(a.out, "%s: %d parts, %s bytes, without the cluster secret\n", file.Name(), len(pieces), number(uint64(len(text))))
	return nil
}

// create makes the file, which nobody but its owner may read. One that is there is
// never written over.
func create(out, name string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if out != "" {
		f, err := os.OpenFile(out, flags, 0o600)
		if errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("%s is there already: give --out another name, or remove it", out)
		}
		return f, err
	}
	const most = 100
	for i := 1; ; i++ {
		file := name + ".tar.gz"
		if i > 1 {
			file = fmt.Sprintf("%s-%d.tar.gz", name, i)
		}
		f, err := os.OpenFile(file, flags, 0o600)
		if !errors.Is(err, os.ErrExist) || i == most {
			return f, err
		}
	}
}

// fileName keeps of a host's name what a file's may have.
func fileName(host string) string {
	host = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, host)
	return host[:min(len(host), 63)]
}

// gather collects all parts; what hangs is given up after less than 2 s.
func (a *app) gather(ctx context.Context) (host string, pieces []doctor.Piece) {
	ctx, cancel := context.WithTimeout(ctx, collectIn)
	defer cancel()
	var hosts []doctor.Piece
	var router json.RawMessage
	var noReport error
	var together sync.WaitGroup
	together.Go(func() { hosts = doctor.Collect(ctx) })
	together.Go(func() { noReport = a.call(ctx, ctl.PathReport, nil, &router) })
	s := a.look(ctx, doctor.Options{})
	together.Wait()

	host, _ = os.Hostname()
	add := func(name string, v any) {
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			text = []byte(err.Error())
		}
		pieces = append(pieces, doctor.Piece{Name: name, Text: append(text, '\n')})
	}
	if noReport == nil {
		add("report.json", router)
	} else {
		pieces = append(pieces, doctor.Piece{Name: "report.txt", Text: []byte(noReport.Error() + "\n")})
	}
	if s.Router.Status != nil {
		host = s.Router.Status.Name
		add("status.json", s.Router.Status)
	}
	if s.Router.Topology != nil {
		add("topology.json", s.Router.Topology)
	}
	add("doctor.json", doctor.Judge(s))
	add("runtimes.json", s.Runtimes)
	pieces = append(pieces, plugged(router), doctor.Piece{Name: "versions.txt", Text: []byte(a.versions(s))})
	return host, append(pieces, hosts...)
}

// plugged are the intents: what attachd, and the hooks of runtimes, are to bring back.
func plugged(report json.RawMessage) doctor.Piece {
	all, err := plugsOf(report).All()
	text, _ := json.MarshalIndent(all, "", "  ") // of words and numbers alone: it cannot fail
	text = append(text, '\n')
	if err != nil {
		text = append(text, err.Error()+"\n"...)
	}
	return doctor.Piece{Name: "plugs.json", Text: text}
}

// reported is the router's report, nil where it has none in time: it only says where things are.
func (a *app) reported(ctx context.Context) (report json.RawMessage) {
	if a.ask(ctx, ctl.PathReport, &report) != nil {
		return nil
	}
	return report
}

// plugsOf is where the intents of this host are, by the router's own report; nil: the usual.
func plugsOf(report json.RawMessage) attach.Intents {
	var r struct{ Config struct{ StateDir string } }
	_ = json.Unmarshal(report, &r)
	return attach.Intents{Dir: filepath.Join(cmp.Or(r.Config.StateDir, stateDir), "plugs")}
}

func (a *app) versions(s doctor.Snapshot) string {
	text := "weave  " + version + "\n"
	if s.Router.Status != nil {
		text += "weaver " + s.Router.Status.Version + "\n"
	}
	return text + "kernel " + s.Kernel.Release + "\n"
}

// secretsOf reads the cluster's secret, to look for it: nothing of ours ever prints it,
// but a log may hold what others have written.
func secretsOf(pieces []doctor.Piece) [][]byte {
	files := []string{"/etc/weave/secret"}
	for _, p := range pieces {
		var r struct{ Config struct{ SecretFile string } }
		if p.Name == "report.json" && json.Unmarshal(p.Text, &r) == nil && r.Config.SecretFile != "" {
			files = append(files, r.Config.SecretFile)
		}
	}
	var out [][]byte
	for _, f := range files {
		text, _ := os.ReadFile(f)
		for _, word := range bytes.Fields(text) {
			const shortest = 16 // what is shorter is no secret, and may be a word
			if len(word) >= shortest {
				out = append(out, word)
			}
		}
	}
	return out
}

// withoutSecrets takes them out wherever they stand, and bounds the parts.
func withoutSecrets(pieces []doctor.Piece, secrets [][]byte) []doctor.Piece {
	out := slices.Clone(pieces)
	for i := range out {
		for _, s := range secrets {
			out[i].Text = bytes.ReplaceAll(out[i].Text, s, []byte("[the cluster secret]"))
		}
		if len(out[i].Text) > maxPart {
			out[i].Text = append(slices.Clone(out[i].Text[:maxPart]), "\n… cut here\n"...)
		}
	}
	return out
}

// pack makes a compressed archive of one directory.
func pack(dir string, now time.Time, pieces []doctor.Piece) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	for _, p := range pieces {
		head := &tar.Header{Name: dir + "/" + p.Name, Mode: 0o600, Size: int64(len(p.Text)), ModTime: now, Typeflag: tar.TypeReg}
		if err := t.WriteHeader(head); err != nil {
			return nil, fmt.Errorf("pack %s: %w", p.Name, err)
		}
		if _, err := io.Copy(t, bytes.NewReader(p.Text)); err != nil {
			return nil, fmt.Errorf("pack %s: %w", p.Name, err)
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
