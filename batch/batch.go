// Package batch is the nightly layer: it recomputes views from history and makes the result
// live.
//
// A run is a row of steps, each of which may be the last one that a process lives through:
//
//  1. lease: a new term; what older batches still have running can no longer commit.
//  2. cut: cut n is published; it divides the log into what this build covers and what the
//     speed layer adds to it. A cut whose run died stays in the log, without a build.
//  3. snapshots: wait until the archiver has committed every type up to the cut. One that it has
//     not is held over: its views stay at the cut at which the live build has them.
//  4. slices: one per plan and date, named by what went into it. A slice that is registered
//     under its name is used again, so a run that died is taken up where it was, and a date
//     without changes costs nothing. States are inserted under ids that were never used,
//     counted, and only then registered: half a slice is never found.
//  5. audit: what was live until now, plus what the speed layer and imports added, against
//     the new build.
//  6. flip: the build's rows, then one row that makes it live, in every view at once.
//  7. garbage: what no kept build names is condemned, and dropped by the next run.
package batch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"go.opentelemetry.io/otel/trace"

	"watershed/batch/history"
	"watershed/internal/crash"
	"watershed/internal/traces"
	"watershed/schemas"
	"watershed/schemas/view"
)

// Role names the batch layer's terms.
const Role = "batch"

// Log is what a run needs of the log.
type Log interface {
	LastCut(ctx context.Context) (schemas.Cut, bool, error)
	// PublishCut publishes the cut after `last`. It fails if that is not the last one any more.
	PublishCut(ctx context.Context, last schemas.Cut, definitions, retiring schemas.Set) (schemas.Cut, error)
	// Next returns a number above floor that was never returned for the counter.
	Next(ctx context.Context, counter string, floor uint64) (uint64, error)
}

// Store is where slices and builds are kept.
type Store interface {
	EnsurePlans(ctx context.Context, plans []*view.Plan, fresh bool) error
	PublishViews(ctx context.Context, plans []*view.Plan) error
	Term(ctx context.Context, role string) (uint64, error)
	TakeOver(ctx context.Context, role string, term uint64) error

	// Slices returns the registered slices of plans, by their hashes, that are not condemned.
	Slices(ctx context.Context, plans ...string) ([]schemas.Slice, error)
	// InsertSlices writes states; it need not be atomic.
	InsertSlices(ctx context.Context, p *view.Plan, term uint64, parts []schemas.SliceStates) error
	// CountSlices returns how many groups each slice holds, of slices by the hashes of their plans.
	CountSlices(ctx context.Context, plans []*view.Plan, ids map[string][]uint64) (map[uint64]uint64, error)
	// CondenseSlice merges the states of a slice that was inserted in parts, alone in its parcel, into one row
	// for each group, for good. It returns the groups, and the sum of a state column, if one is named.
	CondenseSlice(ctx context.Context, p *view.Plan, id uint64, column string) (groups, sum uint64, err error)
	// RegisterSlices makes slices known under their keys, in one insert.
	RegisterSlices(ctx context.Context, term uint64, slices []schemas.Slice) error

	Positions(ctx context.Context, plans []*view.Plan) (map[string]schemas.Mark, error)
	Audit(ctx context.Context, p *view.Plan, spec schemas.AuditSpec) (schemas.Audit, error)
	SaveAudits(ctx context.Context, term uint64, audits []schemas.Audit) error

	// Check says what ClickHouse has lost of what the views rest on, and Seal makes those views throw
	// that would answer without it.
	Check(ctx context.Context) (schemas.Damage, error)
	// CheckBuild says what would be missing if a build were live.
	CheckBuild(ctx context.Context, number uint64) (schemas.Damage, error)
	Seal(ctx context.Context, d schemas.Damage) error
	// Begins says from where on the plans' speed states are complete; a plan without any is absent.
	Begins(ctx context.Context, plans []*view.Plan) (map[string]schemas.Mark, error)

	Live(ctx context.Context) (schemas.Live, error)
	Build(ctx context.Context, number uint64) (schemas.Build, error)
	SaveBuild(ctx context.Context, term uint64, b schemas.Build) error
	Flip(ctx context.Context, term uint64, to schemas.Live) error

	// Garbage condemns what only builds older than the kept ones name, and drops what was
	// condemned in an earlier run.
	Garbage(ctx context.Context, term, keep uint64) (dropped int, err error)
	// Forget drops merged views that are not shown, and tables of plans that are neither shown,
	// nor folded, nor in a kept build.
	Forget(ctx context.Context, term uint64, shown, folded []*view.Plan) (dropped int, err error)
}

