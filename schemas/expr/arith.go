package expr

import (
	"fmt"
	"math"
	"math/bits"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"watershed/schemas"
	"watershed/schemas/column"
)

var symbols = map[string]string{
	operators.Add: "+", operators.Subtract: "-", operators.Multiply: "*",
	operators.Equals: "=", operators.NotEquals: "!=", operators.Less: "<", operators.LessEquals: "<=",
	operators.Greater: ">", operators.GreaterEquals: ">=",
}

func (c *compiler) arithmetic(e ast.Expr, op string, args []*node) *node {
	a, b := args[0], args[len(args)-1]
	switch a.typ.Kind {
	case schemas.String:
		return concat(a, b)
	case schemas.Decimal:
		return c.decimalArithmetic(e, op, args)
	case schemas.Float64:
		return floatArithmetic(op, args)
	}
	switch op {
	case operators.Negate:
		return strict(schemas.Int64, true, "accurateCastOrNull(-toInt128("+a.sql+"), 'Int64')", negateInt, a)
	case operators.Divide, operators.Modulo:
		return c.intDivision(e, op, a, b)
	}
	sql := fmt.Sprintf("accurateCastOrNull(toInt128(%s) %s toInt128(%s), 'Int64')", a.sql, symbols[op], b.sql)
	return strict(schemas.Int64, true, sql, map[string]kernel{
		operators.Add: addInt, operators.Subtract: subInt, operators.Multiply: mulInt,
	}[op], a, b)
}

// intDivision divides and takes remainders. By most constants it cannot err.
func (c *compiler) intDivision(e ast.Expr, op string, a, b *node) *node {
	if b.con != nil && b.con.Ints[0] == 0 {
		return c.fail(e, "division by zero: the value is always null", "")
	}
	// ClickHouse refuses a constant divisor of MIN; in Int128 it is an ordinary number.
	safe := b.con != nil && b.con.Ints[0] != -1 && b.con.Ints[0] != math.MinInt64
	if op == operators.Modulo {
		if safe {
			return strict(schemas.Int64, false, "toInt64("+a.sql+" % "+b.sql+")", modInt, a, b)
		}
		return strict(schemas.Int64, true, "accurateCastOrNull(moduloOrNull(toInt128("+a.sql+"), toInt128("+b.sql+")), 'Int64')", modInt, a, b)
	}
	if safe {
		return strict(schemas.Int64, false, "intDiv("+a.sql+", "+b.sql+")", divInt, a, b)
	}
	return strict(schemas.Int64, true, "accurateCastOrNull(intDivOrNull(toInt128("+a.sql+"), toInt128("+b.sql+")), 'Int64')", divInt, a, b)
}

func negateInt(n int, args []operand) column.Vector {
	a := args[0]
	out, valid := make([]int64, n), both(n, a)
	for i := range out {
		x := a.Ints[i*a.step]
		if out[i] = -x; x == math.MinInt64 {
			valid = drop(valid, n, i)
		}
	}
	return column.Vector{Ints: out, Valid: valid}
}

func addInt(n int, args []operand) column.Vector {
	a, b := args[0], args[1]
	out, valid := make([]int64, n), both(n, a, b)
	for i := range out {
		x, y := a.Ints[i*a.step], b.Ints[i*b.step]
		s := x + y
		out[i] = s
		if (x^s)&(y^s) < 0 { // both operands have the sign that the sum has not
			valid = drop(valid, n, i)
		}
	}
	return column.Vector{Ints: out, Valid: valid}
}

func subInt(n int, args []operand) column.Vector {
	a, b := args[0], args[1]
	out, valid := make([]int64, n), both(n, a, b)
	for i := range out {
		x, y := a.Ints[i*a.step], b.Ints[i*b.step]
		s := x - y
		out[i] = s
		if (x^y)&(x^s) < 0 {
			valid = drop(valid, n, i)
		}
	}
	return column.Vector{Ints: out, Valid: valid}
}

func mulInt(n int, args []operand) column.Vector {
	a, b := args[0], args[1]
	out, valid := make([]int64, n), both(n, a, b)
	for i := range out {
		x, y := a.Ints[i*a.step], b.Ints[i*b.step]
		hi, lo := bits.Mul64(uint64(x), uint64(y)) // of the unsigned readings; made signed below
		hi -= uint64(x>>63)&uint64(y) + uint64(y>>63)&uint64(x)
		out[i] = int64(lo)
		if int64(hi) != int64(lo)>>63 {
			valid = drop(valid, n, i)
		}
	}
	return column.Vector{Ints: out, Valid: valid}
}

