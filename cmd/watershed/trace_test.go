package main

import (
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A traceCollector takes spans over OTLP/HTTP.
type traceCollector struct {
	url string

	mu       sync.Mutex // guards what follows
	spans    []*tracepb.Span
	services map[string]bool // by service.name and watershed.role
}

func startCollector(t *testing.T) *traceCollector {
	c := &traceCollector{services: make(map[string]bool)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Error(err)
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := proto.Marshal(&collector.ExportTraceServiceResponse{})
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(answer) // it has gone away: the test sees that
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *traceCollector) take(r *http.Request) error {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = z
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if r.URL.Path != "/v1/traces" || r.Header.Get("Api-Key") != "k" {
		return fmt.Errorf("%s with key %q", r.URL.Path, r.Header.Get("Api-Key"))
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(b, &request); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range request.ResourceSpans {
		about := attributesOf(of.Resource.Attributes)
		c.services[about["service.name"]+"/"+about["watershed.role"]] = true
		for _, scope := range of.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	return nil
}

// all returns the spans of a trace, by name; of all traces if it is empty.
func (c *traceCollector) all(trace string) map[string][]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string][]*tracepb.Span)
	for _, s := range c.spans {
		if trace == "" || hex.EncodeToString(s.TraceId) == trace {
			out[s.Name] = append(out[s.Name], s)
		}
	}
	return out
}

func attributesOf(all []*common.KeyValue) map[string]string {
	out := make(map[string]string)
	for _, a := range all {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			out[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			out[a.Key] = fmt.Sprint(v.IntValue)
		default:
			out[a.Key] = fmt.Sprint(v)
		}
	}
	return out
}

// TestTraces follows an event from the request that publishes it to the query that waits for it, and a batch, in what a
// collector is sent. All of that is sent when the processes leave: the exporter is told not to send before.
func TestTraces(t *testing.T) {
	const trace, client, secret = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "hunter2"
	c := startCollector(t)
	dir, definitions := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(definitions, "departure.yaml"), []byte(departures), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"XDG_DATA_HOME=" + dataHome(t), "OTEL_EXPORTER_OTLP_ENDPOINT=" + c.url, "OTEL_EXPORTER_OTLP_HEADERS=api-key=k",
		"OTEL_SERVICE_NAME=flights", "OTEL_BSP_SCHEDULE_DELAY=3600000"}
	p := startProcess(t, env, "up", "--dir", dir, "--definitions", definitions, "--listen", "127.0.0.1:0", "--nightly", "off", "--ingest=true")
	ask := func(method, path, media, body, traceparent string) (string, error) {
		r, ok, err := findRunning(dir)
		if err != nil || !ok {
			return "", fmt.Errorf("it does not run (%w)", err)
		}
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.Endpoint+path, strings.NewReader(body))
		if err != nil {
			return "", err
		}
		request.Header.Set("Content-Type", media)
		if traceparent != "" {
			request.Header.Set("traceparent", traceparent)
		}
		resp, err := http.DefaultClient.Do(request)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode >= 300 {
			err = fmt.Errorf("%s: %s", resp.Status, answer)
		}
		return string(answer), err
	}
	deadline, tick := time.NewTimer(patience), time.NewTicker(50*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for answered := false; !answered; { // until the view can be asked: of that there shall be no trace
		select {
		case <-deadline.C:
			t.Fatalf("it does not answer:\n%s", p.text(t))
		case left := <-p.left:
			t.Fatalf("up left with %v:\n%s", left, p.text(t))
		case <-tick.C:
			_, err := ask("GET", "/v1/views/days", "", "", "00-"+trace+"-"+client+"-00")
			answered = err == nil
		}
	}
	sampled := "00-" + trace + "-" + client + "-01"
	answer, err := ask("POST", "/v1/events/departure", "application/x-ndjson", flightLines(1, 3), sampled)
	if err != nil {
		t.Fatal(err)
	}
	var taken struct{ Position uint64 }
	if err := json.Unmarshal([]byte(answer), &taken); err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprint(taken.Position)
	if _, err := ask("GET", "/v1/views/days?min_position="+at, "", "", sampled); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("POST", "/v1/sql", "text/plain", "SELECT throwIf(1, '"+secret+"')", sampled); err == nil {
		t.Error("a query that throws was answered")
	}
	if _, stderr, code := command(t, env, "batch", "--dir", dir); code != exitOK {
		t.Fatalf("batch: %d\n%s", code, stderr)
	}
	p.terminate(t, "up")

	spans := c.all(trace)
	one := func(name string) *tracepb.Span {
		t.Helper()
		if len(spans[name]) != 1 {
			t.Fatalf("%d spans %q in the trace; want one:\n%s", len(spans[name]), name, tree(c.all("")))
		}
		return spans[name][0]
	}
	under := func(name string, parent []byte) *tracepb.Span {
		t.Helper()
		s := one(name)
		if string(s.ParentSpanId) != string(parent) {
			t.Errorf("span %q lies below %x; want %x:\n%s", name, s.ParentSpanId, parent, tree(spans))
		}
		return s
	}
	outside, err := hex.DecodeString(client)
	if err != nil {
		t.Fatal(err)
	}
	post := under("POST /v1/events/{type}", outside)
	publish := under("publish departure", post.SpanId)
	process := under("process departure", publish.SpanId)
	under("fold", process.SpanId)
	flush := under("flush", process.SpanId)
	insert := under("insert days", flush.SpanId)
	get := under("GET /v1/views/{view}", outside)
	for _, s := range []*tracepb.Span{post, publish, process, flush, insert} {
		if got := attributesOf(s.Attributes)["watershed.position"]; got != at {
			t.Errorf("span %q has position %s; want %s", s.Name, got, at)
		}
	}
	if a := attributesOf(insert.Attributes); a["watershed.view"] != "days" || a["watershed.rows"] != "1" || a["watershed.epoch"] != "1" || len(a["watershed.plan"]) != 64 {
		t.Errorf("the insert's attributes are %v", a)
	}
	linked := false
	for _, q := range spans["query"] {
		if string(q.ParentSpanId) != string(get.SpanId) {
			continue
		}
		linked = slices.ContainsFunc(q.Links, func(l *tracepb.Span_Link) bool { return string(l.SpanId) == string(publish.SpanId) })
		if a := attributesOf(q.Attributes); a["watershed.min_position"] != at || a["watershed.query_id"] == "" || a["watershed.rows"] != "1" {
			t.Errorf("the query's attributes are %v", a)
		}
	}
	if !linked {
		t.Errorf("the query does not refer to the message that it waited for:\n%s", tree(spans))
	}
	if s := one("POST /v1/sql"); s.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET || attributesOf(s.Attributes)["http.response.status_code"] != "400" {
		t.Errorf("the query that throws: %v", s)
	}

	everything := c.all("")
	for _, step := range []string{"lease", "cut", "snapshots", "slices", "audit", "flip", "garbage"} {
		s, root := everything["batch "+step], everything["batch"]
		if len(s) != 1 || len(root) != 1 || string(s[0].ParentSpanId) != string(root[0].SpanId) {
			t.Errorf("step %s is not below the batch:\n%s", step, tree(everything))
		}
	}
	if !c.services["flights/up"] || !c.services["flights/batch"] {
		t.Errorf("the services are %v", c.services)
	}
	documented := documentedSpans(string(readRepository(t, "docs/RUNBOOK.md")))
	for name, of := range everything {
		kind := strings.NewReplacer("departure", "TYPE", "insert days", "insert VIEW").Replace(name)
		for _, s := range of {
			for key, value := range attributesOf(s.Attributes) {
				if !slices.Contains(documented[kind], key) {
					t.Errorf("the runbook does not say that span %q has %s", kind, key)
				}
				if strings.Contains(value, secret) {
					t.Errorf("span %q tells %q in %s", name, value, key)
				}
			}
			if s.Status.GetMessage() != "" || len(s.Events) > 0 {
				t.Errorf("span %q tells %v %v", name, s.Status, s.Events)
			}
		}
		if _, ok := documented[kind]; !ok {
			t.Errorf("the runbook does not name span %q", kind)
		}
	}
}

