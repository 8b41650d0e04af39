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

// collectors are the metrics of the loops of this process.
func (l *loops) collectors() []prometheus.Collector {
	counter := func(name, help string, value func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	worker := func(name, help string, value func(speed.Stats) uint64) prometheus.Collector {
		return counter("watershed_speed_"+name, help, func() uint64 { return value(l.worker.Stats()) })
	}
	return []prometheus.Collector{
		worker("events_total", "Events folded, or found to be duplicates.", func(s speed.Stats) uint64 { return s.Events }),
		worker("duplicates_total", "Events dropped as duplicates.", func(s speed.Stats) uint64 { return s.Duplicates }),
		worker("rejects_total", "Events skipped, since they do not fit their schema.", func(s speed.Stats) uint64 { return s.Rejects }),
		worker("states_total", "Rows inserted.", func(s speed.Stats) uint64 { return s.States }),
		worker("flushes_total", "Flushes.", func(s speed.Stats) uint64 { return s.Flushes }),
		worker("refused_total", "Times that ClickHouse refused a view's states.", func(s speed.Stats) uint64 { return s.Refused }),
		worker("restarts_total", "Times that the worker started over after an error.", func(s speed.Stats) uint64 { return s.Restarts }),
		counter("watershed_archiver_restarts_total", "Times that the archiver started over after an error.", l.archiverRestarts.Load),
		counter("watershed_batch_failures_total", "Batches of this process that failed.", l.batchFailures.Load),
	}
}
