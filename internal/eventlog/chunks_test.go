package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/decode"
	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
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
	cut(t, l, set(event("a", field("n", schemas.Int64)), event("old")))
	publish(t, l, "a", line(2, `,"n":2`), line(3, `,"m":"x"`))
	if _, err := l.PublishCut(ctx, set(event("a", field("m", schemas.String))), set(event("a", field("n", schemas.Int64)), event("old"))); err != nil {
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

func TestClosedLogEndsItsReaders(t *testing.T) {
	noLeak(t)
	l, url := open(t)
	other := openAt(t, url)
	first := cut(t, l, set(event("a")))
	c := chunks(t, other, first.Position, eventlog.ChunkOptions{})
	publish(t, l, "a", line(1, ""))
	next(t, c)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Next(testContext(t))
		ended <- err
	}()
	other.Close()
	if err := <-ended; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v; want the error of a closed connection", err)
	}
}

// TestForeignCutsStopReaders puts what is not the next cut where cuts are.
func TestForeignCutsStopReaders(t *testing.T) {
	f := func(payload, want string) {
		t.Helper()
		l, url := open(t)
		ctx := testContext(t)
		c := chunks(t, l, cut(t, l, set(event("a"))).Position, eventlog.ChunkOptions{})
		if _, err := admin(t, url).Publish(ctx, "control.cut", []byte(payload)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Next(ctx); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v; want an error with %q", payload, err, want)
		}
		if _, _, err := l.LastCut(ctx); payload == "nonsense" && err == nil {
			t.Errorf("%s: LastCut takes it for a cut", payload)
		}
	}
	f(`{"number":7}`, "cut 7 comes in epoch 1")
	f(`{"number":2,"previous":{"seq":1,"hash":5}}`, "cut 2 comes in epoch 1")
	f(`{}`, "it has no number")
	f("nonsense", "message 2 on control.cut is not a cut")
}

func changed(t testing.TB, err error) *eventlog.LogChangedError {
	t.Helper()
	var e *eventlog.LogChangedError
	if !errors.As(err, &e) {
		t.Fatalf("got %v; want a *LogChangedError", err)
	}
	return e
}

func TestChangedLogIsRefused(t *testing.T) {
	l, url := open(t)
	js := admin(t, url)
	ctx := testContext(t)
	cut(t, l, set(event("a")))
	for i := range 5 {
		publish(t, l, "a", line(i, ""))
	}
	at, _, err := l.At(ctx, 5)
	if err != nil {
		t.Fatal(err)
	}
	read := func(after schemas.Position) error {
		c, err := l.Chunks(ctx, after, eventlog.ChunkOptions{})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Next(ctx)
		return err
	}
	recreate := func(change func(*jetstream.StreamConfig)) {
		s, err := js.Stream(ctx, "WATERSHED")
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		change(&cfg)
		if err := js.DeleteStream(ctx, "WATERSHED"); err != nil {
			t.Fatal(err)
		}
		if _, err := js.CreateStream(ctx, cfg); err != nil {
			t.Fatal(err)
		}
	}
	same := func(*jetstream.StreamConfig) {}

	if err := read(at); err != nil {
		t.Errorf("unchanged log: %v", err)
	}
	if e := changed(t, read(schemas.Position{Seq: at.Seq, Hash: at.Hash + 1})); e.Found != at {
		t.Errorf("other hash: found %+v; want %+v", e.Found, at)
	}
	waiting := chunks(t, l, at, eventlog.ChunkOptions{})
	next(t, waiting)
	recreate(same)
	cut(t, l, set(event("a")))
	for err := error(nil); ; {
		if _, err = waiting.Next(ctx); err != nil {
			changed(t, err)
			break
		}
	}
	if e := changed(t, read(at)); e.Found.Seq != 1 {
		t.Errorf("truncated log: found %+v; want that it ends at message 1", e.Found)
	}
	for i := range 5 {
		publish(t, l, "a", line(i, ""))
	}
	if e := changed(t, read(at)); e.Found.Seq != at.Seq || e.Found.Hash == at.Hash {
		t.Errorf("recreated log: found %+v; want another hash at %d", e.Found, at.Seq)
	}
	recreate(func(c *jetstream.StreamConfig) { c.FirstSeq = 100 })
	publish(t, l, "a", line(1, ""))
	cut(t, l, set(event("a")))
	if e := changed(t, read(at)); e.Found.Seq != 100 {
		t.Errorf("trimmed log: found %+v; want that it starts at message 100", e.Found)
	}
	changed(t, read(schemas.Position{}))
	recreate(func(c *jetstream.StreamConfig) { c.FirstSeq = 200 })
	first := cut(t, l, set(event("a")))
	c := chunks(t, l, schemas.Position{}, eventlog.ChunkOptions{})
	if chunk := next(t, c); chunk.Epoch != first.Number-1 || chunk.Cut == nil || chunk.Last != first.Position {
		t.Errorf("log that begins with a cut: got %+v; want cut %d at %+v", chunk, first.Number, first.Position)
	}
	if first.Number != 4 || first.Previous != (schemas.Position{}) { // the fourth of four logs
		t.Errorf("got cut %d behind %+v; want the numbers to go on over recreated logs", first.Number, first.Previous)
	}
	second := cut(t, l, set(event("a")))
	if chunk := next(t, c); chunk.Cut == nil || chunk.Cut.Number != second.Number || second.Number != first.Number+1 {
		t.Errorf("got %+v; want cut %d", chunk, first.Number+1)
	}
}

