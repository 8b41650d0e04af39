package eventlog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"watershed/internal/eventlog"
	"watershed/schemas"
)

// transcript reads from a position to the message at `to`, and returns all that was read, one line
// per event, reject and cut.
func transcript(t testing.TB, l *eventlog.Log, after schemas.Position, to uint64) (string, error) {
	t.Helper()
	c, err := l.Chunks(testContext(t), after, eventlog.ChunkOptions{MaxRows: 7})
	if err != nil {
		return "", err
	}
	defer c.Close()
	var fits, rest strings.Builder
	for last := after.Seq; last < to; {
		chunk, err := c.Next(testContext(t))
		if err != nil {
			return "", err
		}
		for _, r := range chunk.Rejects {
			fmt.Fprintf(&rest, "%d.%d %s\n", r.Seq, r.Row, r.Reason)
		}
		if last = chunk.Last.Seq; chunk.Cut != nil {
			fmt.Fprintf(&rest, "cut %d at %v\n", chunk.Cut.Number, chunk.Last)
		}
		events := make(map[string][]string)
		rows(t, chunk, events)
		for _, e := range events["a"] {
			fmt.Fprintf(&fits, "epoch %d: %s\n", chunk.Epoch, e)
		}
	}
	return fits.String() + rest.String(), nil
}

func trimmedError(t testing.TB, err error) *eventlog.TrimmedError {
	t.Helper()
	var e *eventlog.TrimmedError
	if !errors.As(err, &e) {
		t.Fatalf("got %v; want a *TrimmedError", err)
	}
	changed(t, err)
	return e
}

