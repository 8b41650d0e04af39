package batch_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"watershed/batch"
	"watershed/schemas"
	"watershed/speed"
)

// gate is a batch's change that sets its gate.
func gate(w *world, s string) func(*batch.Config) {
	g, err := batch.ParseGate(s)
	w.check(err)
	return func(c *batch.Config) { c.Gate = g }
}

// one is the only value of a query.
func (w *world) one(sql string, args ...any) string {
	w.t.Helper()
	got := w.rows(fmt.Sprintf(sql, args...))
	if len(got) != 1 {
		w.t.Fatalf("%s has %d rows; want one", sql, len(got))
	}
	return strings.Trim(got[0], "\" ")
}

// wrong adds a state that no event made to the newest epoch of view sites: what a speed worker with a
// mistake would have written, on the store's own way.
func (w *world) wrong(site string, hits uint64) {
	w.t.Helper()
	p := w.plans()[0]
	term, err := w.db.Term(w.t.Context(), "speed")
	w.check(err)
	marks, err := w.db.Positions(w.t.Context(), w.plans())
	w.check(err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, p.StateSchema())
	defer b.Release()
	for i, f := range p.StateSchema().Fields() {
		switch f.Name {
		case "site":
			b.Field(i).(*array.StringBuilder).Append(site)
		case "hits":
			b.Field(i).(*array.Uint64Builder).Append(hits)
		default: // no value is added to n
			b.Field(i).AppendNull()
		}
	}
	w.check(w.db.InsertSpeed(w.t.Context(), p, term, marks[p.Hash], b.NewRecord()))
}

// An audit names exactly the group whose speed state is wrong, and both values. Behind a gate the live
// build stays, run after run, until one lets the new build through, which heals.
func TestGate(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	first := w.batch(nil)
	w.publish(hits(100, 200, 1, 0))
	w.level()
	hitsOf := func() string { return w.one("SELECT toString(hits) FROM %s.sites WHERE site = 'site 3'", w.name) }
	is := hitsOf()
	if want := fmt.Sprint(strings.Count(hits(0, 200, 1, 0), "site 3")); is != want {
		t.Fatalf("site 3 has %s hits; want %s", is, want)
	}
	w.wrong("site 3", 41)
	shown := hitsOf()

	var gated *batch.Report
	for _, limit := range []string{"0", "40.5", "10%"} {
		gated = w.batch(gate(w, limit))
		if gated.Flipped || !gated.Gated || gated.Drifted() != 1 {
			t.Fatalf("gate %s: flipped %t, gated %t, audit %+v; want one group that drifted", limit, gated.Flipped, gated.Gated, gated.Audit)
		}
		for _, a := range gated.Audit {
			if a.View != "sites" {
				if a.Gated || a.Drifted > 0 {
					t.Errorf("gate %s: %+v; want no drift", limit, a)
				}
				continue
			}
			g := a.Worst[0]
			if !a.Gated || len(a.Worst) != 1 || g.Group["site"] != "site 3" || g.Measure != "hits" || g.Drift != 41 || a.Largest != 41 {
				t.Errorf("gate %s: %+v; want that hits of site 3 drifted by 41", limit, a)
			}
			// Beside the slices that both builds share, so the values are those of the changed dates.
			if g.Baseline != shown || g.Batch != is {
				t.Errorf("gate %s: was %s, is %s; want %s and %s", limit, g.Baseline, g.Batch, shown, is)
			}
		}
		live, err := w.db.Live(t.Context())
		w.check(err)
		if live.Build != first.Build || hitsOf() != shown {
			t.Errorf("gate %s: build %d is live and shows %s; want %d and %s", limit, live.Build, hitsOf(), first.Build, shown)
		}
	}
	stored := w.one("SELECT concat(toString(drifted), ' ', toString(largest), ' ', toString(gated)) FROM %s.audits WHERE view = 'sites' AND build = %d", w.name, gated.Build)
	if stored != "1 41 true" {
		t.Errorf("table audits has %q; want the gated drift", stored)
	}
	// A gate that is wide enough, or none, lets it through.
	through := w.batch(gate(w, "41"))
	if !through.Flipped || through.Gated || through.Drifted() != 1 {
		t.Errorf("flipped %t, gated %t, drifted %d; want that a drift of 41 goes live", through.Flipped, through.Gated, through.Drifted())
	}
	w.exact()
	if r := w.batch(gate(w, "0")); !r.Flipped || r.Drifted() > 0 {
		t.Errorf("after the healing: flipped %t, audit %+v", r.Flipped, r.Audit)
	}
	// Gated builds were never live and go; what was live before them can be shown again, drift and all.
	builds, err := w.db.Builds(t.Context())
	w.check(err)
	var kept []uint64
	for _, b := range builds {
		kept = append(kept, b.Number)
	}
	if slices.Contains(kept, gated.Build) || !slices.Contains(kept, first.Build) {
		t.Errorf("kept are builds %v; want %d and not %d", kept, first.Build, gated.Build)
	}
	_, err = w.rollback(first.Build, true)
	w.check(err)
	if got := hitsOf(); got != shown {
		t.Errorf("build %d shows %s; want %s", first.Build, got, shown)
	}
}

