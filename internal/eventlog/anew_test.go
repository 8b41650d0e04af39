package eventlog_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

// ids reads a log from a position to its end, and returns how often each event of type a is in it
// and the first chunk.
func ids(t testing.TB, l *eventlog.Log, after schemas.Position) (map[string]int, *schemas.Chunk) {
	t.Helper()
	info, err := l.Info(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	c := chunks(t, l, after, eventlog.ChunkOptions{})
	defer c.Close()
	var first *schemas.Chunk
	seen := make(map[string]int)
	for last := after.Seq; last < info.Last; {
		chunk := next(t, c)
		if first == nil {
			first = chunk
		}
		got := make(map[string][]string)
		rows(t, chunk, got)
		for _, e := range got["a"] {
			seen[strings.Fields(e)[0]]++
		}
		last = chunk.Last.Seq
	}
	return seen, first
}

// A brokenLog is a log that positions were stored of, and to which something was done then.
type brokenLog struct {
	url    string
	log    *eventlog.Log
	stored []schemas.Position // of the log before
	cuts   uint64             // the highest number of a cut
	kept   schemas.Position
	has    map[string]bool // ids of the events that the log has behind kept now
}

func (b *brokenLog) request() eventlog.AnewRequest {
	above := uint64(0)
	for _, p := range b.stored {
		above = max(above, p.Seq)
	}
	return eventlog.AnewRequest{Above: above, CutAbove: b.cuts, Kept: b.kept, Definitions: set(event("a"))}
}

// breakages are what happens to logs.
var breakages = []struct {
	name  string
	apply func(t *testing.T, b *brokenLog)
}{
	{"unchanged, kept to the middle", func(t *testing.T, b *brokenLog) {
		b.kept = b.stored[len(b.stored)/2]
		b.has = make(map[string]bool)
		seen, _ := ids(t, b.log, b.kept)
		for id := range seen {
			b.has[id] = true
		}
	}},
	{"recreated empty", func(t *testing.T, b *brokenLog) {
		b.recreate(t, nil)
		b.kept = b.stored[len(b.stored)/2] // does not hold
	}},
	{"recreated with new events", func(t *testing.T, b *brokenLog) {
		b.recreate(t, nil)
		for i := range 20 {
			b.publish(t, 1000+i)
		}
		cut(t, b.log, set(event("a")))
		b.publish(t, 2000)
		b.kept = b.stored[5]
	}},
	{"restored from an older copy and published to", func(t *testing.T, b *brokenLog) {
		b.recreate(t, b.stored[1:20])
		b.kept = b.stored[10] // does not hold: the copy has times of its own
		for i := range 90 {
			b.publish(t, 1000+i)
		}
	}},
	{"undeletable and unpurgeable", func(t *testing.T, b *brokenLog) {
		b.recreate(t, nil)
		js := admin(t, b.url)
		s, err := js.Stream(testContext(t), "WATERSHED")
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		cfg.DenyPurge = true
		if _, err := js.UpdateStream(testContext(t), cfg); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			b.publish(t, 1000+i)
		}
	}},
}

func id(i int) string { return fmt.Sprintf("id=%d", i) }

func (b *brokenLog) publish(t *testing.T, i int) {
	t.Helper()
	publish(t, b.log, "a", line(i, ""))
	b.has[id(i)] = true
}

// recreate deletes the stream and begins it again with copies of some of its messages.
func (b *brokenLog) recreate(t *testing.T, copies []schemas.Position) {
	t.Helper()
	ctx := testContext(t)
	js := admin(t, b.url)
	s, err := js.Stream(ctx, "WATERSHED")
	if err != nil {
		t.Fatal(err)
	}
	var msgs []*jetstream.RawStreamMsg
	for _, p := range copies {
		msg, err := s.GetMsg(ctx, p.Seq)
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, msg)
	}
	b.has = make(map[string]bool)
	if err := js.DeleteStream(ctx, "WATERSHED"); err != nil {
		t.Fatal(err)
	}
	b.log.Close()
	b.log = openAt(t, b.url)
	for _, msg := range msgs {
		if _, err := js.Publish(ctx, msg.Subject, msg.Data); err != nil {
			t.Fatal(err)
		}
		if number, ok := strings.CutPrefix(string(msg.Data), `{"id":`); ok {
			b.has["id="+number[:strings.IndexByte(number, ',')]] = true
		}
	}
}

