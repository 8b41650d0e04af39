package expr

import (
	"fmt"
	"math/big"
	"regexp"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/decimal256"

	"watershed/schemas"
	"watershed/schemas/column"
)

const maxDigits = 38

var decimalText = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)

// decimalLiteral reads the text of decimal("1.50"): its type is as wide as it is written.
func decimalLiteral(s string) (*node, error) {
	if !decimalText.MatchString(s) {
		return nil, fmt.Errorf("%q is not a decimal", s)
	}
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	digits := strings.TrimLeft(whole, "0") + fraction
	if len(digits) > maxDigits {
		return nil, fmt.Errorf("%q has more than %d digits", s, maxDigits)
	}
	v, _ := new(big.Int).SetString("0"+digits, 10)
	if s[0] == '-' {
		v.Neg(v)
	}
	t := schemas.Type{Kind: schemas.Decimal, Precision: max(len(digits), 1), Scale: len(fraction)}
	return constant(t, column.Vector{Decimals: []decimal128.Num{decimal128.FromBigInt(v)}}), nil
}

// widest is the narrowest decimal that holds both.
func widest(a, b schemas.Type) (schemas.Type, bool) {
	s := max(a.Scale, b.Scale)
	p := s + max(a.Precision-a.Scale, b.Precision-b.Scale)
	return schemas.Type{Kind: schemas.Decimal, Precision: p, Scale: s}, p <= maxDigits
}

// decimalSQL is a decimal as Decimal(76, scale): with 38 digits of its own and a scale of at
// most 38 it always fits.
func decimalSQL(a *node, scale int) string {
	return cast(a.sql, schemas.Type{Kind: schemas.Decimal, Precision: 2 * maxDigits, Scale: scale}, a.nullable)
}

// decimalArithmetic is + - and negation. The result has the larger scale, and one digit more
// before the point as long as 38 digits hold it; only without that digit can it overflow.
func (c *compiler) decimalArithmetic(e ast.Expr, op string, args []*node) *node {
	if op == operators.Negate {
		n := strict(schemas.Decimal, false, "(-"+args[0].sql+")", func(rows int, args []operand) column.Vector {
			a := args[0]
			out := make([]decimal128.Num, rows)
			for i := range out {
				out[i] = a.Decimals[i*a.step].Negate()
			}
			return column.Vector{Decimals: out, Valid: both(rows, a)}
		}, args[0])
		n.sql = cast(n.sql, args[0].typ, args[0].nullable)
		n.typ = args[0].typ
		return n
	}
	a, b := args[0], args[1]
	t, _ := widest(a.typ, b.typ)
	t.Precision++
	errs := t.Precision > maxDigits
	t.Precision = min(t.Precision, maxDigits)
	sum := decimalSQL(a, t.Scale) + " " + symbols[op] + " " + decimalSQL(b, t.Scale)
	n := strict(schemas.Decimal, errs, "", addDecimals(op == operators.Subtract, a.typ.Scale, b.typ.Scale, t), a, b)
	n.typ = t
	n.sql = cast(sum, t, n.nullable)
	if errs {
		// Cast only what fits: 0 stands in for the rest, on which the value is NULL.
		bound := "CAST('1" + strings.Repeat("0", maxDigits-t.Scale) + "', 'Decimal(76, " + fmt.Sprint(t.Scale) + ")')"
		fits := "abs(" + sum + ") < " + bound
		n.sql = "if(" + fits + ", " + cast("if("+fits+", "+sum+", NULL)", t, true) + ", NULL)"
	}
	return n
}

// wide brings an unscaled decimal to a larger scale. The product of 38 digits and 10^38 is
// below 2^255.
func wide(v decimal128.Num, up decimal256.Num) decimal256.Num {
	return decimal256.FromDecimal128(v).Mul(up)
}

func power(n int) decimal256.Num { return decimal256.GetScaleMultiplier(n) }

func addDecimals(subtract bool, as, bs int, t schemas.Type) kernel {
	upA, upB := power(t.Scale-as), power(t.Scale-bs)
	limit := power(t.Precision)
	return func(n int, args []operand) column.Vector {
		a, b := args[0], args[1]
		out, valid := make([]decimal128.Num, n), both(n, a, b)
		for i := range out {
			x, y := wide(a.Decimals[i*a.step], upA), wide(b.Decimals[i*b.step], upB)
			if subtract {
				y = y.Negate()
			}
			s := x.Add(y)
			if s.Abs().GreaterEqual(limit) {
				valid = drop(valid, n, i)
				continue
			}
			limbs := s.Array() // little-endian; the sum fits in the lower two
			out[i] = decimal128.New(int64(limbs[1]), limbs[0])
		}
		return column.Vector{Decimals: out, Valid: valid}
	}
}

func compareDecimals(op string, as, bs int) kernel {
	s := max(as, bs)
	upA, upB := power(s-as), power(s-bs)
	return func(n int, args []operand) column.Vector {
		a, b := args[0], args[1]
		out := make([]bool, n)
		for i := range out {
			x, y := a.Decimals[i*a.step], b.Decimals[i*b.step]
			if as == bs {
				out[i] = holds(op, x.Cmp(y))
			} else {
				out[i] = holds(op, wide(x, upA).Cmp(wide(y, upB)))
			}
		}
		return column.Vector{Bools: out, Valid: both(n, a, b)}
	}
}

// decimalToFloat is the unscaled value as the nearest double, divided by a power of ten as
// the nearest double: what ClickHouse does.
func decimalToFloat(a *node) *node {
	scale, _ := new(big.Float).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(a.typ.Scale)), nil)).Float64()
	return strict(schemas.Float64, false, "toFloat64("+a.sql+")", func(n int, args []operand) column.Vector {
		a := args[0]
		out := make([]float64, n)
		for i := range out {
			v := a.Decimals[i*a.step]
			if hi := v.HighBits(); hi == int64(v.LowBits())>>63 {
				out[i] = float64(int64(v.LowBits())) / scale
				continue
			}
			f, _ := new(big.Float).SetInt(v.BigInt()).Float64()
			out[i] = f / scale
		}
		return column.Vector{Floats: out, Valid: both(n, a)}
	}, a)
}
