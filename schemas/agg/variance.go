package agg

import (
	"fmt"
	"strings"

	"watershed/schemas"
)

// variance is the mean square of what values differ from their mean, and stddev its root: of the values as
// they are (the population's), or of what they are a sample of, which is n/(n-1) of it. The state is how many
// values there are, their sum and the sum of their squares; the finished value is a float64, null over
// nothing, and of a sample over a single value.
//
// Of int64, and of decimals of up to 18 digits, both sums are exact, and so is n·Σx² - (Σx)²: each is below
// 2^254. Nothing is rounded before that is made a float64, so nothing cancels, however far from zero the values are.
//
// Of float64 the sums are rounded, and the difference of Σx²/n and (Σx/n)² is only as good as those: two
// variances of the same values are up to 3·Tolerance·Σx²/n apart. Where values are far from zero, compared with how
// much they differ, one measures x - c, for some c near them. Where squares overflow (beyond 1e154) the value is null.
type variance struct {
	sum
	name string
}

func newVariance(name string, arg schemas.Type) (Func, error) {
	switch {
	case arg.Kind == schemas.Decimal && arg.Precision > 18:
		return nil, fmt.Errorf("%s wants decimals of up to 18 digits, not %s, whose squares no sum holds: write double(x)", name, arg)
	case arg.Kind != schemas.Int64 && arg.Kind != schemas.Float64 && arg.Kind != schemas.Decimal:
		return nil, fmt.Errorf("%s wants a number, not %s", name, describe(arg))
	}
	return variance{sum: sum{arg: arg}, name: name}, nil
}

func (f variance) Name() string     { return f.name }
func (variance) Version() int       { return 1 }
func (variance) ResultType() string { return "Nullable(Float64)" }

func (f variance) sample() bool { return strings.HasSuffix(f.name, "_sample") }
func (f variance) root() bool   { return strings.HasPrefix(f.name, "stddev") }

// squareType is the type of Σx², without Nullable.
func (f variance) squareType() string {
	switch f.arg.Kind {
	case schemas.Int64:
		return "Int256"
	case schemas.Decimal:
		return fmt.Sprintf("Decimal(76, %d)", 2*f.arg.Scale)
	}
	return "Float64"
}

func (f variance) Columns(name string) []StateColumn {
	squares := StateColumn{name + "__squares", "SimpleAggregateFunction(sum, Nullable(" + f.squareType() + "))", wideBytes, true}
	if f.arg.Kind == schemas.Float64 {
		squares.Arrow = f.arg.Arrow()
	}
	mean := avg{sum: f.sum}.Columns(name)
	return []StateColumn{mean[0], mean[1], squares}
}

func (f variance) StateSQL(arg string, nullable bool) []string {
	typ := f.squareType()
	if f.arg.Kind == schemas.Decimal {
		typ = f.wideType()
	}
	x := wide(arg, typ)
	return []string{f.sum.RawSQL(arg, nullable), "count(" + arg + ")", "sum(" + x + " * " + x + ")"}
}

func (variance) MergeSQL(cols []string) []string { return merged(cols) }

func (f variance) FinishSQL(cols []string) string { return f.finish(merged(cols)) }

func (f variance) RawSQL(arg string, nullable bool) string {
	return f.finish(f.StateSQL(arg, nullable))
}

// finish is the value over aggregates that are Σx, n and Σx².
func (f variance) finish(state []string) string {
	sum, n, squares := state[0], state[1], state[2]
	over := fmt.Sprintf("nullIf(toFloat64(%s), 0)", n)
	if f.sample() {
		over = fmt.Sprintf("nullIf(toFloat64(%s) - 1, 0)", n)
	}
	var v string
	switch f.arg.Kind {
	case schemas.Int64:
		v = fmt.Sprintf("toFloat64(toInt256(%[2]s) * %[3]s - toInt256(%[1]s) * toInt256(%[1]s)) / toFloat64(%[2]s) / %[4]s", sum, n, squares, over)
	case schemas.Decimal:
		v = fmt.Sprintf("toFloat64(toDecimal256(%[2]s, 0) * %[3]s - %[1]s * %[1]s) / toFloat64(%[2]s) / %[4]s", sum, n, squares, over)
	default:
		v = fmt.Sprintf("(%[3]s - %[1]s * (%[1]s / nullIf(toFloat64(%[2]s), 0))) / %[4]s", sum, n, squares, over)
		v = fmt.Sprintf("multiIf(NOT isFinite(%[1]s), NULL, %[1]s > 0, %[1]s, 0.)", v)
	}
	if f.root() {
		v = "sqrt(" + v + ")"
	}
	return v
}

// MagnitudesSQL is by how much two variances of floats may differ, and of their roots: a difference d of
// variances is one of d/(a+b) of the roots a and b, and never more than √d.
func (f variance) MagnitudesSQL(cols []string) string {
	if f.arg.Kind != schemas.Float64 {
		return ""
	}
	state := merged(cols)
	n := state[1]
	if f.sample() {
		n = fmt.Sprintf("(toFloat64(%s) - 1)", n)
	}
	d := fmt.Sprintf("ifNull(3 * %s / greatest(%s, 1), 0.)", state[2], n)
	if !f.root() {
		return d
	}
	return fmt.Sprintf("least(sqrt(%[1]s / %[2]g), ifNull(%[1]s / nullIf(%[3]s, 0), inf))", d, Tolerance, f.finish(state))
}

func (f variance) New() Column {
	if f.arg.Kind == schemas.Float64 {
		return &floatMoments{}
	}
	width := 16
	if f.arg.Kind == schemas.Decimal {
		width = 32
	}
	return &moments{width: width}
}
