// Package expr compiles the expressions of views: CEL, parsed and type-checked by cel-go
// against the fields of one event, into vectorised kernels over column blocks and into
// ClickHouse SQL. The two forms give the same value for every row; tests hold one against
// the other.
//
// Semantics. Logic is three-valued: false && null is false, true && null is null. Every other
// operator and function gives null when an operand is null, and where it errs: int64 and
// decimal overflow, division by zero, a float that is not finite, an int() out of range. A
// zero float is never negative. MIN / -1 overflows, MIN % -1 is 0. Integer division and
// modulo truncate toward zero. Strings compare by their bytes and count in code points;
// in matches() a dot matches a newline. The getters and date() are of UTC. Timestamps and
// dates must lie within the years 1900 to 2299, the range in which ClickHouse's calendar
// functions hold. has(x) and x == null are the only ways to look at a null: neither is ever
// null itself.
package expr

import (
	"slices"
	"time"

	"watershed/schemas"
	"watershed/schemas/column"
)

// Version numbers the meaning of expressions. It goes into every plan's hash: whoever changes
// the value that some expression has on some row raises it.
const Version = 1

// An Expr is a compiled expression. It may be used by several goroutines, on blocks of their
// own.
type Expr struct {
	root   *node
	text   string
	sql    string
	fields []string
}

// Type is the type of the expression's values.
func (x *Expr) Type() schemas.Type { return x.root.typ }

// Nullable reports whether a value may be null: an operand may be, or evaluation may err.
func (x *Expr) Nullable() bool { return x.root.nullable }

// Fields are the names of the event's fields that are read, sorted.
func (x *Expr) Fields() []string { return slices.Clone(x.fields) }

// SQL is the expression in ClickHouse's SQL over columns named as the fields. Its ClickHouse
// type is Type().ClickHouse(), within Nullable if Nullable().
func (x *Expr) SQL() string { return x.sql }

// String is the canonical text of the expression: CEL, with the spacing, quotes and
// parentheses of cel-go's unparser. Equal texts over one record have equal values.
func (x *Expr) String() string { return x.text }

// Bucket is the width of the bucket() call that the expression is, or 0.
func (x *Expr) Bucket() time.Duration { return x.root.bucket }

// Eval returns the expression's value on every row of the block. Expressions with the same
// text are evaluated once per block.
func (x *Expr) Eval(b *column.Block) (column.Vector, error) {
	v, err := x.root.vector(b)
	if err != nil {
		return column.Vector{}, err
	}
	if x.root.con != nil {
		return broadcast(v, b.Len()), nil
	}
	return v, nil
}

// A kernel computes a node's values from those of its arguments. Constants among the
// arguments are vectors of one row with a step of 0.
type kernel func(n int, args []operand) column.Vector

// An operand is an argument of a kernel: row i is at i*step.
type operand struct {
	column.Vector
	step int
}

// valid reports whether row i has a value.
func (o operand) valid(i int) bool { return o.Valid == nil || o.Valid[i*o.step] }

// str is the string of row i, "" where the row is invalid.
func (o operand) str(i int) string {
	if c := uint32(o.Codes[i*o.step]); int(c) < len(o.Dict.Strings) {
		return o.Dict.Strings[c]
	}
	return ""
}

// A node is a compiled sub-expression.
type node struct {
	typ      schemas.Type
	nullable bool
	null     bool           // the literal null: has no type and no value
	con      *column.Vector // a constant's value, of one row
	field    string         // a field's name
	args     []*node
	run      kernel
	key      string // canonical text
	bucket   time.Duration

	sql   string
	loose bool // sql gives UInt8 where Bool is meant
}

// vector evaluates the node: once per block and text. A constant comes as one row.
func (n *node) vector(b *column.Block) (column.Vector, error) {
	switch {
	case n.con != nil:
		return *n.con, nil
	case n.field != "":
		return b.Field(n.field)
	}
	return b.Memo(n.key, func() (column.Vector, error) {
		args := make([]operand, len(n.args))
		for i, a := range n.args {
			v, err := a.vector(b)
			if err != nil {
				return column.Vector{}, err
			}
			args[i] = operand{Vector: v, step: a.step()}
		}
		v := n.run(b.Len(), args)
		v.Kind = n.typ.Kind
		return v, nil
	})
}

func (n *node) step() int {
	if n.con != nil {
		return 0
	}
	return 1
}

// broadcast repeats a vector of one row.
func broadcast(v column.Vector, n int) column.Vector {
	out := column.Vector{Kind: v.Kind, Dict: v.Dict}
	switch v.Kind {
	case schemas.Float64:
		out.Floats = slices.Repeat(v.Floats, n)
	case schemas.Bool:
		out.Bools = slices.Repeat(v.Bools, n)
	case schemas.Decimal:
		out.Decimals = slices.Repeat(v.Decimals, n)
	case schemas.String:
		out.Codes = slices.Repeat(v.Codes, n)
	default:
		out.Ints = slices.Repeat(v.Ints, n)
	}
	return out
}

// both is the mask of the rows on which all operands have values: nil, or a slice that the
// caller owns.
func both(n int, args ...operand) []bool {
	var out []bool
	for _, a := range args {
		switch {
		case a.Valid == nil:
		case out == nil:
			out = slices.Clone(a.Valid)
		default:
			for i, ok := range a.Valid {
				out[i] = out[i] && ok
			}
		}
	}
	return out
}

// drop makes row i null.
func drop(valid []bool, n, i int) []bool {
	if valid == nil {
		valid = slices.Repeat([]bool{true}, n)
	}
	valid[i] = false
	return valid
}
