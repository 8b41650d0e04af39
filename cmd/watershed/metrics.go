package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"watershed/speed"
)

// stats is what the loops of this process say of themselves in /v1/status.
func (l *loops) stats() map[string]any {
	failing := make(map[string]string)
	for name, err := range l.failing() {
		failing[name] = err.Error()
	}
	batch := map[string]any{"failures": l.batchFailures.Load()}
	if h := l.waits.Load(); h != nil {
		batch["waits_for"] = h.why
	}
	return map[string]any{
		"speed": l.worker.Stats(),
		"archiver": map[string]any{
			"positions": l.archiver.Positions(), "failing": failing, "restarts": l.archiverRestarts.Load(),
		},
		"batch": batch,
	}
}

// flushMetrics are what a worker's flushes add up to.
type flushMetrics struct {
	rows    prometheus.Histogram
	seconds prometheus.Histogram
	fresh   *prometheus.HistogramVec
}

func newFlushMetrics() *flushMetrics {
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	}
	return &flushMetrics{
		rows: prometheus.NewHistogram(histogram("watershed_speed_flush_rows", "Rows of a flush of all views together.",
			prometheus.ExponentialBuckets(1, 10, 7))),
		seconds: prometheus.NewHistogram(histogram("watershed_speed_flush_seconds", "Time that the inserts of a flush took.",
			[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10})),
		fresh: prometheus.NewHistogramVec(histogram("watershed_view_freshness_seconds",
			"Time from the log's timestamp of the first messages of a flush until a view shows them.",
			[]float64{.025, .05, .1, .15, .2, .3, .5, 1, 2.5, 5, 10, 60, 600}), []string{"view"}),
	}
}

// flushed is called for every flush of the worker.
func (m *flushMetrics) flushed(f speed.Flush) {
	if len(f.Views) == 0 {
		return // positions alone
	}
	m.rows.Observe(float64(f.Rows))
	m.seconds.Observe(f.Took.Seconds())
	for _, view := range f.Views {
		m.fresh.WithLabelValues(view).Observe(f.Age.Seconds())
	}
}

// collectors are the metrics of the loops of this process.
func (l *loops) collectors() []prometheus.Collector {
	counter := func(name, help string, value func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	worker := func(name, help string, value func(speed.Stats) uint64) prometheus.Collector {
		return counter("watershed_speed_"+name, help, func() uint64 { return value(l.worker.Stats()) })
	}
	gauge := func(name, help string, value func(speed.Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "watershed_speed_" + name, Help: help}, func() float64 { return value(l.worker.Stats()) })
	}
	return []prometheus.Collector{
		worker("events_total", "Events folded, or found to be duplicates.", func(s speed.Stats) uint64 { return s.Events }),
		worker("duplicates_total", "Events dropped as duplicates.", func(s speed.Stats) uint64 { return s.Duplicates }),
		worker("rejects_total", "Events skipped, since they do not fit their schema.", func(s speed.Stats) uint64 { return s.Rejects }),
		worker("states_total", "Rows inserted.", func(s speed.Stats) uint64 { return s.States }),
		worker("flushes_total", "Flushes, also of positions alone.", func(s speed.Stats) uint64 { return s.Flushes }),
		worker("refused_total", "Times that ClickHouse refused a view's states.", func(s speed.Stats) uint64 { return s.Refused }),
		worker("insert_retries_total", "Inserts of states that failed, and are made again from the stored position.", func(s speed.Stats) uint64 { return s.Retries }),
		worker("restarts_total", "Times that the worker started over after an error.", func(s speed.Stats) uint64 { return s.Restarts }),
		gauge("lag_seconds", "Log time from the position of the view that is furthest behind to the log's end.", func(s speed.Stats) float64 { return s.Lag.Seconds() }),
		gauge("lag_positions", "Sequences of the log that the worker has not read yet.", func(s speed.Stats) float64 { return float64(s.End - min(s.End, s.Read)) }),
		gauge("parts", "Unmerged parts in ClickHouse, in the epoch of a view that has most.", func(s speed.Stats) float64 { return float64(s.Parts) }),
		gauge("flush_interval_seconds", "Time between flushes that those parts have led to.", func(s speed.Stats) float64 { return s.FlushEvery.Seconds() }),
		gauge("term", "Term under which the worker writes.", func(s speed.Stats) float64 { return float64(s.Term) }),
		l.flushes.rows, l.flushes.seconds, l.flushes.fresh,
		counter("watershed_archiver_restarts_total", "Times that the archiver started over after an error.", l.archiverRestarts.Load),
		counter("watershed_batch_failures_total", "Batches of this process that failed.", l.batchFailures.Load),
	}
}
