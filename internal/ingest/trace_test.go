package ingest_test

import (
	"fmt"
	"sync"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"watershed/internal/eventlog"
	"watershed/internal/ingest"
	"watershed/internal/traces"
	"watershed/schemas"
)

// TestMessagesCarryTraces: each message has the trace of its first request and refers to the others in it, and its header
// names the span that sent it.
func TestMessagesCarryTraces(t *testing.T) {
	w := open(t, ingest.Config{})
	seen := tracetest.NewSpanRecorder()
	tracer := sdk.NewTracerProvider(sdk.WithSpanProcessor(seen)).Tracer("test")
	const requests = 40
	var wait sync.WaitGroup
	for i := range requests {
		wait.Go(func() {
			ctx, span := tracer.Start(w.ctx, "request")
			defer span.End()
			r := request(line(i) + "\n")
			if i%4 == 0 { // has a message of its own
				r = request(line(i)+"\n", fmt.Sprintf("Idempotency-Key: %d", i))
			}
			if _, err := w.Accept(ctx, r); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	w.accept(t, request(line(requests)+"\n")) // without a trace

	asked := make(map[trace.SpanID]int) // requests, and how many messages they are in
	sent := make(map[trace.SpanID]sdk.ReadOnlySpan)
	for _, s := range seen.Ended() {
		switch s.Name() {
		case "request":
			asked[s.SpanContext().SpanID()] = 0
		case "publish hit":
			sent[s.SpanContext().SpanID()] = s
		}
	}
	for _, s := range sent {
		asked[s.Parent().SpanID()]++
		for _, l := range s.Links() {
			asked[l.SpanContext.SpanID()]++
		}
	}
	if len(asked) != requests {
		t.Errorf("messages refer to %d requests; want %d", len(asked), requests)
	}
	for id, n := range asked {
		if n != 1 {
			t.Errorf("request %s is in %d messages; want one", id, n)
		}
	}
	chunks, err := w.log.Chunks(w.ctx, schemas.Position{}, eventlog.ChunkOptions{Traced: 2 * requests})
	if err != nil {
		t.Fatal(err)
	}
	defer chunks.Close()
	info, err := w.log.Info(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	carried := 0
	for last := uint64(0); last < info.Last; {
		c, err := chunks.Next(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		last = c.Last.Seq
		for _, rec := range c.Records {
			rec.Release()
		}
		for _, m := range c.Traced {
			carried++
			from, ok := traces.Parent(m.Traceparent)
			s := sent[from.SpanID()]
			if !ok || s == nil || m.Type != "hit" || w.log.TraceOf(w.ctx, m.Seq) != m.Traceparent {
				t.Errorf("message %d of type %s has the header %q, which no span that sent one has", m.Seq, m.Type, m.Traceparent)
				continue
			}
			for _, a := range s.Attributes() {
				if a.Key == traces.Position && a.Value.AsInt64() != int64(m.Seq) {
					t.Errorf("the span of message %d says that it is %s", m.Seq, a.Value.Emit())
				}
			}
		}
	}
	if carried != len(sent) || w.log.TraceOf(w.ctx, info.Last) != "" || w.log.TraceOf(w.ctx, info.Last+1) != "" {
		t.Errorf("%d messages have a trace, of %d that were sent in one", carried, len(sent))
	}
}