func newBrokenLog(t *testing.T, apply func(*testing.T, *brokenLog)) *brokenLog {
	t.Helper()
	b := &brokenLog{url: devtest.NATS(t).URL(), has: make(map[string]bool), stored: []schemas.Position{{}}}
	b.log = openAt(t, b.url)
	for i := range 60 {
		if i%12 == 0 {
			b.cuts = cut(t, b.log, set(event("a"))).Number
		} else {
			b.publish(t, i)
		}
		p, _, err := b.log.At(testContext(t), uint64(i)+1)
		if err != nil {
			t.Fatal(err)
		}
		b.stored = append(b.stored, p)
	}
	apply(t, b)
	return b
}

// check holds a log that was begun anew against what it must have.
func (b *brokenLog) check(t *testing.T, first schemas.Cut) {
	t.Helper()
	ctx := testContext(t)
	req := b.request()
	if first.Number <= req.CutAbove || first.Anew < req.Above || first.Position.Seq != first.Anew+1 || first.Previous.Seq != 0 {
		t.Errorf("got cut %d at %d, anew behind %d; want it above cut %d and message %d", first.Number, first.Position.Seq, first.Anew, req.CutAbove, req.Above)
	}
	oldest, ok, err := b.log.OldestCut(ctx)
	if err != nil || !ok || oldest.Position != first.Position || oldest.Anew != first.Anew {
		t.Errorf("OldestCut: got %+v, %t, %v; want %+v", oldest, ok, err, first)
	}
	info, err := b.log.Info(ctx)
	if err != nil || info.First != first.Position.Seq || info.Aside {
		t.Errorf("got %+v, %v; want a log that begins at %d", info, err, first.Position.Seq)
	}
	for i, p := range append(b.stored, schemas.Position{Seq: first.Anew, Hash: 7}) {
		if i%9 != 0 && p.Seq != first.Anew {
			continue
		}
		seen, chunk := ids(t, b.log, p)
		if chunk.After != p || chunk.Cut == nil || chunk.Last != first.Position || chunk.Epoch >= first.Number || len(chunk.Records) > 0 {
			t.Errorf("from %+v: the first chunk is %+v; want cut %d alone", p, chunk, first.Number)
		}
		for id := range b.has {
			if seen[id] == 0 {
				t.Errorf("from %+v: %s is missing", p, id)
			}
		}
	}
	if pending, err := b.log.AnewPending(ctx); pending || err != nil {
		t.Errorf("pending: got %t, %v; want nothing left to do", pending, err)
	}
	if _, err := admin(t, b.url).Stream(ctx, "WATERSHED_RESCUE"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the rescue stream: got %v; want none", err)
	}
}

