package batch_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"watershed/batch"
	"watershed/batch/history"
)

// A type's table is lost, and begun again at the cut where the others stand, as repair does it when it is
// told to accept the loss. Batches hold the type over, and views stay exact, until they are told to take
// history as it is.
func TestLostHistoryIsHeldOver(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, misses)
	w.archive()
	w.publish(hits(0, 40, 1, 0))
	w.publishAs("miss", hits(0, 20, 1, 0))
	w.fold()
	first := w.batch(nil)
	if !first.Flipped || len(first.HeldOver) > 0 {
		t.Fatalf("report %+v, want a flip", first)
	}
	lost := filepath.Join(t.TempDir(), "lost")
	w.check(os.CopyFS(filepath.Join(lost, "hit"), os.DirFS(filepath.Join(w.root, "hit"))))
	cut, _, err := w.log.CutFor(t.Context(), first.Position)
	w.check(err)
	w.check(history.BeginLost(t.Context(), lost, app, w.defs.Event("miss"), cut.Position))
	w.archiveIn(lost)
	w.publish(hits(40, 60, 2, 0))
	w.publishAs("miss", hits(20, 30, 1, 0))
	w.level()

	in := func(c *batch.Config) { c.History = lost }
	held := w.batch(in)
	if len(held.HeldOver) != 1 || held.HeldOver[0].Type != "miss" || held.HeldOver[0].Cut != first.Cut || !strings.Contains(held.HeldOver[0].Reason, "--accept-history") {
		t.Errorf("held over: %+v; want misses at cut %d, and how they are let go", held.HeldOver, first.Cut)
	}
	if !held.Flipped || held.Drifted() > 0 {
		t.Errorf("report %+v, want a flip of the other view without drift", held)
	}
	w.archived()
	w.exact() // against the history that is whole

	accepted := w.batch(func(c *batch.Config) { in(c); c.AcceptHistory = true })
	if len(accepted.HeldOver) > 0 || accepted.Drifted() == 0 {
		t.Errorf("report %+v, want nothing held over, and the loss as drift", accepted)
	}
}
