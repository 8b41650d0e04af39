package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/internal/ingest"
	"watershed/schemas"
	"watershed/serving/api"
)

const (
	lines       = "application/x-ndjson"
	arrowStream = "application/vnd.apache.arrow.stream"
)

// gates is an event type of its own, which the world's views are not of.
func gates() schemas.Set {
	return schemas.Set{Events: []*schemas.Event{{Name: "gate", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: kind(schemas.String)}, {Name: "time", Type: kind(schemas.Timestamp)},
	}}}}
}

func gate(id int) string {
	return fmt.Sprintf(`{"id":"g%d","time":"%s"}`, id, time.Now().UTC().Format(time.RFC3339Nano))
}

// receiver is a world without views, whose endpoint takes events in for a log of that size.
func receiver(t testing.TB, cfg api.Config, in ingest.Config, logBytes int64) *world {
	t.Helper()
	log, err := eventlog.Open(t.Context(), eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: logBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	if _, err := log.PublishCut(t.Context(), schemas.Cut{}, gates(), schemas.Set{}); err != nil {
		t.Fatal(err)
	}
	w := &world{catalog: &catalog{}, log: logOf{log}}
	in.Log = log
	return w.take(t, cfg, in)
}

// take serves the world again, with events taken in.
func (w *world) take(t testing.TB, cfg api.Config, in ingest.Config) *world {
	t.Helper()
	taken, err := ingest.New(in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(taken.Close)
	h, err := api.Handler(cfg, api.Deps{Reader: readerOrNone(w), Catalog: w.catalog, Log: w.log, Ingest: taken, Version: "test",
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return w.listen(t, h)
}

// readerOrNone lets an endpoint that is asked no queries do without ClickHouse.
func readerOrNone(w *world) api.Reader {
	if w.reader != nil {
		return w.reader
	}
	return struct{ api.Reader }{}
}

func (w *world) post(t testing.TB, path, contentType, body string, headers ...string) response {
	t.Helper()
	r := w.request(t, http.MethodPost, path, contentType, body)
	for _, text := range headers {
		name, value, _ := strings.Cut(text, ": ")
		r.Header.Set(name, value)
	}
	return w.do(t, r)
}

// An accepted is the body of a 202.
type accepted struct {
	Accepted, Rejected int
	Position           uint64
	Rows               []ingest.Row
}

func acceptedIn(t testing.TB, got response) accepted {
	t.Helper()
	var a accepted
	if err := json.Unmarshal([]byte(got.body), &a); err != nil || got.status != http.StatusAccepted {
		t.Fatalf("got %+v, %v; want 202", got, err)
	}
	if got.header.Get("Watershed-Position") != strconv.FormatUint(a.Position, 10) || a.Position == 0 {
		t.Errorf("header %q and position %d; want them equal", got.header.Get("Watershed-Position"), a.Position)
	}
	return a
}

// gatesAsArrow are events now, as an Arrow stream; one without an id has none.
func gatesAsArrow(t testing.TB, ids ...string) string {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{{Name: "time", Type: arrow.FixedWidthTypes.Timestamp_ms}, {Name: "id", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for _, id := range ids {
		b.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(time.Now().UnixMilli()))
		if id == "" {
			b.Field(1).AppendNull()
		} else {
			b.Field(1).(*array.StringBuilder).Append(id)
		}
	}
	rec := b.NewRecord()
	defer rec.Release()
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(schema))
	if err := errors.Join(w.Write(rec), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPublishOverHTTP(t *testing.T) {
	w := receiver(t, api.Config{}, ingest.Config{}, 64<<20)
	if a := acceptedIn(t, w.post(t, "/v1/events/gate", lines, gate(1)+"\n"+gate(2))); a.Accepted != 2 || a.Rejected != 0 || a.Rows != nil {
		t.Errorf("got %+v", a)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte("[" + gate(3) + "]")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	first := acceptedIn(t, w.post(t, "/v1/events/gate", "application/json", packed.String(), "Content-Encoding: gzip", "Idempotency-Key: k"))
	if again := acceptedIn(t, w.post(t, "/v1/events/gate", "application/json", packed.String(), "Content-Encoding: gzip", "Idempotency-Key: k")); again.Position != first.Position {
		t.Errorf("sent again: got %+v; want %+v", again, first)
	}
	info, err := w.log.Info(t.Context())
	if err != nil || info.Last != first.Position {
		t.Errorf("the log ends at %d, %v; want %d", info.Last, err, first.Position)
	}
	if p := problemIn(t, w.post(t, "/v1/events/gate", arrowStream, gatesAsArrow(t, "g6", ""))); p.Code != api.EventsRefused || len(p.Rows) != 1 || p.Rows[0] != (ingest.Row{Row: 1, Field: "id", Reason: "null, but not optional"}) {
		t.Errorf("got %+v; want row 1 refused", p)
	}
	if a := acceptedIn(t, w.post(t, "/v1/events/gate?partial=true", arrowStream, gatesAsArrow(t, "g7", ""))); a.Accepted != 1 || a.Rejected != 1 {
		t.Errorf("got %+v; want one accepted", a)
	}
	mixed := gate(4) + "\n{}\n" + gate(5)
	if p := problemIn(t, w.post(t, "/v1/events/gate", lines, mixed)); p.Code != api.EventsRefused || p.Rejected != 1 || len(p.Rows) != 1 || p.Rows[0] != (ingest.Row{Row: 1, Field: "id", Reason: "missing"}) {
		t.Errorf("got %+v; want row 1 refused", p)
	}
	if a := acceptedIn(t, w.post(t, "/v1/events/gate?partial=true", lines, mixed)); a.Accepted != 2 || a.Rejected != 1 || len(a.Rows) != 1 {
		t.Errorf("got %+v; want two accepted", a)
	}
	f := func(code api.Code, got response) api.Problem {
		t.Helper()
		p := problemIn(t, got)
		if p.Code != code || p.Status != got.status {
			t.Errorf("got %+v; want %s", p, code)
		}
		return p
	}
	if p := f(api.TypeNotFound, w.post(t, "/v1/events/door", lines, gate(6))); !strings.Contains(p.Detail, "there are gate") {
		t.Errorf("got %+v; want the types that there are", p)
	}
	f(api.UnsupportedMediaType, w.post(t, "/v1/events/gate", "text/csv", gate(6)))
	f(api.UnsupportedMediaType, w.post(t, "/v1/events/gate", lines, gate(6), "Content-Encoding: br"))
	f(api.BadRequest, w.post(t, "/v1/events/gate", lines, gate(6), "Content-Encoding: zstd"))
	f(api.BadRequest, w.post(t, "/v1/events/gate", lines, " \n"))
	f(api.BadRequest, w.post(t, "/v1/events/gate", arrowStream, gate(6)))
	f(api.BodyTooLarge, w.post(t, "/v1/events/gate", lines, strings.Repeat(" ", 8<<20+1)))
	f(api.BadParameter, w.post(t, "/v1/events/gate?partial=yes", lines, gate(6)))
	f(api.BadParameter, w.post(t, "/v1/events/gate?Partial=true", lines, gate(6)))
	f(api.MethodNotAllowed, w.get(t, "/v1/events/gate"))
	f(api.Forbidden, w.post(t, "/v1/events/gate", lines, gate(6), "Sec-Fetch-Site: cross-site"))
	metrics := w.get(t, "/metrics").body
	for _, want := range []string{`watershed_ingest_events_total{type="gate"} 7`, `watershed_ingest_rejected_total{type="gate"} 4`,
		`watershed_ingest_requests_total{status="202"} 5`, `watershed_ingest_requests_total{status="404"} 1`, "watershed_ingest_bytes_total ", "watershed_ingest_request_seconds_bucket"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody struct {
				Content map[string]struct{ Example any }
			}
			Responses map[string]any
		}
	}
	if err := json.Unmarshal([]byte(w.get(t, "/openapi.json").body), &doc); err != nil {
		t.Fatal(err)
	}
	op := doc.Paths["/v1/events/{type}"]["post"]
	if op.Responses["202"] == nil || op.RequestBody.Content[lines].Example == nil {
		t.Errorf("the interface's description has %+v", op)
	}
}

func TestRightToPublish(t *testing.T) {
	const reads, writes, both = "a-token-of-some-length", "another-token-of-some-length", "one-more-token-of-some-length"
	f := func(cfg api.Config, token string, read, write int) {
		t.Helper()
		w := receiver(t, cfg, ingest.Config{}, 1<<20)
		ask := func(want int, r *http.Request) {
			t.Helper()
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			if got := w.do(t, r); got.status != want {
				t.Errorf("%s %s with %q: got %+v; want %d", r.Method, r.URL.Path, token, got, want)
			}
		}
		ask(read, w.request(t, http.MethodGet, "/openapi.json", "", ""))
		ask(write, w.request(t, http.MethodPost, "/v1/events/gate", lines, gate(1)))
	}
	f(api.Config{}, "", 200, 202)
	f(api.Config{Tokens: []string{reads}}, reads, 200, 403)
	f(api.Config{Tokens: []string{reads}}, "", 401, 403)
	separate := api.Config{Tokens: []string{reads, both}, IngestTokens: []string{writes, both}}
	f(separate, "", 401, 401)
	f(separate, reads, 200, 403)
	f(separate, writes, 403, 202)
	f(separate, both, 200, 202)
	f(separate, both+"x", 401, 401)
	f(api.Config{IngestTokens: []string{writes}}, "", 200, 401)
	if err := (api.Config{Addr: "0.0.0.0:1", IngestTokens: []string{writes}}).Validate(); err == nil {
		t.Error("it would be read by everybody")
	}
	if err := (api.Config{IngestTokens: []string{"short"}}).Validate(); err == nil {
		t.Error("a short token is taken")
	}
}

// TestLogThatTakesNothing: what the log refuses is not acknowledged, and the client learns when to come again.
func TestLogThatTakesNothing(t *testing.T) {
	w := receiver(t, api.Config{}, ingest.Config{}, 64<<10)
	acknowledged := 0
	var got response
	for got = w.post(t, "/v1/events/gate", lines, gate(0)); got.status == http.StatusAccepted; got = w.post(t, "/v1/events/gate", lines, gate(acknowledged)) {
		acknowledged++
	}
	if p := problemIn(t, got); p.Code != api.LogFull || got.header.Get("Retry-After") != "60" {
		t.Errorf("got %+v; want log-full, and to come again in a minute", got)
	}
	info, err := w.log.Info(t.Context())
	if err != nil || int(info.Messages) != acknowledged+1 || acknowledged == 0 {
		t.Errorf("%d messages, %v; want a cut and %d events", info.Messages, err, acknowledged)
	}
	w.log.Close()
	got = w.post(t, "/v1/events/gate", lines, gate(0))
	if p := problemIn(t, got); p.Code != api.Unavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("got %+v; want unavailable, and when to come again", got)
	}
}

// TestPublishingEndsInOrder stops the endpoint while clients publish: every request is answered, and what was
// acknowledged is in the log.
func TestPublishingEndsInOrder(t *testing.T) {
	w := receiver(t, api.Config{}, ingest.Config{}, 64<<20)
	in, err := ingest.New(ingest.Config{Log: w.log.Log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	addr, done := make(chan string, 1), make(chan error, 1)
	go func() {
		err := api.Serve(ctx, api.Config{Addr: "127.0.0.1:0"}, api.Deps{Reader: readerOrNone(w), Catalog: w.catalog, Log: w.log, Ingest: in, Listening: func(a string) { addr <- a }})
		in.Close()
		done <- err
	}()
	url := "http://" + <-addr + "/v1/events/gate"
	var wait sync.WaitGroup
	var mu sync.Mutex // guards what follows
	acknowledged := uint64(0)
	for c := range 8 {
		wait.Go(func() {
			for i := 0; ; i++ {
				resp, err := http.Post(url, lines, strings.NewReader(gate(c*1_000_000+i)))
				if err != nil {
					return // refused before it was taken
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					t.Errorf("status %d", resp.StatusCode)
				}
				mu.Lock()
				if acknowledged++; acknowledged == 200 {
					stop()
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	chunks, err := w.log.Chunks(t.Context(), schemas.Position{}, eventlog.ChunkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer chunks.Close()
	info, err := w.log.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events := uint64(0)
	for last := uint64(0); last < info.Last; {
		c, err := chunks.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last = c.Last.Seq
		for _, rec := range c.Records {
			events += uint64(rec.NumRows())
			rec.Release()
		}
	}
	if events != acknowledged {
		t.Errorf("%d events in the log; %d were acknowledged", events, acknowledged)
	}
}
