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
	pairs    []pairs // pairs[i] numbers (groups by keys[:i+1], number in keys[i+1])
	measures []agg.Column
	prepared []string // by measure: what the block remembers its prepared argument by
	groups   int
	rows     int64

	sel, group, other []int32 // scratch
	keep              []bool
}

// NewFold returns an empty fold.
func (p *Plan) NewFold() *Fold {
	f := &Fold{plan: p, group: make([]int32, chunk), other: make([]int32, chunk)}
	for _, d := range p.Dimensions {
		f.keys = append(f.keys, newKey(d.Type))
	}
	f.pairs = make([]pairs, max(0, len(f.keys)-1))
	for _, m := range p.Measures {
		f.measures = append(f.measures, m.Func.New())
		key := ""
		if m.Arg != nil {
			key = "\x01" + m.Func.Name() + "\x00" + m.Arg.String()
		}
		f.prepared = append(f.prepared, key)
	}
	return f
}

// Add folds rows of a block: those listed, in ascending order, or all if rows is nil. Nothing
// of the block is kept. After an error the fold is not to be used any more.
func (f *Fold) Add(b *column.Block, rows []int32) error {
	rows, err := f.filter(b, rows)
	if err != nil || rows != nil && len(rows) == 0 {
		return err
	}
	dims, args, err := f.vectors(b)
	if err != nil {
		return err
	}
	if rows == nil {
		f.rows += int64(b.Len())
		// Without a list of rows the kernels read straight on: a chunk is a slice of each vector.
		for from := 0; from < b.Len(); from += chunk {
			to := min(from+chunk, b.Len())
			f.fold(to-from, nil, parts(dims, from, to), parts(args, from, to))
		}
		return nil
	}
	f.rows += int64(len(rows))
	for len(rows) > 0 {
		part := rows[:min(chunk, len(rows))]
		rows = rows[len(part):]
		f.fold(len(part), part, dims, args)
	}
	return nil
}

// vectors are the values of the dimensions and of the measures' arguments, which are prepared
// once for all plans that fold the block.
func (f *Fold) vectors(b *column.Block) (dims, args []column.Vector, err error) {
	dims, args = make([]column.Vector, len(f.keys)), make([]column.Vector, len(f.measures))
	for i, d := range f.plan.Dimensions {
		if dims[i], err = d.Expr.Eval(b); err != nil {
			return nil, nil, fmt.Errorf("view %s: dimension %s: %w", f.plan.Name(), d.Name, err)
		}
	}
	for i, m := range f.plan.Measures {
		if m.Arg == nil {
			continue
		}
		args[i], err = b.Memo(f.prepared[i], func() (column.Vector, error) {
			v, err := m.Arg.Eval(b)
			if err != nil {
				return v, err
			}
			return m.Func.Prepare(v), nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("view %s: measure %s: %w", f.plan.Name(), m.Name, err)
		}
	}
	return dims, args, nil
}

func parts(vectors []column.Vector, from, to int) []column.Vector {
	out := make([]column.Vector, len(vectors))
	for i, v := range vectors {
		out[i] = v.Slice(from, to)
	}
	return out
}

// fold folds n rows, those listed or the first.
func (f *Fold) fold(n int, rows []int32, dims, args []column.Vector) {
	groups := f.number(n, rows, dims)
	for i, m := range f.measures {
		m.Grow(f.groups)
		m.Add(groups, rows, args[i])
	}
}

// filter lists the rows that the plan looks at; nil are all.
func (f *Fold) filter(b *column.Block, rows []int32) ([]int32, error) {
	if f.plan.Where == nil {
		return rows, nil
	}
	v, err := f.plan.Where.Eval(b)
	if err != nil {
		return nil, fmt.Errorf("view %s: where: %w", f.plan.Name(), err)
	}
	keep := v.Bools
	if v.Valid != nil {
		f.keep = sized(f.keep, b.Len())
		for i, on := range v.Bools {
			f.keep[i] = on && v.Valid[i]
		}
		keep = f.keep
	}
	f.sel = sized(f.sel, b.Len())
	out, n := f.sel, 0
	if rows == nil {
		for row, on := range keep[:b.Len()] {
			out[n] = int32(row)
			if on {
				n++
			}
		}
		return out[:n], nil
	}
	for _, row := range rows {
		out[n] = row
		if keep[row] {
			n++
		}
	}
	return out[:n], nil
}

// number gives the group of each of n rows.
func (f *Fold) number(n int, rows []int32, dims []column.Vector) []int32 {
	groups := f.group[:n]
	if len(f.keys) == 0 {
		clear(groups)
		f.groups = 1
		return groups
	}
	f.keys[0].number(dims[0], rows, groups)
	f.groups = int(f.keys[0].n)
	other := f.other[:n]
	for i := range f.pairs {
		k, p := f.keys[i+1], &f.pairs[i]
		k.number(dims[i+1], rows, other)
		p.number(groups, other, f.groups, int(k.n))
		f.groups = p.n
	}
	return groups
}

// Groups is the number of groups so far.
func (f *Fold) Groups() int { return f.groups }

// Rows is the number of events folded since the last flush, after the filter.
func (f *Fold) Rows() int64 { return f.rows }

// Bytes is the memory that the fold holds, in bytes: of its tables, not of the groups in them,
// so that a flush, after which it keeps them, lowers it little. Whoever wants the memory back
// takes a new fold. What Flush returns is not counted; it is of about the same size.
func (f *Fold) Bytes() int64 {
	n := 4*int64(cap(f.sel)+cap(f.group)+cap(f.other)) + int64(cap(f.keep))
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
