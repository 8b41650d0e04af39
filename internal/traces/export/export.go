// Package export sends spans to a collector, over OTLP/HTTP, as OpenTelemetry's environment variables say.
//
// It never holds up or fails what it watches: ended spans wait in a bounded queue, are dropped when that is full, and are
// sent by a goroutine of its own. That a collector does not take them is logged, once a minute.
package export

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"watershed/internal/traces"
)

// sayEvery is how often a failure is logged at most.
const sayEvery = time.Minute

// Wanted reports whether the environment asks for traces: it names an endpoint for them, and does not say none. The error
// says what it asks for that there is not; there are no traces then.
func Wanted(getenv func(string) string) (bool, error) {
	first := func(names ...string) string {
		for _, name := range names {
			if v := strings.TrimSpace(getenv(name)); v != "" {
				return v
			}
		}
		return ""
	}
	if first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
		return false, nil
	}
	if strings.EqualFold(first("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	switch exporter := first("OTEL_TRACES_EXPORTER"); exporter {
	case "none":
		return false, nil
	case "", "otlp":
	default:
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: want otlp or none", exporter)
	}
	if protocol := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol == "grpc" {
		return false, errors.New("OTEL_EXPORTER_OTLP_PROTOCOL=grpc: want http/protobuf, and the collector's port for it (mostly 4318)")
	}
	return true, nil
}

// An Exporter sends spans.
type Exporter struct {
	provider *sdk.TracerProvider
	sender   *sender
}

// Start begins to export. Where to, with which headers, how often, and which traces, the libraries read from the process'
// environment (OTEL_EXPORTER_OTLP_…, OTEL_BSP_…, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, …). Nothing is sent before the first
// span has ended. Close it.
func Start(ctx context.Context, role, version string, logger *slog.Logger) (*Exporter, error) {
	client, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("export traces: %w", err)
	}
	// What the environment says comes last, so that it counts. Nothing here looks at the process' arguments.
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "watershed"), attribute.String("service.version", version),
			attribute.String("watershed.role", role)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) && !errors.Is(err, resource.ErrSchemaURLConflict) {
		return nil, errors.Join(fmt.Errorf("export traces: %w", err), client.Shutdown(ctx))
	}
	s := &sender{SpanExporter: client, log: logger, closed: make(chan struct{})}
	return &Exporter{sender: s, provider: sdk.NewTracerProvider(sdk.WithBatcher(s), sdk.WithResource(about))}, nil
}

// Tracer makes spans.
func (e *Exporter) Tracer() trace.Tracer { return e.provider.Tracer(traces.Scope) }

// Close sends what waits, for as long as ctx lets it; the rest is given up.
func (e *Exporter) Close(ctx context.Context) {
	stop := context.AfterFunc(ctx, e.sender.giveUp)
	defer stop()
	if err := e.provider.Shutdown(ctx); err != nil {
		e.sender.failed(0, err)
	}
	e.sender.giveUp()
}

// A sender is the library's exporter, whose failures are said once in a while.
type sender struct {
	sdk.SpanExporter
	log    *slog.Logger
	once   sync.Once
	closed chan struct{} // nothing is waited for any more

	mu    sync.Mutex // guards what follows
	said  time.Time
	since int // spans given up since then
}

// ExportSpans sends spans, or gives them up.
func (s *sender) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with this call
		select {
		case <-s.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := s.SpanExporter.ExportSpans(ctx, spans); err != nil {
		s.failed(len(spans), err)
	}
	return nil // it has been said
}

func (s *sender) failed(spans int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since += spans
	if !s.said.IsZero() && time.Since(s.said) < sayEvery {
		return
	}
	s.log.Warn("traces: the collector does not take them; spans are given up, and nothing waits for them", "spans", s.since, "error", err)
	s.said, s.since = time.Now(), 0
}

func (s *sender) giveUp() { s.once.Do(func() { close(s.closed) }) }
