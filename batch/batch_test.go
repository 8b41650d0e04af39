package batch_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"watershed/batch"
)

// A date without changes costs nothing, and a changed one costs that date.
func TestUnchangedDatesAreReused(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.importFile(hits(0, 100, 1, 0) + hits(100, 200, 2, 0))
	w.publish(hits(200, 300, 3, 0))
	w.fold()
	dates, plans := 3, len(w.plans())
	steps := []struct {
		change           func()
		computed, reused int
	}{
		{func() {}, dates * plans, 0},
		{func() {}, 0, dates * plans},
		{func() { w.publish(hits(300, 350, 2, 0)) }, plans, (dates - 1) * plans},
		{func() { w.importFile(hits(400, 450, 4, 0)) }, plans, dates * plans},
		{func() { w.importFile(hits(0, 50, 1, 0) + hits(500, 550, 1, 0)) }, plans, dates * plans}, // some came before
	}
	for i, s := range steps {
		s.change()
		r := w.batch(nil)
		if r.Slices.Computed != s.computed || r.Slices.Reused != s.reused {
			t.Errorf("build %d: computed %d, reused %d; want %d and %d", i, r.Slices.Computed, r.Slices.Reused, s.computed, s.reused)
		}
		if r.Drifted() > 0 || !r.Flipped {
			t.Errorf("build %d: flipped %t, audit %+v", i, r.Flipped, r.Audit)
		}
		w.exact()
	}
}

// A batch that dies at any of its writes, before or after it was done, leaves the views as they
// were or as they should be, and the next one puts everything right with what it finds.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	w.batch(nil)
	for _, done := range []bool{false, true} {
		for at := 1; ; at++ {
			day := 1 + at%20
			w.publish(hits(1000*at, 1000*at+10, day, 0) + hits(1000*at, 1000*at+5, day, 0))
			w.level()
			db := &mortal{DB: w.db, at: at, done: done}
			_, err := batch.Run(t.Context(), w.log, db, w.config())
			if db.died == "" {
				w.check(err)
				break
			}
			if !errors.Is(err, errLost) {
				t.Fatalf("killed at write %d, %s: got %v", at, db.died, err)
			}
			r := w.batch(nil)
			computed := len(w.plans()) // the one date that changed
			if done && db.died == "RegisterSlices" {
				computed--
			}
			late := db.died == "SaveAudits" || db.died == "SaveBuild" || db.died == "PublishViews" || db.died == "Flip" || db.died == "Garbage"
			if late {
				computed = 0
			}
			if got := r.Slices.Computed; got > computed {
				t.Errorf("killed at write %d, %s, done: %t: the next run computed %d slices; want %d", at, db.died, done, got, computed)
			}
			if r.Drifted() > 0 {
				t.Errorf("killed at write %d, %s, done: %t: audit %+v", at, db.died, done, r.Audit)
			}
			w.exact()
		}
	}
}

// A rebuild finds what is not as it was computed, names it, and replaces it only when told.
func TestRebuild(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.importFile(hits(0, 100, 1, 0) + hits(100, 200, 2, 0))
	w.fold()
	w.batch(nil)
	rebuild := func(c *batch.Config) { c.Rebuild = true }
	if r := w.batch(rebuild); len(r.Rebuilt) != len(w.plans()) || r.Slices.Computed == 0 {
		t.Errorf("rebuilt %+v; want every view", r.Rebuilt)
	}
	w.exact()
	// Somebody changes one group.
	sites := w.plans()[0]
	table := fmt.Sprintf("%s.%s__batch", w.name, sites.ID())
	live, err := w.db.Live(t.Context())
	w.check(err)
	slice := w.rows(fmt.Sprintf("SELECT toString(min(slice)) FROM %s.builds WHERE build = %d AND plan = '%s' AND slice > 0", w.name, live.Build, sites.Hash))[0]
	slice = strings.Trim(slice, "\" ")
	w.exec(fmt.Sprintf("ALTER TABLE %s UPDATE hits = hits + 1 WHERE site = 'site 3' AND _slice = %s SETTINGS mutations_sync = 1", table, slice))
	cfg := w.config()
	cfg.Rebuild = true
	_, err = batch.Run(t.Context(), w.log, w.db, cfg)
	var differs *batch.RebuildError
	if !errors.As(err, &differs) || len(differs.Views) != 1 || differs.Views[0].View != "sites" || differs.Views[0].Drifted != 1 ||
		differs.Views[0].Worst[0].Group["site"] != "site 3" || differs.Views[0].Worst[0].Measure != "hits" {
		t.Fatalf("got %v; want that hits of site 3 differ", err)
	}
	w.batch(func(c *batch.Config) { c.Rebuild, c.Replace = true, true })
	w.exact()
}

