package docs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// exported are the metrics of docs/operate/metrics.md, which a test of pkg/router holds
// against the router's own: their labels by the names under which they are asked for.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	scraped := []string{"job", "instance"}
	out := map[string][]string{"up": scraped, "go_goroutines": scraped, "process_resident_memory_bytes": scraped, "process_cpu_seconds_total": scraped, "process_open_fds": scraped}
	for _, row := range regexp.MustCompile("(?m)^\\| `(weave_[a-z_]+)` +\\| ([a-z]+) +\\| ([^|]*)\\|").FindAllStringSubmatch(strings.Join(find(t, "docs/operate/metrics.md").raw, "\n"), -1) {
		has := slices.Concat(scraped, code(row[3]))
		if row[2] != "histogram" {
			out[row[1]] = has
			continue
		}
		out[row[1]+"_bucket"], out[row[1]+"_sum"], out[row[1]+"_count"] = append(slices.Clone(has), "le"), has, has
	}
	return out
}

// word is one of an expression's: a name, a string, a number or duration, an operator, a bracket.
var word = regexp.MustCompile(`^(?:([a-zA-Z_][a-zA-Z0-9_]*)|("[^"]*")|[0-9][0-9a-z.]*|=~|!~|!=|==|<=|>=|[-+*/<>=,]|[()\[\]{}])`)

// notMetrics are the names that an expression has besides those of metrics: what is done with them.
var notMetrics = []string{"sum", "min", "max", "count", "rate", "increase", "histogram_quantile", "vector", "and", "or"}

// expression is one that is being read.
type expression struct {
	metrics map[string][]string
	open    string   // the brackets that are open
	metric  string   // the last one
	by      bool     // what is in brackets now are labels to group by
	grouped []string // those
	has     []string // labels of its metrics
	bad     []string
}

func (e *expression) complain(format string, args ...any) {
	e.bad = append(e.bad, fmt.Sprintf(format, args...))
}

func (e *expression) name(name, rest string) {
	has, exists := e.metrics[name]
	switch {
	case strings.HasSuffix(e.open, "{"):
		if labels := e.metrics[e.metric]; labels != nil && !slices.Contains(labels, name) {
			e.complain("%s has no label %s", e.metric, name)
		}
	case name == "by":
		e.by = true
	case e.by:
		e.grouped = append(e.grouped, name)
	case slices.Contains(notMetrics, name):
		if operator := name == "and" || name == "or"; !operator && !strings.HasPrefix(rest, "(") && !strings.HasPrefix(rest, " by (") {
			e.complain("%s of what?", name)
		}
	case !exists:
		e.metric = ""
		e.complain("there is no metric %s", name)
	default:
		e.metric, e.has = name, append(e.has, has...)
	}
}

func (e *expression) bracket(b string) {
	const opening, closing = "([{", ")]}"
	if strings.Contains(opening, b) {
		e.open += b
		return
	}
	if want := strings.IndexAny(closing, b); e.open == "" || e.open[len(e.open)-1] != opening[want] {
		e.complain("%s closes nothing", b)
		return
	}
	e.open, e.by = e.open[:len(e.open)-1], false
}

// wrong is what is wrong with an expression: that its brackets are not closed, or that it
// asks for a metric or a label that does not exist. (Prometheus' own parser is part of its
// server, whose dependencies are more than all of ours.)
func wrong(expr string, metrics map[string][]string) []string {
	e := &expression{metrics: metrics}
	for rest := expr; rest != ""; {
		m := word.FindStringSubmatch(rest)
		if m == nil {
			if rest[0] != ' ' {
				return append(e.bad, fmt.Sprintf("%q is not understood", rest))
			}
			rest = rest[1:]
			continue
		}
		rest = rest[len(m[0]):]
		switch {
		case m[1] != "":
			e.name(m[1], rest)
		case strings.ContainsAny(m[0], "()[]{}") && m[2] == "":
			e.bracket(m[0])
		}
	}
	if e.open != "" {
		e.complain("%s is not closed", e.open)
	}
	for _, g := range e.grouped {
		if !slices.Contains(e.has, g) {
			e.complain("nothing in it has the label %s", g)
		}
	}
	return e.bad
}

