package batch_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"watershed/batch"
	"watershed/batch/history"
	"watershed/schemas"
)

// compact compacts what all builds have.
func (w *world) compact(change func(*history.CompactOptions)) history.CompactReport {
	w.t.Helper()
	opts := history.CompactOptions{App: app}
	builds, err := w.db.Builds(w.t.Context())
	w.check(err)
	for _, info := range builds {
		b, err := w.db.Build(w.t.Context(), info.Number)
		w.check(err)
		opts.Keep = append(opts.Keep, b.Position.Seq)
	}
	if change != nil {
		change(&opts)
	}
	r, err := history.Compact(w.t.Context(), w.root, opts)
	w.check(err)
	return r
}

func (w *world) files() []history.File {
	w.t.Helper()
	table, err := history.Open(w.t.Context(), w.root, w.defs.Event("hit"))
	w.check(err)
	s, err := table.Snapshot(w.t.Context())
	w.check(err)
	return s.Files
}

// Compaction changes no answer, costs the next batch nothing, and what a rebuild computes from compacted
// files is what was computed from those before. What comes late is held against the rows that stayed.
func TestCompactedHistory(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.importFile(hits(0, 100, 1, 0) + hits(100, 200, 2, 0))
	w.publish(hits(200, 300, 3, 0) + hits(250, 300, 3, 5)) // of each of those the first counts
	w.publish(hits(80, 120, 2, 0))                         // 20 of them are imported
	w.fold()
	first := w.batch(nil)
	if got := len(w.compact(nil).Dates); got != 0 {
		t.Errorf("%d dates were compacted; want none, since build 0 has none of their events", got)
	}
	shared := func(o *history.CompactOptions) { o.Keep, o.MinFiles = []uint64{first.Position}, 1 }
	dropped := int64(0)
	for _, d := range w.compact(shared).Dates {
		dropped += d.Duplicates
	}
	if dropped != 50 || first.Duplicates != 50+20 {
		t.Errorf("%d rows were left out of %d duplicates; want 50 of 70, since 20 stand in the import too", dropped, first.Duplicates)
	}
	w.exact()
	none := func(step string, r *batch.Report) {
		t.Helper()
		if r.Drifted() > 0 || !r.Flipped {
			t.Errorf("%s: flipped %t, audit %+v", step, r.Flipped, r.Audit)
		}
		w.exact()
	}
	r := w.batch(nil)
	if none("after compaction", r); r.Slices.Computed != 0 || r.Slices.Reused != first.Slices.Computed {
		t.Errorf("after compaction: %+v; want %d slices used again", r.Slices, first.Slices.Computed)
	}
	rebuilt := w.batch(func(c *batch.Config) { c.Rebuild = true })
	if none("rebuilt", rebuilt); rebuilt.Slices.Computed != first.Slices.Computed || rebuilt.Duplicates != 20 {
		t.Errorf("rebuilt: %+v, %d duplicates; want all slices, and the 20 that the import has too", rebuilt.Slices, rebuilt.Duplicates)
	}
	// Late: 40 copies of compacted events and 10 new ones, through the log and by an import.
	w.publish(hits(180, 210, 3, 0))
	w.importFile(hits(10, 30, 1, 0) + hits(900, 910, 2, 0) + hits(290, 300, 3, 1))
	r = w.batch(nil)
	if none("late", r); r.Duplicates != 20+10+20+10 || r.Slices.Computed != first.Slices.Computed {
		t.Errorf("late: %d duplicates, %+v; want 60, and all dates computed", r.Duplicates, r.Slices)
	}
	latest := func(o *history.CompactOptions) { o.Keep, o.MinFiles, o.Every = []uint64{r.Position}, 1, true }
	if got := w.compact(latest); len(got.Dates) != 3 {
		t.Errorf("compacted again: %+v; want three dates", got)
	}
	none("again", w.batch(func(c *batch.Config) { c.Rebuild = true }))
	last := w.batch(nil)
	if none("at last", last); last.Slices.Computed != 0 {
		t.Errorf("at last: %+v; want all slices used again", last.Slices)
	}
	// A build from before the last compaction has other files, and they are there still.
	_, err := w.rollback(rebuilt.Build, false)
	w.check(err)
	none("rolled back", w.batch(nil))
}