// While builds are gated, one of them can be made live by hand.
func TestGatedBuildCanBeShown(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	w.batch(nil)
	w.publish(hits(100, 130, 1, 0))
	w.level()
	w.wrong("site 1", 7)
	r := w.batch(gate(w, "0"))
	if r.Flipped {
		t.Fatal("the gate let a drift through")
	}
	_, err := w.rollback(r.Build, false)
	w.check(err)
	w.exact()
	w.publish(hits(130, 140, 2, 0))
	w.level()
	if r := w.batch(gate(w, "0")); !r.Flipped || r.Drifted() > 0 {
		t.Errorf("flipped %t, audit %+v; want that the next run goes on", r.Flipped, r.Audit)
	}
	w.exact()
}

func TestParseGate(t *testing.T) {
	for _, s := range []string{"off", "0", "250", "0.5%", "1e+06"} {
		g, err := batch.ParseGate(s)
		if err != nil || g.String() != s {
			t.Errorf("gate %s is %v, %v", s, g, err)
		}
	}
	for _, s := range []string{"", "on", "-1", "NaN", "Inf", "1 %", "%"} {
		if g, err := batch.ParseGate(s); err == nil {
			t.Errorf("gate %q is %v; want an error", s, g)
		}
	}
	share, err := batch.ParseGate("5%")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		audit schemas.Audit
		shut  bool
	}{
		{schemas.Audit{}, false},
		{schemas.Audit{Drifted: 1, Largest: 1000, LargestShare: 0.05}, false},
		{schemas.Audit{Drifted: 1, Largest: 1, LargestShare: 0.051}, true},
	} {
		if share.Shut(f.audit) != f.shut || (batch.Gate{}).Shut(f.audit) {
			t.Errorf("gate 5%% of %+v: shut %t; want %t, and never when off", f.audit, share.Shut(f.audit), f.shut)
		}
	}
}

// Duplicates that come when the speed layer has forgotten the first are counted twice, until the batch
// removes them and says how many they were. Those within its horizon are not among them.
func TestLateDuplicatesAreHealed(t *testing.T) {
	w := newWorld(t)
	w.archive()
	const rows = 80
	w.background(speed.New(speedLog{w.log}, steady{w.db}, speed.Config{FlushEvery: 5 * time.Millisecond, HorizonRows: rows, Logger: slog.New(slog.DiscardHandler)}).Run)
	w.publish(hits(0, 100, 1, 0))
	w.level()
	w.batch(nil)
	w.publish(hits(100, 300, 1, 0))
	w.level()
	for at := 1000; at < 1000+10*rows; at += rows / 8 { // ten horizons
		w.publish(hits(at, at+rows/8, 2, 0))
		w.level()
	}
	w.publish(hits(2000, 2005, 2, 0))
	w.level()
	late := hits(20, 60, 1, 0) + hits(150, 170, 1, 0) // some of before the live build's cut, some of after it
	w.publish(late)
	w.publish(hits(2000, 2005, 2, 0)) // and these the speed layer remembers
	w.level()
	k := strings.Count(late, "\n")
	total := func() string { return w.one("SELECT toString(hits) FROM %s.total", w.name) }
	unique := 300 + 10*rows + 5
	if got, want := total(), fmt.Sprint(unique+k); got != want {
		t.Errorf("before the batch the views show %s events; want %s, %d of them twice", got, want, k)
	}
	r := w.batch(nil)
	if r.Drifted() > 0 || r.Duplicates != uint64(k+5) {
		t.Errorf("%d duplicates, audit %+v; want %d and no drift", r.Duplicates, r.Audit, k+5)
	}
	for _, a := range r.Audit {
		if a.LateDuplicates != uint64(k) || a.ImportDuplicates != 0 || a.AtMost || a.Explained == 0 {
			t.Errorf("audit %+v; want that exactly %d late duplicates were removed", a, k)
		}
	}
	if got := total(); got != fmt.Sprint(unique) {
		t.Errorf("after the batch the views show %s events; want %d", got, unique)
	}
	w.exact()
}

