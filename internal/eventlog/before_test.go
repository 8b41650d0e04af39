package eventlog_test

import (
	"testing"
	"time"

	"watershed/schemas"
)

// Before is held against a walk over all messages, at and around every timestamp.
func TestBefore(t *testing.T) {
	noLeak(t)
	l, _ := open(t)
	ctx := testContext(t)
	f := func(at time.Time, want schemas.Position) {
		t.Helper()
		got, err := l.Before(ctx, at)
		if err != nil || got != want {
			t.Errorf("before %s is %v, %v; want %v", at, got, err, want)
		}
	}
	f(time.Now(), schemas.Position{}) // of an empty log
	cut(t, l, set(event("a")))
	for i := range 20 {
		publish(t, l, "a", line(i, ""))
	}
	type place struct {
		schemas.Position
		at time.Time
	}
	var all []place
	for seq := uint64(1); seq <= 21; seq++ {
		pos, at, err := l.At(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, place{pos, at})
	}
	for _, p := range all {
		for _, at := range []time.Time{p.at.Add(-time.Nanosecond), p.at, p.at.Add(time.Nanosecond)} {
			var want schemas.Position
			for _, q := range all {
				if q.at.Before(at) {
					want = q.Position
				}
			}
			f(at, want)
		}
	}
}
