package batch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/view"
)

const (
	insertsAtOnce = 2
	insertRows    = 256 << 10 // groups that make an insert
	insertSlices  = 384       // slices that make an insert
	defaultMemory = 384 << 20 // bytes of states

	// confirmEvery is how long slices that were inserted wait to be counted and registered together: so much
	// of the work is done again after a crash. To do it for each parcel took ClickHouse 14 ms of a processor.
	confirmEvery = time.Second
)

// An inserter gathers slices into inserts of useful size, counts what arrived, and registers
// it. It keeps the books of the step.
type inserter struct {
	r     *run
	queue chan *parcel

	mu        sync.Mutex // guards what follows
	c         *computation
	parcels   map[parcelOf]*parcel // being filled
	arrived   []arrival
	confirmed time.Time // when arrived was emptied
	last      uint64    // number of the last parcel begun
	dates     int
}

// An arrival is what is known of a parcel that was inserted and not confirmed yet.
type arrival struct {
	plan   *view.Plan
	groups map[uint64]uint64 // sent, by slice
	slices []schemas.Slice   // to register
}

// A parcel is slices of one plan that are inserted together, into one partition. A partition
// for each slice would be simpler, but 453,000 rows of 151 slices took 0.8 s that way, and
// 0.2 s in one.
type parcel struct {
	plan   *view.Plan
	first  uint64 // the id of its first slice
	n      uint64 // slices so far, empty ones included
	parts  []schemas.SliceStates
	slices []schemas.Slice // to register; the audit's parcels have none
	rows   int64
	bytes  int64  // of the states
	large  *large // the slice that the parcel is a part of; nil: it is whole slices
}

// parcelOf identifies a parcel that is being filled.
type parcelOf struct {
	plan  string // hash
	audit bool   // what only the audit reads is dropped soon, and has partitions of its own
}

func newInserter(r *run) *inserter {
	return &inserter{r: r, queue: make(chan *parcel), parcels: make(map[parcelOf]*parcel), confirmed: time.Now()}
}

// date books a date whose duplicates are known.
func (in *inserter) date(j *job, d *drops) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.dates++
	in.r.report.Dates++
	in.r.report.Duplicates += uint64(d.n)
	in.r.report.Conflicts.Count += d.differing.n
	in.r.report.Conflicts.First = firstConflicts(append(in.r.report.Conflicts.First, d.differing.first...), maxConflicts)
	for _, f := range j.date.files {
		in.r.report.Events += uint64(f.Rows)
	}
	in.r.cfg.Progress(Progress{Step: "slices", Done: int64(in.dates), Total: int64(in.c.jobs), Unit: "dates", Detail: dateText(j.date.day)})
}

// slice books a computed slice, and sends its plan's parcel off when that is full.
func (in *inserter) slice(ctx context.Context, j *job, t *target, s schemas.Slice, states arrow.Record) error {
	in.mu.Lock()
	x := in.parcel(t.plan, false)
	s.ID, s.Groups = x.first+x.n, uint64(rowsOf(states))
	in.book(j, t, s)
	x.slices = append(x.slices, s)
	full := in.add(x, false, states)
	in.mu.Unlock()
	return in.send(ctx, full...)
}

// book puts a computed slice into the build and its audit. The caller has the lock.
func (in *inserter) book(j *job, t *target, s schemas.Slice) {
	in.r.report.Slices.Computed++
	in.r.report.Groups += s.Groups
	in.c.results = append(in.c.results, result{t.plan, s})
	in.c.w.add(t.plan, s)
	if t.audited && !j.plain(t) {
		sides(in.c.w.specs[t.plan.Hash], t.base, &s)
	}
}

// conflicts books conflicts among what the live build may have shown.
func (in *inserter) conflicts(targets []*target, c conflicts) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, t := range targets {
		spec := in.c.w.specs[t.plan.Hash]
		spec.Conflicts += c.n
		spec.First = firstConflicts(append(spec.First, c.first...), maxAuditConflicts)
	}
}

