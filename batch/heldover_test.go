package batch_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"watershed/batch"
)

const misses = definitions + `
---
event: miss
id: id
time: time
fields: {id: int64, time: timestamp, site: string, n: int64}
---
view: misses
from: miss
dimensions: {site: site}
measures: {misses: count(), n: sum(n)}
`

// stuck is a history in which the table of misses is as it is now, and stays so: what a batch sees
// whose archiver cannot write one type.
func (w *world) stuck() string {
	w.t.Helper()
	root := filepath.Join(w.t.TempDir(), "stuck")
	w.check(os.MkdirAll(root, 0o755))
	w.check(os.Symlink(filepath.Join(w.root, "hit"), filepath.Join(root, "hit")))
	if _, err := os.Stat(filepath.Join(w.root, "miss")); err == nil {
		w.check(os.CopyFS(filepath.Join(root, "miss"), os.DirFS(filepath.Join(w.root, "miss"))))
	}
	return root
}

// A type whose archive stands still holds up nobody: its view stays at its cut, and is exact all the
// same; the others go on. Nothing that it needs is dropped, however many builds pass, and one can roll
// back over them. Once it is healed the next build has it.
func TestStuckTypeIsHeldOver(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, misses)
	next := 0
	publish := func() {
		t.Helper()
		w.publish(hits(next, next+40, 1+next/40%3, 0))
		w.publishAs("miss", hits(next, next+20, 1+next/40%3, 0))
		next += 40
	}
	build := func(root string, held bool, at uint64) *batch.Report {
		t.Helper()
		publish()
		w.level()
		r := w.batch(func(c *batch.Config) {
			c.History = root
			if held {
				c.Wait = 3 * time.Second
			}
		})
		if !r.Flipped || r.Drifted() > 0 || (len(r.HeldOver) == 1) != held {
			t.Errorf("report %+v; want a flip without drift, held over: %t", r, held)
		}
		if held && len(r.HeldOver) == 1 {
			if h := r.HeldOver[0]; h.Type != "miss" || h.Cut != at || len(h.Views) != 1 || h.Views[0] != "misses" || h.Reason == "" {
				t.Errorf("held over: %+v; want misses at cut %d", h, at)
			}
			for _, a := range r.Audit {
				if (a.View == "misses") != strings.Contains(a.Skipped, "stays at cut") {
					t.Errorf("audit %+v; want that only misses are skipped", a)
				}
			}
		}
		publish()
		w.level()
		w.archived()
		w.exact()
		return r
	}
	w.archive()
	publish()
	w.fold()
	never := w.stuck() // the archiver may not have made the table yet
	w.check(os.RemoveAll(filepath.Join(never, "miss")))
	build(never, true, 0)
	first := build(w.root, false, 0)
	root := w.stuck()
	var last *batch.Report
	for range 5 { // more than are kept
		last = build(root, true, first.Cut)
	}
	// A table that cannot even be read is the same.
	log := filepath.Join(root, "miss", "_delta_log")
	w.check(os.RemoveAll(log))
	w.check(os.WriteFile(log, []byte("no directory"), 0o600))
	build(root, true, first.Cut)
	_, err := w.rollback(last.Build, true)
	w.check(err)
	w.exact()
	_, err = w.rollback(last.Build, false)
	w.check(err)
	build(w.root, false, 0)
	build(w.root, false, 0)
}