func TestGapIsNeverSkipped(t *testing.T) {
	l, url := open(t)
	js := admin(t, url)
	ctx := testContext(t)
	s, err := js.Stream(ctx, "WATERSHED")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	if err := js.DeleteStream(ctx, cfg.Name); err != nil {
		t.Fatal(err)
	}
	cfg.DenyDelete = false
	if s, err = js.CreateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	cut(t, l, set(event("a")))
	for i := range 5 {
		publish(t, l, "a", line(i, ""))
	}
	if err := s.DeleteMsg(ctx, 4); err != nil {
		t.Fatal(err)
	}
	c := chunks(t, l, schemas.Position{}, eventlog.ChunkOptions{})
	last := uint64(0)
	for {
		chunk, err := c.Next(ctx)
		if err != nil {
			if e := changed(t, err); last != 3 || e.Stored.Seq != 3 || e.Found.Seq != 5 {
				t.Errorf("read to %d, then %v; want to 3 and the gap behind it", last, err)
			}
			break
		}
		last = chunk.Last.Seq
	}
	at, _, err := l.At(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	c, err = l.Chunks(ctx, at, eventlog.ChunkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Next(ctx)
	changed(t, err)
	_, _, err = l.At(ctx, 4)
	changed(t, err)
}

// TestServerRestarts stops the server while a publisher and a reader are at work, twice.
func TestServerRestarts(t *testing.T) {
	noLeak(t)
	ctx := testContext(t)
	cfg := devserver.NATSConfig{Dir: t.TempDir()}
	server := devtest.StartNATS(t, cfg)
	_, err := fmt.Sscanf(server.URL()[strings.LastIndex(server.URL(), ":"):], ":%d", &cfg.Port)
	if err != nil {
		t.Fatal(err)
	}
	l := openAt(t, server.URL())
	cut(t, l, set(event("a")))
	p, err := l.NewPublisher(eventlog.PublisherOptions{InFlight: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := chunks(t, l, schemas.Position{}, eventlog.ChunkOptions{MaxRows: 100})
	seen := make(map[int64]bool)
	var last schemas.Position
	read := func(done func() bool) {
		t.Helper()
		for !done() {
			chunk := next(t, c)
			if chunk.After != last {
				t.Fatalf("chunk after %+v; want %+v", chunk.After, last)
			}
			last = chunk.Last
			if rec := chunk.Records["a"]; rec != nil {
				for _, id := range rec.Column(0).(*array.Int64).Int64Values() {
					seen[id] = true
				}
				rec.Release()
			}
		}
	}
	var stop atomic.Bool
	published := make(chan int, 1)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			if err := p.Publish(ctx, "a", []byte(line(n, "")), fmt.Sprint(n)); err != nil {
				t.Error(err)
				break
			}
		}
		if _, err := p.Flush(ctx); err != nil {
			t.Error(err)
		}
		published <- n
	}()
	for range 3 {
		more := len(seen) + 1000
		read(func() bool { return len(seen) >= more })
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		server = devtest.StartNATS(t, cfg)
	}
	more := len(seen) + 1000
	read(func() bool { return len(seen) >= more })
	stop.Store(true)
	messages := <-published
	info, err := l.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	read(func() bool { return last.Seq == info.Last })
	if len(seen) != messages || info.Messages != uint64(messages)+1 {
		t.Errorf("read %d of %d messages; the log has %d, want those and a cut", len(seen), messages, info.Messages)
	}
}
