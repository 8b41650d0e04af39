package ingest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"watershed/internal/eventlog"
	"watershed/internal/ingest"
	"watershed/schemas"
)

// TestCloudEvents takes CloudEvents in all three modes, which the log has as plain events.
func TestCloudEvents(t *testing.T) {
	w := open(t, ingest.Config{})
	next := 0
	// envelope is a CloudEvent whose data has no time.
	envelope := func() string {
		next++
		return fmt.Sprintf(`{"specversion":"1.0","id":"x%d","source":"/t","type":"hit","time":"2024-01-01T00:00:0%d.5Z","data":{"id":%d,"site":"a\n\"\\ä"}}`, next, next%10, next-1)
	}
	f := func(events int, r ingest.Request) {
		t.Helper()
		if got := w.accept(t, r); got.Accepted != events || got.Rejected > 0 {
			t.Errorf("got %+v; want %d events", got, events)
		}
	}
	f(1, request("\n"+envelope()+"\n", "Content-Type: application/cloudevents+json; charset=utf-8"))
	f(2, request("["+envelope()+",\n"+envelope()+"]", "Content-Type: application/cloudevents-batch+json"))
	next++
	f(1, request(fmt.Sprintf("{\n\"id\":%d}", next-1), "Content-Type: application/json", "ce-specversion: 1.0", "ce-id: 1", "ce-source: /t",
		"ce-type: hit", "ce-time: 2024-01-01T00:00:00Z"))
	w.holds(t, 0, next)

	mixed := "[" + envelope() + `,{"specversion":"1.0"},7,` + envelope() + "]"
	r := request(mixed, "Content-Type: application/cloudevents-batch+json")
	_, err := w.Accept(w.ctx, r)
	failsAs[*ingest.RefusedError](t, err)
	r = request(mixed, "Content-Type: application/cloudevents-batch+json")
	r.Partial = true
	got := w.accept(t, r)
	if got.Accepted != 2 || got.Rejected != 2 || got.Rows[0].Row != 1 || got.Rows[1].Row != 2 {
		t.Errorf("got %+v; want rows 1 and 2 refused", got)
	}
	w.holds(t, 0, next)
	_, err = w.Accept(w.ctx, request(line(1), "ce-id: 1"))
	failsAs[*ingest.MediaTypeError](t, err)
}

// TestRewrittenValues: what is written anew has the values that it had, of every type.
func TestRewrittenValues(t *testing.T) {
	w := open(t, ingest.Config{})
	kinds := map[string]schemas.Type{
		"text": {Kind: schemas.String}, "flag": {Kind: schemas.Bool}, "whole": {Kind: schemas.Int64}, "real": {Kind: schemas.Float64},
		"exact": {Kind: schemas.Decimal, Precision: 38, Scale: 4}, "instant": {Kind: schemas.Timestamp}, "day": {Kind: schemas.Date},
	}
	ev := &schemas.Event{Name: "value", ID: "id", Time: "time", Fields: slices.Clone(hit().Fields[:2])}
	for name, typ := range kinds {
		ev.Fields = append(ev.Fields, schemas.Field{Name: name, Type: typ, Optional: true})
	}
	last, _, err := w.log.LastCut(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.log.PublishCut(w.ctx, last, schemas.Set{Events: []*schemas.Event{ev}}, schemas.Set{}); err != nil {
		t.Fatal(err)
	}
	values := map[string][]string{
		"text":    {`""`, `"a\u0000\n\t\"\\\/\ud83d\ude00ä` + "\u2028" + `"`, `null`},
		"flag":    {`true`, `false`, `null`},
		"whole":   {`-9223372036854775808`, `9223372036854775807`, `0`, `null`},
		"real":    {`1e308`, `-5e-324`, `0.1`, `1e21`, `-0`, `123456789.123456789`, `null`},
		"exact":   {`0.0001`, `-9999999999999999999999999999999999.9999`, `"12.5"`, `1e3`, `0`, `null`},
		"instant": {`"1900-01-01T00:00:00Z"`, `"2299-12-31T23:59:59.999999Z"`, `-1`, `"2024-02-29 01:02:03.000004"`, `null`},
		"day":     {`"1900-01-01"`, `"2299-12-31"`, `"2024-02-29"`, `null`},
	}
	id := 0
	var plain, enveloped []string
	for name, all := range values {
		for _, v := range all {
			event := fmt.Sprintf(`{"id":%d,"time":%d,%q:%s}`, id, time.Now().UnixMicro(), name, v)
			plain = append(plain, event)
			enveloped = append(enveloped, fmt.Sprintf(`{"specversion":"1.0","id":"x","source":"y","type":"z","data":%s}`, event))
			id++
		}
	}
	r := request(strings.Join(plain, "\n"))
	r.Type = "value"
	first := w.accept(t, r)
	r = request("["+strings.Join(enveloped, ",")+"]", "Content-Type: application/cloudevents-batch+json")
	r.Type = "value"
	second := w.accept(t, r)
	r = request(arrowStream(t, ev, strings.Join(plain, "\n"), 7), arrow)
	r.Type = "value"
	third := w.accept(t, r)
	if first.Accepted != id || second.Accepted != id || third.Accepted != id {
		t.Errorf("%d, %d and %d events accepted; want %d", first.Accepted, second.Accepted, third.Accepted, id)
	}
	rows := w.recorded(t, "value", last.Position)
	if len(rows) != 3*id {
		t.Fatalf("%d events in the log; want %d", len(rows), 3*id)
	}
	for i := range id {
		if rows[i] != rows[id+i] || rows[i] != rows[2*id+i] {
			t.Errorf("%s\nbecame %s in an envelope and %s by Arrow; want %s", plain[i], rows[id+i], rows[2*id+i], rows[i])
		}
	}
}

// recorded is the events of a type behind a position, as texts of their values.
func (w *world) recorded(t testing.TB, eventType string, after schemas.Position) (out []string) {
	t.Helper()
	info, err := w.log.Info(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := w.log.Chunks(w.ctx, after, eventlog.ChunkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer chunks.Close()
	for last := uint64(0); last < info.Last; {
		c, err := chunks.Next(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		last = c.Last.Seq
		for name, rec := range c.Records {
			for i := range int(rec.NumRows()) {
				var values []any
				for col := range int(rec.NumCols()) - 2 {
					values = append(values, rec.Column(col).ValueStr(i))
				}
				if text, err := json.Marshal(values); err == nil && name == eventType {
					out = append(out, string(text))
				}
			}
			rec.Release()
		}
	}
	return out
}
