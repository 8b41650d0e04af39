package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"watershed/schemas"
	"watershed/schemas/view"
)

// A difference is a view that two engines do not agree on.
type difference struct {
	view, peer, what string
	groups           int64
}

func (d *difference) Error() string {
	return fmt.Sprintf("view %s: %d groups differ between Watershed and %s: %s", d.view, d.groups, d.peer, d.what)
}

const (
	// floatError is what sums of float64 in different orders may differ by, relatively.
	floatError = 1e-9
	// sketchError is the stated relative error of quantiles, 1/128, with some room for its own rounding.
	sketchError = 0.0079
	// duckUniqError is the standard error of DuckDB's approx_count_distinct, a HyperLogLog of 64
	// registers: 1.04/√64.
	duckUniqError = 0.13
)

// checkClickHouse holds what views show against ClickHouse's own states, both on server s: all finished
// values are equal, sketches included; only means and sums of float64 may differ by their rounding.
func checkClickHouse(ctx context.Context, s *server, plans []*view.Plan) error {
	for _, p := range plans {
		right := "(" + peerPlan(p).SelectFinished(peerTable(p)) + ")"
		if err := compare(ctx, s, p, "ClickHouse", right, func(m view.Measure) string { return unequal(m) }); err != nil {
			return err
		}
	}
	return nil
}

