// Package traces is how OpenTelemetry traces pass through Watershed: from a request to the message in the log that it
// becomes, to the flush that shows it, to the query that reads it.
//
// Nothing here knows an exporter (package export does), and there is no provider that all share: who begins a trace has
// a Tracer in its Config, and what happens inside asks the span in its context. So without an exporter there is no span,
// and all of this costs a look into a context.
//
// What a trace may say: names of views, types, plans and steps, positions, counts and codes. Never a value of an event,
// the text of a query, of an error or of a header, nor a hash of them, which who knows the rest could search through:
// traces go to other readers than the data does. For a query there is its id, under which ClickHouse's
// system.query_log, where there is one, has its text for those who may read that; errors are in our own log.
package traces

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Scope is the instrumentation scope of all spans.
const Scope = "watershed"

// Header names the header, of a request or of a message in the log, that has the span it comes from, as W3C's Trace
// Context writes it.
const Header = "traceparent"

// MaxLinks is how many links a span of ours has at most: what comes together in a message or in a flush beyond that is not
// in its trace.
const MaxLinks = 32

// Attributes. Those that OpenTelemetry's conventions name are named so.
const (
	View       = attribute.Key("watershed.view")
	Plan       = attribute.Key("watershed.plan")           // its hash
	Type       = attribute.Key("watershed.event_type")     //
	Events     = attribute.Key("watershed.events")         // how many
	Rows       = attribute.Key("watershed.rows")           // of states, or of an answer
	First      = attribute.Key("watershed.first_position") // sequence of the first message
	Position   = attribute.Key("watershed.position")       // sequence of the message, or of the last one
	Epoch      = attribute.Key("watershed.epoch")          //
	Cut        = attribute.Key("watershed.cut")            //
	Build      = attribute.Key("watershed.build")          //
	Slices     = attribute.Key("watershed.slices")         // computed
	Drifted    = attribute.Key("watershed.drifted")        // groups
	QueryID    = attribute.Key("watershed.query_id")       // ClickHouse's
	MinReached = attribute.Key("watershed.min_position")   // that a query waited for

	Method    = attribute.Key("http.request.method")
	Route     = attribute.Key("http.route")
	Status    = attribute.Key("http.response.status_code")
	ErrorType = attribute.Key("error.type")
	Messaging = attribute.Key("messaging.system")
	Operation = attribute.Key("messaging.operation.type")
	Database  = attribute.Key("db.system.name")
)

// Recording reports whether ctx has a span that is recorded, to which a child may be added.
func Recording(ctx context.Context) bool { return trace.SpanFromContext(ctx).IsRecording() }

// Child begins a span below the one in ctx; without one, or if it is not recorded, a span that does nothing. End it.
func Child(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, noop.Span{}
	}
	return parent.TracerProvider().Tracer(Scope).Start(ctx, name, opts...)
}

// Root begins a span that may be the first of its trace. Without a tracer it does nothing.
func Root(ctx context.Context, by trace.Tracer, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if by == nil {
		return ctx, noop.Span{}
	}
	return by.Start(ctx, name, opts...)
}

// End ends a span. Of an error it says the kind alone: its text may hold data.
func End(span trace.Span, err error, opts ...trace.SpanEndOption) {
	if err != nil && span.IsRecording() {
		span.SetStatus(codes.Error, "")
		span.SetAttributes(ErrorType.String(kindOf(err)))
	}
	span.End(opts...)
}

// kindOf is the kind of an error: by ClickHouse's number if it is one of its own, or else by its innermost type.
func kindOf(err error) string {
	var numbered interface{ Code() int }
	switch {
	case errors.As(err, &numbered) && numbered.Code() != 0:
		return "clickhouse." + strconv.Itoa(numbered.Code())
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return reflect.TypeOf(err).String()
		}
		err = inner
	}
}

// Of is the header's value for what is sent on behalf of the span in ctx. It is empty if that is not sampled: then there
// is nothing to go on with.
func Of(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[Header]
}

// IsSampled reports, at once and without looking at the rest, whether a header's value is of a sampled span.
func IsSampled(traceparent string) bool {
	const flags = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	return len(traceparent) >= flags && strings.IndexByte("13579bdf", traceparent[flags-1]) >= 0
}

// Parent reads a header's value; ok is false if it is none, or of a span that is not sampled.
func Parent(traceparent string) (parent trace.SpanContext, ok bool) {
	if !IsSampled(traceparent) {
		return parent, false
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{Header: traceparent})
	parent = trace.SpanContextFromContext(ctx)
	return parent, parent.IsSampled()
}

// Sampled is the span in ctx if it is sampled, as one that others go on from; the zero one if not.
func Sampled(ctx context.Context) trace.SpanContext {
	if s := trace.SpanContextFromContext(ctx); s.IsSampled() {
		return s
	}
	return trace.SpanContext{}
}

// LinkTo adds a link to the span in ctx.
func LinkTo(ctx context.Context, to trace.SpanContext) {
	trace.SpanFromContext(ctx).AddLink(trace.Link{SpanContext: to})
}