// The audit explains what duplicates explain, and names what nothing does.
func TestAudit(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	w.batch(nil)
	w.publish(hits(100, 200, 1, 0))
	w.importFile(hits(90, 110, 1, 1)) // some that came through the log, with another payload
	w.level()
	r := w.batch(nil)
	explained := uint64(0)
	for _, a := range r.Audit {
		explained += a.Explained
	}
	if r.Drifted() > 0 || explained == 0 || r.Duplicates != 20 || r.Conflicts.Count != 20 {
		t.Errorf("%d duplicates, %d conflicts, audit %+v; want 20 of each, and differences explained", r.Duplicates, r.Conflicts.Count, r.Audit)
	}
	if first := r.Conflicts.First; len(first) != 20 || first[0].Type != "hit" || first[0].Date != "2024-05-01" {
		t.Errorf("conflicts %+v; want those of May 1", first)
	}
	w.exact()
	w.publish(hits(200, 300, 2, 0))
	w.level()
	sites := w.plans()[0]
	w.exec(fmt.Sprintf("ALTER TABLE %s.%s__speed UPDATE hits = hits + 1 WHERE site = 'site 5' AND _epoch = (SELECT max(_epoch) FROM %[1]s.%[2]s__speed) SETTINGS mutations_sync = 1", w.name, sites.ID()))
	r = w.batch(nil)
	for _, a := range r.Audit {
		switch {
		case a.View != "sites" && a.Drifted > 0:
			t.Errorf("drift in %+v; want none", a)
		case a.View == "sites" && (a.Drifted != 1 || a.Worst[0].Group["site"] != "site 5" || a.Worst[0].Measure != "hits" || a.Largest < 1):
			t.Errorf("got %+v; want that hits of site 5 drifted", a)
		}
	}
	w.exact()
}

func TestPinned(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	first := w.batch(nil)
	w.publish(hits(100, 200, 1, 0))
	w.batch(nil)
	live, err := w.rollback(first.Build, true)
	w.check(err)
	if live.Build != first.Build || !live.Pinned {
		t.Errorf("live is %+v; want build %d, pinned", live, first.Build)
	}
	w.publish(hits(200, 300, 1, 0))
	w.level()
	pinned := w.batch(nil)
	if pinned.Flipped || !pinned.Pinned {
		t.Errorf("got %+v; want that a pinned build stays", pinned)
	}
	w.exact()
	live, err = w.rollback(pinned.Build, false)
	w.check(err)
	if live.Build != pinned.Build || live.Pinned {
		t.Errorf("live is %+v; want build %d", live, pinned.Build)
	}
	if r := w.batch(nil); !r.Flipped {
		t.Error("after a release a batch does not flip")
	}
	w.exact()
}

// A build that lacks a view of the live one cannot be shown again.
func TestRollbackBehindAChange(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	first := w.batch(nil)
	w.defs.Views[0].Where.Text = "n > 3"
	w.publish(hits(50, 150, 1, 0))
	changed := w.batch(func(c *batch.Config) { c.Definitions = &w.defs })
	w.exact()
	w.publish(hits(150, 170, 1, 0))
	w.level()
	w.batch(nil)
	w.exact()
	if _, err := w.rollback(first.Build, true); err == nil || !strings.Contains(err.Error(), "does not cover") {
		t.Errorf("got %v; want that build %d does not cover the view", err, first.Build)
	}
	_, err := w.rollback(changed.Build, true)
	w.check(err)
	w.exact()
}

// Without an archiver a batch ends with a word on what is missing, and the views stay.
func TestNoArchiver(t *testing.T) {
	w := newWorld(t)
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	cfg := w.config()
	cfg.Wait = 50 * time.Millisecond
	if _, err := batch.Run(t.Context(), w.log, w.db, cfg); err == nil || !strings.Contains(err.Error(), "archiver has not committed hit") {
		t.Errorf("got %v; want that the archiver has not committed hit", err)
	}
	w.archive()
	w.level()
	w.batch(nil)
	w.exact()
}

// Of two batches at once the later wins, and the older cannot write any more.
func TestTwoAtOnce(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	var second *batch.Report
	cfg := w.config()
	cfg.Progress = func(p batch.Progress) {
		if p.Step == "flip" && second == nil {
			second = w.batch(nil)
		}
	}
	_, err := batch.Run(t.Context(), w.log, w.db, cfg)
	var fenced interface{ Fenced() bool }
	if !errors.As(err, &fenced) || !fenced.Fenced() || !strings.Contains(err.Error(), "another batch run took over") {
		t.Errorf("the older ended with %v; want that it was fenced", err)
	}
	live, err := w.db.Live(t.Context())
	w.check(err)
	if live.Build != second.Build {
		t.Errorf("build %d is live; want %d", live.Build, second.Build)
	}
	w.exact()
}

var _ batch.Store = (*mortal)(nil)