// Config of a run. The zero value of a setting is its default.
type Config struct {
	History       string        // root directory of the Delta tables; required
	App           string        // txn app id of the archiver of this log; required
	Definitions   *schemas.Set  // nil: those of the log's last cut
	Rebuild       bool          // compute every slice again, and fail where a finished value differs
	Replace       bool          // with Rebuild: make what was computed live even so
	AcceptHistory bool          // go on from history as it is, even if it is not what the live build was computed from
	Wait          time.Duration // for the archiver, and for the speed layer's part of the audit, to pass the cut: 1 minute
	Workers       int           // dates computed at a time: one per core
	Gate          Gate          // drift that keeps the live build live: none does

	Engine Engine // computes the slices; nil: they are folded here

	// DuplicateMemory is how many bytes the tables that find duplicates may take, all workers together:
	// 256 MiB. Dates that need more are read several times; the result is the same. A worker takes
	// 16 KiB at least, and besides a bit for each row of a file that has duplicates.
	DuplicateMemory int64
	// Memory is how many bytes states may take, of all plans and workers together: 384 MiB. At most one
	// half is for states that wait to be inserted, the rest for groups that are being folded. Dates whose groups
	// need more are inserted in parts, which ClickHouse merges; the result is the same. A worker has a block of
	// events and what becomes of it besides.
	Memory int64

	Tracer trace.Tracer // of the run and its steps; nil: they have no spans

	share int64 // rows that a reading must have left for another worker to join it; 0: shareRows

	Progress func(Progress)
	Logger   *slog.Logger
}

// Progress says how far the step under way is.
type Progress struct {
	Step        string // cut, snapshots, slices, audit, flip, garbage
	Done, Total int64  // in Unit; Total 0: not known
	Unit        string
	Detail      string
}

