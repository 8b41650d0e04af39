package store

import (
	"fmt"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas/view"
)

// column is a column of a plan's tables.
type column struct {
	name     string
	typ      string // in ClickHouse, as the table has it
	nullable bool
	arrow    arrow.DataType // in state records
}

func (c column) define() string { return quote(c.name) + " " + c.typ }

// layout is what the tables and views of a plan look like.
type layout struct {
	id     string // names the tables
	hash   string
	view   string
	dims   []column
	states []column
	plan   *view.Plan
}

func layoutOf(p *view.Plan) *layout {
	l := &layout{id: p.ID(), hash: p.Hash, view: p.Name(), plan: p}
	for _, d := range p.Dimensions {
		typ := d.Type.ClickHouse()
		if d.Nullable {
			typ = "Nullable(" + typ + ")"
		}
		l.dims = append(l.dims, column{d.Name, typ, d.Nullable, d.Type.Arrow()})
	}
	for _, m := range p.Measures {
		for _, c := range m.Columns {
			l.states = append(l.states, column{c.Name, c.ClickHouse, c.Nullable, c.Arrow})
		}
	}
	return l
}

func (l *layout) batch() string { return l.id + "__batch" }
func (l *layout) speed() string { return l.id + "__speed" }

// into is the staging table of a plan's table, and fence the materialized view behind it. The
// names say what shape they have: were it to change, writers of both shapes would each find their
// own, and none a staging table that has no fence yet.
func into(table string) string  { return table + "_into" }
func fence(table string) string { return table + "_into_fence" }

// former are the names of a staging table that took strings, and of its fence, which made states
// of them: in this order they can be dropped while somebody writes.
func former(table string) []string { return []string{table + "_in", table + "_fence"} }

// columns are the dimensions and then the states, as in state records.
func (l *layout) columns() []column {
	return append(append(make([]column, 0, len(l.dims)+len(l.states)), l.dims...), l.states...)
}

// names lists columns for a SELECT, each with a prefix such as a table's alias.
func names(prefix string, columns []column) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = prefix + quote(c.name)
	}
	return strings.Join(out, ", ")
}

// groupBy is the clause that groups by the dimensions; empty when there are none.
func (l *layout) groupBy(prefix string) string {
	if len(l.dims) == 0 {
		return ""
	}
	return " GROUP BY " + names(prefix, l.dims)
}

// key is the tables' key: the dimensions, and what comes after them.
func (l *layout) key(after ...string) string {
	columns := after
	if len(l.dims) > 0 {
		columns = append([]string{names("", l.dims)}, after...)
	}
	return "tuple(" + strings.Join(columns, ", ") + ")"
}

// outputs are the dimensions and per measure what f makes of its state columns, which f gets
// quoted and with the prefix before them.
func (l *layout) outputs(prefix string, f func(m view.Measure, cols []string) []string) string {
	var out []string
	for _, d := range l.dims {
		out = append(out, prefix+quote(d.name)+" AS "+quote(d.name))
	}
	for _, m := range l.plan.Measures {
		cols := make([]string, len(m.Columns))
		for i, c := range m.Columns {
			cols[i] = prefix + quote(c.Name)
		}
		out = append(out, f(m, cols)...)
	}
	return strings.Join(out, ", ")
}

// finished gives measures their finished values, under their names.
func finished(m view.Measure, cols []string) []string {
	return []string{m.Func.FinishSQL(cols) + " AS " + quote(m.Name)}
}

// merged gives measures their states merged, under the states' names.
func merged(m view.Measure, cols []string) []string {
	out := m.Func.MergeSQL(cols)
	for i, c := range m.Columns {
		out[i] += " AS " + quote(c.Name)
	}
	return out
}

// checkNames refuses plans of which two would share a table or view, or one would take a
// name that is ours.
func checkNames(layouts []*layout) error {
	taken := make(map[string]string)
	for _, t := range systemTables {
		taken[t.name], taken[t.staging()], taken[t.fence()] = "the system", "the system", "the system"
	}
	for _, l := range layouts {
		for _, name := range []string{l.view, l.view + "_states"} {
			if by, ok := taken[name]; ok && by != l.view {
				return fmt.Errorf("view %s: the name %s is already used by %s: rename the view", l.view, name, by)
			}
			taken[name] = l.view
		}
	}
	return nil
}
