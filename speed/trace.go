package speed

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"watershed/internal/traces"
	"watershed/schemas"
)

// Traced is how many messages with a trace a chunk of a Source best names: of more, a flush could not tell.
const Traced = traces.MaxLinks

// A message that came with a sampled trace has a span in it, "process", from when it is read until views show it: the
// first Traced of a flush have. Fold and flush are once for all; their spans lie in the trace of the first such
// message, below its span, and refer to those of the others. So where no message has a trace there is no span, and nothing
// that is done for an event knows of this.

// foldTraced folds a chunk, in a span if it has messages with a trace.
func (l *lane) foldTraced(ctx context.Context, c *schemas.Chunk) error {
	if len(c.Traced) == 0 || l.s.w.cfg.Tracer == nil {
		return l.fold(c)
	}
	span := l.traceChunk(ctx, c)
	err := l.fold(c)
	traces.End(span, err)
	return err
}

// traceChunk begins the spans of a chunk's messages, for those of the lane's plans that lack them, and that of its folding.
func (l *lane) traceChunk(ctx context.Context, c *schemas.Chunk) trace.Span {
	begun := len(l.traced)
	for _, m := range c.Traced {
		if len(l.traced) == Traced {
			break
		}
		parent, ok := traces.Parent(m.Traceparent)
		if !ok || !l.lacks(m) {
			continue
		}
		attributes := trace.WithAttributes(traces.Type.String(m.Type), traces.Position.Int64(int64(m.Seq)),
			traces.Messaging.String("nats"), traces.Operation.String("process"))
		_, span := l.s.w.cfg.Tracer.Start(trace.ContextWithRemoteSpanContext(ctx, parent), "process "+m.Type,
			trace.WithSpanKind(trace.SpanKindConsumer), attributes)
		if !span.IsRecording() {
			continue
		}
		if l.alone != nil {
			span.SetAttributes(traces.View.String(l.alone.Name()))
		}
		l.traced = append(l.traced, span)
	}
	events := int64(0)
	for _, rec := range c.Records {
		events += rec.NumRows()
	}
	_, span := below(ctx, l.traced[begun:], "fold", traces.Epoch.Int64(int64(c.Epoch)), traces.First.Int64(int64(c.After.Seq+1)),
		traces.Position.Int64(int64(c.Last.Seq)), traces.Events.Int64(events))
	return span
}

// lacks reports whether a plan of the lane does not have a message yet. What is read again for its duplicates alone is in all.
func (l *lane) lacks(m schemas.Traced) bool {
	for _, p := range l.plans {
		if p.plan.Event.Name == m.Type && p.mark.Position.Seq < m.Seq {
			return true
		}
	}
	return false
}

// trace begins the span of a flush.
func (f *flush) trace(ctx context.Context) (context.Context, trace.Span) {
	if len(f.traced) == 0 {
		return ctx, noop.Span{}
	}
	rows := int64(0)
	for _, part := range f.parts {
		rows += part.rows
	}
	return below(ctx, f.traced, "flush", traces.Epoch.Int64(int64(f.mark.Epoch)), traces.First.Int64(int64(f.first)),
		traces.Position.Int64(int64(f.mark.Position.Seq)), traces.Rows.Int64(rows))
}

// untrace ends the span of a flush, when all is known about it, and those of its messages.
func (f *flush) untrace(span trace.Span) {
	if len(f.traced) == 0 {
		return
	}
	err := f.err
	for _, part := range f.parts {
		err = errors.Join(err, part.refused)
	}
	for i, of := range f.traced {
		if i > 0 {
			of.AddLink(trace.Link{SpanContext: span.SpanContext()})
		}
		traces.End(of, err, trace.WithTimestamp(f.inAt))
	}
	traces.End(span, err, trace.WithTimestamp(f.inAt))
}

// untrace ends the spans of messages that the lane has read and not flushed: they are read again.
func (l *lane) untrace() {
	for _, span := range l.traced {
		traces.End(span, errUnflushed)
	}
	l.traced = nil
}

var errUnflushed = errors.New("the lane ended before the flush")

// insertTrace begins the span of the insert of a plan's states.
func (f *flush) insertTrace(ctx context.Context, part *flushPart) (context.Context, trace.Span) {
	if len(f.traced) == 0 {
		return ctx, noop.Span{}
	}
	p := part.plan.plan
	return traces.Child(ctx, "insert "+p.Name(), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		traces.Database.String("clickhouse"), traces.View.String(p.Name()), traces.Plan.String(p.Hash), traces.Rows.Int64(part.rows),
		traces.Epoch.Int64(int64(f.mark.Epoch)), traces.Position.Int64(int64(f.mark.Position.Seq))))
}

// below begins a span below the first of some, which refers to the others; without any it does nothing.
func below(ctx context.Context, of []trace.Span, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	if len(of) == 0 {
		return ctx, noop.Span{}
	}
	links := make([]trace.Link, len(of)-1)
	for i := range links {
		links[i].SpanContext = of[i+1].SpanContext()
	}
	return traces.Child(trace.ContextWithSpan(ctx, of[0]), name, trace.WithLinks(links...), trace.WithAttributes(attributes...))
}
