package batch

import (
	"context"
	"fmt"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// A work is what the slices step hands on: the build, and for each plan what to audit.
type work struct {
	build schemas.Build
	snaps snapshots
	specs map[string]*schemas.AuditSpec // by plan hash; plans that can be audited
}

// add puts a slice into the build.
func (w *work) add(p *view.Plan, s schemas.Slice) {
	of := w.build.Plans[p.Hash]
	of.Slices = append(of.Slices, s)
	w.build.Plans[p.Hash] = of
}

// unaudited says why a plan cannot be compared with what was shown of it; empty if it can.
func (r *run) unaudited(p *view.Plan, snap *snapshot) string {
	base, covered := r.base.Plans[p.Hash]
	missing := r.damage.Of(p.Hash)
	switch {
	case snap == nil && covered:
		return fmt.Sprintf("history of %s has not reached cut %d: the view stays at cut %d", p.Event.Name, r.cut.Number, base.Cut)
	case snap == nil:
		return fmt.Sprintf("history of %s has not reached cut %d, and no build has the view", p.Event.Name, r.cut.Number)
	case missing != "":
		return "what was shown until now was not whole: " + missing
	case !covered:
		return fmt.Sprintf("build %d, live until now, does not cover this definition", r.base.Number)
	case snap.ahead:
		return fmt.Sprintf("history was compacted with events that build %d, live until now, does not have", r.base.Number)
	case snap.lost:
		return fmt.Sprintf("history does not have any more what cut %d was built from", base.Cut)
	}
	return ""
}

// A job computes slices of one date: its files are read once for all plans that need it.
type job struct {
	snap    *snapshot
	date    date
	targets []*target
}

// A target is one plan in a job.
type target struct {
	plan    *view.Plan
	key     sliceKey
	reuse   *schemas.Slice // registered under the key: only the audit's part is computed
	base    *schemas.Slice // the live build's slice of the date
	audited bool           // the live build covers the plan, and another slice or none for the date
}

// plain reports whether the live build has nothing of the date, and everything on it was
// imported since: but for duplicates that were dropped, both sides of an audit would be the same
// fold of the same files.
func (j *job) plain(t *target) bool {
	return t.base == nil && len(j.date.fresh) == len(j.date.files)
}

// slices finds or computes the slice of each plan and date.
func (r *run) slices(ctx context.Context, snaps snapshots) (*work, error) {
	w := &work{
		build: schemas.Build{Number: r.cut.Number, Cut: r.cut.Number, Position: r.cut.Position, Definitions: r.cut.Definitions,
			Plans: make(map[string]schemas.Covered), At: time.Now().UTC()},
		snaps: snaps,
		specs: make(map[string]*schemas.AuditSpec),
	}
	for _, p := range r.plans {
		base, covered := r.base.Plans[p.Hash]
		snap := snaps[p.Event.Name]
		if snap == nil { // held over
			if covered {
				w.build.Plans[p.Hash] = base
			}
			continue
		}
		w.build.Plans[p.Hash] = schemas.Covered{Cut: r.cut.Number, Position: r.cut.Position}
		if covered && r.unaudited(p, snap) == "" {
			w.specs[p.Hash] = &schemas.AuditSpec{Build: r.cut.Number, Baseline: r.base.Number, From: base.Cut, To: r.cut.Number}
		}
	}
	old, err := r.allWhole(ctx, snaps)
	if err != nil {
		return nil, err
	}
	w.imported(r.plans, snaps)
	jobs := r.plan(snaps, w, old)
	c := newComputation(r, w, len(jobs))
	if err := c.run(ctx, jobs); err != nil {
		return nil, err
	}
	crash.At("batch.slices-computed")
	r.dropAgedSlices(w)
	if r.cfg.Rebuild {
		return w, r.compare(ctx, w, c.results, old)
	}
	return w, nil
}

// allWhole returns, for each plan that has a snapshot, by its hash, the registered slices that the
// snapshot's dates can use, by key. A slice that does not hold as many groups as were registered
// (ClickHouse has lost some) is not among them.
func (r *run) allWhole(ctx context.Context, snaps snapshots) (map[string]map[string]schemas.Slice, error) {
	var plans []*view.Plan
	var hashes []string
	for _, p := range r.plans {
		if snaps[p.Event.Name] != nil {
			plans, hashes = append(plans, p), append(hashes, p.Hash)
		}
	}
	listed, err := r.store.Slices(ctx, hashes...)
	if err != nil {
		return nil, err
	}
	registered := make(map[string][]schemas.Slice, len(plans))
	for _, s := range listed {
		registered[s.Plan] = append(registered[s.Plan], s)
	}
	out, ids := make(map[string]map[string]schemas.Slice, len(plans)), make(map[string][]uint64, len(plans))
	for _, p := range plans {
		out[p.Hash] = usable(p, snaps[p.Event.Name], registered[p.Hash])
		for _, s := range out[p.Hash] {
			ids[p.Hash] = append(ids[p.Hash], s.ID)
		}
	}
	counts, err := r.store.CountSlices(ctx, plans, ids)
	if err != nil {
		return nil, err
	}
	for _, p := range plans {
		for key, s := range out[p.Hash] {
			if counts[s.ID] != s.Groups {
				r.cfg.Logger.Warn("batch: a slice has lost groups in ClickHouse; it is computed again",
					"view", p.Name(), "date", dateText(s.Date), "groups", s.Groups, "found", counts[s.ID])
				delete(out[p.Hash], key)
			}
		}
	}
	return out, nil
}

// forEachPlan calls do for some plans at a time: what ClickHouse is asked for each of them waits more
// than it works.
func (r *run) forEachPlan(ctx context.Context, do func(ctx context.Context, i int, p *view.Plan) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(plansAtOnce)
	for i, p := range r.plans {
		g.Go(func() error { return do(ctx, i, p) })
	}
	return g.Wait()
}

// plansAtOnce is how many plans ClickHouse is asked about at a time.
const plansAtOnce = 4

// usable returns the slices, of those that are registered, that the snapshot's dates can use, by key.
func usable(p *view.Plan, snap *snapshot, registered []schemas.Slice) map[string]schemas.Slice {
	wanted := make(map[string]string, 2*len(snap.dates))
	for _, d := range snap.dates {
		key := keyOf(p, d)
		wanted[key.former], wanted[key.now] = key.now, key.now
	}
	byKey := make(map[string]schemas.Slice, len(snap.dates))
	for _, s := range registered {
		if key, ok := wanted[s.Key]; ok && s.Key != "" && s.ID > byKey[key].ID {
			byKey[key] = s
		}
	}
	return byKey
}

// plan decides for each plan and date: use the slice there is, or compute.
func (r *run) plan(snaps snapshots, w *work, old map[string]map[string]schemas.Slice) []*job {
	var jobs []*job
	thin := make(map[uint64]bool)
	for _, byKey := range old {
		maps.Copy(thin, thinSlices(byKey))
	}
	for _, ev := range r.cut.Definitions.Events {
		snap := snaps[ev.Name]
		if snap == nil {
			continue
		}
		for _, d := range snap.dates {
			j := &job{snap: snap, date: d}
			for _, p := range r.plans {
				if p.Event.Name != ev.Name {
					continue
				}
				t := &target{plan: p, key: keyOf(p, d), base: sliceOn(r.base.Plans[p.Hash].Slices, d.day)}
				if s, ok := old[p.Hash][t.key.now]; ok && !r.cfg.Rebuild && !thin[s.ID] {
					t.reuse = &s
				}
				audit := w.specs[p.Hash] != nil
				t.audited = audit && (t.base == nil || !t.key.is(t.base.Key) || r.cfg.Rebuild)
				if t.reuse == nil {
					j.targets = append(j.targets, t)
					continue
				}
				r.report.Slices.Reused++
				w.add(p, *t.reuse)
				if !t.audited {
					continue
				}
				if !j.plain(t) {
					sides(w.specs[p.Hash], t.base, t.reuse)
				}
				if t.reuse.Duplicates > 0 || len(d.fresh) > 0 && !j.plain(t) {
					j.targets = append(j.targets, t) // for the audit's part
				}
			}
			if len(j.targets) > 0 {
				jobs = append(jobs, j)
			}
		}
	}
	return jobs
}

// dropAgedSlices puts what the live build has and the new one has not on the audit's old side:
// dates that are gone from history.
func (r *run) dropAgedSlices(w *work) {
	for plan, spec := range w.specs {
		for _, s := range r.base.Plans[plan].Slices {
			if sliceOn(w.build.Plans[plan].Slices, s.Date) == nil {
				spec.Old = append(spec.Old, s.ID)
			}
		}
	}
}

func sliceOn(slices []schemas.Slice, day int32) *schemas.Slice {
	for i := range slices {
		if slices[i].Date == day {
			return &slices[i]
		}
	}
	return nil
}

// A computation is the slices step at work: dates are read and folded by some workers, and
// inserted by others.
type computation struct {
	r       *run
	w       *work
	insert  *inserter
	crew    *crew
	push    *pusher // nil: slices are folded here
	budget  budget
	jobs    int
	results []result
}

// A result is a slice that was computed, not reused.
type result struct {
	plan  *view.Plan
	slice schemas.Slice
}

func newComputation(r *run, w *work, jobs int) *computation {
	c := &computation{r: r, w: w, jobs: jobs, insert: newInserter(r), crew: newCrew(r.cfg.Workers, r.cfg.share)}
	c.budget.limit, c.budget.workers = r.cfg.Memory, int64(r.cfg.Workers)
	c.insert.c = c
	if r.cfg.Engine != nil {
		c.push = newPusher(c.insert)
	}
	return c
}

func (c *computation) run(ctx context.Context, jobs []*job) error {
	inserts, insertCtx := errgroup.WithContext(ctx)
	for range insertsAtOnce {
		inserts.Go(func() error { return c.insert.work(insertCtx) })
	}
	folds, foldCtx := errgroup.WithContext(insertCtx)
	defer context.AfterFunc(foldCtx, c.crew.end)()
	queue := make(chan *job)
	folds.Go(func() error {
		defer close(queue)
		for _, j := range jobs {
			select {
			case queue <- j:
			case <-foldCtx.Done():
				return foldCtx.Err()
			}
		}
		return nil
	})
	for range c.r.cfg.Workers {
		folds.Go(func() error { return newFolder(c).all(foldCtx, queue) })
	}
	err := folds.Wait()
	if err == nil {
		err = c.insert.rest(insertCtx)
	}
	if err == nil && c.push != nil {
		err = c.push.rest(insertCtx)
	}
	c.insert.close()
	if insertErr := inserts.Wait(); insertErr != nil { // the cause, if folding was cancelled by it
		return insertErr
	}
	return err
}

// all computes dates from the queue, and then helps others with theirs.
func (f *folder) all(ctx context.Context, queue <-chan *job) error {
	defer func() {
		f.c.budget.set(&f.held, 0)
		f.c.insert.spent(f.phases)
	}()
	where := func(j *job, err error) error {
		return fmt.Errorf("%s on %s: %w", j.snap.table.Event().Name, dateText(j.date.day), err)
	}
	for j := range queue {
		if err := f.do(ctx, j); err != nil {
			return where(j, err)
		}
	}
	f.c.crew.retire()
	for p := f.c.crew.join(); p != nil; p = f.c.crew.join() {
		err := f.work(ctx, p)
		f.c.crew.leave(p, err)
		if err != nil {
			return where(p.j, err)
		}
	}
	return nil
}
