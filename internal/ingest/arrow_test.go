package ingest_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"

	arrows "github.com/apache/arrow/go/v15/arrow"

	"watershed/internal/bounded"
	"watershed/internal/decode"
	"watershed/internal/ingest"
	"watershed/schemas"
)

const arrow = "Content-Type: application/vnd.apache.arrow.stream"

// arrowStream is events, one per line, as Arrow's library writes them, in batches of so many.
func arrowStream(t fataler, ev *schemas.Event, lines string, rows int) string {
	t.Helper()
	d := decode.New(ev, decode.Limits{Past: 200 * 365 * 24 * time.Hour, Future: 200 * 365 * 24 * time.Hour, Bytes: 1 << 30})
	if bad := d.Append([]byte(lines), 0, time.Now()); len(lines) > 0 && len(bad) > 0 {
		t.Fatal(bad[0].Reason)
	}
	rec := d.Record()
	defer rec.Release()
	var fields []arrows.Field
	var columns []arrows.Array
	for i := range ev.Fields {
		fields, columns = append(fields, rec.Schema().Field(i)), append(columns, rec.Column(i))
	}
	schema := arrows.NewSchema(fields, nil)
	events := array.NewRecord(schema, columns, rec.NumRows())
	defer events.Release()
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(schema))
	for at := int64(0); at < rec.NumRows(); at += int64(rows) {
		part := events.NewSlice(at, min(at+int64(rows), rec.NumRows()))
		if err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		part.Release()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// late is an event whose time is too far in the future.
func late(id int) string {
	return fmt.Sprintf(`{"id":%d,"time":%d,"site":"s"}`, id, time.Now().AddDate(50, 0, 0).UnixMicro())
}

func TestArrow(t *testing.T) {
	w := open(t, ingest.Config{MaxWire: 1 << 20, MaxBody: 2 << 20})
	next := 0
	f := func(events, rows int, pack func(string) string, headers ...string) ingest.Result {
		t.Helper()
		got := w.accept(t, request(pack(arrowStream(t, hit(), lines(next, next+events), rows)), append(headers, arrow)...))
		if got.Accepted != events || got.Rejected > 0 {
			t.Errorf("got %+v; want %d events", got, events)
		}
		next += events
		return got
	}
	plain := func(s string) string { return s }
	f(1, 1, plain)
	f(10, 3, plain)
	f(5000, 5000, plain) // more than are read at once
	f(20_000, 1500, plain)
	f(500, 500, func(s string) string { return gzipped(t, strings.NewReader(s)) }, "Content-Encoding: gzip")
	f(500, 500, func(s string) string { return zstandard(t, strings.NewReader(s)) }, "Content-Encoding: zstd")
	w.holds(t, 0, next)

	// Under a key it is in the log once, also if it comes as JSON the second time: its events are the same.
	text := lines(next, next+100)
	first := w.accept(t, request(arrowStream(t, hit(), text, 9), arrow, "Idempotency-Key: k"))
	again := w.accept(t, request(arrowStream(t, hit(), text, 100), arrow, "Idempotency-Key: k"))
	as := w.accept(t, request(text, "Idempotency-Key: k"))
	if again.Position != first.Position || as.Position != first.Position {
		t.Errorf("positions %d, %d and %d; want one", first.Position, again.Position, as.Position)
	}
	next += 100
	w.holds(t, 0, next)

	// Rows that do not fit are named by their numbers in the stream.
	mixed := lines(next, next+1500) + late(-1) + "\n" + lines(next+1500, next+2000) + late(-2) + "\n" +
		strings.Replace(line(-3), `"site":"`, `"site":"`+strings.Repeat("x", 1<<20), 1) + "\n" + line(next+2000)
	stream := arrowStream(t, hit(), mixed, 1700)
	_, err := w.Accept(w.ctx, request(gzipped(t, strings.NewReader(stream)), arrow, "Content-Encoding: gzip"))
	numbers := func(r ingest.Result) (out []int) {
		for _, row := range r.Rows {
			out = append(out, row.Row)
		}
		return out
	}
	want := []int{1500, 2001, 2002}
	if refused := failsAs[*ingest.RefusedError](t, err); refused != nil && (!slices.Equal(numbers(refused.Result), want) || refused.Result.Rows[0].Field != "time") {
		t.Errorf("got %+v; want rows %v", refused.Result, want)
	}
	w.holds(t, 0, next)
	r := request(gzipped(t, strings.NewReader(stream)), arrow, "Content-Encoding: gzip")
	r.Partial = true
	if got := w.accept(t, r); got.Accepted != 2001 || got.Rejected != 3 || !slices.Equal(numbers(got), want) {
		t.Errorf("got %+v; want 2001 events and rows %v refused", got, want)
	}
	next += 2001
	w.holds(t, 0, next)

	// What is no stream of the type is refused whole, also behind batches that fit; and so is what is none, or too large.
	for _, body := range []string{"", "x", line(next), stream[:len(stream)/2], arrowStream(t, hit(), "", 1),
		arrowStream(t, hits().Events[0], lines(next, next+10), 1)[:1000] + strings.Repeat("x", 1000)} {
		r := request(body, arrow)
		r.Partial = true
		_, err := w.Accept(w.ctx, r)
		failsAs[*ingest.BodyError](t, err)
	}
	other := hit()
	other.Fields = append(other.Fields, schemas.Field{Name: "other", Type: schemas.Type{Kind: schemas.Int64}, Optional: true})
	_, err = w.Accept(w.ctx, request(arrowStream(t, other, line(next), 1), arrow))
	if bad := failsAs[*ingest.BodyError](t, err); bad != nil && !strings.Contains(bad.Error(), `"other": not declared`) {
		t.Errorf("got %v; want the column named", bad)
	}
	_, err = w.Accept(w.ctx, request(strings.Repeat("x", 1<<20+1), arrow))
	failsAs[*ingest.TooLargeError](t, err)
	w.holds(t, 0, next)
}

// TestSmallStreamsOfMuch sends Arrow streams that stand for far more than they take.
func TestSmallStreamsOfMuch(t *testing.T) {
	w := open(t, ingest.Config{})
	w.accept(t, request(line(0)))
	// A dictionary has one text, and many rows have it.
	const most = 16 << 20
	much := func(event string) string {
		event = strings.Replace(event, `"site":"`, `"site":"`+strings.Repeat("x", 10<<10), 1) + "\n"
		return arrowStream(t, hit(), strings.Repeat(event, 2*most/len(event)), most)
	}
	stream := much(line(1))
	if len(stream) > most/100 {
		t.Fatalf("the stream takes %d bytes", len(stream))
	}
	for _, body := range []string{stream, much(late(1))} {
		bounded.Run(t, func() {
			_, err := w.Accept(w.ctx, request(body, arrow))
			if large := failsAs[*ingest.TooLargeError](t, err); large != nil && !large.Unpacked {
				t.Errorf("got %v", large)
			}
		})
	}
	bounded.Run(t, func() {
		_, err := w.Accept(w.ctx, request(gzipped(t, strings.NewReader(strings.Repeat(stream, most/len(stream)+1))), arrow, "Content-Encoding: gzip"))
		failsAs[*ingest.TooLargeError](t, err)
	})
	// Rows that do not fit cost an explanation each, and only the first are kept.
	const rows = 200_000
	bad := arrowStream(t, hit(), strings.Repeat(late(1)+"\n", rows), rows)
	bounded.Run(t, func() {
		r := request(bad, arrow)
		r.Partial = true
		_, err := w.Accept(w.ctx, r)
		if refused := failsAs[*ingest.RefusedError](t, err); refused != nil && (refused.Result.Rejected != rows || len(refused.Result.Rows) != 100) {
			t.Errorf("got %d rows refused and %d named; want %d and 100", refused.Result.Rejected, len(refused.Result.Rows), rows)
		}
	})
	w.holds(t, 0, 1)
}

// TestDamagedStreams sends streams with random damage. Whatever is left of them: an answer comes, at a small price, and
// the log has what it says.
func TestDamagedStreams(t *testing.T) {
	w := open(t, ingest.Config{})
	rnd := rand.New(rand.NewPCG(1, 2))
	stream := arrowStream(t, hit(), lines(0, 50), 20)
	accepted := 0
	for i := range 2000 {
		damaged := []byte(stream)
		for range 1 + i%4 {
			damaged[rnd.IntN(len(damaged))] = byte(rnd.Uint32())
		}
		if i%5 == 0 {
			damaged = damaged[:rnd.IntN(len(damaged))]
		}
		r := request(string(damaged), arrow)
		r.Partial = i%2 == 0
		bounded.Run(t, func() {
			if got, err := w.Accept(w.ctx, r); err == nil {
				accepted += got.Accepted
			}
		})
	}
	logged := 0
	times, _ := w.logged(t)
	for _, n := range times {
		logged += n
	}
	if logged != accepted || accepted == 0 {
		t.Errorf("%d events in the log; %d were acknowledged", logged, accepted)
	}
}
