package exact

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"watershed/schemas"
	"watershed/schemas/view"
)

// TestExact draws whole lives of a pipeline. At the end of each, answers merged of batch and
// speed, of speed alone and of batch alone are those of a recount by ClickHouse from the
// Parquet files, and history holds what was put in.
func TestExact(t *testing.T) {
	seeds := []uint64{*seedFlag}
	if *seedFlag == 0 {
		seeds = nil
		for range *runsFlag {
			seeds = append(seeds, uint64(rand.Uint32()))
		}
	}
	for i, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			t.Logf("go test ./internal/exact -run TestExact -seed %d", seed)
			run(t, seed, *seedFlag == 0 && i == 0)
		})
	}
}

// run is one life. With change, the definitions change at some cut; otherwise they may.
func run(t *testing.T, seed uint64, change bool) {
	p := newPipeline(t, seed)
	defs := definitions(t, firstViews)
	change = p.r.IntN(2) == 0 || change

	p.publish(p.r.IntN(10), true) // before there is a cut
	worker := p.worker(seed, p.db, true)
	archiver, archived := p.archiver(seed)
	_, err := p.log.PublishCut(t.Context(), schemas.Cut{}, *defs, schemas.Set{})
	p.check(err)

	rounds := 2 + p.r.IntN(3)
	changeAt := p.r.IntN(rounds)
	for round := range rounds {
		for range p.r.IntN(4) {
			p.publish(p.r.IntN(15), true)
			if p.r.IntN(2) == 0 {
				p.importFile()
			}
			if p.r.IntN(3) == 0 {
				archiver.restart()
			}
			if p.r.IntN(2) == 0 {
				worker.restart()
			}
		}
		if change && round == changeAt {
			defs = changed(t)
		}
		// While the batch runs, events go on to come. What is published after the last batch has
		// begun and was imported before counts twice until the next one, as is documented: speed
		// does not know imports.
		var g errgroup.Group
		g.Go(func() error {
			report, err := p.batch(defs)
			if err == nil && (report.Drifted() > 0 || !report.Flipped) {
				err = fmt.Errorf("build %d: flipped %t, drifted %+v", report.Build, report.Flipped, report.Audit)
			}
			return err
		})
		p.publish(p.r.IntN(15), false)
		worker.restart()
		p.publish(p.r.IntN(5), false)
		p.check(g.Wait())
	}
	p.publish(p.r.IntN(15), false)
	p.answers(seed, defs, worker, archiver, archived.Positions)
}

// answers ends the life and compares.
func (p *pipeline) answers(seed uint64, defs *schemas.Set, worker, archiver *loop, archived func() map[string]schemas.Position) {
	t := p.t
	plans, err := view.CompileSet(defs)
	p.check(err)
	p.caughtUp(p.db, plans)
	merged := make(map[string][][]string)
	for _, plan := range plans {
		merged[plan.Hash] = p.merged(p.name, plan)
	}
	report, err := p.batch(nil)
	p.check(err)
	if report.Drifted() > 0 {
		t.Errorf("last build: drifted %+v", report.Audit)
	}
	p.check(worker.end())
	p.await("history up to the last cut", func() (bool, error) {
		for _, at := range archived() {
			if at.Seq < report.Position {
				return false, nil
			}
		}
		return true, nil
	})
	p.check(archiver.end())

	p.historyHolds(defs)
	for _, plan := range plans {
		want := p.recount(plan, "true", 0)
		p.same("merged", plan, merged[plan.Hash], want)
		p.same("batch only", plan, p.merged(p.name, plan), want)
		if plan.Name() == "customers" && plan.View.Where.IsZero() {
			p.same("by hand", plan, p.byHand(plan.Event), want)
		}
	}
	p.speedOnly(seed, plans)

	info, err := p.log.Info(t.Context())
	p.check(err)
	if info.DeadLetters != uint64(p.misfits) {
		t.Errorf("got %d dead letters; want %d", info.DeadLetters, p.misfits)
	}
	t.Logf("%d messages, %d files, %d events, %d of them different, %d misfits, %d builds", p.published, p.files, len(p.lines), len(p.gen.unique), p.misfits, report.Build)
}

// speedOnly folds the whole log into another database, with no batch. A plan that a later cut
// defined begins there.
func (p *pipeline) speedOnly(seed uint64, plans []*view.Plan) {
	p.t.Helper()
	begins := make(map[string]uint64)
	last, _, err := p.log.LastCut(p.t.Context())
	p.check(err)
	for n := uint64(2); n <= last.Number; n++ {
		cut, err := p.log.Cut(p.t.Context(), n)
		p.check(err)
		before, err := p.log.Cut(p.t.Context(), n-1)
		p.check(err)
		now, err := view.CompileSet(&cut.Definitions)
		p.check(err)
		old, err := view.CompileSet(&before.Definitions)
		p.check(err)
		was := make(map[string]bool)
		for _, plan := range old {
			was[plan.Hash] = true
		}
		for _, plan := range now {
			if !was[plan.Hash] {
				begins[plan.Hash] = cut.Position.Seq
			}
		}
	}
	name := p.name + "_speed"
	db := p.database(name)
	p.check(db.EnsurePlans(p.t.Context(), plans, false))
	worker := p.worker(seed+1, db, false)
	p.caughtUp(db, plans)
	p.check(worker.end())
	for _, plan := range plans {
		got := p.ask(plan.SelectFinished(fmt.Sprintf("%s.%s__speed", name, plan.ID())))
		p.same("speed only", plan, got, p.recount(plan, "_seq > 0", begins[plan.Hash]))
	}
}
