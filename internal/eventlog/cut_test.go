package eventlog_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"watershed/internal/eventlog"
	"watershed/schemas"
)

var sameCut = cmpopts.IgnoreTypes(schemas.Pos{})

func TestCutsHaveGaplessNumbers(t *testing.T) {
	l, url := open(t)
	ctx := testContext(t)
	const racers, each = 8, 6
	var wg sync.WaitGroup
	var mu sync.Mutex // guards published
	published := make(map[uint64]schemas.Cut)
	for r := range racers {
		own := openAt(t, url)
		wg.Go(func() {
			for n := 0; n < each; {
				last, _, err := own.LastCut(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				c, err := own.PublishCut(ctx, last, set(event(fmt.Sprintf("a%d", r))), schemas.Set{})
				if errors.Is(err, eventlog.ErrCutTaken) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				n++
				mu.Lock()
				if _, twice := published[c.Number]; twice {
					t.Errorf("cut %d was published twice", c.Number)
				}
				published[c.Number] = c
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	last, ok, err := l.LastCut(ctx)
	if err != nil || !ok || last.Number != racers*each {
		t.Fatalf("LastCut: got %d, %t, %v; want %d", last.Number, ok, err, racers*each)
	}
	for n := uint64(1); n <= racers*each; n++ {
		got, err := l.Cut(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(published[n], got, sameCut, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("cut %d (-published +read):\n%s", n, diff)
		}
		if got.Previous != published[n-1].Position {
			t.Errorf("cut %d follows %+v; want %+v", n, got.Previous, published[n-1].Position)
		}
	}
	info, err := l.Info(ctx)
	if err != nil || info.Messages != racers*each {
		t.Errorf("got %d messages, %v; want one for each of the %d cuts", info.Messages, err, racers*each)
	}
}

func TestCutsAreFound(t *testing.T) {
	l, _ := open(t)
	ctx := testContext(t)
	if _, ok, err := l.LastCut(ctx); ok || err != nil {
		t.Errorf("LastCut of an empty log: got %t, %v; want none", ok, err)
	}
	if _, err := l.Cut(ctx, 1); !errors.Is(err, eventlog.ErrNoCut) {
		t.Errorf("Cut(1) of an empty log: got %v; want ErrNoCut", err)
	}
	var where []uint64 // the number of the cut that holds at each sequence, from 1
	for n := range uint64(4) {
		for range n + 1 {
			publish(t, l, "a", line(1, ""))
			where = append(where, n)
		}
		if c := cut(t, l, set(event("a"))); c.Number != n+1 {
			t.Fatalf("got cut %d; want %d", c.Number, n+1)
		}
		where = append(where, n+1)
	}
	for i, want := range where {
		c, err := l.CutBefore(ctx, uint64(i)+1)
		if want == 0 {
			if !errors.Is(err, eventlog.ErrNoCut) {
				t.Errorf("CutBefore(%d): got %v; want ErrNoCut", i+1, err)
			}
			continue
		}
		if err != nil || c.Number != want {
			t.Errorf("CutBefore(%d): got %d, %v; want %d", i+1, c.Number, err, want)
		}
	}
	for _, seq := range []uint64{0, 1} { // before cut 1, which is message 2
		if c, epoch, err := l.CutFor(ctx, seq); c.Number != 1 || epoch != 0 || err != nil {
			t.Errorf("CutFor(%d): got %d, epoch %d, %v; want cut 1 in epoch 0", seq, c.Number, epoch, err)
		}
	}
	if c, epoch, err := l.CutFor(ctx, 2); c.Number != 1 || epoch != 1 || err != nil {
		t.Errorf("CutFor(2): got %d, epoch %d, %v; want cut 1 in epoch 1", c.Number, epoch, err)
	}
	if _, err := l.Cut(ctx, 5); !errors.Is(err, eventlog.ErrNoCut) {
		t.Errorf("Cut(5): got %v; want ErrNoCut", err)
	}
}

func TestLargeCutsAreCompressed(t *testing.T) {
	l, _ := open(t)
	ctx := testContext(t)
	var defs, retiring schemas.Set
	for i := range 2000 {
		defs.Events = append(defs.Events, event(fmt.Sprintf("type_%d", i), field("a", schemas.String), field("b", schemas.Float64)))
		retiring.Events = append(retiring.Events, event(fmt.Sprintf("old_%d", i)))
	}
	want, err := l.PublishCut(ctx, schemas.Cut{}, defs, retiring)
	if err != nil {
		t.Fatal(err)
	}
	got, ok, err := l.LastCut(ctx)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if diff := cmp.Diff(want, got, sameCut, cmpopts.EquateEmpty(), cmpopts.SortSlices(func(a, b *schemas.Event) bool { return a.Name < b.Name })); diff != "" {
		t.Errorf("(-published +read):\n%s", diff)
	}
	info, err := l.Info(ctx)
	if err != nil || info.Bytes > 100<<10 {
		t.Errorf("the log takes %d bytes, %v; want a compressed cut", info.Bytes, err)
	}
}

// TestRangeOfEventTimesIsTheCuts reads with settings other than those that the cuts were published with.
func TestRangeOfEventTimesIsTheCuts(t *testing.T) {
	reader, url := open(t)
	ctx := testContext(t)
	writer := func(past, future time.Duration) *eventlog.Log {
		l, err := eventlog.Open(ctx, eventlog.Config{URL: url, Past: past, Future: future})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return l
	}
	events := func(ids ...int) {
		for i, ago := range []time.Duration{3 * time.Hour, 30 * time.Minute, -30 * time.Minute, -3 * time.Hour, -48 * time.Hour} {
			publish(t, reader, "a", fmt.Sprintf(`{"id":%d,"time":%d}`, ids[0]+i, time.Now().Add(-ago).UnixMicro()))
		}
	}
	cut(t, writer(time.Hour, time.Hour), set(event("a")))
	events(10)
	cut(t, writer(4*time.Hour, time.Minute), set(event("a")))
	events(20)
	cut(t, reader, set(event("a")))
	events(30)
	got, _ := ids(t, reader, schemas.Position{})
	want := map[string]int{id(11): 1, id(12): 1, id(20): 1, id(21): 1, id(30): 1, id(31): 1, id(32): 1, id(33): 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
