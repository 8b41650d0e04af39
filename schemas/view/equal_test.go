package view_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"pgregory.net/rapid"

	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/view"
)

// inOrder holds the record's first dimension against the order of ClickHouse's keys, null last.
func inOrder(r rapid.TB, p *view.Plan, rec arrow.Record) {
	r.Helper()
	for i := 1; len(p.Dimensions) > 0 && i < int(rec.NumRows()); i++ {
		c := rec.Column(0)
		ok := c.IsNull(i) || c.IsValid(i-1)
		if c.IsValid(i) && ok {
			switch c := c.(type) {
			case *array.Int64:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.Timestamp:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.Date32:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.Float64:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.String:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.Decimal128:
				ok = c.Value(i-1).Cmp(c.Value(i)) <= 0
			case *array.Boolean:
				ok = !c.Value(i-1) || c.Value(i)
			}
		}
		if !ok {
			r.Fatalf("row %d is out of order: %s", i, c)
		}
	}
}

// castStates selects staged states in their real types, as a store's materialized view does.
func castStates(p *view.Plan, from string) string {
	var cols []string
	for _, c := range p.Columns() {
		name := view.Quote(c.Name)
		cols = append(cols, fmt.Sprintf("CAST(%s, '%s') AS %s", name, strings.ReplaceAll(c.ClickHouse, "'", `\'`), name))
	}
	return "SELECT " + strings.Join(cols, ", ") + " FROM " + from
}

// equal compares finished rows without regard to their order.
func equal(r rapid.TB, form string, p *view.Plan, want, got [][]string, values map[string][]any) {
	r.Helper()
	dims := len(p.Dimensions)
	index := func(rows [][]string) map[string][]string {
		by := make(map[string][]string)
		for _, row := range rows {
			key := fmt.Sprintf("%q", row[:dims])
			if by[key] != nil {
				r.Fatalf("%s: group %s comes twice", form, key)
			}
			by[key] = row[dims:]
		}
		return by
	}
	w, g := index(want), index(got)
	if len(w) != len(g) {
		r.Fatalf("%s: got %d groups, %v; want %d, %v", form, len(g), g, len(w), w)
	}
	for key, row := range w {
		for i, x := range row {
			if g[key] == nil {
				r.Fatalf("%s: group %s is missing", form, key)
			}
			if !same(p.Measures[i], x, g[key][i], values) {
				r.Fatalf("%s: %s of group %s is %s; want %s", form, p.Measures[i].Name, key, g[key][i], x)
			}
		}
	}
}

// same compares finished values: exactly, but sums and means of floats within 1e-9 of the sum
// of magnitudes, variances within 3e-9 of its square.
func same(m view.Measure, want, got string, values map[string][]any) bool {
	if want == got {
		return true
	}
	name := m.Func.Name()
	if _, rounded := m.Func.(agg.Rounded); !rounded || m.Arg.Type().Kind != schemas.Float64 {
		return false
	}
	var w, g, scale float64
	if json.Unmarshal([]byte(want), &w) != nil || json.Unmarshal([]byte(got), &g) != nil {
		return false
	}
	for _, v := range values["heat"] {
		if x, ok := v.(float64); ok {
			scale += math.Abs(x)
		}
	}
	switch {
	case strings.HasPrefix(name, "variance"):
		return math.Abs(w-g) <= 3e-9*scale*scale
	case strings.HasPrefix(name, "stddev"):
		return math.Abs(w-g) <= math.Sqrt(3e-9)*scale
	}
	return math.Abs(w-g) <= 1e-9*scale
}