// An import that was compacted is given up, and made again: views lose what it alone had, and nothing
// else, and have it again, from the slices of before.
func TestCompactedImportGivenUp(t *testing.T) {
	w := newWorld(t)
	w.archive()
	imported := hits(0, 100, 1, 0) + hits(100, 200, 2, 0)
	w.importFile(imported)
	w.publish(hits(80, 120, 1, 3) + hits(190, 230, 2, 3)) // 30 of them are imported, with other values
	w.fold()
	first := w.batch(nil)
	w.compact(func(o *history.CompactOptions) { o.Keep, o.MinFiles = []uint64{first.Position}, 1 })
	giveUp := func() {
		t.Helper()
		for _, f := range w.files() {
			if f.Import {
				w.check(os.Truncate(filepath.Join(w.root, "hit", f.Path), 100))
			}
		}
		v, err := history.Verify(t.Context(), w.root)
		w.check(err)
		r, err := history.Repair(t.Context(), w.root, app, v.Problems, nil, history.RepairOptions{AcceptLoss: true})
		if w.check(err); len(r.Left()) > 0 || len(r.Remedies) != 2 {
			t.Fatalf("got %+v; want both files of the import removed", r.Remedies)
		}
	}
	giveUp()
	w.importFile(imported)
	if r := w.batch(nil); r.Drifted() > 0 || !r.Flipped || r.Slices.Computed != 0 {
		t.Errorf("given up and made again: %+v, audit %+v; want all slices used again, and no drift", r.Slices, r.Audit)
	}
	w.exact()
	giveUp()
	without := w.batch(func(c *batch.Config) { c.AcceptHistory = true })
	w.exact()
	rows := int64(0)
	for _, f := range w.files() {
		rows += f.Rows
	}
	if rows != 40+40 || !without.Flipped {
		t.Errorf("flipped %t, with %d events in history; want the 80 of the log", without.Flipped, rows)
	}
	w.importFile(imported)
	if r := w.batch(nil); r.Drifted() > 0 || !r.Flipped {
		t.Errorf("made again later: audit %+v; want no drift", r.Audit)
	}
	w.exact()
	v, err := history.Verify(t.Context(), w.root)
	if w.check(err); len(v.Problems)+len(v.GivenUp) > 0 {
		t.Errorf("verify: %+v; want nothing", v)
	}
}

// Events that were compacted before any build had them are right in every view, but an audit cannot say
// any more which duplicates the speed layer showed: it says so, and does not call it drift.
func TestFreshCompactionSkipsTheAudit(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	w.batch(nil)
	w.publish(hits(100, 150, 1, 0) + hits(100, 110, 1, 0))
	w.importFile(hits(100, 150, 1, 0) + hits(150, 160, 1, 0))
	w.level()
	w.archived()
	fresh := func(o *history.CompactOptions) { o.Fresh = true }
	if got := w.compact(fresh).Dates; len(got) != 1 || got[0].Duplicates == 0 {
		t.Errorf("got %+v; want the date, without its duplicates", got)
	}
	r := w.batch(nil)
	w.exact()
	for _, a := range r.Audit {
		if !strings.Contains(a.Skipped, "compacted") {
			t.Errorf("audit %+v; want it skipped for the compaction", a)
		}
	}
	w.publish(hits(160, 170, 1, 0))
	if r = w.batch(nil); r.Drifted() > 0 || slices.ContainsFunc(r.Audit, func(a schemas.Audit) bool { return a.Skipped != "" }) {
		t.Errorf("the next audit: %+v; want no drift, and nothing skipped", r.Audit)
	}
	w.exact()
}

// Slices that were registered under the names of before are used again.
func TestFormerKeysAreKnown(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.importFile(hits(0, 100, 1, 0) + hits(100, 200, 2, 0))
	w.publish(hits(200, 300, 2, 0))
	w.fold()
	first := w.batch(nil)
	byDate := map[int32][]string{}
	for _, f := range w.files() {
		byDate[f.Date] = append(byDate[f.Date], f.Content)
	}
	for _, p := range w.plans() {
		for date, contents := range byDate {
			slices.Sort(contents)
			key := fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "slice 1\n%s\n%d\n%s\n", p.Hash, date, strings.Join(contents, "\n"))))
			day := time.Unix(int64(date)*86400, 0).UTC().Format(time.DateOnly)
			w.exec(fmt.Sprintf("ALTER TABLE %s.slices UPDATE key = '%s' WHERE plan = '%s' AND date = '%s' SETTINGS mutations_sync = 1", w.name, key, p.Hash, day))
		}
	}
	for range 2 {
		if r := w.batch(nil); r.Slices.Computed != 0 || r.Slices.Reused != first.Slices.Computed || r.Drifted() > 0 || len(r.HeldOver) > 0 {
			t.Errorf("report %+v; want all slices used again", r)
		}
	}
	w.exact()
}
