package speed_test

import (
	"context"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"watershed/internal/traces"
	"watershed/schemas"
	"watershed/speed"
)

// publishTraced publishes events, each a message with a trace of its own, which is sampled or not.
func (w *world) publishTraced(from, to int, flags trace.TraceFlags) (parents map[trace.TraceID]trace.SpanID) {
	w.t.Helper()
	parents = make(map[trace.TraceID]trace.SpanID)
	for id := from; id < to; id++ {
		of := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, byte(id >> 8), byte(id)}, SpanID: trace.SpanID{2, byte(id)}, TraceFlags: flags})
		_, _, payload := hit(id)
		_, err := w.log.Publish(trace.ContextWithSpanContext(w.t.Context(), of), "hit", []byte(payload), "")
		w.check(err)
		parents[of.TraceID()] = of.SpanID()
	}
	return parents
}

// TestTracedMessages: messages with a sampled trace have spans in it, a bounded number of each flush, and the flush refers
// to them; others have none, and none has them twice.
func TestTracedMessages(t *testing.T) {
	w := newWorld(t)
	db := w.database("")
	plans := compile(t, w.defs)
	w.cut(w.defs, schemas.Set{})
	const many = 3 * speed.Traced
	w.publishTraced(0, 10, 0)
	parents := w.publishTraced(10, 10+many, trace.FlagsSampled)

	seen := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(seen))
	cfg := speed.Config{FlushEvery: 50 * time.Millisecond, Tracer: provider.Tracer(traces.Scope)}
	r := w.start(db, cfg)
	w.caughtUp(db, plans...)
	r.stop()
	byName := make(map[string][]sdk.ReadOnlySpan)
	ids := make(map[trace.SpanID]sdk.ReadOnlySpan)
	for _, s := range seen.Ended() {
		byName[s.Name()] = append(byName[s.Name()], s)
		ids[s.SpanContext().SpanID()] = s
	}
	processed, flushes := byName["process hit"], byName["flush"]
	if len(processed) == 0 || len(flushes) == 0 || len(processed) > speed.Traced*len(flushes) {
		t.Fatalf("%d messages and %d flushes have spans; want some, and %d of each flush at most", len(processed), len(flushes), speed.Traced)
	}
	twice := make(map[trace.TraceID]bool)
	for _, s := range processed {
		of := s.SpanContext().TraceID()
		if s.Parent().SpanID() != parents[of] || twice[of] {
			t.Errorf("a message of trace %s has a span below %s (again: %v)", of, s.Parent().SpanID(), twice[of])
		}
		twice[of] = true
	}
	linked := 0
	for _, f := range flushes {
		first := ids[f.Parent().SpanID()]
		if first == nil || first.Name() != "process hit" {
			t.Fatalf("a flush lies below %v", f.Parent())
		}
		linked += 1 + len(f.Links())
		for _, l := range f.Links() {
			s := ids[l.SpanContext.SpanID()]
			if s == nil || s.Name() != "process hit" || len(s.Links()) != 1 || s.Links()[0].SpanContext.SpanID() != f.SpanContext().SpanID() {
				t.Errorf("a flush and the span of a message in it do not refer to each other: %v", s)
			}
			if s != nil && !s.EndTime().Equal(f.EndTime()) {
				t.Errorf("a message is shown at %s, and its flush at %s", s.EndTime(), f.EndTime())
			}
		}
	}
	if linked != len(processed) {
		t.Errorf("flushes know %d of %d messages", linked, len(processed))
	}
	if len(byName["insert sites"]) != len(flushes) || len(byName["insert none"]) != 0 {
		t.Errorf("there are %d inserts of %d flushes into a view, and %d into one that takes nothing", len(byName["insert sites"]), len(flushes), len(byName["insert none"]))
	}

	// A restart reads the horizon again, for its duplicates alone.
	before := len(seen.Ended())
	r = w.start(db, cfg)
	w.publishTraced(1000, 1001, 0)
	w.caughtUp(db, plans...)
	r.stop()
	if more := seen.Ended()[before:]; len(more) > 0 {
		t.Errorf("what was shown before has %d spans again, such as %q", len(more), more[0].Name())
	}
	w.check(provider.Shutdown(context.Background()))
}
