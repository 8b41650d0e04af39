package traces_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"watershed/internal/traces"
)

const (
	sampled   = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

func TestParent(t *testing.T) {
	got, ok := traces.Parent(sampled)
	if !ok || got.TraceID().String() != sampled[3:35] || got.SpanID().String() != sampled[36:52] || !got.IsRemote() {
		t.Errorf("%s is read as %v, %v", sampled, got, ok)
	}
	if again := traces.Of(trace.ContextWithSpanContext(t.Context(), got)); again != sampled {
		t.Errorf("%s comes out as %q", sampled, again)
	}
	for _, bad := range []string{"", "00", unsampled, sampled[:54], "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", "ff" + sampled[2:], "00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01", sampled + "-x"} {
		if got, ok := traces.Parent(bad); ok {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

func TestNothingWithoutASpan(t *testing.T) {
	remote, _ := traces.Parent(sampled)
	for _, ctx := range []context.Context{t.Context(), trace.ContextWithRemoteSpanContext(t.Context(), remote)} {
		in, span := traces.Child(ctx, "x")
		if in != ctx || span.IsRecording() || traces.Recording(ctx) {
			t.Errorf("%v makes a span", ctx)
		}
		traces.End(span, errors.New("x"))
	}
	if in, span := traces.Root(t.Context(), nil, "x"); in != t.Context() || span.IsRecording() {
		t.Error("no tracer makes a span")
	}
	if of := traces.Of(t.Context()); of != "" {
		t.Errorf("no span has the header %q", of)
	}
}

func FuzzParent(f *testing.F) {
	f.Add(sampled)
	f.Add(unsampled)
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := traces.Parent(header)
		if ok && (!got.IsValid() || !got.IsSampled()) {
			t.Errorf("%q is read as %v", header, got)
		}
		if again := traces.Of(trace.ContextWithSpanContext(t.Context(), got)); ok && again[:52] != fmt.Sprintf("00-%s-%s", got.TraceID(), got.SpanID()) {
			t.Errorf("%q comes out as %q", header, again)
		}
	})
}

// BenchmarkUntraced is all that a message, a request or a flush pays when there is no exporter.
func BenchmarkUntraced(b *testing.B) {
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if traces.Recording(ctx) || traces.Of(ctx) != "" || traces.Sampled(ctx).IsValid() {
			b.Fatal("there is a span")
		}
		_, span := traces.Child(ctx, "x")
		traces.End(span, nil)
	}
}