// TestLeaveWithoutCollector: a role that was told to stop does not wait for a collector that does not answer.
func TestLeaveWithoutCollector(t *testing.T) {
	end := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end }))
	t.Cleanup(server.Close)
	defer close(end)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	for _, left := range []time.Duration{-time.Second, 100 * time.Millisecond} {
		a := &app{log: slog.New(slog.NewTextHandler(t.Output(), nil)), getenv: os.Getenv, leaveBy: time.Now().Add(left)}
		a.startTraces(t.Context(), "test")
		_, span := a.tracer().Start(t.Context(), "x")
		span.End()
		began := time.Now()
		a.endTraces()
		if took := time.Since(began); took >= traceWithin {
			t.Errorf("left after %s, when %s were left", took, left)
		}
	}
}

// documentedSpans are the attributes of each span in the runbook's table.
func documentedSpans(runbook string) map[string][]string {
	out := make(map[string][]string)
	quoted := regexp.MustCompile("`([^`]+)`")
	_, section, _ := strings.Cut(runbook, "\n## Traces\n")
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "## ") {
			break
		}
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		for _, name := range quoted.FindAllStringSubmatch(cells[1], -1) {
			for _, key := range quoted.FindAllStringSubmatch(cells[4], -1) {
				out[name[1]] = append(out[name[1]], key[1])
			}
		}
	}
	return out
}

func tree(spans map[string][]*tracepb.Span) string {
	var out strings.Builder
	for name, of := range spans {
		for _, s := range of {
			fmt.Fprintf(&out, "%x %x below %16x: %s %v\n", s.TraceId, s.SpanId, s.ParentSpanId, name, attributesOf(s.Attributes))
		}
	}
	return out.String()
}
