package main

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

type fenced struct{}

func (fenced) Error() string { return "a newer term" }
func (fenced) Fenced() bool  { return true }

// Two that compute the same must not take over from one another for good: whoever was overtaken waits, and
// longer each time, while an attempt that merely failed is repeated soon.
func TestHealingWaitsForWhoTookOver(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	h := newHealing()
	want := healYield
	for range 8 {
		h.tried(now, fmt.Errorf("slices: %w", fenced{}))
		if got := h.next.Sub(now); got != want {
			t.Errorf("overtaken: waits %s; want %s", got, want)
		}
		want = min(2*want, healMost)
	}
	h = newHealing()
	h.tried(now, errors.New("ClickHouse is away"))
	if got := h.next.Sub(now); got > 2*healFirst {
		t.Errorf("failed: waits %s; want about %s", got, healFirst)
	}
	h.tried(now, nil) // it did not help
	if !h.next.After(now) {
		t.Error("an attempt that did not help is repeated at once")
	}
}
