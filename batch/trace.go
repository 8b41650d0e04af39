package batch

import (
	"go.opentelemetry.io/otel/trace"

	"watershed/internal/traces"
)

// trace ends the span of the run, with what has come of it. Its steps have spans below it.
func (r *run) trace(span trace.Span, err error) {
	if span.IsRecording() {
		span.SetAttributes(traces.Build.Int64(int64(r.report.Build)), traces.Cut.Int64(int64(r.report.Cut)), traces.Position.Int64(int64(r.report.Position)),
			traces.Slices.Int(r.report.Slices.Computed), traces.Events.Int64(int64(r.report.Events)), traces.Drifted.Int64(int64(r.report.Drifted())))
	}
	traces.End(span, err)
}
