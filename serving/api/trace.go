package api

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"watershed/internal/traces"
)

// traceWithin is how long a traced query may look for the trace of the message that it waits for.
const traceWithin = 100 * time.Millisecond

// traced gives requests spans, which go on from the client's own. It stands behind the check of tokens, so that nobody has
// traces made who may not ask; and leaves out what is asked again and again by machines, and tails, which have no end.
//
// Neither paths, which may name what is not there, nor query strings, headers or addresses are in a span.
func (a *api) traced(next http.Handler) http.Handler {
	if a.deps.Tracer == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if !strings.HasPrefix(path, "/v1/") || path == "/v1/status" || strings.HasSuffix(path, "/tail") {
			next.ServeHTTP(w, r)
			return
		}
		from := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := a.deps.Tracer.Start(from, "HTTP", trace.WithSpanKind(trace.SpanKindServer))
		if !span.IsRecording() {
			next.ServeHTTP(w, r)
			return
		}
		rec := &recorder{ResponseWriter: w}
		r = r.WithContext(ctx)
		complete := false
		defer func() { // also when an answer is broken off
			if route := r.Pattern; route != "" { // set by the mux: a method and a path, or all that no route takes
				_, path, ok := strings.Cut(route, " ")
				if !ok {
					path = route
				}
				span.SetName(route)
				span.SetAttributes(traces.Route.String(path))
			}
			if known(r.Method) {
				span.SetAttributes(traces.Method.String(r.Method))
			}
			span.SetAttributes(traces.Status.Int(rec.status))
			if rec.status >= http.StatusInternalServerError || !complete {
				span.SetStatus(codes.Error, "")
			}
			span.End()
		}()
		next.ServeHTTP(rec, r)
		complete = true
	})
}

// known reports whether a method is one that a route may have. Others are whatever the client wrote.
func known(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodPost || method == http.MethodPut
}

// queryTrace begins the span of a query: from where it waits for its position, if it has one, to its last row. It refers to the
// message at that position, and so to the trace that the message came with.
func (a *api) queryTrace(ctx context.Context, t token) (context.Context, trace.Span) {
	ctx, span := traces.Child(ctx, "query", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(traces.Database.String("clickhouse")))
	if t.min == 0 || !span.IsRecording() {
		return ctx, span
	}
	span.SetAttributes(traces.MinReached.Int64(int64(t.min)))
	if a.deps.TraceOf != nil {
		look, cancel := context.WithTimeout(ctx, traceWithin)
		defer cancel()
		if of, ok := traces.Parent(a.deps.TraceOf(look, t.min)); ok {
			span.AddLink(trace.Link{SpanContext: of})
		}
	}
	return ctx, span
}

// queryID is the id for a query whose span is recorded, which names it: by that its text is found in ClickHouse's
// system.query_log, by those who may read it. Others have one that ClickHouse draws.
func queryID(ctx context.Context) string {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return ""
	}
	id := "watershed-" + rand.Text()
	span.SetAttributes(traces.QueryID.String(id))
	return id
}
