package expr

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"github.com/apache/arrow/go/v15/arrow/decimal128"

	"watershed/schemas"
	"watershed/schemas/column"
)

// logic is !, && and ||, three-valued.
func logic(op string, args []*node) *node {
	var sql string
	var run kernel
	switch op {
	case operators.LogicalNot:
		sql, run = "NOT ("+args[0].sql+")", notKernel
	case operators.LogicalAnd:
		sql, run = "("+args[0].sql+") AND ("+args[1].sql+")", func(n int, args []operand) column.Vector { return junction(n, args, false) }
	default:
		sql, run = "("+args[0].sql+") OR ("+args[1].sql+")", func(n int, args []operand) column.Vector { return junction(n, args, true) }
	}
	n := strict(schemas.Bool, false, "("+sql+")", run, args...)
	n.loose = true
	return n
}

func notKernel(n int, args []operand) column.Vector {
	a := args[0]
	out := make([]bool, n)
	for i := range out {
		out[i] = !a.Bools[i*a.step]
	}
	return column.Vector{Bools: out, Valid: both(n, a)}
}

// junction is || if the deciding value is true, && if it is false: a deciding operand decides
// whatever the other is; otherwise a null makes null.
func junction(n int, args []operand, deciding bool) column.Vector {
	a, b := args[0], args[1]
	out := make([]bool, n)
	if a.Valid == nil && b.Valid == nil {
		for i := range out {
			x, y := a.Bools[i*a.step], b.Bools[i*b.step]
			if deciding {
				out[i] = x || y
			} else {
				out[i] = x && y
			}
		}
		return column.Vector{Bools: out}
	}
	valid := make([]bool, n)
	for i := range out {
		av, bv := a.valid(i), b.valid(i)
		decided := av && a.Bools[i*a.step] == deciding || bv && b.Bools[i*b.step] == deciding
		valid[i] = decided || av && bv
		out[i] = decided == deciding
	}
	return column.Vector{Bools: out, Valid: valid}
}

// isNull is x == null, or has(x) if not absent.
func isNull(a *node, absent bool) *node {
	if a.con != nil || !a.nullable {
		return constant(schemas.Type{Kind: schemas.Bool}, column.Vector{Bools: []bool{!absent}})
	}
	sql := "isNotNull(" + a.sql + ")"
	if absent {
		sql = "isNull(" + a.sql + ")"
	}
	return &node{typ: schemas.Type{Kind: schemas.Bool}, sql: sql, loose: true, args: []*node{a}, run: func(n int, args []operand) column.Vector {
		out := make([]bool, n)
		for i := range out {
			out[i] = args[0].valid(i) != absent
		}
		return column.Vector{Bools: out}
	}}
}

// conditional is c ? a : b. A null condition gives null.
func (c *compiler) conditional(e ast.Expr, args []*node) *node {
	cond, a, b := args[0], args[1], args[2]
	t := a.typ
	switch {
	case a.null && b.null:
		return c.fail(e, "both branches are null", "")
	case a.null:
		t = b.typ
	case !b.null && t.Kind == schemas.Decimal:
		var ok bool
		if t, ok = widest(a.typ, b.typ); !ok {
			return c.fail(e, "no decimal of 38 digits holds both "+a.typ.String()+" and "+b.typ.String(), "convert with double()")
		}
		a, b = rescaled(a, t), rescaled(b, t)
	}
	n := &node{typ: t, nullable: cond.nullable || a.nullable || b.nullable}
	n.sql = "if(" + cond.sql + ", " + exactSQL(a) + ", " + exactSQL(b) + ")"
	if cond.nullable {
		n.sql = "if(isNull(" + cond.sql + "), NULL, " + n.sql + ")"
	}
	var join perPair[*column.Dict]
	left, right := a.null, b.null
	for _, x := range []*node{cond, a, b} {
		if !x.null {
			n.args = append(n.args, x)
		}
	}
	n.run = func(rows int, args []operand) column.Vector {
		// A null branch takes the place of the other, with no row valid.
		var x, y operand
		switch {
		case left:
			x, y = args[1], args[1]
		case right:
			x, y = args[1], args[1]
		default:
			x, y = args[1], args[2]
		}
		return choose(rows, args[0], x, y, left, right, &join)
	}
	return n
}