// checkDuckDB holds what views show against the tables that DuckDB exported into a directory below the
// server's user files. Quantiles are held against the sorted values of the group, where those were exported.
func checkDuckDB(ctx context.Context, s *server, plans []*view.Plan, dir string, sorted bool) error {
	for _, p := range plans {
		// Estimates of distinct values are compared over all groups, below.
		err := compare(ctx, s, p, "DuckDB", exported(p, dir, ""), func(m view.Measure) string {
			if sketches(m) {
				return "0"
			}
			return unequal(m)
		})
		if err != nil {
			return err
		}
		for _, m := range p.Measures {
			switch {
			case m.Func.Name() == "uniq":
				err = checkUniq(ctx, s, p, m, dir)
			case m.Func.Name() == "quantiles" && sorted:
				err = compare(ctx, s, p, "DuckDB", exported(p, dir, sortedSuffix), func(n view.Measure) string {
					if n.Name != m.Name {
						return "0"
					}
					return outside(p, m)
				})
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func exported(p *view.Plan, dir, suffix string) string {
	return fmt.Sprintf("file('%s', Parquet)", filepath.Join(dir, p.Name()+suffix+".parquet"))
}

// unequal is whether l.m and r.m differ.
func unequal(m view.Measure) string {
	name := view.Quote(m.Name)
	if m.Func.Name() == "avg" || m.Func.Name() == "sum" && m.Arg.Type().Kind == schemas.Float64 {
		return fmt.Sprintf("NOT ifNull(abs(l.%[1]s - r.%[1]s) <= %[2]g * greatest(abs(l.%[1]s), abs(r.%[1]s)), l.%[1]s IS NULL AND r.%[1]s IS NULL)", name, floatError)
	}
	return fmt.Sprintf("toString(l.%[1]s) != toString(CAST(r.%[1]s AS %[2]s))", name, m.Func.ResultType())
}

// levels are the levels of a measure quantiles(…).
func levels(p *view.Plan, m view.Measure) []string {
	for _, d := range p.View.Measures {
		if d.Name == m.Name {
			args := strings.Split(strings.TrimSuffix(d.Expression.Text, ")"), ",")
			for i := range args {
				args[i] = strings.TrimSpace(args[i])
			}
			return args[1:]
		}
	}
	return nil
}

// outside is whether one of the quantiles l.m lies outside of what their error allows, r.m being all
// values of the group in order: the values at most one rank away, and sketchError of them.
func outside(p *view.Plan, m view.Measure) string {
	name := view.Quote(m.Name)
	var any []string
	for i, q := range levels(p, m) {
		n := fmt.Sprintf("length(r.%s)", name)
		low := fmt.Sprintf("assumeNotNull(r.%s[greatest(1, toInt64(floor(%s * (%s - 1))))])", name, q, n)
		high := fmt.Sprintf("assumeNotNull(r.%s[least(%s, toInt64(ceil(%s * %s)) + 1)])", name, n, q, n)
		any = append(any, fmt.Sprintf("NOT (l.%[1]s[%[2]d] BETWEEN %[3]s - %[5]g * abs(%[3]s) AND %[4]s + %[5]g * abs(%[4]s))", name, i+1, low, high, sketchError))
	}
	return strings.Join(any, " OR ")
}

// compare holds a view against a table of its finished values, group by group.
func compare(ctx context.Context, s *server, p *view.Plan, peer, right string, differ func(view.Measure) string) error {
	var on, any []string
	for _, d := range p.Dimensions {
		name := view.Quote(d.Name)
		on = append(on, fmt.Sprintf("l.%s = r.%[1]s", name))
	}
	for _, m := range p.Measures {
		any = append(any, fmt.Sprintf("countIf(l._side = 1 AND r._side = 1 AND (%s))", differ(m)))
	}
	sql := fmt.Sprintf(`SELECT countIf(r._side != 1), countIf(l._side != 1), [%s]
FROM (SELECT *, toUInt8(1) AS _side FROM %s.%s) AS l
FULL OUTER JOIN (SELECT %s, toUInt8(1) AS _side FROM %s) AS r ON %s SETTINGS join_use_nulls = 0, join_algorithm = 'hash', max_threads = 2`,
		strings.Join(any, ", "), database, view.Quote(p.Name()), converted(p), right, strings.Join(on, " AND "))
	var ours, theirs int64
	var different []int64
	if err := s.row(ctx, sql, &ours, &theirs, &different); err != nil {
		return err
	}
	switch {
	case ours > 0:
		return &difference{p.Name(), peer, "it has no such groups", ours}
	case theirs > 0:
		return &difference{p.Name(), peer, "Watershed has no such groups", theirs}
	}
	for i, m := range p.Measures {
		if different[i] > 0 {
			return &difference{p.Name(), peer, "measure " + m.Name, different[i]}
		}
	}
	return nil
}

// converted are a view's columns, the dimensions in the types that ours have.
func converted(p *view.Plan) string {
	var cols []string
	for _, d := range p.Dimensions {
		cols = append(cols, fmt.Sprintf("CAST(%s AS %s) AS %[1]s", view.Quote(d.Name), d.ClickHouse()))
	}
	for _, m := range p.Measures {
		cols = append(cols, view.Quote(m.Name))
	}
	return strings.Join(cols, ", ")
}

// checkUniq holds DuckDB's estimates against the counts of ours, which are exact up to 65,536: their
// errors, root mean square over the groups, are no larger than such estimates have. A difference of one is none.
func checkUniq(ctx context.Context, s *server, p *view.Plan, m view.Measure, dir string) error {
	var on []string
	for _, d := range p.Dimensions {
		name := view.Quote(d.Name)
		on = append(on, fmt.Sprintf("l.%s = r.%[1]s", name))
	}
	var groups int64
	var rms float64
	name := view.Quote(m.Name)
	sql := fmt.Sprintf(`SELECT count(), sqrt(avg(pow(greatest(abs(toFloat64(l.%[1]s) - toFloat64(r.%[1]s)) - 1, 0) / l.%[1]s, 2)))
FROM %[2]s.%[3]s AS l INNER JOIN (SELECT %[4]s FROM %[5]s) AS r ON %[6]s`,
		name, database, view.Quote(p.Name()), converted(p), exported(p, dir, ""), strings.Join(on, " AND "))
	if err := s.row(ctx, sql, &groups, &rms); err != nil {
		return err
	}
	if rms > 1.2*duckUniqError {
		return &difference{p.Name(), "DuckDB", fmt.Sprintf("measure %s: estimates are off by %.0f %%", m.Name, 100*rms), groups}
	}
	return nil
}