// TestTrim trims random logs at random positions. Whoever stands in what is left reads exactly what
// he would have read before, all others learn that they cannot.
func TestTrim(t *testing.T) {
	noLeak(t)
	l, _ := open(t)
	ctx := testContext(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	positions := []schemas.Position{{}}
	cuts := []uint64{0} // of the cut that holds at each message; 0: none
	first := uint64(1)  // that the log must begin with
	var last schemas.Cut
	for round := range 6 {
		for range 40 {
			if rnd.IntN(10) == 0 {
				last = cut(t, l, set(event("a")))
			} else {
				publish(t, l, "a", line(rnd.IntN(100), ""), line(rnd.IntN(100), `,"oops":1`))
			}
			p, _, err := l.At(ctx, uint64(len(positions)))
			if err != nil {
				t.Fatal(err)
			}
			positions, cuts = append(positions, p), append(cuts, last.Position.Seq)
		}
		to := uint64(len(positions) - 1)
		before := make(map[uint64]string)
		for seq := first; seq <= to; seq += 1 + uint64(rnd.IntN(9)) {
			text, err := transcript(t, l, positions[seq], to)
			if err != nil {
				t.Fatal(err)
			}
			before[seq] = text
		}

		upTo := rnd.IntN(len(positions))
		trimmed, err := l.Trim(ctx, positions[upTo])
		if err != nil {
			t.Fatal(err)
		}
		if want := max(cuts[upTo], first); trimmed != want-first {
			t.Fatalf("round %d: trimmed %d messages up to %d; want %d, up to the cut at %d", round, trimmed, upTo, want-first, want)
		} else {
			first = want
		}
		info, err := l.Info(ctx)
		if err != nil || info.First != first || info.Last != to || info.Messages != to-first+1 {
			t.Fatalf("round %d: got %+v, %v; want messages %d to %d", round, info, err, first, to)
		}
		for seq, want := range before {
			text, err := transcript(t, l, positions[seq], to)
			if seq < first {
				if e := trimmedError(t, err); e.Stored != positions[seq] || e.First != first {
					t.Errorf("from %d: got %v; want that the log starts at %d", seq, e, first)
				}
				continue
			}
			if err != nil || text != want {
				t.Errorf("round %d: from message %d, %v: got\n%s\nwant\n%s", round, seq, err, text, want)
			}
		}
		if first > 1 {
			oldest, ok, err := l.OldestCut(ctx)
			if err != nil || !ok || oldest.Position != positions[first] {
				t.Errorf("OldestCut: got %+v, %t, %v; want the one at %d", oldest.Position, ok, err, first)
			}
			for n := uint64(1); n < oldest.Number; n++ {
				if _, err := l.Cut(ctx, n); !errors.Is(err, eventlog.ErrNoCut) {
					t.Errorf("cut %d, which was trimmed: got %v; want ErrNoCut", n, err)
				}
			}
			c := chunks(t, l, schemas.Position{}, eventlog.ChunkOptions{})
			if chunk := next(t, c); chunk.Cut == nil || chunk.Last != oldest.Position || chunk.Epoch != oldest.Number-1 {
				t.Errorf("from the beginning: got %+v; want cut %d alone", chunk, oldest.Number)
			}
			c.Close()
			if at, err := l.Before(ctx, time.Unix(0, 0)); err != nil || at != oldest.Position {
				t.Errorf("before all: got %v, %v; want the first message", at, err)
			}
		}
	}
	if first == 1 {
		t.Error("nothing was ever trimmed")
	}
	changed(t, func() error {
		_, err := l.Trim(ctx, schemas.Position{Seq: positions[len(positions)-1].Seq, Hash: 1})
		return err
	}())
}

func TestTrimNeedsAStreamThatAllowsIt(t *testing.T) {
	l, url := open(t)
	js := admin(t, url)
	ctx := testContext(t)
	s, err := js.Stream(ctx, "WATERSHED")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.DenyPurge = true
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	old := openAt(t, url)
	publish(t, l, "a", line(1, ""))
	c := cut(t, l, set(event("a")))
	if _, err := old.Trim(ctx, c.Position); !errors.Is(err, eventlog.ErrCannotTrim) {
		t.Errorf("got %v; want ErrCannotTrim", err)
	}
}

// TestTrimBesideReadersAndPublishers trims as fast as it can, up to where the reader is, while events are
// published and read: the reader must see every event once.
func TestTrimBesideReadersAndPublishers(t *testing.T) {
	noLeak(t)
	l, url := open(t)
	ctx := testContext(t)
	cut(t, l, set(event("a")))
	const events = 3000
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		own := openAt(t, url)
		for i := range events {
			if _, err := own.Publish(ctx, "a", []byte(line(i, "")), ""); err != nil {
				t.Error(err)
				return
			}
			if i%50 == 0 {
				last, _, err := own.LastCut(ctx)
				if err == nil {
					_, err = own.PublishCut(ctx, last, set(event("a")), schemas.Set{})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	reached := make(chan schemas.Position, 1) // the newest
	wg.Go(func() {
		own := openAt(t, url)
		total := uint64(0)
		for at := range reached {
			n, err := own.Trim(ctx, at)
			if err != nil {
				t.Error(err)
				return
			}
			total += n
		}
		if total == 0 {
			t.Error("nothing was trimmed")
		}
	})
	defer close(reached)
	c := chunks(t, l, schemas.Position{}, eventlog.ChunkOptions{MaxRows: 10})
	seen := make(map[string]bool)
	for len(seen) < events {
		chunk := next(t, c)
		got := make(map[string][]string)
		rows(t, chunk, got)
		for _, e := range got["a"] {
			if id := strings.Fields(e)[0]; seen[id] {
				t.Errorf("%s was read twice", id)
			} else {
				seen[id] = true
			}
		}
		select {
		case reached <- chunk.Last:
		default:
		}
	}
}

// TestTrimmedBehindAWaitingReader trims what a reader has yet to read: it must say so, not skip it.
func TestTrimmedBehindAWaitingReader(t *testing.T) {
	noLeak(t)
	l, _ := open(t)
	ctx := testContext(t)
	first := cut(t, l, set(event("a")))
	c := chunks(t, l, first.Position, eventlog.ChunkOptions{MaxBytes: 1})
	for i := range 1000 {
		publish(t, l, "a", line(i, `,"oops":"`+strings.Repeat("x", 40<<10)+`"`)) // more than is asked for ahead
	}
	last := cut(t, l, set(event("a")))
	next(t, c)
	if _, err := l.Trim(ctx, last.Position); err != nil {
		t.Fatal(err)
	}
	for {
		chunk, err := c.Next(ctx)
		if err != nil {
			trimmedError(t, err)
			return
		}
		if chunk.Last.Seq >= last.Position.Seq {
			t.Fatalf("read on to %d; want an error", chunk.Last.Seq)
		}
	}
}
