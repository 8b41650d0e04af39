package eventlog_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
)

// rejected reads a log from a position to its end, stores what does not fit as dead letters, as the
// archiver does, and returns it.
func rejected(t testing.TB, l *eventlog.Log, after schemas.Position) []schemas.Reject {
	t.Helper()
	info, err := l.Info(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	c := chunks(t, l, after, eventlog.ChunkOptions{})
	defer c.Close()
	var all []schemas.Reject
	for last := after.Seq; last < info.Last; {
		chunk := next(t, c)
		all = append(all, chunk.Rejects...)
		last = chunk.Last.Seq
	}
	if err := l.DeadLetter(testContext(t), all); err != nil {
		t.Fatal(err)
	}
	return all
}

func letters(t testing.TB, l *eventlog.Log, f eventlog.DeadLetterFilter) []eventlog.DeadLetter {
	t.Helper()
	var all []eventlog.DeadLetter
	for d, err := range l.DeadLetters(testContext(t), f) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

func TestDeadLettersAreFound(t *testing.T) {
	noLeak(t)
	l, _ := open(t)
	ctx := testContext(t)
	if got := letters(t, l, eventlog.DeadLetterFilter{}); len(got) != 0 {
		t.Errorf("got %v; want no dead letters", got)
	}
	cut(t, l, set(event("a"), event("b")))
	for i := range 20 {
		publish(t, l, "a", line(i, ""), line(i, `,"x":1`), "oops")
		publish(t, l, "b", line(i, `,"y":1`))
		publish(t, l, "other.type", line(i, ""))
	}
	all := rejected(t, l, schemas.Position{})
	f := func(filter eventlog.DeadLetterFilter, want func(schemas.Reject) bool) {
		t.Helper()
		var wanted, got []string
		for _, r := range all {
			if want(r) {
				wanted = append(wanted, fmt.Sprintf("%d.%d %s %s %s %q %d", r.Seq, r.Row, r.Type, r.Time.UTC(), r.Reason, r.Payload, len(r.Payload)))
			}
		}
		for _, d := range letters(t, l, filter) {
			if d.ID != fmt.Sprintf("%d.%d", d.Seq, d.Row) {
				t.Errorf("got id %s of message %d, row %d", d.ID, d.Seq, d.Row)
			}
			got = append(got, fmt.Sprintf("%d.%d %s %s %s %q %d", d.Seq, d.Row, d.Type, d.Time.UTC(), d.Reason, d.Payload, d.Size))
		}
		slices.Sort(wanted)
		slices.Sort(got)
		if diff := cmp.Diff(wanted, got); diff != "" || len(wanted) == 0 {
			t.Errorf("%+v: (-want +got)\n%s", filter, diff)
		}
	}
	middle := all[len(all)/2]
	f(eventlog.DeadLetterFilter{}, func(schemas.Reject) bool { return true })
	f(eventlog.DeadLetterFilter{Type: "a"}, func(r schemas.Reject) bool { return r.Type == "a" })
	f(eventlog.DeadLetterFilter{Type: "other.type"}, func(r schemas.Reject) bool { return r.Type == "other.type" })
	f(eventlog.DeadLetterFilter{Reason: `"y"`}, func(r schemas.Reject) bool { return strings.Contains(r.Reason, `"y"`) })
	f(eventlog.DeadLetterFilter{Since: middle.Time}, func(r schemas.Reject) bool { return !r.Time.Before(middle.Time) })
	f(eventlog.DeadLetterFilter{Type: "b", Until: middle.Time}, func(r schemas.Reject) bool { return r.Type == "b" && r.Time.Before(middle.Time) })
	f(eventlog.DeadLetterFilter{ID: fmt.Sprintf("%d.%d", middle.Seq, middle.Row)}, func(r schemas.Reject) bool { return r.Seq == middle.Seq && r.Row == middle.Row })

	var paged []eventlog.DeadLetter
	for page := []eventlog.DeadLetter(nil); ; paged = append(paged, page...) {
		filter := eventlog.DeadLetterFilter{Type: "a", Limit: 7}
		if len(paged) > 0 {
			filter.Behind = paged[len(paged)-1].Number
		}
		if page = letters(t, l, filter); len(page) == 0 {
			break
		} else if len(page) > filter.Limit {
			t.Errorf("got a page of %d; want at most %d", len(page), filter.Limit)
		}
	}
	if diff := cmp.Diff(letters(t, l, eventlog.DeadLetterFilter{Type: "a"}), paged); diff != "" {
		t.Errorf("paged (-whole +pages)\n%s", diff)
	}

	d, ok, err := l.DeadLetterAt(ctx, fmt.Sprintf("%d.%d", middle.Seq, middle.Row))
	if err != nil || !ok || string(d.Payload) != string(middle.Payload) {
		t.Errorf("got %+v, %t, %v; want the letter of %q", d, ok, err, middle.Payload)
	}
	if _, ok, err := l.DeadLetterAt(ctx, "1.0"); ok || err != nil {
		t.Errorf("got %t, %v; want no letter", ok, err)
	}
	for _, id := range []string{"1", "x.1", "1.y", "*.*", "1.>"} {
		if _, _, err := l.DeadLetterAt(ctx, id); err == nil {
			t.Errorf("id %s: got no error", id)
		}
	}
}

// TestReplay rejects events by a definition that lacks a field, mends it, and replays: each event is in the
// log as it was published, once, and what still does not fit is a new dead letter.
func TestReplay(t *testing.T) {
	noLeak(t)
	l, _ := open(t)
	ctx := testContext(t)
	cut(t, l, set(event("a")))
	const events = 100
	for i := range events {
		publish(t, l, "a", line(i, `,"n":1`), line(1000+i, `,"bad":1`))
	}
	large := publish(t, l, "a", " \n", line(5000, `,"s":"`+strings.Repeat("x", 1<<20-200)+`"`)) // too large for a letter
	rejected(t, l, schemas.Position{})
	mended := cut(t, l, set(event("a", schemas.Field{Name: "n", Type: schemas.Type{Kind: schemas.Int64}, Optional: true},
		schemas.Field{Name: "s", Type: schemas.Type{Kind: schemas.String}, Optional: true})))

	replay, err := l.ReplayDeadLetters(ctx, eventlog.DeadLetterFilter{})
	if err != nil || replay.Replayed != 2*events+1 || len(replay.Refused) != 0 {
		t.Fatalf("got %+v, %v; want %d replayed", replay, err, 2*events+1)
	}
	again, err := l.ReplayDeadLetters(ctx, eventlog.DeadLetterFilter{})
	if err != nil || again.Replayed != 0 {
		t.Errorf("again: got %+v, %v; want nothing left", again, err)
	}
	seen, _ := ids(t, l, mended.Position)
	for i := range events {
		if seen[id(i)] != 1 {
			t.Errorf("event %d is in the log %d times; want once", i, seen[id(i)])
		}
	}
	if seen[id(5000)] != 1 || len(seen) != events+1 {
		t.Errorf("got %d events, the large one %d times; want %d and it", len(seen), seen[id(5000)], events)
	}
	still := rejected(t, l, mended.Position)
	if got := letters(t, l, eventlog.DeadLetterFilter{}); len(still) != events || len(got) != events || got[0].Seq <= large {
		t.Errorf("got %d rejects and %d letters; want the %d that still do not fit", len(still), len(got), events)
	}
}

// TestReplayRefusesTruncatedLetters replays a letter whose message was trimmed: it stays.
func TestReplayRefusesTruncatedLetters(t *testing.T) {
	l, _ := open(t)
	ctx := testContext(t)
	first := cut(t, l, set(event("a")))
	publish(t, l, "a", line(1, `,"s":"`+strings.Repeat("x", 1<<20-200)+`"`))
	publish(t, l, "a", line(2, `,"s":1`))
	rejected(t, l, first.Position)
	last := cut(t, l, set(event("a")))
	if _, err := l.Trim(ctx, last.Position); err != nil {
		t.Fatal(err)
	}
	replay, err := l.ReplayDeadLetters(ctx, eventlog.DeadLetterFilter{})
	if err != nil || replay.Replayed != 1 || len(replay.Refused) != 1 || replay.Refused[0].Size <= len(replay.Refused[0].Payload) {
		t.Errorf("got %+v, %v; want one replayed and the truncated one refused", replay, err)
	}
	if got := letters(t, l, eventlog.DeadLetterFilter{}); len(got) != 1 || got[0].ID != replay.Refused[0].ID {
		t.Errorf("got %d letters; want the one that was refused", len(got))
	}
	dropped, err := l.DropDeadLetters(ctx, eventlog.DeadLetterFilter{Type: "a"})
	if got := letters(t, l, eventlog.DeadLetterFilter{}); err != nil || dropped != 1 || len(got) != 0 {
		t.Errorf("dropped %d, %v, %d left; want it gone", dropped, err, len(got))
	}
}

// TestFullDeadLettersSaySo fills them: the archiver must learn what to do, and it must help.
func TestFullDeadLettersSaySo(t *testing.T) {
	ctx := testContext(t)
	l, err := eventlog.Open(ctx, eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: 8 << 20}) // 1 MiB for the letters
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	all := make([]schemas.Reject, 40)
	for i := range all {
		all[i] = schemas.Reject{Seq: uint64(i + 1), Type: "a", Time: time.Unix(int64(i), 0), Reason: "no", Payload: make([]byte, 64<<10)}
	}
	if err = l.DeadLetter(ctx, all); !errors.Is(err, eventlog.ErrDeadLettersFull) || !strings.Contains(err.Error(), "watershed dlq drop") {
		t.Fatalf("got %v; want ErrDeadLettersFull", err)
	}
	stored := len(letters(t, l, eventlog.DeadLetterFilter{}))
	dropped, err := l.DropDeadLetters(ctx, eventlog.DeadLetterFilter{Until: time.Unix(30, 0)})
	if err != nil || dropped == 0 || dropped > stored {
		t.Fatalf("dropped %d of %d, %v", dropped, stored, err)
	}
	if err := l.DeadLetter(ctx, all[30:]); err != nil {
		t.Errorf("after dropping: %v", err)
	}
}
