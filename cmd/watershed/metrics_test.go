package main

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"
)

// documentedMetrics are the names and labels of the runbook's table of metrics.
func documentedMetrics(runbook string) map[string]string {
	out := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(watershed_[a-z_]+)` \\| ([a-z, ]*) *\\| (?:all|worker|endpoint) \\|").FindAllStringSubmatch(runbook, -1) {
		out[m[1]] = strings.TrimSpace(m[2])
	}
	return out
}

// scrapeDocumented holds the metrics of the `up` on a directory against the table in the runbook, both ways. The
// script has done all that metrics count by then: metrics DIR.
func scrapeDocumented(runbook string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		wantArgs(ts, neg, args, 1)
		resp, err := http.Get("http://" + readRunning(ts, args[0]).Endpoint + "/metrics")
		ts.Check(err)
		defer resp.Body.Close()
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(resp.Body)
		ts.Check(err)
		want := documentedMetrics(runbook)
		for name, family := range families {
			if !strings.HasPrefix(name, "watershed_") {
				continue
			}
			var labels []string
			for _, l := range family.GetMetric()[0].GetLabel() {
				labels = append(labels, l.GetName())
			}
			documented, ok := want[name]
			if got := strings.Join(labels, ", "); !ok || got != documented {
				ts.Fatalf("metric %s has labels %q; the runbook: %q, %t", name, got, documented, ok)
			}
			delete(want, name)
		}
		if len(want) > 0 {
			ts.Fatalf("the runbook has metrics that are not there: %v", sortedKeys(want))
		}
	}
}

// TestAlerts: the rules are YAML of the shape that Prometheus reads, and of metrics that there are.
func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         model.Duration    `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	dec := yaml.NewDecoder(strings.NewReader(string(readRepository(t, "docs/alerts.yml"))))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	known := documentedMetrics(string(readRepository(t, "docs/RUNBOOK.md")))
	var seen []string
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			names := metricNames(r.Expr)
			if len(names) == 0 || slices.Contains(seen, r.Alert) || r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
				t.Errorf("rule %q of %q: want a name of its own, a metric, a severity and a summary", r.Alert, r.Expr)
			}
			seen = append(seen, r.Alert)
			for _, name := range names {
				if _, ok := known[name]; !ok {
					t.Errorf("rule %s: there is no metric %s", r.Alert, name)
				}
			}
		}
	}
	if len(seen) == 0 {
		t.Error("there are no rules")
	}
}

// metricNames are the metrics that a text names, histograms by their family.
func metricNames(text string) []string {
	var out []string
	for _, name := range regexp.MustCompile(`watershed_[a-z_]+`).FindAllString(text, -1) {
		out = append(out, strings.TrimSuffix(name, "_bucket"))
	}
	return out
}
