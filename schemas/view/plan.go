// Package view compiles views into plans. A plan folds blocks of events into mergeable states
// (Fold), and writes the same computation as ClickHouse SQL over raw events (SelectStates,
// SelectFinal), which is both the push-down and the independent oracle of the fold.
package view

import (
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/expr"
)

// A Plan is a compiled view. It is immutable and may be used by many goroutines.
type Plan struct {
	Hash       string // 64 hexadecimal digits; equal hashes mean equal states and finished values
	View       *schemas.View
	Event      *schemas.Event
	Where      *expr.Expr // a condition; nil: every event
	Dimensions []Dimension
	Measures   []Measure
}

// A Dimension is one component of the key that groups are made by.
type Dimension struct {
	Name     string
	Type     schemas.Type
	Nullable bool // null is a key value of its own
	Expr     *expr.Expr
	Bucket   time.Duration // width if the dimension is bucket(…); 0: it is not a time bucket
}

// A Measure is one measured value of each group.
type Measure struct {
	Name    string
	Func    agg.Func
	Arg     *expr.Expr // nil for count()
	Columns []agg.StateColumn
}

// A Column is a column of the plan's state records and tables.
type Column struct {
	Name       string
	ClickHouse string // type in the AggregatingMergeTree
	Staged     string // type in which states are inserted: String where ClickHouse must cast it to the former
	Arrow      arrow.DataType
	Nullable   bool
	Key        bool // a dimension
}

// Name is the view's name.
func (p *Plan) Name() string { return p.View.Name }

// ID names the plan's tables: the view's name and the first eight digits of the hash.
func (p *Plan) ID() string { return p.View.Name + "__" + p.Hash[:8] }

// Inputs are the fields that the plan reads, in the order of their declaration.
func (p *Plan) Inputs() []string {
	used := make(map[string]bool)
	note := func(x *expr.Expr) {
		if x != nil {
			for _, f := range x.Fields() {
				used[f] = true
			}
		}
	}
	note(p.Where)
	for _, d := range p.Dimensions {
		note(d.Expr)
	}
	for _, m := range p.Measures {
		note(m.Arg)
	}
	var names []string
	for _, f := range p.Event.Fields {
		if used[f.Name] {
			names = append(names, f.Name)
		}
	}
	return names
}

// Columns are the dimensions, then the measures' state columns.
func (p *Plan) Columns() []Column {
	var cols []Column
	for _, d := range p.Dimensions {
		typ := d.ClickHouse()
		cols = append(cols, Column{d.Name, typ, typ, d.Type.Arrow(), d.Nullable, true})
	}
	for _, m := range p.Measures {
		for _, c := range m.Columns {
			cols = append(cols, Column{c.Name, c.ClickHouse, c.Staged(), c.Arrow, c.Nullable, false})
		}
	}
	return cols
}

// StateSchema is the schema of state records: one field per column, in the order of Columns.
func (p *Plan) StateSchema() *arrow.Schema {
	var fields []arrow.Field
	for _, c := range p.Columns() {
		fields = append(fields, arrow.Field{Name: c.Name, Type: c.Arrow, Nullable: c.Nullable})
	}
	return arrow.NewSchema(fields, nil)
}

// ClickHouse is the dimension's type in ClickHouse.
func (d Dimension) ClickHouse() string {
	if d.Nullable {
		return "Nullable(" + d.Type.ClickHouse() + ")"
	}
	return d.Type.ClickHouse()
}