func TestAnExpressionOfWhatDoesNotExistIsFound(t *testing.T) {
	metrics := exported(t)
	for expr, want := range map[string]string{
		`sum by (code) (rate(weave_calls_total{call="allocate"}[5m]))`: "",
		`weave_calls`:                           "there is no metric weave_calls",
		`weave_ready{network="weave"}`:          "weave_ready has no label network",
		`sum by (network) (weave_ready)`:        "nothing in it has the label network",
		`rate(weave_call_duration_seconds[5m])`: "there is no metric weave_call_duration_seconds",
		`sum(weave_ready`:                       "( is not closed",
		`sum weave_ready`:                       "sum of what?",
		`weave_ready ; 1`:                       "is not understood",
		`weave_ready)`:                          ") closes nothing",
		`weave_calls_total{verb="ADD"}`:         "weave_calls_total has no label verb",
		`histogram_quantile(0.9, weave_add_duration_seconds_bucket{le="1"}) > 1`: "",
	} {
		if got := strings.Join(wrong(expr, metrics), "; "); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// variables are what Grafana puts into an expression.
var variables = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")

func TestTheDashboardAsksForMetricsThatExist(t *testing.T) {
	text, err := os.ReadFile("operate/weave-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Title  string
		UID    string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	metrics, asked, ids := exported(t), map[string]bool{}, map[int]bool{}
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	for i, p := range board.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 || p.Title == "" || (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %d (%q) is out of order: %+v", i, p.Title, p.GridPos)
		}
		ids[p.ID] = true
		for _, q := range board.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q overlap", p.Title, q.Title)
			}
		}
		for _, target := range p.Targets {
			expr := variables.Replace(target.Expr)
			for _, w := range wrong(expr, metrics) {
				t.Errorf("panel %q: %s: %s", p.Title, target.Expr, w)
			}
			for _, l := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				if l[1] != "instance" && !strings.Contains(target.Expr, l[1]) && !strings.HasPrefix(expr, "weave_") {
					t.Errorf("panel %q: the legend names %s, which %s loses", p.Title, l[1], target.Expr)
				}
			}
			for name := range metrics {
				if strings.Contains(expr, name) {
					asked[name] = true
				}
			}
		}
	}
	if len(asked) < 30 || board.Title == "" || board.UID == "" {
		t.Errorf("it asks for %d metrics", len(asked))
	}
	for _, v := range board.Templating.List {
		if m := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Definition); v.Definition != "" && (m == nil || !slices.Contains(metrics[m[1]], m[2])) {
			t.Errorf("variable %s: %s", v.Name, v.Definition)
		}
	}
}

func TestTheAlertsAskForMetricsThatExistAndSayWhatToDo(t *testing.T) {
	f, err := os.Open("operate/weave-alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr         string
				For                 string
				Labels, Annotations map[string]string
			}
		}
	}
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	if err := dec.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	metrics, names, n := exported(t), map[string]bool{}, 0
	label := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			n++
			for _, w := range wrong(r.Expr, metrics) {
				t.Errorf("%s: %s", r.Alert, w)
			}
			if d, err := time.ParseDuration(r.For); r.For != "" && (err != nil || d > time.Hour) {
				t.Errorf("%s: for %q: %v", r.Alert, r.For, err)
			}
			for _, l := range label.FindAllStringSubmatch(r.Annotations["summary"], -1) {
				if l[1] != "instance" && !strings.Contains(r.Expr, l[1]) && !slices.Contains(metrics[strings.Fields(r.Expr)[0]], l[1]) {
					t.Errorf("%s: its summary names the label %s, which its expression loses", r.Alert, l[1])
				}
			}
			if names[r.Alert] || !strings.HasPrefix(r.Alert, "Weave") || r.Labels["severity"] != "warning" && r.Labels["severity"] != "critical" || len(r.Annotations["summary"]) < 20 || len(r.Annotations["description"]) < 20 {
				t.Errorf("%s: a rule has a name of its own, a severity, what is wrong and what to do: %+v", r.Alert, r)
			}
			names[r.Alert] = true
		}
	}
	if n < 10 {
		t.Errorf("%d rules", n)
	}
}