func TestAnew(t *testing.T) {
	for _, breakage := range breakages {
		t.Run(breakage.name, func(t *testing.T) {
			noLeak(t)
			b := newBrokenLog(t, breakage.apply)
			result, err := b.log.Anew(testContext(t), b.request())
			if err != nil {
				t.Fatal(err)
			}
			if result.Republished != len(b.has) || result.Resumed {
				t.Errorf("got %+v; want %d messages published again", result, len(b.has))
			}
			b.check(t, result.Cut)
			seen, _ := ids(t, b.log, schemas.Position{})
			for id, n := range seen {
				if n != 1 || !b.has[id] {
					t.Errorf("%s is in the log %d times; want those of the log before, once", id, n)
				}
			}
			// The log goes on, numbers too, and may be begun anew again.
			if c := cut(t, b.log, set(event("a"))); c.Number != result.Cut.Number+1 || c.Previous != result.Cut.Position {
				t.Errorf("the next cut is %d behind %+v; want %d", c.Number, c.Previous, result.Cut.Number+1)
			}
			info, err := b.log.Info(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			b.stored = append(b.stored, schemas.Position{Seq: info.Last})
			b.kept, b.cuts = schemas.Position{}, result.Cut.Number+1
			if result, err = b.log.Anew(testContext(t), b.request()); err != nil {
				t.Fatal(err)
			}
			b.check(t, result.Cut)
		})
	}
}

// Once the log is empty nobody but the copy knows its last cut: a later attempt, which is given the
// definitions of an older build, begins with those of that cut. It does not if a newer cut is known.
func TestAnewResumesWithTheLastCut(t *testing.T) {
	noLeak(t)
	b := newBrokenLog(t, func(t *testing.T, b *brokenLog) {
		b.has = make(map[string]bool)
		last, _, err := b.log.LastCut(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if last, err = b.log.PublishCut(testContext(t), last, set(event("a"), event("new")), set(event("old"))); err != nil {
			t.Fatal(err)
		}
		b.cuts = last.Number
	})
	for step := ""; step != "emptied"; {
		step = anewKilled(t, b, 4)
		if step == "" {
			t.Fatal("it did not come to where the log is empty")
		}
	}
	if _, ok, err := b.log.LastCut(testContext(t)); ok || err != nil {
		t.Fatalf("the log has a cut (%t, %v); want an empty log", ok, err)
	}
	result, err := b.log.Anew(testContext(t), b.request())
	if err != nil {
		t.Fatal(err)
	}
	want := set(event("a"), event("new"))
	if retiring := set(event("old")); result.Cut.Definitions.Hash() != want.Hash() || result.Cut.Retiring.Hash() != retiring.Hash() {
		t.Errorf("begins with %d types and %d retiring; want those of the last cut", len(result.Cut.Definitions.Events), len(result.Cut.Retiring.Events))
	}
	b.check(t, result.Cut)
}

type killed struct{ step string }

// anewKilled begins a log anew and dies at the n-th step. It returns the step, or none if there were fewer.
func anewKilled(t *testing.T, b *brokenLog, n int) (step string) {
	t.Helper()
	b.log.OnStep(func(name string) {
		if n--; n == 0 {
			panic(killed{name})
		}
	})
	defer func() {
		if k, ok := recover().(killed); ok {
			step = k.step
		}
		b.log.Close()
		b.log = openAt(t, b.url)
	}()
	if _, err := b.log.Anew(testContext(t), b.request()); err != nil {
		t.Fatal(err)
	}
	return ""
}

// TestAnewDies kills it at every step, once and twice in a row, while events are published all through: what
// was acknowledged is in the new log, or in history.
func TestAnewDies(t *testing.T) {
	noLeak(t)
	died := make(map[string]bool)
	for n, done := 1, false; !done; n++ {
		breakage := breakages[n%len(breakages)]
		b := newBrokenLog(t, breakage.apply)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var mu sync.Mutex // guards acked
		acked := make(map[string]bool)
		for p := range 3 {
			own := openAt(t, b.url)
			wg.Go(func() {
				for i := 10_000 * (p + 1); ; i++ {
					_, err := own.Publish(testContext(t), "a", []byte(line(i, "")), fmt.Sprint(i))
					if err == nil {
						mu.Lock()
						acked[id(i)] = true
						mu.Unlock()
					} else if !errors.Is(err, eventlog.ErrUnreachable) {
						t.Error(err)
					}
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
					}
				}
			})
		}
		step := anewKilled(t, b, n)
		if died[step] = true; step == "" {
			done = true
		} else {
			pending, err := b.log.AnewPending(testContext(t))
			if want := step != "done"; err != nil || pending != want {
				t.Errorf("died at %s: pending is %t, %v; want %t", step, pending, err, want)
			}
			last, _, err := b.log.LastCut(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.log.PublishCut(testContext(t), last, set(event("a")), schemas.Set{}); pending && (err == nil || !strings.Contains(err.Error(), "watershed repair")) {
				t.Errorf("died at %s: a cut: %v; want an error that says how to go on", step, err)
			}
			anewKilled(t, b, 2) // another death
			for {
				result, err := b.log.Anew(testContext(t), b.request())
				if err != nil {
					t.Fatalf("after death at %s: %v", step, err)
				}
				if !result.Resumed {
					break
				}
			}
		}
		close(stop)
		wg.Wait()
		oldest, _, err := b.log.OldestCut(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(b.has, acked)
		b.check(t, oldest)
		if t.Failed() {
			t.Fatalf("%s, died at step %d, %s", breakage.name, n, step)
		}
	}
	for _, step := range []string{"aside", "marked", "copied", "emptied", "cut", "open", "republished", "done"} {
		if !died[step] {
			t.Errorf("no test died at %q; only at %q", step, slices.Sorted(maps.Keys(died)))
		}
	}
}

// TestAnewWinsAgainstAFirstCut has a process find the emptied log, take it for a new one and publish the first
// cut: the log begins with the cut that says what it is all the same, and no number comes twice.
func TestAnewWinsAgainstAFirstCut(t *testing.T) {
	noLeak(t)
	b := newBrokenLog(t, func(*testing.T, *brokenLog) {})
	js := admin(t, b.url)
	other := openAt(t, b.url)
	var foreign schemas.Cut
	b.log.OnStep(func(step string) {
		if step != "emptied" || foreign.Number > 0 {
			return
		}
		ctx := testContext(t)
		s, err := js.Stream(ctx, "WATERSHED")
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		cfg.Subjects = []string{"control.cut", "control.anew"}
		if _, err := js.UpdateStream(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if foreign, err = other.PublishFirstCut(ctx, set(event("a"))); err != nil {
			t.Fatal(err)
		}
	})
	result, err := b.log.Anew(testContext(t), b.request())
	if err != nil {
		t.Fatal(err)
	}
	if foreign.Number == 0 || result.Cut.Number <= foreign.Number {
		t.Errorf("got cut %d; want it above the foreign cut %d", result.Cut.Number, foreign.Number)
	}
	b.check(t, result.Cut)
}

// TestReadersLiveThroughAnew has a reader wait while the log is begun anew: it goes on with the cut.
func TestReadersLiveThroughAnew(t *testing.T) {
	noLeak(t)
	b := newBrokenLog(t, func(*testing.T, *brokenLog) {})
	at := b.stored[len(b.stored)-1]
	c := chunks(t, openAt(t, b.url), at, eventlog.ChunkOptions{})
	publish(t, b.log, "a", line(1, ""))
	next(t, c)
	result, err := b.log.Anew(testContext(t), b.request())
	if err != nil {
		t.Fatal(err)
	}
	for {
		chunk := next(t, c)
		if chunk.Cut == nil {
			if chunk.Last.Seq > result.Cut.Position.Seq {
				t.Fatalf("read %+v; want the cut first", chunk)
			}
			continue // the mark
		}
		if chunk.Last != result.Cut.Position || chunk.Epoch != b.cuts || chunk.BeforeCut.Seq < at.Seq {
			t.Errorf("got %+v; want cut %d at the end of epoch %d", chunk, result.Cut.Number, b.cuts)
		}
		break
	}
	if chunk := next(t, c); chunk.Epoch != result.Cut.Number {
		t.Errorf("got epoch %d behind the cut; want %d", chunk.Epoch, result.Cut.Number)
	}
}

// TestRescuedEventsKeepTheirTime publishes again what fits its log timestamp barely, and must fit then.
func TestRescuedEventsKeepTheirTime(t *testing.T) {
	b := newBrokenLog(t, func(*testing.T, *brokenLog) {})
	oldest := time.Now().Add(-eventlogPast).Add(500 * time.Millisecond)
	publish(t, b.log, "a", fmt.Sprintf(`{"id":77,"time":%d}`, oldest.UnixMicro()))
	b.has[id(77)] = true
	for time.Since(oldest) < eventlogPast {
		if _, err := b.log.Info(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	result, err := b.log.Anew(testContext(t), b.request())
	if err != nil {
		t.Fatal(err)
	}
	b.check(t, result.Cut)
}

// eventlogPast is how far events may lie back.
const eventlogPast = 50 * 365.25 * 24 * time.Hour
