package expr

import (
	"cmp"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"watershed/schemas"
	"watershed/schemas/column"
)

// comparison is == != < <= > >=, of equal kinds, or with null.
func (c *compiler) comparison(e ast.Expr, op string, args []*node) *node {
	a, b := args[0], args[1]
	if a.null {
		a, b = b, a
	}
	if !b.null {
		return compareNodes(op, a, b)
	}
	if op != operators.Equals && op != operators.NotEquals {
		return c.fail(e, "null has no order", "compare with == null or has()")
	}
	if a.null {
		return c.fail(e, "both sides are null", "")
	}
	if !a.nullable {
		return c.fail(e, a.key+" is never null", "declare the field with optional: true, or leave the comparison out")
	}
	return isNull(a, op == operators.Equals)
}

func compareNodes(op string, a, b *node) *node {
	x, y := bare(a), bare(b)
	if a.typ.Kind == schemas.Decimal {
		x, y = decimalSQL(a, max(a.typ.Scale, b.typ.Scale)), decimalSQL(b, max(a.typ.Scale, b.typ.Scale))
	}
	n := strict(schemas.Bool, false, "("+x+" "+symbols[op]+" "+y+")", nil, a, b)
	n.loose = true
	switch a.typ.Kind {
	case schemas.String:
		n.run = compareStrings(op, b.con != nil)
	case schemas.Decimal:
		n.run = compareDecimals(op, a.typ.Scale, b.typ.Scale)
	case schemas.Float64:
		n.run = compareKernel(op, func(v column.Vector) []float64 { return v.Floats })
	case schemas.Bool:
		n.run = func(rows int, args []operand) column.Vector {
			a, b := args[0], args[1]
			out := make([]bool, rows)
			for i := range out {
				out[i] = (a.Bools[i*a.step] == b.Bools[i*b.step]) == (op == operators.Equals)
			}
			return column.Vector{Bools: out, Valid: both(rows, a, b)}
		}
	default:
		n.run = compareKernel(op, func(v column.Vector) []int64 { return v.Ints })
	}
	return n
}

func compareKernel[T cmp.Ordered](op string, values func(column.Vector) []T) kernel {
	return func(n int, args []operand) column.Vector {
		a, b := args[0], args[1]
		out := make([]bool, n)
		compareInto(op, out, values(a.Vector), a.step, values(b.Vector), b.step)
		return column.Vector{Bools: out, Valid: both(n, a, b)}
	}
}

// compareInto has one plain loop per operator: a call per row took four times as long. A column
// and a constant, which most comparisons are of, have loops of their own, without steps.
func compareInto[T cmp.Ordered](op string, out []bool, x []T, xs int, y []T, ys int) {
	if xs == 1 && ys == 0 {
		compareConstant(op, out, x[:len(out)], y)
		return
	}
	switch op {
	case operators.Equals:
		for i := range out {
			out[i] = x[i*xs] == y[i*ys]
		}
	case operators.NotEquals:
		for i := range out {
			out[i] = x[i*xs] != y[i*ys]
		}
	case operators.Less:
		for i := range out {
			out[i] = x[i*xs] < y[i*ys]
		}
	case operators.LessEquals:
		for i := range out {
			out[i] = x[i*xs] <= y[i*ys]
		}
	case operators.Greater:
		for i := range out {
			out[i] = x[i*xs] > y[i*ys]
		}
	default:
		for i := range out {
			out[i] = x[i*xs] >= y[i*ys]
		}
	}
}

// compareConstant compares a column with the one value of y.
func compareConstant[T cmp.Ordered](op string, out []bool, x, y []T) {
	if len(out) == 0 {
		return
	}
	c := y[0]
	switch op {
	case operators.Equals:
		for i := range out {
			out[i] = x[i] == c
		}
	case operators.NotEquals:
		for i := range out {
			out[i] = x[i] != c
		}
	case operators.Less:
		for i := range out {
			out[i] = x[i] < c
		}
	case operators.LessEquals:
		for i := range out {
			out[i] = x[i] <= c
		}
	case operators.Greater:
		for i := range out {
			out[i] = x[i] > c
		}
	default:
		for i := range out {
			out[i] = x[i] >= c
		}
	}
}

// holds says what the sign of a three-way comparison means to an operator.
func holds(op string, sign int) bool {
	switch op {
	case operators.Equals:
		return sign == 0
	case operators.NotEquals:
		return sign != 0
	case operators.Less:
		return sign < 0
	case operators.LessEquals:
		return sign <= 0
	case operators.Greater:
		return sign > 0
	default:
		return sign >= 0
	}
}

// compareStrings compares per dictionary entry with a constant, else per row.
func compareStrings(op string, constant bool) kernel {
	var tables perPair[[]bool]
	return func(n int, args []operand) column.Vector {
		a, b := args[0], args[1]
		out := make([]bool, n)
		if constant && a.step == 1 {
			table := tables.get(a.Dict, b.Dict, func() []bool {
				t := make([]bool, len(a.Dict.Strings))
				for i, s := range a.Dict.Strings {
					t[i] = holds(op, cmp.Compare(s, b.Dict.Strings[0]))
				}
				return t
			})
			lookup(out, a, table)
		} else {
			for i := range out {
				out[i] = holds(op, cmp.Compare(a.str(i), b.str(i)))
			}
		}
		return column.Vector{Bools: out, Valid: both(n, a, b)}
	}
}