// audited changes the spec of a target's audit.
func (in *inserter) audited(t *target, change func(s *schemas.AuditSpec)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	change(in.c.w.specs[t.plan.Hash])
}

// extra books states that only the audit reads, in lists of its spec.
func (in *inserter) extra(ctx context.Context, t *target, states arrow.Record, lists func(s *schemas.AuditSpec) []*[]uint64) error {
	if rowsOf(states) == 0 {
		return nil
	}
	in.mu.Lock()
	x := in.parcel(t.plan, true)
	for _, ids := range lists(in.c.w.specs[t.plan.Hash]) {
		*ids = append(*ids, x.first+x.n)
	}
	full := in.add(x, true, states)
	in.mu.Unlock()
	return in.send(ctx, full...)
}

// parcel returns the plan's parcel that is being filled. A run has less than 2^20 parcels of
// less than 2^12 slices, so its ids are below those of any later term.
func (in *inserter) parcel(p *view.Plan, audit bool) *parcel {
	of := parcelOf{p.Hash, audit}
	if in.parcels[of] == nil {
		in.parcels[of] = &parcel{plan: p, first: in.fresh()}
	}
	return in.parcels[of]
}

// fresh is the id of the first slice of a new parcel. The caller has the lock.
func (in *inserter) fresh() uint64 {
	in.last++
	return schemas.SliceID(in.r.term, in.last, 0)
}

// add puts the states of the next slice into a parcel. It returns the parcels to send: that one
// when it is full, and the biggest ones while all together are more than the memory for them.
func (in *inserter) add(x *parcel, audit bool, states arrow.Record) (full []*parcel) {
	if n := rowsOf(states); n > 0 {
		size := bytesOf(states)
		x.parts = append(x.parts, schemas.SliceStates{Slice: x.first + x.n, States: states})
		x.rows, x.bytes = x.rows+n, x.bytes+size
		in.c.budget.waiting.Add(size)
	}
	rows := int64(insertRows)
	if in.dates == in.c.jobs { // the last dates are under way: what is not thin had better go now than when all is folded
		rows = thinGroupsBelow
	}
	if x.n++; x.rows >= rows || x.n >= insertSlices {
		delete(in.parcels, parcelOf{x.plan.Hash, audit})
		full = append(full, x)
	}
	return append(full, in.biggest()...)
}

// biggest takes the biggest parcels that are being filled while all together take more than the memory
// for them. The caller has the lock.
func (in *inserter) biggest() (full []*parcel) {
	// What is under way counts too, but cannot be hurried; whoever sends waits for it.
	for left := in.c.budget.waiting.Load(); left > in.r.cfg.Memory/2; {
		var of parcelOf
		for k, y := range in.parcels {
			if in.parcels[of] == nil || y.bytes > in.parcels[of].bytes {
				of = k
			}
		}
		big := in.parcels[of]
		if big == nil || big.bytes == 0 {
			break
		}
		delete(in.parcels, of)
		full, left = append(full, big), left-big.bytes
	}
	return full
}

