package view

import (
	"fmt"

	"watershed/schemas/agg"
	"watershed/schemas/column"
)

// chunk is how many rows are numbered and measured at a time: their groups stay in the first
// level of cache from one measure to the next.
const chunk = 4096

// A Fold turns blocks of events into one state per group. It must not be used by two
// goroutines at once, and takes memory in proportion to the groups alone.
//
// Each dimension's values are numbered, the numbers of the first two are numbered as pairs,
// those pairs with the third, and so on; the last number is the group's. So keys of any width
// need one kind of table, and a group's key is found by walking back.
type Fold struct {
	plan     *Plan
	keys     []*key
	pairs    []table // pairs[i] numbers (groups by keys[:i+1], number in keys[i+1])
	measures []agg.Column
	groups   int
	rows     int64

	sel, group, other []int32 // scratch
}

// NewFold returns an empty fold.
func (p *Plan) NewFold() *Fold {
	f := &Fold{plan: p, group: make([]int32, chunk), other: make([]int32, chunk)}
	for _, d := range p.Dimensions {
		f.keys = append(f.keys, newKey(d.Type))
	}
	f.pairs = make([]table, max(0, len(f.keys)-1))
	for _, m := range p.Measures {
		f.measures = append(f.measures, m.Func.New())
	}
	return f
}

// Add folds rows of a block: those listed, in ascending order, or all if rows is nil. Nothing
// of the block is kept. After an error the fold is not to be used any more.
func (f *Fold) Add(b *column.Block, rows []int32) error {
	rows, err := f.filter(b, rows)
	if err != nil || len(rows) == 0 {
		return err
	}
	dims := make([]column.Vector, len(f.keys))
	for i, d := range f.plan.Dimensions {
		if dims[i], err = d.Expr.Eval(b); err != nil {
			return fmt.Errorf("view %s: dimension %s: %w", f.plan.Name(), d.Name, err)
		}
	}
	args := make([]column.Vector, len(f.measures))
	for i, m := range f.plan.Measures {
		if m.Arg == nil {
			continue
		}
		if args[i], err = m.Arg.Eval(b); err != nil {
			return fmt.Errorf("view %s: measure %s: %w", f.plan.Name(), m.Name, err)
		}
	}
	f.rows += int64(len(rows))
	for len(rows) > 0 {
		part := rows[:min(chunk, len(rows))]
		rows = rows[len(part):]
		groups := f.number(dims, part)
		for i, m := range f.measures {
			m.Grow(f.groups)
			m.Add(groups, part, args[i])
		}
	}
	return nil
}

// filter lists the rows that the plan looks at.
func (f *Fold) filter(b *column.Block, rows []int32) ([]int32, error) {
	if rows == nil {
		n := b.Len()
		f.sel = sized(f.sel, n)
		rows = f.sel
		for i := range rows {
			rows[i] = int32(i)
		}
	}
	if f.plan.Where == nil {
		return rows, nil
	}
	v, err := f.plan.Where.Eval(b)
	if err != nil {
		return nil, fmt.Errorf("view %s: where: %w", f.plan.Name(), err)
	}
	out := sized(f.sel, len(rows)) // may be rows itself: it is written behind where it is read
	f.sel = out
	n := 0
	for _, row := range rows {
		out[n] = row
		if v.Bools[row] && (v.Valid == nil || v.Valid[row]) {
			n++
		}
	}
	return out[:n], nil
}

// number gives the group of each row.
func (f *Fold) number(dims []column.Vector, rows []int32) []int32 {
	groups := f.group[:len(rows)]
	if len(f.keys) == 0 {
		clear(groups)
		f.groups = 1
		return groups
	}
	f.keys[0].number(dims[0], rows, groups)
	f.groups = int(f.keys[0].n)
	other := f.other[:len(rows)]
	for i := range f.pairs {
		f.keys[i+1].number(dims[i+1], rows, other)
		t := &f.pairs[i]
		for k, g := range groups {
			groups[k] = t.number(uint64(g)<<32 | uint64(other[k]))
		}
		f.groups = len(t.keys)
	}
	return groups
}

// Groups is the number of groups so far.
func (f *Fold) Groups() int { return f.groups }

// Rows is the number of events folded since the last flush, after the filter.
func (f *Fold) Rows() int64 { return f.rows }

// Bytes is the memory that the fold holds, in bytes. What Flush returns is not counted.
func (f *Fold) Bytes() int64 {
	n := 4 * int64(cap(f.sel)+cap(f.group)+cap(f.other))
	for _, k := range f.keys {
		n += k.bytes()
	}
	for i := range f.pairs {
		n += f.pairs[i].bytes()
	}
	for _, m := range f.measures {
		n += m.Bytes()
	}
	return n
}