// choose picks x where c, y where not; xNull and yNull make every value of a side null.
func choose(n int, c, x, y operand, xNull, yNull bool, join *perPair[*column.Dict]) column.Vector {
	pick := make([]bool, n)
	var valid []bool
	for i := range pick {
		ok := c.valid(i)
		pick[i] = ok && c.Bools[i*c.step]
		if ok {
			if pick[i] {
				ok = !xNull && x.valid(i)
			} else {
				ok = !yNull && y.valid(i)
			}
		}
		if !ok {
			valid = drop(valid, n, i)
		}
	}
	out := column.Vector{Valid: valid}
	switch x.Kind {
	case schemas.Bool:
		out.Bools = picked(pick, x.Bools, x.step, y.Bools, y.step)
	case schemas.Float64:
		out.Floats = picked(pick, x.Floats, x.step, y.Floats, y.step)
	case schemas.Decimal:
		out.Decimals = picked(pick, x.Decimals, x.step, y.Decimals, y.step)
	case schemas.String:
		out.Codes, out.Dict = picked(pick, x.Codes, x.step, y.Codes, y.step), x.Dict
		if x.Dict != y.Dict {
			out.Dict = join.get(x.Dict, y.Dict, func() *column.Dict {
				return &column.Dict{Strings: slices.Concat(x.Dict.Strings, y.Dict.Strings)}
			})
			for i, p := range pick {
				if !p {
					out.Codes[i] += int32(len(x.Dict.Strings))
				}
			}
		}
	default:
		out.Ints = picked(pick, x.Ints, x.step, y.Ints, y.step)
	}
	return out
}

func picked[T any](pick []bool, x []T, xs int, y []T, ys int) []T {
	out := make([]T, len(pick))
	for i, p := range pick {
		if p {
			out[i] = x[i*xs]
		} else {
			out[i] = y[i*ys]
		}
	}
	return out
}

// in is membership in a list of literals.
func (c *compiler) in(e ast.Expr, exprs []ast.Expr) *node {
	a := c.compile(exprs[0])
	if a == nil {
		return nil
	}
	if exprs[1].Kind() != ast.ListKind || exprs[1].AsList().Size() == 0 {
		return c.fail(exprs[1], "in wants a list of literals that is not empty", `for example origin in ["ATL", "ORD"]`)
	}
	var items []string
	var consts []*node
	for _, x := range exprs[1].AsList().Elements() {
		item := c.compile(x)
		if item == nil {
			return nil
		}
		if item.con == nil {
			return c.fail(x, "in wants literals only", "write x == a || x == b for other values")
		}
		items, consts = append(items, item.sql), append(consts, item)
	}
	if a.null {
		return c.fail(exprs[0], "null cannot be an operand here", "compare with == null or has()")
	}
	for i, x := range exprs[1].AsList().Elements() {
		if consts[i].typ.Kind != a.typ.Kind {
			return c.fail(x, fmt.Sprintf("%s is not compared with %s", a.typ, consts[i].typ), "write all literals of the operand's type")
		}
	}
	if a.typ.Kind == schemas.Decimal {
		return c.inDecimals(a, consts)
	}
	sql := "(" + a.sql + " IN (" + strings.Join(items, ", ") + "))"
	if a.nullable {
		sql = "if(isNull(" + a.sql + "), NULL, " + sql + ")"
	}
	n := strict(schemas.Bool, false, sql, member(a.typ.Kind, consts), a)
	n.loose = true
	return n
}

// inDecimals is a chain of comparisons, which brings each literal to the operand's scale.
func (c *compiler) inDecimals(a *node, consts []*node) *node {
	var n *node
	for _, item := range consts {
		equal := compareNodes(operators.Equals, a, item)
		equal.key = a.key + " == " + item.key
		if n == nil {
			n = equal
			continue
		}
		key := n.key + " || " + equal.key
		n = logic(operators.LogicalOr, []*node{n, equal})
		n.key = key
	}
	return n
}

func member(kind schemas.Kind, consts []*node) kernel {
	switch kind {
	case schemas.String:
		set := make(map[string]bool)
		for _, c := range consts {
			set[c.con.Dict.Strings[0]] = true
		}
		return perString(func(s string) bool { return set[s] })
	case schemas.Float64:
		return among(consts, func(v column.Vector) []float64 { return v.Floats })
	case schemas.Bool:
		return among(consts, func(v column.Vector) []bool { return v.Bools })
	default:
		return among(consts, func(v column.Vector) []int64 { return v.Ints })
	}
}

func among[T comparable](consts []*node, values func(column.Vector) []T) kernel {
	set := make(map[T]bool, len(consts))
	for _, c := range consts {
		set[values(*c.con)[0]] = true
	}
	return func(n int, args []operand) column.Vector {
		a, in := args[0], values(args[0].Vector)
		out := make([]bool, n)
		for i := range out {
			out[i] = set[in[i*a.step]]
		}
		return column.Vector{Bools: out, Valid: both(n, a)}
	}
}

// rescaled brings a decimal to a type that holds it.
func rescaled(a *node, t schemas.Type) *node {
	if a.typ == t {
		return a
	}
	n := strict(schemas.Decimal, false, cast(a.sql, t, a.nullable), nil, a)
	by := decimal128.GetScaleMultiplier(t.Scale - a.typ.Scale)
	n.typ, n.key = t, a.key+" as "+t.String()
	n.run = func(rows int, args []operand) column.Vector {
		a := args[0]
		out := make([]decimal128.Num, rows)
		for i := range out {
			out[i] = a.Decimals[i*a.step].Mul(by)
		}
		return column.Vector{Kind: schemas.Decimal, Decimals: out, Valid: both(rows, a)}
	}
	return n
}
