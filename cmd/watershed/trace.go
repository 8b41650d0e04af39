package main

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"watershed/internal/traces/export"
)

// traceWithin is how long the end of the program waits for the last spans to be sent.
const traceWithin = 2 * time.Second

// startTraces begins to export spans if OpenTelemetry's variables in the environment say where to. A mistake in them is
// logged, and holds nothing up: they are often set for all that runs on a machine.
func (a *app) startTraces(ctx context.Context, role string) {
	wanted, err := export.Wanted(a.getenv)
	if wanted {
		a.traces, err = export.Start(ctx, role, version, a.log)
	}
	if err != nil {
		a.log.Warn("traces: none are exported", "error", err)
	}
}

// tracer makes spans; nil if they go nowhere.
func (a *app) tracer() trace.Tracer {
	if a.traces == nil {
		return nil
	}
	return a.traces.Tracer()
}

// endTraces sends the spans that wait. A role that was told to stop does not stay longer for them than it may.
func (a *app) endTraces() {
	if a.traces == nil {
		return
	}
	within := traceWithin
	if !a.leaveBy.IsZero() {
		within = min(within, time.Until(a.leaveBy))
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	a.traces.Close(ctx)
}