// A late event changes its old bucket at once, and its date's slice in the next build.
func TestLateEvent(t *testing.T) {
	w := newWorld(t)
	set, err := schemas.Load(fstest.MapFS{"d.yaml": {Data: []byte(definitions + `
---
view: days
from: hit
dimensions: {day: 'bucket(time, "24h")'}
measures: {hits: count()}
`)}})
	w.check(err)
	w.defs = *set
	w.archive()
	for day := 1; day <= 3; day++ {
		w.publish(hits(100*day, 100*day+30, day, 0))
	}
	first := w.batch(func(c *batch.Config) { c.Definitions = &w.defs })
	w.fold()
	if first.Slices.Computed != 3*len(w.plans()) {
		t.Fatalf("computed %d slices; want those of three days", first.Slices.Computed)
	}
	days := func() []string {
		return w.rows(fmt.Sprintf("SELECT toString(day), toString(hits) FROM %s.days ORDER BY day", w.name))
	}
	want := days()
	w.publish(`{"id":900,"time":"2024-05-01T10:00:00Z","site":"site 2","n":1}`)
	w.level()
	want[0] = strings.Replace(want[0], `"30"`, `"31"`, 1)
	if diff := cmp.Diff(want, days()); diff != "" {
		t.Errorf("after a late event (-want +got):\n%s", diff)
	}
	r := w.batch(nil)
	if r.Slices.Computed != len(w.plans()) || r.Dates != 1 || r.Drifted() > 0 {
		t.Errorf("computed %d slices on %d dates, audit %+v; want those of May 1", r.Slices.Computed, r.Dates, r.Audit)
	}
	if diff := cmp.Diff(want, days()); diff != "" {
		t.Errorf("in the next build (-want +got):\n%s", diff)
	}
	w.exact()
}

// Little memory changes nothing but the time it takes.
func TestLittleMemory(t *testing.T) {
	w := newWorld(t)
	w.archive()
	w.importFile(hits(0, 2000, 1, 0) + hits(2000, 2500, 2, 0))
	w.publish(hits(500, 900, 1, 1) + hits(3000, 3500, 3, 0))
	w.fold()
	little := func(c *batch.Config) { c.DuplicateMemory, c.Memory = 1, 1 }
	r := w.batch(little)
	if r.Duplicates != 400 || r.Conflicts.Count != 400 || len(r.Conflicts.First) != 100 {
		t.Errorf("%d duplicates, %d conflicts, %d listed; want 400, 400 and 100", r.Duplicates, r.Conflicts.Count, len(r.Conflicts.First))
	}
	w.exact()
	for i, c := range r.Conflicts.First {
		if c.Kept.Seq != 0 || c.Dropped.Seq == 0 || c.Date != "2024-05-01" || (i > 0 && c.Dropped.Row <= r.Conflicts.First[i-1].Dropped.Row) {
			t.Errorf("conflict %d is %+v; want imports kept, in order", i, c)
		}
	}
	w.importFile(hits(0, 100, 2, 0) + hits(2000, 2100, 2, 1))
	w.publish(hits(4000, 4100, 2, 0))
	w.level()
	if r := w.batch(little); r.Drifted() > 0 {
		t.Errorf("audit %+v; want no drift", r.Audit)
	}
	w.exact()
}
