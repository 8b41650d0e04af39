package api

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics is the handler of GET /metrics: the status as gauges, read when it is asked for, and what the
// process says of itself.
func (a *api) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newStatusCollector(func() *Status { return ReadStatus(context.Background(), a.deps) }))
	r.MustRegister(a.deps.Collectors...)
	if a.ingested != nil {
		r.MustRegister(a.ingested.collectors()...)
	}
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn)})
}

// A statusCollector shows the status as metrics.
type statusCollector struct {
	read    func() *Status
	metrics map[string]*prometheus.Desc
}

// statusMetrics are the metrics of the status: name, help and label.
func statusMetrics() [][3]string {
	return [][3]string{
		{"watershed_log_bytes", "Size of the log."},
		{"watershed_log_max_bytes", "Size at which the log refuses events."},
		{"watershed_log_messages", "Messages in the log."},
		{"watershed_log_first_position", "Sequence of the first message that the log still has."},
		{"watershed_log_last_position", "Sequence of the log's last message."},
		{"watershed_dead_letters", "Events and messages that did not fit their schema."},
		{"watershed_view_lag_seconds", "Age of the oldest event that a view does not show yet; 0 if there is none.", "view"},
		{"watershed_view_lag_messages", "Messages from a view's position to the log's end; 0 if none are for it.", "view"},
		{"watershed_view_covered", "1 if the live build covers a view: it can be queried.", "view"},
		{"watershed_view_held_over", "1 if the live build holds a view's slices of an older cut.", "view"},
		{"watershed_view_stranded", "1 if the log has lost what a view would read next: it waits for a batch.", "view"},
		{"watershed_archive_lag_seconds", "Age of the oldest event that is not in history; 0 if there is none.", "type"},
		{"watershed_archive_lag_messages", "Messages from a table's position to the log's end; 0 if none are for it.", "type"},
		{"watershed_archive_failing", "1 if the archiver of this process has set a type aside.", "type"},
		{"watershed_archive_events", "Events in history.", "type"},
		{"watershed_live_build", "Number of the build that the views show."},
		{"watershed_live_pinned", "1 if a rollback has pinned the live build."},
		{"watershed_batch_last_success_timestamp_seconds", "When the newest build was made."},
		{"watershed_batch_pending_seconds", "Age of the last cut if it has no build: a batch runs, waits for the archiver, or has failed."},
		{"watershed_batch_drifted_groups", "Groups that drifted in the newest audit."},
		{"watershed_status_errors", "Engines and parts that do not answer."},
	}
}

func newStatusCollector(read func() *Status) *statusCollector {
	c := &statusCollector{read: read, metrics: make(map[string]*prometheus.Desc)}
	for _, m := range statusMetrics() {
		var labels []string
		if m[2] != "" {
			labels = []string{m[2]}
		}
		c.metrics[m[0]] = prometheus.NewDesc(m[0], m[1], labels, nil)
	}
	return c
}

// Describe and Collect make it a prometheus.Collector.
func (c *statusCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.metrics {
		out <- d
	}
}

func (c *statusCollector) Collect(out chan<- prometheus.Metric) {
	s := c.read()
	gauge := func(name string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(c.metrics["watershed_"+name], prometheus.GaugeValue, value, labels...)
	}
	// What is not known is left out: an alert on absence finds it, a zero would hide it.
	if l := s.Log; l != nil {
		gauge("log_bytes", float64(l.Bytes))
		gauge("log_max_bytes", float64(l.MaxBytes))
		gauge("log_messages", float64(l.Messages))
		gauge("log_first_position", float64(l.First))
		gauge("log_last_position", float64(l.Last))
		gauge("dead_letters", float64(l.DeadLetters))
	}
	for _, p := range s.Plans {
		if p.Lag != nil && p.LagSeconds != nil {
			gauge("view_lag_messages", float64(*p.Lag), p.View)
			gauge("view_lag_seconds", *p.LagSeconds, p.View)
		}
		gauge("view_covered", truth(p.Covered), p.View)
		gauge("view_held_over", truth(p.HeldOver), p.View)
		gauge("view_stranded", truth(p.Stranded), p.View)
	}
	for _, t := range s.History {
		if t.Lag != nil && t.LagSeconds != nil {
			gauge("archive_lag_messages", float64(*t.Lag), t.Type)
			gauge("archive_lag_seconds", *t.LagSeconds, t.Type)
		}
		gauge("archive_failing", truth(t.Failing != ""), t.Type)
		gauge("archive_events", float64(t.Events), t.Type)
	}
	if len(s.Builds) > 0 {
		gauge("live_build", float64(s.Live.Build))
		gauge("live_pinned", truth(s.Live.Pinned))
		if s.Batch.Build > 0 { // build 0 is the empty one at the log's beginning
			gauge("batch_last_success_timestamp_seconds", float64(s.Batch.At.UnixMilli())/1000)
		}
		gauge("batch_pending_seconds", s.Batch.PendingSeconds)
		gauge("batch_drifted_groups", float64(s.Batch.Drifted))
	}
	gauge("status_errors", float64(len(s.Errors)))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