func (in *inserter) send(ctx context.Context, parcels ...*parcel) error {
	for _, x := range parcels {
		select {
		case in.queue <- x:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// rest sends what is left.
func (in *inserter) rest(ctx context.Context) error {
	in.mu.Lock()
	left := slices.Collect(maps.Values(in.parcels))
	clear(in.parcels)
	in.mu.Unlock()
	return in.send(ctx, left...)
}

// spent books where time went.
func (in *inserter) spent(p Phases) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.r.report.Phases.add(p)
}

func (in *inserter) close() { close(in.queue) }

func (in *inserter) work(ctx context.Context) error {
	for {
		select {
		case x, ok := <-in.queue:
			watch, phases := startWatch(), Phases{}
			var err error
			if ok {
				err = in.deliver(ctx, x)
			} else {
				err = in.confirm(ctx) // what others have still under way they confirm themselves
			}
			watch.lap(&phases.Insert)
			in.spent(phases)
			if !ok || err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// deliver inserts a parcel. Its slices are made known soon after, together with others.
//
//  1. The states go into a partition of their own. If we stop here, they are garbage that
//     nothing names; their ids are never used again.
//  2. What has arrived since it was done last is confirmed, unless that was just now.
//
// For a part of a large slice that is step 1 alone.
func (in *inserter) deliver(ctx context.Context, x *parcel) error {
	if len(x.parts) > 0 {
		if err := in.r.store.InsertSlices(ctx, x.plan, in.r.term, x.parts); err != nil {
			return fmt.Errorf("view %s: insert %d slices: %w", x.plan.Name(), len(x.parts), err)
		}
	}
	if x.large != nil {
		if err := in.partDone(ctx, x); err != nil {
			return fmt.Errorf("view %s: %w", x.plan.Name(), err)
		}
		return nil
	}
	a := arrival{plan: x.plan, groups: make(map[uint64]uint64, len(x.parts)), slices: x.slices}
	for _, part := range x.parts {
		a.groups[part.Slice] = uint64(part.States.NumRows())
	}
	in.release(x)
	in.mu.Lock()
	in.arrived = append(in.arrived, a)
	due := time.Since(in.confirmed) >= confirmEvery
	in.mu.Unlock()
	if !due {
		return nil
	}
	return in.confirm(ctx)
}

// confirm makes the slices known that have arrived.
//
//  1. Each slice must hold as many groups as were sent. If we stop before they are registered, their
//     states are garbage that nothing names, and the next run computes them again.
//  2. All are registered under their keys, in one insert. If we stop here, the next run uses them.
func (in *inserter) confirm(ctx context.Context) error {
	in.mu.Lock()
	arrived := in.arrived
	in.arrived, in.confirmed = nil, time.Now()
	in.mu.Unlock()
	if len(arrived) == 0 {
		return nil
	}
	var plans []*view.Plan
	var register []schemas.Slice
	ids := make(map[string][]uint64)
	for _, a := range arrived {
		register = append(register, a.slices...)
		if ids[a.plan.Hash] == nil {
			plans = append(plans, a.plan)
		}
		ids[a.plan.Hash] = slices.AppendSeq(ids[a.plan.Hash], maps.Keys(a.groups))
	}
	counts, err := in.r.store.CountSlices(ctx, plans, ids)
	if err != nil {
		return fmt.Errorf("count slices: %w", err)
	}
	for _, a := range arrived {
		for id, want := range a.groups {
			if got := counts[id]; got != want {
				return fmt.Errorf("view %s: slice %d holds %d groups after its insert, not %d: run the batch again", a.plan.Name(), id, got, want)
			}
		}
	}
	if len(register) == 0 || in.r.cfg.Rebuild {
		return nil // the audit's parcels have none, and a rebuild registers when it has compared
	}
	return in.r.store.RegisterSlices(ctx, in.r.term, register)
}

// release gives the memory of a parcel's states back.
func (in *inserter) release(x *parcel) {
	for _, part := range x.parts {
		part.States.Release()
	}
	in.c.budget.waiting.Add(-x.bytes)
}

// sides puts a changed date on both sides of an audit.
func sides(s *schemas.AuditSpec, base, now *schemas.Slice) {
	if base != nil {
		s.Old = append(s.Old, base.ID)
	}
	s.New = append(s.New, now.ID)
}

// bytesOf is the memory of a record of states.
func bytesOf(rec arrow.Record) (n int64) {
	for _, c := range rec.Columns() {
		n += dataBytes(c.Data())
	}
	return n
}

func dataBytes(d arrow.ArrayData) (n int64) {
	for _, b := range d.Buffers() {
		if b != nil {
			n += int64(b.Len())
		}
	}
	for _, child := range d.Children() {
		n += dataBytes(child)
	}
	return n
}

func rowsOf(rec arrow.Record) int64 {
	if rec == nil {
		return 0
	}
	return rec.NumRows()
}