func divInt(n int, args []operand) column.Vector {
	a, b := args[0], args[1]
	out, valid := make([]int64, n), both(n, a, b)
	for i := range out {
		x, y := a.Ints[i*a.step], b.Ints[i*b.step]
		if y == 0 || y == -1 && x == math.MinInt64 {
			valid = drop(valid, n, i)
			continue
		}
		out[i] = x / y
	}
	return column.Vector{Ints: out, Valid: valid}
}

func modInt(n int, args []operand) column.Vector {
	a, b := args[0], args[1]
	out, valid := make([]int64, n), both(n, a, b)
	for i := range out {
		y := b.Ints[i*b.step]
		if y == 0 {
			valid = drop(valid, n, i)
			continue
		}
		out[i] = a.Ints[i*a.step] % y
	}
	return column.Vector{Ints: out, Valid: valid}
}

func finite(f float64) bool { return math.Abs(f) <= math.MaxFloat64 }

func floatArithmetic(op string, args []*node) *node {
	a, b := args[0], args[len(args)-1]
	switch op {
	case operators.Negate:
		return strict(schemas.Float64, false, "(-("+a.sql+") + 0.)", func(n int, args []operand) column.Vector {
			return floats(n, args, func(x, _ float64) float64 { return -x })
		}, a)
	case operators.Divide:
		return strict(schemas.Float64, true, finiteSQL("("+a.sql+") / nullIf("+b.sql+", 0.)"), func(n int, args []operand) column.Vector {
			return floats(n, args, func(x, y float64) float64 { return x / y })
		}, a, b)
	}
	f := map[string]func(x, y float64) float64{
		operators.Add:      func(x, y float64) float64 { return x + y },
		operators.Subtract: func(x, y float64) float64 { return x - y },
		operators.Multiply: func(x, y float64) float64 { return x * y },
	}[op]
	return strict(schemas.Float64, true, finiteSQL("("+a.sql+") "+symbols[op]+" ("+b.sql+")"), func(n int, args []operand) column.Vector {
		return floats(n, args, f)
	}, a, b)
}

// floats applies f; what is not finite is null, and zero has no sign.
func floats(n int, args []operand, f func(x, y float64) float64) column.Vector {
	a, b := args[0], args[len(args)-1]
	out, valid := make([]float64, n), both(n, args...)
	for i := range out {
		out[i] = f(a.Floats[i*a.step], b.Floats[i*b.step]) + 0
		if !finite(out[i]) {
			valid = drop(valid, n, i)
		}
	}
	return column.Vector{Floats: out, Valid: valid}
}

// convert is int() and double().
func convert(name string, a *node) *node {
	switch from := a.typ.Kind; {
	case name == "int" && from == schemas.Float64:
		return strict(schemas.Int64, true, "accurateCastOrNull(trunc("+a.sql+"), 'Int64')", floatToInt, a)
	case name == "int" && from == schemas.Timestamp:
		return strict(schemas.Int64, false, epochDiv(a.sql, 1_000_000), func(n int, args []operand) column.Vector {
			return ints(n, args[0], func(us int64) int64 { return floorDiv(us, 1_000_000) })
		}, a)
	case name == "double" && from == schemas.Int64:
		return strict(schemas.Float64, false, "toFloat64("+a.sql+")", func(n int, args []operand) column.Vector {
			a := args[0]
			out := make([]float64, n)
			for i := range out {
				out[i] = float64(a.Ints[i*a.step])
			}
			return column.Vector{Floats: out, Valid: both(n, a)}
		}, a)
	case name == "double" && from == schemas.Decimal:
		return decimalToFloat(a)
	}
	return a
}

func floatToInt(n int, args []operand) column.Vector {
	a := args[0]
	out, valid := make([]int64, n), both(n, a)
	for i := range out {
		if x := a.Floats[i*a.step]; x >= -1<<63 && x < 1<<63 {
			out[i] = int64(x)
		} else {
			valid = drop(valid, n, i)
		}
	}
	return column.Vector{Ints: out, Valid: valid}
}

// ints applies f, which does not err.
func ints(n int, a operand, f func(int64) int64) column.Vector {
	out := make([]int64, n)
	for i := range out {
		out[i] = f(a.Ints[i*a.step])
	}
	return column.Vector{Ints: out, Valid: both(n, a)}
}
