package ingest

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"watershed/internal/traces"
)

// send publishes a message, in a span of its own below the one in ctx, which the message carries. Whoever reads the log goes
// on from there.
func (in *Ingest) send(ctx context.Context, eventType string, payload []byte, id string, links ...trace.Link) (seq uint64, err error) {
	if !traces.Recording(ctx) {
		return in.cfg.Log.Publish(ctx, eventType, payload, id)
	}
	ctx, span := traces.Child(ctx, "publish "+eventType, trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(links...),
		trace.WithAttributes(traces.Type.String(eventType), traces.Messaging.String("nats"), traces.Operation.String("send")))
	seq, err = in.cfg.Log.Publish(ctx, eventType, payload, id)
	if err == nil {
		span.SetAttributes(traces.Position.Int64(int64(seq)))
	}
	traces.End(span, err)
	return seq, err
}

// trace notes that a request in the message is recorded. The packer's lock is held.
func (k *pack) trace(ctx context.Context) {
	if len(k.traced) <= traces.MaxLinks && traces.Recording(ctx) {
		k.traced = append(k.traced, trace.SpanFromContext(ctx))
	}
}

// traces are the context that the message is sent in, and what its span links to: it lies in the trace of its first request,
// and refers to the others. They have not ended, since they wait for the message.
func (k *pack) traces() (ctx context.Context, links []trace.Link) {
	ctx = context.Background()
	for i, request := range k.traced {
		if i == 0 {
			ctx = trace.ContextWithSpan(ctx, request)
		} else {
			links = append(links, trace.Link{SpanContext: request.SpanContext()})
		}
	}
	return ctx, links
}
