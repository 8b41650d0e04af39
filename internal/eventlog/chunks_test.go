package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/internal/decode"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

func chunks(t testing.TB, l *eventlog.Log, after schemas.Position, opts eventlog.ChunkOptions) *eventlog.Chunks {
	t.Helper()
	c, err := l.Chunks(testContext(t), after, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func next(t testing.TB, c *eventlog.Chunks) *schemas.Chunk {
	t.Helper()
	chunk, err := c.Next(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return chunk
}

// rows lists the events of a chunk by type, each as its _seq, _row and JSON values.
func rows(t testing.TB, chunk *schemas.Chunk, into map[string][]string) {
	t.Helper()
	for name, rec := range chunk.Records {
		fields := rec.Schema().Fields()
		for r := range int(rec.NumRows()) {
			var sb strings.Builder
			for i, f := range fields {
				fmt.Fprintf(&sb, "%s=%s ", f.Name, rec.Column(i).ValueStr(r))
			}
			into[name] = append(into[name], sb.String())
		}
		rec.Release()
	}
}

// TestChunksEqualIndependentDecoding publishes random messages and cuts, reads them with random
// limits and from random positions, and compares with decoding each message by itself.
func TestChunksEqualIndependentDecoding(t *testing.T) {
	noLeak(t)
	l, _ := open(t)
	ctx := testContext(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	types := map[string]*schemas.Event{
		"a": event("a", field("s", schemas.String)),
		"b": event("b", field("n", schemas.Int64)),
	}
	defs := set(types["a"], types["b"])

	type message struct {
		position schemas.Position
		at       time.Time
		epoch    uint64
		name     string // "": a cut
		payload  string
	}
	log := []message{{}} // by sequence; before the first message nothing
	epoch := uint64(0)
	for range 400 {
		m := message{epoch: epoch}
		switch k := rnd.IntN(20); {
		case k == 0:
			epoch = cut(t, l, defs).Number
		default:
			var lines []string
			for i := range 1 + rnd.IntN(5) {
				lines = append(lines, line(rnd.IntN(1000), [...]string{`,"s":"x` + fmt.Sprint(i) + `"`, `,"n":12`, `,"oops":1`}[rnd.IntN(3)]))
			}
			m.name, m.payload = []string{"a", "b", "unknown"}[rnd.IntN(3)], strings.Join(lines, "\n")
			publish(t, l, m.name, m.payload)
		}
		var err error
		if m.position, m.at, err = l.At(ctx, uint64(len(log))); err != nil {
			t.Fatal(err)
		}
		log = append(log, m)
	}

	for range 12 {
		from := rnd.IntN(len(log) - 1)
		wantRows, wantRejects := make(map[string][]string), []string(nil)
		for _, m := range log[from+1:] {
			if ev := types[m.name]; ev != nil {
				d := decode.New(ev, decode.Limits{})
				for _, r := range d.Append([]byte(m.payload), m.position.Seq, m.at) {
					wantRejects = append(wantRejects, fmt.Sprint(r.Seq, r.Row, r.Type, r.Reason))
				}
				if d.Rows() > 0 {
					rows(t, &schemas.Chunk{Records: map[string]arrow.Record{m.name: d.Record()}}, wantRows)
				}
			} else if m.name != "" {
				wantRejects = append(wantRejects, fmt.Sprint(m.position.Seq, -1, m.name))
			}
		}
		c := chunks(t, l, log[from].position, eventlog.ChunkOptions{MaxRows: 1 + rnd.IntN(50), MaxBytes: 1 + rnd.IntN(5000)})
		gotRows, gotRejects := make(map[string][]string), []string(nil)
		last := from
		for last < len(log)-1 {
			chunk := next(t, c)
			if chunk.After != log[last].position {
				t.Fatalf("chunk after %+v; want %+v", chunk.After, log[last].position)
			}
			last = int(chunk.Last.Seq)
			m := log[last]
			if chunk.Last != m.position || !chunk.LastTime.Equal(m.at) || chunk.Epoch != m.epoch {
				t.Fatalf("chunk ends at %+v %s in epoch %d; want %+v %s in epoch %d", chunk.Last, chunk.LastTime, chunk.Epoch, m.position, m.at, m.epoch)
			}
			if (chunk.Cut != nil) != (m.name == "") {
				t.Fatalf("message %d: chunk's cut is %v; want a cut: %t", last, chunk.Cut, m.name == "")
			}
			if chunk.Caught && last != len(log)-1 || !chunk.Caught && last == len(log)-1 {
				t.Errorf("chunk to %d of %d: caught is %t", last, len(log)-1, chunk.Caught)
			}
			for _, m := range log[chunk.After.Seq+1 : last] {
				if m.name == "" {
					t.Errorf("chunk %d to %d goes on behind the cut at %d", chunk.After.Seq, last, m.position.Seq)
				}
			}
			for _, r := range chunk.Rejects {
				s := fmt.Sprint(r.Seq, r.Row, r.Type)
				if r.Row >= 0 {
					s += " " + r.Reason
				}
				gotRejects = append(gotRejects, s)
			}
			rows(t, chunk, gotRows)
		}
		c.Close()
		for name := range types {
			if got, want := strings.Join(gotRows[name], "\n"), strings.Join(wantRows[name], "\n"); got != want {
				t.Errorf("events of %s: got\n%s\nwant\n%s", name, got, want)
			}
		}
		if got, want := strings.ReplaceAll(strings.Join(gotRejects, "\n"), " ", ""), strings.ReplaceAll(strings.Join(wantRejects, "\n"), " ", ""); got != want {
			t.Errorf("rejects: got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestDefinitionsSwitchAtACut(t *testing.T) {
	l, _ := open(t)
	ctx := testContext(t)
	publish(t, l, "a", line(1, `,"n":1`)) // before cut 1: with its definitions
	first := cut(t, l, set(event("a", field("n", schemas.Int64)), event("old")))
	publish(t, l, "a", line(2, `,"n":2`), line(3, `,"m":"x"`))
	if _, err := l.PublishCut(ctx, first, set(event("a", field("m", schemas.String))), set(event("a", field("n", schemas.Int64)), event("old"))); err != nil {
		t.Fatal(err)
	}
	publish(t, l, "a", line(4, `,"n":4`), line(5, `,"m":"y"`))
	publish(t, l, "old", line(6, ""))
	cut(t, l, set(event("a", field("m", schemas.String))))
	publish(t, l, "old", line(7, ""))
	last, _, err := l.At(ctx, 8)
	if err != nil {
		t.Fatal(err)
	}

	ids := func(after schemas.Position) (fits, rejects string) {
		c := chunks(t, l, after, eventlog.ChunkOptions{})
		defer c.Close()
		for {
			chunk := next(t, c)
			for _, name := range []string{"a", "old"} {
				if rec := chunk.Records[name]; rec != nil {
					for i := range int(rec.NumRows()) {
						fits += fmt.Sprintf(" %d/%d", chunk.Epoch, rec.Column(0).(*array.Int64).Value(i))
					}
					rec.Release()
				}
			}
			for _, r := range chunk.Rejects {
				rejects += fmt.Sprintf(" %d/%d.%d", chunk.Epoch, r.Seq, r.Row)
			}
			if chunk.Last == last {
				return fits, rejects
			}
		}
	}
	fits, rejects := ids(schemas.Position{})
	if want := " 0/1 1/2 2/5 2/6"; fits != want {
		t.Errorf("got events%s; want%s", fits, want)
	}
	if want := " 1/3.1 2/5.0 3/8.-1"; rejects != want {
		t.Errorf("got rejects%s; want%s", rejects, want)
	}
	at, _, err := l.At(ctx, 4) // cut 2 itself
	if err != nil {
		t.Fatal(err)
	}
	if fits, rejects := ids(at); fits != " 2/5 2/6" || rejects != " 2/5.0 3/8.-1" {
		t.Errorf("from cut 2: got%s and rejects%s", fits, rejects)
	}
}

func TestChunksOfSomeTypes(t *testing.T) {
	l, _ := open(t)
	cut(t, l, set(event("a"), event("b")))
	publish(t, l, "a", line(1, ""))
	publish(t, l, "b", line(1, ""), "oops")
	last := publish(t, l, "unknown", line(1, ""))
	c := chunks(t, l, schemas.Position{}, eventlog.ChunkOptions{Types: []string{"a"}})
	events := make(map[string][]string)
	for {
		chunk := next(t, c)
		rows(t, chunk, events)
		if len(chunk.Rejects) > 0 {
			t.Errorf("got rejects %v; want none of types that are not read", chunk.Rejects)
		}
		if chunk.Last.Seq == last {
			break
		}
	}
	if len(events) != 1 || len(events["a"]) != 1 {
		t.Errorf("got %v; want one event of type a", events)
	}
}

func TestChunksNeedsACut(t *testing.T) {
	l, _ := open(t)
	publish(t, l, "a", line(1, ""))
	if _, err := l.Chunks(testContext(t), schemas.Position{}, eventlog.ChunkOptions{}); !errors.Is(err, eventlog.ErrNoCut) {
		t.Errorf("got %v; want ErrNoCut", err)
	}
}

func TestNextWaitsForAMessageOrItsContext(t *testing.T) {
	noLeak(t)
	l, _ := open(t)
	first := cut(t, l, set(event("a")))
	c := chunks(t, l, first.Position, eventlog.ChunkOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v; want the context's error", err)
	}
	seq := publish(t, l, "a", line(1, ""))
	if chunk := next(t, c); chunk.Last.Seq != seq || !chunk.Caught {
		t.Errorf("got %+v; want message %d", chunk, seq)
	}
	c.Close()
	if _, err := c.Next(t.Context()); err == nil {
		t.Error("Next after Close: got no error")
	}
}