func (c *Config) defaults() error {
	switch {
	case c.History == "":
		return errors.New("batch: no history directory")
	case c.App == "":
		return errors.New("batch: no txn app id")
	case c.Replace && !c.Rebuild:
		return errors.New("batch: replace goes with rebuild")
	case c.DuplicateMemory < 0 || c.Memory < 0:
		return errors.New("batch: negative memory")
	}
	if c.Wait == 0 {
		c.Wait = time.Minute
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.DuplicateMemory == 0 {
		c.DuplicateMemory = defaultDuplicateMemory
	}
	if c.Memory == 0 {
		c.Memory = defaultMemory
	}
	if c.share == 0 {
		c.share = shareRows
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return nil
}

// A run is one batch under way.
type run struct {
	cfg    Config
	log    Log
	store  Store
	term   uint64
	last   *schemas.Cut // the log's, when the run began; nil: it had none
	cut    schemas.Cut
	plans  []*view.Plan
	tables map[string]*history.Table // by event type
	live   schemas.Live              // before the flip
	base   schemas.Build             // the live build; it covers nothing if ClickHouse has lost it
	damage schemas.Damage            // what ClickHouse has lost of what the views rest on
	report Report

	speedPast bool // the speed layer has passed the cut with every plan
}

// Run computes a build at a new cut and makes it live. The report is filled as far as the run
// came, also when it fails. A *RebuildError says that a rebuilt slice differs from the one
// that was live.
func Run(ctx context.Context, log Log, store Store, cfg Config) (*Report, error) {
	r := &run{cfg: cfg, log: log, store: store, tables: make(map[string]*history.Table)}
	r.report.Started = time.Now().UTC()
	if err := r.cfg.defaults(); err != nil {
		return &r.report, err
	}
	ctx, span := traces.Root(ctx, r.cfg.Tracer, "batch")
	err := r.steps(ctx)
	r.trace(span, err)
	r.report.Seconds.Total = time.Since(r.report.Started).Seconds()
	return &r.report, r.overtaken(err)
}

// overtaken says it in an error if a newer term is why.
func (r *run) overtaken(err error) error {
	var f interface{ Fenced() bool }
	if errors.As(err, &f) && f.Fenced() {
		return fmt.Errorf("another batch run took over from this one (term %d): let it finish: %w", r.term, err)
	}
	return err
}

func (r *run) steps(ctx context.Context) error {
	var snaps snapshots
	var work *work
	sec := &r.report.Seconds
	for _, step := range []struct {
		name    string
		seconds *float64
		do      func(context.Context) error
	}{
		{"lease", &sec.Lease, func(ctx context.Context) error { return r.lease(ctx) }},
		{"cut", &sec.Cut, func(ctx context.Context) error { return r.publish(ctx) }},
		{"snapshots", &sec.Snapshots, func(ctx context.Context) (err error) { snaps, err = r.snapshots(ctx); return err }},
		{"slices", &sec.Slices, func(ctx context.Context) (err error) { work, err = r.slices(ctx, snaps); return err }},
		{"audit", &sec.Audit, func(ctx context.Context) error { return r.audit(ctx, work) }},
		{"flip", &sec.Flip, func(ctx context.Context) error { return r.flip(ctx, work) }},
		{"garbage", &sec.Garbage, func(ctx context.Context) error { return r.garbage(ctx) }},
	} {
		began := time.Now()
		r.cfg.Progress(Progress{Step: step.name})
		within, span := traces.Child(ctx, "batch "+step.name)
		err := step.do(within)
		traces.End(span, err)
		*step.seconds = time.Since(began).Seconds()
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// A fencedError says that a newer run has begun.
type fencedError struct{ term uint64 }

func (e *fencedError) Error() string { return fmt.Sprintf("term %d is newer than ours", e.term) }

// Fenced reports true.
func (e *fencedError) Fenced() bool { return true }

// lease takes a term of its own. From here on no older batch can write: if it was paused in
// an insert, the insert fails.
func (r *run) lease(ctx context.Context) error {
	floor, err := r.store.Term(ctx, Role)
	if err != nil {
		return err
	}
	if r.term, err = r.log.Next(ctx, "term."+Role, floor); err != nil {
		return err
	}
	r.report.Term = r.term
	crash.At("batch.term-taken")
	if err := r.store.TakeOver(ctx, Role, r.term); err != nil {
		return err
	}
	crash.At("batch.taken-over")
	// What is read from here on is decided by, and so must be what a newer run finds. The last
	// cut comes first: if a newer run began before it was read, that shows in the terms, and if
	// it begins after, its cut comes before ours, which is refused then.
	if err := r.readCut(ctx); err != nil {
		return err
	}
	return r.readLive(ctx)
}

// readCut reads the log's last cut, and then that our term is still the newest.
func (r *run) readCut(ctx context.Context) error {
	last, ok, err := r.log.LastCut(ctx)
	if err != nil {
		return fmt.Errorf("read the last cut: %w", err)
	}
	if ok {
		r.last = &last
	}
	newest, err := r.store.Term(ctx, Role)
	if err != nil {
		return err
	}
	if newest != r.term {
		return &fencedError{newest}
	}
	return nil
}

// readLive reads the live build, and looks at what ClickHouse has of it. Views that would answer
// without what is missing answer with an error from here on, until this run's build, or a later
// one, is live: everything is computed again that is not there.
func (r *run) readLive(ctx context.Context) (err error) {
	if r.damage, err = r.store.Check(ctx); err != nil {
		return err
	}
	if !r.damage.None() {
		r.cfg.Logger.Warn("batch: ClickHouse has lost some of the live build or of the speed states; it is computed again", "missing", r.damage.String())
		if err := r.store.Seal(ctx, r.damage); err != nil {
			return err
		}
	}
	var none interface{ NoLive() bool }
	r.live, err = r.store.Live(ctx)
	if err != nil && !(errors.As(err, &none) && none.NoLive()) {
		return fmt.Errorf("read the live build: %w", err)
	}
	if r.damage.All != "" { // whichever build was live, no view shows it, and no pin holds it
		r.live.Pinned, r.base = false, schemas.Build{Number: r.live.Build}
		return nil
	}
	if r.base, err = r.store.Build(ctx, r.live.Build); err != nil {
		return fmt.Errorf("read build %d, which is live: %w", r.live.Build, err)
	}
	return nil
}

// publish publishes cut n with the definitions to build by. Definitions that it leaves out,
// but that the live build still shows, retire: the speed layer folds them until the flip.
func (r *run) publish(ctx context.Context) error {
	for {
		err := r.publishAfter(ctx)
		var taken interface{ CutTaken() bool }
		if !errors.As(err, &taken) || !taken.CutTaken() {
			return err
		}
		// Of a newer run, which shows in the terms, or of who trims a log that fills up.
		if err := r.readCut(ctx); err != nil {
			return err
		}
	}
}

// publishAfter publishes the cut after the one that was read last.
func (r *run) publishAfter(ctx context.Context) error {
	var last schemas.Cut
	if r.last != nil {
		last = *r.last
	}
	defs := r.cfg.Definitions
	if defs == nil {
		if r.last == nil {
			return errors.New("the log has no cut yet and no definitions were given")
		}
		defs = &last.Definitions
	}
	var err error
	if r.plans, err = view.CompileSet(defs); err != nil {
		return err
	}
	if err := CheckHistory(ctx, r.cfg.History, changedEvents(defs, &last.Definitions)); err != nil {
		return err
	}
	if r.last == nil {
		if err := r.checkUnused(ctx, defs); err != nil {
			return err
		}
	}
	retiring, err := r.retiring(last)
	if err != nil {
		return err
	}
	if err := r.store.EnsurePlans(ctx, r.plans, r.last == nil); err != nil {
		return err
	}
	if r.cut, err = r.log.PublishCut(ctx, last, *defs, retiring); err != nil {
		return err
	}
	crash.At("batch.cut-published")
	r.report.Build, r.report.Cut, r.report.Position = r.cut.Number, r.cut.Number, r.cut.Position.Seq
	r.report.Baseline = r.live.Build
	return nil
}

// CheckHistory refuses event types that the tables there are cannot be widened for. It comes
// before a cut carries them: no archiver could go on from there. It changes nothing.
func CheckHistory(ctx context.Context, root string, defs *schemas.Set) error {
	for _, ev := range defs.Events {
		err := history.Check(ctx, root, ev)
		var mismatch *history.MismatchError
		if errors.As(err, &mismatch) {
			return &DefinitionError{Event: ev, Err: mismatch}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkUnused refuses a log without a cut if history or the live build stand in one: it was lost, and
// a first cut would let views begin with what came since.
func (r *run) checkUnused(ctx context.Context, defs *schemas.Set) error {
	stands := ""
	if r.live.Build > 0 {
		stands = fmt.Sprintf("build %d is live", r.live.Build)
	}
	for _, ev := range defs.Events {
		there, err := history.Exists(r.cfg.History, ev.Name)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		table, err := r.table(ctx, ev)
		if err != nil {
			return fmt.Errorf("history of %s: %w", ev.Name, err)
		}
		snap, err := table.Snapshot(ctx)
		if err != nil {
			return err
		}
		if at := snap.Position(r.cfg.App); at.Seq > 0 {
			stands = fmt.Sprintf("history of %s stands at its position %d", ev.Name, at.Seq)
		}
	}
	if stands == "" {
		return nil
	}
	return fmt.Errorf("the log has no cut, but %s: it was lost or made anew; `watershed repair` goes on from history", stands)
}

// changedEvents are the event types that are not defined so in the last cut. (A table may be ahead
// of the log, after an import by newer definitions: that must not stop what the log runs with.)
func changedEvents(defs, last *schemas.Set) *schemas.Set {
	alone := func(ev *schemas.Event) string { return (&schemas.Set{Events: []*schemas.Event{ev}}).Hash() }
	out := new(schemas.Set)
	for _, ev := range defs.Events {
		if old := last.Event(ev.Name); old == nil || alone(old) != alone(ev) {
			out.Events = append(out.Events, ev)
		}
	}
	return out
}

// A DefinitionError says that an event type cannot be taken over: its history cannot hold it.
// Nothing was published.
type DefinitionError struct {
	Event *schemas.Event
	Err   error // which change is not possible, and what is
}

func (e *DefinitionError) Error() string { return fmt.Sprintf("event %s: %v", e.Event.Name, e.Err) }
func (e *DefinitionError) Unwrap() error { return e.Err }

// retiring returns the definitions of the live build and of the last cut, retiring or not, whose
// plans the live build shows and the new definitions lack.
func (r *run) retiring(last schemas.Cut) (schemas.Set, error) {
	keep := make(map[string]bool)
	for _, p := range r.plans {
		keep[p.Hash] = true
	}
	var out schemas.Set
	for _, set := range []*schemas.Set{&r.base.Definitions, &last.Definitions, &last.Retiring} {
		plans, err := view.CompileSet(set)
		if err != nil {
			return out, fmt.Errorf("definitions of cut %d: %w", last.Number, err)
		}
		for _, p := range plans {
			if _, shown := r.base.Plans[p.Hash]; !shown || keep[p.Hash] {
				continue
			}
			keep[p.Hash] = true
			out.Views = append(out.Views, p.View)
			if out.Event(p.Event.Name) == nil {
				out.Events = append(out.Events, p.Event)
			}
		}
	}
	return out, nil
}
