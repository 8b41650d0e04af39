package api_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"watershed/serving/api"
)

// scrape reads GET /metrics as Prometheus does: name, labels in braces, value.
func scrape(t *testing.T, w *world) map[string]float64 {
	t.Helper()
	got := w.get(t, "/metrics")
	if got.status != http.StatusOK {
		t.Fatalf("metrics: %+v", got)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(got.body))
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for name, family := range families {
		for _, m := range family.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += "{" + l.GetName() + "=" + strconv.Quote(l.GetValue()) + "}"
			}
			out[name+labels] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// TestMetricsSayWhatTheStatusSays holds the metrics against the status that was read beside them.
func TestMetricsSayWhatTheStatusSays(t *testing.T) {
	w := newWorld(t)
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "watershed_test_total", Help: "Of the test."})
	counter.Add(3)
	w.collectors = []prometheus.Collector{counter}
	w.serve(t, api.Config{})
	w.publish(t, 50)
	var s api.Status
	if err := json.Unmarshal([]byte(w.get(t, "/v1/status").body), &s); err != nil {
		t.Fatal(err)
	}
	m := scrape(t, w)
	f := func(name string, want float64) {
		t.Helper()
		if got, ok := m[name]; !ok || got != want {
			t.Errorf("%s is %v, %t; want %v", name, got, ok, want)
		}
	}
	f("watershed_log_bytes", float64(s.Log.Bytes))
	f("watershed_log_max_bytes", 64<<20)
	f("watershed_log_last_position", float64(s.Log.Last))
	f(`watershed_view_lag_messages{view="departures"}`, float64(*s.Plans[0].Lag))
	f(`watershed_view_covered{view="departures"}`, 1)
	f(`watershed_view_covered{view="uncovered"}`, 0)
	f(`watershed_view_stranded{view="departures"}`, 0)
	f("watershed_live_build", float64(s.Live.Build))
	f("watershed_status_errors", 0)
	f("watershed_test_total", 3)
	if lag := m[`watershed_view_lag_seconds{view="departures"}`]; lag <= 0 || lag < *s.Plans[0].LagSeconds {
		t.Errorf("lag is %v s, and was %v before", lag, *s.Plans[0].LagSeconds)
	}
	// What is not known is absent, never zero.
	w.log.Close()
	m = scrape(t, w)
	f("watershed_status_errors", 1)
	for _, name := range []string{"watershed_log_bytes", `watershed_view_lag_seconds{view="departures"}`} {
		if got, ok := m[name]; ok {
			t.Errorf("without log, %s is %v; want it absent", name, got)
		}
	}
}
