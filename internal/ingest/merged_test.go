package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/internal/ingest"
	"watershed/schemas"
	"watershed/serving/store"
	"watershed/speed"
)

type speedLog struct{ *eventlog.Log }

func (l speedLog) Chunks(ctx context.Context, after schemas.Position) (speed.Source, error) {
	return l.Log.Chunks(ctx, after, eventlog.ChunkOptions{})
}

// A tally is what the merged view shows, or should.
type tally struct{ events, ids int64 }

// shown is a merged view that a worker keeps fresh.
func (w *world) shown(t *testing.T) func() (tally, error) {
	t.Helper()
	c := devtest.SharedClickHouse(t)
	user, password := c.Admin()
	db, err := store.Open(w.ctx, store.Config{Addr: c.Addr(), Database: "watershed_ingest", User: user, Password: password, NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(w.ctx)
	worker := speed.New(speedLog{w.log}, db, speed.Config{FlushEvery: 10 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return func() (got tally, err error) {
		rows, err := db.Query(w.ctx, store.Query{SQL: "SELECT toString(sum(events)) || ' ' || toString(sum(ids)) FROM watershed_ingest.sites"})
		if err != nil {
			return got, err
		}
		if rows.Next() {
			_, err = fmt.Sscan(strings.Trim(string(rows.AppendJSON(nil, 0)), `"`), &got.events, &got.ids)
		}
		return got, errors.Join(err, rows.Err(), rows.Close())
	}
}

// sent is an event whose content follows from its id.
func sent(id int) string {
	return fmt.Sprintf(`{"id":%d,"time":"2024-05-%02dT10:00:00Z","site":"s%d"}`, id, 1+id%28, id%7)
}

// body is a request of these events in a random shape.
func body(t *rapid.T, ids []int) ingest.Request {
	var events, envelopes []string
	for _, id := range ids {
		events = append(events, sent(id))
		envelopes = append(envelopes, fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/t","type":"hit","data":%s}`, id, sent(id)))
	}
	var headers []string
	text := strings.Join(events, "\n")
	shapes := []string{"ndjson", "none", "array", "batch", "arrow"}
	if len(ids) == 1 {
		shapes = append(shapes, "json", "structured", "binary")
	}
	switch rapid.SampledFrom(shapes).Draw(t, "shape") {
	case "ndjson":
		headers = []string{ndjson}
	case "array":
		headers, text = []string{"Content-Type: application/json"}, "["+strings.Join(events, ", ")+"]"
	case "batch":
		headers, text = []string{"Content-Type: application/cloudevents-batch+json"}, "["+strings.Join(envelopes, ",\n")+"]"
	case "arrow":
		headers, text = []string{arrow}, arrowStream(t, hit(), text, 100)
	case "json":
		headers = []string{"Content-Type: application/json"}
	case "structured":
		headers, text = []string{"Content-Type: application/cloudevents+json"}, envelopes[0]
	case "binary":
		headers = []string{"Content-Type: application/json", "ce-specversion: 1.0", "ce-id: 1", "ce-source: /t", "ce-type: hit"}
	}
	switch rapid.SampledFrom([]string{"", "gzip", "zstd"}).Draw(t, "encoding") {
	case "gzip":
		headers, text = append(headers, "Content-Encoding: gzip"), gzipped(t, strings.NewReader(text))
	case "zstd":
		headers, text = append(headers, "Content-Encoding: zstd"), zstandard(t, strings.NewReader(text))
	}
	if rapid.Bool().Draw(t, "keyed") {
		headers = append(headers, fmt.Sprint("Idempotency-Key: ", ids))
	}
	return request(text, headers...)
}

// TestMergedViewShowsEachEventOnce sends random batches at once, in all shapes and some of them again: the merged
// view counts every event that was acknowledged, once.
func TestMergedViewShowsEachEventOnce(t *testing.T) {
	definitions := hits()
	is := func(name, text string) schemas.Definition {
		return schemas.Definition{Name: name, Expression: schemas.Expression{Text: text}}
	}
	definitions.Views = []*schemas.View{{Name: "sites", From: "hit", Dimensions: []schemas.Definition{is("site", "site")},
		Measures: []schemas.Definition{is("events", "count()"), is("ids", "sum(id)")}}}
	devtest.SharedClickHouse(t)
	w := newWorld(t, definitions, ingest.Config{}, 256<<20)
	shown := w.shown(t)
	known := make(map[int]bool)
	var want tally
	rapid.Check(t, func(t *rapid.T) {
		batches := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 20_000), 1, 300), 1, 6).Draw(t, "batches")
		var requests []ingest.Request
		for _, ids := range batches {
			for range rapid.IntRange(1, 2).Draw(t, "times") {
				requests = append(requests, body(t, ids))
			}
			for _, id := range ids {
				if !known[id] {
					known[id] = true
					want.events, want.ids = want.events+1, want.ids+int64(id)
				}
			}
		}
		var wait sync.WaitGroup
		failed := make([]error, len(requests))
		for i, r := range requests {
			wait.Go(func() { _, failed[i] = w.Accept(w.ctx, r) })
		}
		wait.Wait()
		if err := errors.Join(failed...); err != nil {
			t.Fatal(err)
		}
		late := time.After(2 * time.Minute)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for got, err := shown(); got != want; got, err = shown() {
			select {
			case <-tick.C:
			case <-late:
				t.Fatalf("the view shows %+v, %v; want %+v", got, err, want)
			}
		}
	})
}
