package ingest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/internal/ingest"
	"watershed/schemas"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// patience bounds each test, on a machine on which many run at once.
const patience = 2 * time.Minute

// A world is a log that has the definition of one type, and what takes events in for it.
type world struct {
	*ingest.Ingest
	log *eventlog.Log
	ctx context.Context
}

func hit() *schemas.Event {
	return &schemas.Event{Name: "hit", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: schemas.Type{Kind: schemas.Int64}},
		{Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
		{Name: "site", Type: schemas.Type{Kind: schemas.String}, Optional: true},
	}}
}

func hits() schemas.Set { return schemas.Set{Events: []*schemas.Event{hit()}} }

// newWorld has a log of its own. It fails the test if a goroutine outlives it.
func newWorld(t testing.TB, definitions schemas.Set, cfg ingest.Config, logBytes int64) *world {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	url := devtest.NATS(t).URL()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	log, err := eventlog.Open(ctx, eventlog.Config{URL: url, MaxBytes: logBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	if _, err := log.PublishCut(ctx, schemas.Cut{}, definitions, schemas.Set{}); err != nil {
		t.Fatal(err)
	}
	cfg.Log = log
	in, err := ingest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	return &world{in, log, ctx}
}

func open(t testing.TB, cfg ingest.Config) *world {
	t.Helper()
	return newWorld(t, hits(), cfg, 256<<20)
}

// line is an event.
func line(id int) string {
	return fmt.Sprintf(`{"id":%d,"time":%d,"site":"s%d"}`, id, time.Now().UnixMicro(), id%7)
}

// lines are the events from first to the one before last, one per line.
func lines(first, last int) string {
	var b strings.Builder
	for id := first; id < last; id++ {
		b.WriteString(line(id) + "\n")
	}
	return b.String()
}

// request is a body with headers, "Name: value" each.
func request(body string, headers ...string) ingest.Request {
	h := http.Header{}
	for _, text := range headers {
		name, value, _ := strings.Cut(text, ": ")
		h.Set(name, value)
	}
	return ingest.Request{Type: "hit", Header: h.Get, Body: strings.NewReader(body), Length: -1}
}

// accept takes a body in, which must succeed.
func (w *world) accept(t testing.TB, r ingest.Request) ingest.Result {
	t.Helper()
	got, err := w.Accept(w.ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// logged is how often each id is in the log, and where it is first.
func (w *world) logged(t testing.TB) (times map[int64]int, at map[int64]uint64) {
	t.Helper()
	info, err := w.log.Info(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := w.log.Chunks(w.ctx, schemas.Position{}, eventlog.ChunkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer chunks.Close()
	times, at = make(map[int64]int), make(map[int64]uint64)
	for last := uint64(0); last < info.Last; {
		c, err := chunks.Next(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		last = c.Last.Seq
		for _, r := range c.Rejects {
			t.Errorf("the log has what does not fit: %s", r.Reason)
		}
		for rec := range maps.Values(c.Records) {
			ids := rec.Column(0).(*array.Int64)
			seqs := rec.Column(int(rec.NumCols()) - 2).(*array.Int64)
			for i := range ids.Len() {
				id := ids.Value(i)
				if times[id]++; times[id] == 1 {
					at[id] = uint64(seqs.Value(i))
				}
			}
			rec.Release()
		}
	}
	return times, at
}

// holds fails the test unless the log has the ids from first to the one before last, each once, and no others.
func (w *world) holds(t testing.TB, first, last int) {
	t.Helper()
	times, _ := w.logged(t)
	for id := first; id < last; id++ {
		if n := times[int64(id)]; n != 1 {
			t.Errorf("event %d is %d times in the log; want once", id, n)
		}
		delete(times, int64(id))
	}
	if len(times) > 0 {
		t.Errorf("the log has others: %v", times)
	}
}

// failsAs fails the test unless the error is an E.
func failsAs[E error](t testing.TB, err error) E {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Errorf("got %v; want a %T", err, e)
	}
	return e
}

// A fataler is a test, of rapid's too.
type fataler interface {
	Helper()
	Fatal(...any)
}

func gzipped(t fataler, r io.Reader) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.Copy(z, r); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zstandard(t fataler, r io.Reader, opts ...zstd.EOption) string {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(z, r); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
