package batch

import (
	"context"
	"fmt"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
	"watershed/schemas/view"
)

// A large slice is one whose states come in several records, since there were more groups than the memory
// holds. Its records go into ClickHouse as they come, into a parcel that it
// has alone, where a group may stand in several rows:
//
//  1. Each record is inserted. If we stop here, the parcel is garbage that nothing names, and its id is
//     never used again.
//  2. When all are in, the parcel is condensed: one row for each group, in one part. From then on merges
//     change nothing, and the count of groups is what it will always be. If we stop here, it is garbage too.
//  3. The groups are counted: not fewer than the largest record had, and not more than all of them
//     together. Where a state column counts events, its sum must be what was sent.
//  4. The slice is registered under its key. If we stop here, the next run uses it.
type large struct {
	j      *job
	target *target
	id     uint64

	// Guarded by the inserter's mutex.
	left  int           // records that are not inserted yet, and one until the last one is known
	slice schemas.Slice // set by then

	most, all uint64 // groups of the largest record, and of all together
	sum       uint64 // of the column that counts
}

// larges are the large slices of a job, made as they are needed.
type larges struct {
	in      *inserter
	j       *job
	targets []*target

	mu sync.Mutex // guards what follows
	of []*large   // by target; nil: not large so far
}

func newLarges(in *inserter, j *job, targets []*target) *larges {
	return &larges{in: in, j: j, targets: targets, of: make([]*large, len(targets))}
}

func (l *larges) has(target int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[target] != nil
}

// add sends a record of a target's states off.
func (l *larges) add(ctx context.Context, target int, states arrow.Record) error {
	l.mu.Lock()
	if l.of[target] == nil {
		l.of[target] = l.in.newLarge(l.j, l.targets[target])
	}
	of := l.of[target]
	l.mu.Unlock()
	return l.in.part(ctx, of, states)
}

// end says that a target's slice has no more states, and what is to be registered.
func (l *larges) end(ctx context.Context, target int, s schemas.Slice) error {
	return l.in.ended(ctx, l.of[target], s)
}

func (in *inserter) newLarge(j *job, t *target) *large {
	in.mu.Lock()
	defer in.mu.Unlock()
	return &large{j: j, target: t, id: in.fresh(), left: 1}
}

// part sends one record of a large slice off.
func (in *inserter) part(ctx context.Context, l *large, states arrow.Record) error {
	n := uint64(rowsOf(states))
	x := &parcel{plan: l.target.plan, first: l.id, parts: []schemas.SliceStates{{Slice: l.id, States: states}}, rows: int64(n), bytes: bytesOf(states), large: l}
	in.mu.Lock()
	l.left++
	l.most, l.all, l.sum = max(l.most, n), l.all+n, l.sum+counted(l.target.plan, states)
	in.c.budget.waiting.Add(x.bytes)
	full := in.biggest()
	in.mu.Unlock()
	return in.send(ctx, append(full, x)...)
}

// ended books that a large slice has all its records.
func (in *inserter) ended(ctx context.Context, l *large, s schemas.Slice) error {
	s.ID = l.id
	in.mu.Lock()
	l.slice = s
	in.mu.Unlock()
	return in.send(ctx, &parcel{plan: l.target.plan, first: l.id, large: l})
}

// partDone books that a record was inserted, or that there are no more. After the last of it the slice
// is finished.
func (in *inserter) partDone(ctx context.Context, x *parcel) error {
	in.release(x)
	in.mu.Lock()
	x.large.left--
	last := x.large.left == 0
	in.mu.Unlock()
	if !last {
		return nil
	}
	return in.finish(ctx, x.large)
}

// finish makes a large slice known of which all records are inserted.
func (in *inserter) finish(ctx context.Context, l *large) error {
	plan := l.target.plan
	column, _ := counter(plan)
	groups, sum, err := in.r.store.CondenseSlice(ctx, plan, l.id, column)
	if err != nil {
		return fmt.Errorf("condense a slice: %w", err)
	}
	if groups < l.most || groups > l.all {
		return fmt.Errorf("slice %d holds %d groups after its inserts of %d with up to %d each: run the batch again", l.id, groups, l.all, l.most)
	}
	if column != "" && sum != l.sum {
		return fmt.Errorf("slice %d holds %d in all of column %s after its inserts, not %d: run the batch again", l.id, sum, column, l.sum)
	}
	in.mu.Lock()
	l.slice.Groups = groups
	in.book(l.j, l.target, l.slice)
	in.mu.Unlock()
	if in.r.cfg.Rebuild {
		return nil // a rebuild registers when it has compared
	}
	return in.r.store.RegisterSlices(ctx, in.r.term, []schemas.Slice{l.slice})
}

// counter is a state column of a plan that counts events, and its place; empty if there is none. Its
// sum over all rows is the same however they are merged.
func counter(p *view.Plan) (name string, at int) {
	for i, c := range p.Columns() {
		if c.ClickHouse == "SimpleAggregateFunction(sum, UInt64)" && !c.Nullable && !c.Key {
			return c.Name, i
		}
	}
	return "", 0
}

// counted is the sum of the counter over a record.
func counted(p *view.Plan, states arrow.Record) (n uint64) {
	name, at := counter(p)
	if name == "" {
		return 0
	}
	for _, x := range states.Column(at).(*array.Uint64).Uint64Values() {
		n += x
	}
	return n
}
