package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

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
	f(`{"number":2,"definitions":{"events":[{"event":"a","id":"id","time":"time","fields":[]}]}}`, "event type a has no event time")
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
