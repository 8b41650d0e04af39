package view

import (
	"fmt"
	"strconv"
	"strings"

	"watershed/schemas"
)

// Quote is a name as a ClickHouse identifier.
func Quote(name string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// SelectStates is a query over raw events, from being any SQL table expression with the
// event's fields as columns: the dimensions, then the measures' states, in the order of
// Columns and of their types. A view without dimensions gives a row only if there are events.
func (p *Plan) SelectStates(from string) string {
	return p.selectRaw(from, "", statesOf)
}

// SelectSlices is like SelectStates for several slices at once: from has a column of that name, too, which
// comes first and by which groups are made besides the dimensions.
func (p *Plan) SelectSlices(from, slice string) string { return p.selectRaw(from, slice, statesOf) }

// CountSlices is a query over what SelectSlices reads: each slice, its rows, and how many of them the view
// takes, as columns of those names.
func (p *Plan) CountSlices(from, slice string) string {
	events := "count()"
	if p.Where != nil {
		events = "countIf(ifNull(" + p.Where.SQL() + ", false))"
	}
	return "SELECT " + Quote(slice) + " AS slice, count() AS rows, " + events + " AS events FROM " + from + " GROUP BY slice"
}

// statesOf are the state columns of a measure over raw events.
func statesOf(m Measure, arg string, nullable bool) []string {
	var cols []string
	for i, sql := range m.Func.StateSQL(arg, nullable) {
		cols = append(cols, sql+" AS "+Quote(m.Columns[i].Name))
	}
	return cols
}

// SelectFinal is like SelectStates with the measures' finished values: the oracle.
func (p *Plan) SelectFinal(from string) string {
	return p.selectRaw(from, "", func(m Measure, arg string, nullable bool) []string {
		return []string{m.Func.RawSQL(arg, nullable) + " AS " + Quote(m.Name)}
	})
}

// selectRaw computes dimensions and arguments in a sub-query under names of its own. In one
// query a dimension or measure that has the name of a field would capture the field: ClickHouse
// takes an alias for a column wherever it can.
//
// A first key, if one is named, is a column of from that comes before the dimensions.
func (p *Plan) selectRaw(from, first string, measure func(m Measure, arg string, nullable bool) []string) string {
	var inner, outer, keys []string
	if first != "" {
		inner, outer, keys = []string{Quote(first)}, []string{Quote(first)}, []string{Quote(first)}
	}
	for i, d := range p.Dimensions {
		key := "_d" + strconv.Itoa(i)
		sql := d.Expr.SQL()
		if d.Type.Kind == schemas.Float64 {
			sql = "(" + sql + ") + 0." // -0 is 0
		}
		inner = append(inner, fmt.Sprintf("CAST(%s, '%s') AS %s", sql, strings.ReplaceAll(d.ClickHouse(), "'", `\'`), key))
		outer = append(outer, key+" AS "+Quote(d.Name))
		keys = append(keys, key)
	}
	for i, m := range p.Measures {
		if m.Arg == nil {
			outer = append(outer, measure(m, "", false)...)
			continue
		}
		arg := "_a" + strconv.Itoa(i)
		inner = append(inner, m.Arg.SQL()+" AS "+arg)
		outer = append(outer, measure(m, arg, m.Arg.Nullable())...)
	}
	if len(inner) == 0 {
		inner = append(inner, "1")
	}
	sql := "SELECT " + strings.Join(outer, ", ") + " FROM (SELECT " + strings.Join(inner, ", ") + " FROM " + from
	if p.Where != nil {
		sql += " WHERE " + p.Where.SQL()
	}
	if len(keys) == 0 {
		return sql + ") HAVING count() > 0"
	}
	return sql + ") GROUP BY " + strings.Join(keys, ", ")
}

// FinishSQL is the measure's finished value over stored states, in a query grouped by (some
// of) the dimensions. The state columns are qualified by a table's alias, which keeps them
// apart from aliases of the same name; an empty one leaves them bare.
func (p *Plan) FinishSQL(m Measure, alias string) string { return m.Func.FinishSQL(m.columns(alias)) }

func (m Measure) columns(alias string) []string {
	var cols []string
	for _, c := range m.Columns {
		cols = append(cols, qualified(alias, c.Name))
	}
	return cols
}

func qualified(alias, name string) string {
	if alias == "" {
		return Quote(name)
	}
	return Quote(alias) + "." + Quote(name)
}

// SelectFinished is a query over stored states, from being any SQL table expression with the
// columns of Columns: the dimensions and the finished measures.
func (p *Plan) SelectFinished(from string) string {
	const alias = "_s"
	var cols, keys []string
	for _, d := range p.Dimensions {
		keys = append(keys, qualified(alias, d.Name))
		cols = append(cols, qualified(alias, d.Name)+" AS "+Quote(d.Name))
	}
	for _, m := range p.Measures {
		cols = append(cols, p.FinishSQL(m, alias)+" AS "+Quote(m.Name))
	}
	sql := "SELECT " + strings.Join(cols, ", ") + " FROM " + from + " AS " + Quote(alias)
	if len(keys) == 0 {
		return sql + " HAVING count() > 0"
	}
	return sql + " GROUP BY " + strings.Join(keys, ", ")
}
