package export_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"watershed/internal/traces/export"
)

func TestWanted(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	check := func(want, fails bool, env ...string) {
		t.Helper()
		got, err := export.Wanted(func(name string) string {
			for _, e := range env {
				if v, ok := strings.CutPrefix(e, name+"="); ok {
					return v
				}
			}
			return ""
		})
		if got != want || (err != nil) != fails {
			t.Errorf("%q: %v, %v; want %v, and an error: %v", env, got, err, want, fails)
		}
	}
	check(false, false)
	check(false, false, "OTEL_SERVICE_NAME=a", "OTEL_TRACES_EXPORTER=otlp")
	check(false, false, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://c:4318")
	check(true, false, endpoint+"=http://c:4318")
	check(true, false, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:4318/v1/traces")
	check(true, false, endpoint+"=http://c:4318", "OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")
	check(false, false, endpoint+"=http://c:4318", "OTEL_TRACES_EXPORTER=none")
	check(false, false, endpoint+"=http://c:4318", "OTEL_SDK_DISABLED=TRUE")
	check(false, true, endpoint+"=http://c:4318", "OTEL_TRACES_EXPORTER=zipkin")
	check(false, true, endpoint+"=http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc")
	check(true, false, endpoint+"=http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf")
}

// collectorThat starts a collector, and has the exporter's libraries find it.
func collectorThat(t *testing.T, answer http.HandlerFunc) {
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
}

// A safeLog is read while it is written.
type safeLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *safeLog) warnings() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), "level=WARN")
}

// TestHangingCollector: a collector that does not answer costs neither those who make spans nor those who leave more than
// they allow.
func TestHangingCollector(t *testing.T) {
	asked, end := make(chan struct{}, 1), make(chan struct{})
	collectorThat(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	defer close(end)
	var log safeLog
	e, err := export.Start(t.Context(), "test", "v", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 50_000 { // many times what the queue holds
		_, span := e.Tracer().Start(t.Context(), "x")
		span.End()
	}
	if took := time.Since(began); took > 10*time.Second { // that of one export that is waited for
		t.Errorf("making spans took %s", took)
	}
	<-asked
	const allowed = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), allowed)
	defer cancel()
	began = time.Now()
	e.Close(ctx)
	if took := time.Since(began); took > allowed+2*time.Second {
		t.Errorf("leaving took %s; %s were allowed", took, allowed)
	}
	if n := log.warnings(); n != 1 {
		t.Errorf("it was said %d times; want once", n)
	}
}

// TestRefusingCollector: that a collector refuses everything is said once.
func TestRefusingCollector(t *testing.T) {
	refused := make(chan struct{}, 100)
	collectorThat(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusForbidden)
		refused <- struct{}{}
	})
	var log safeLog
	e, err := export.Start(t.Context(), "test", "v", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, span := e.Tracer().Start(t.Context(), "x")
		span.End()
		<-refused
	}
	e.Close(t.Context())
	if n := log.warnings(); n != 1 {
		t.Errorf("it was said %d times; want once", n)
	}
}
