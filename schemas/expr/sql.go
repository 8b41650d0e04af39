package expr

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"watershed/schemas"
	"watershed/schemas/column"
)

// Choices of the SQL form.
//
//   - int64 + - * and negation are made in Int128, where they cannot wrap, and cast back by
//     accurateCastOrNull, which gives NULL for what does not fit.
//   - A float result r becomes nullIf(nullIf(r + 0., inf), -inf): adding zero clears the sign
//     of -0, and NaN cannot arise, since 0/0 is excluded before.
//   - Comparisons, isNull and IN give UInt8, which counts as true and false wherever a
//     condition is wanted; a CAST makes it Bool only where a value is.
//   - if() takes NULL for false, IN gives 0 for it: both get a branch of their own for null.
//   - Decimals are compared and added as Decimal(76, larger scale), which always holds them.

// exactSQL is SQL of exactly the node's type.
func exactSQL(n *node) string {
	if !n.loose {
		return n.sql
	}
	return cast(n.sql, n.typ, n.nullable)
}

func cast(sql string, t schemas.Type, nullable bool) string {
	name := t.ClickHouse()
	if nullable {
		name = "Nullable(" + name + ")"
	}
	return "CAST(" + sql + ", " + quoteString(name) + ")"
}

// bare is the SQL of an operand of a comparison: a number need not be of exactly its type.
func bare(n *node) string {
	if n.con != nil && n.typ.Kind == schemas.Int64 {
		return strconv.FormatInt(n.con.Ints[0], 10)
	}
	return n.sql
}

func literalSQL(t schemas.Type, v column.Vector) string {
	switch t.Kind {
	case schemas.Int64:
		return "toInt64(" + strconv.FormatInt(v.Ints[0], 10) + ")"
	case schemas.Float64:
		s := strconv.FormatFloat(v.Floats[0], 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += "."
		}
		return s
	case schemas.Bool:
		return strconv.FormatBool(v.Bools[0])
	case schemas.String:
		return quoteString(v.Dict.Strings[0])
	case schemas.Decimal:
		return cast(quoteString(v.Decimals[0].ToString(int32(t.Scale))), t, false)
	case schemas.Timestamp:
		return fmt.Sprintf("fromUnixTimestamp64Micro(toInt64(%d), 'UTC')", v.Ints[0])
	default:
		return "toDate32('" + time.Unix(v.Ints[0]*86400, 0).UTC().Format(time.DateOnly) + "')"
	}
}

// quoteString writes a ClickHouse string literal.
func quoteString(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for i := range len(s) {
		switch ch := s[i]; {
		case ch == '\'' || ch == '\\':
			b.WriteByte('\\')
			b.WriteByte(ch)
		case ch < ' ' || ch == 0x7f:
			fmt.Fprintf(&b, `\x%02X`, ch)
		default:
			b.WriteByte(ch)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// quoteIdent writes a ClickHouse identifier. Names hold letters, digits and _ only.
func quoteIdent(s string) string { return "`" + s + "`" }

func finiteSQL(s string) string { return "nullIf(nullIf(" + s + " + 0., inf), -inf)" }
