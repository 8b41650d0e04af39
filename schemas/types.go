package schemas

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
)

// A Kind is the family of a field's type.
type Kind uint8

// The kinds of field. A declared type is a kind, and for decimals a precision and a scale.
const (
	String    Kind = iota + 1 // UTF-8 text
	Bool                      // true or false
	Int64                     // 64-bit signed integer
	Float64                   // finite IEEE 754 double; never NaN, infinite or -0
	Decimal                   // exact decimal of up to 38 digits
	Timestamp                 // microseconds since 1970-01-01T00:00:00Z
	Date                      // days since 1970-01-01
)

// A Type is the declared type of a field.
type Type struct {
	Kind      Kind
	Precision int // decimals only: digits in all, 1 to 38
	Scale     int // decimals only: digits behind the point, 0 to Precision
}

// kinds is the one table that maps our types onto those of Delta Lake, Arrow and ClickHouse
// (history maps a Kind onto Parquet, in one switch). Decimals carry their parameters besides.
var kinds = [...]struct {
	name       string // in event files
	delta      string
	clickhouse string
	arrow      arrow.DataType
}{
	String:    {"string", "string", "String", arrow.BinaryTypes.String},
	Bool:      {"bool", "boolean", "Bool", arrow.FixedWidthTypes.Boolean},
	Int64:     {"int64", "long", "Int64", arrow.PrimitiveTypes.Int64},
	Float64:   {"float64", "double", "Float64", arrow.PrimitiveTypes.Float64},
	Decimal:   {"decimal", "decimal", "Decimal", nil},
	Timestamp: {"timestamp", "timestamp", "DateTime64(6, 'UTC')", &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}},
	Date:      {"date", "date", "Date32", arrow.FixedWidthTypes.Date32},
}

// ParseType reads a type as event files write it: string, bool, int64, float64, decimal(p,s),
// timestamp or date.
func ParseType(s string) (Type, error) {
	if args, ok := strings.CutPrefix(s, "decimal("); ok {
		return parseDecimal(s, args)
	}
	for k := String; k <= Date; k++ {
		if k != Decimal && kinds[k].name == s {
			return Type{Kind: k}, nil
		}
	}
	return Type{}, fmt.Errorf("unknown type %q: want string, bool, int64, float64, decimal(p,s), timestamp or date", s)
}

func parseDecimal(s, args string) (Type, error) {
	bad := fmt.Errorf("type %q: want decimal(p,s) with 1 <= p <= 38 and 0 <= s <= p", s)
	args, closed := strings.CutSuffix(args, ")")
	ps, ss, comma := strings.Cut(args, ",")
	if !closed || !comma {
		return Type{}, bad
	}
	p, err1 := strconv.Atoi(strings.TrimSpace(ps))
	sc, err2 := strconv.Atoi(strings.TrimSpace(ss))
	if err1 != nil || err2 != nil || p < 1 || p > 38 || sc < 0 || sc > p {
		return Type{}, bad
	}
	return Type{Kind: Decimal, Precision: p, Scale: sc}, nil
}

// String is the type as event files write it.
func (t Type) String() string {
	if t.Kind == Decimal {
		return fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale)
	}
	if t.Kind < String || t.Kind > Date {
		return fmt.Sprintf("kind(%d)", t.Kind)
	}
	return kinds[t.Kind].name
}

// Delta is the type's name in a Delta Lake table's schema.
func (t Type) Delta() string {
	if t.Kind == Decimal {
		return t.String()
	}
	return kinds[t.Kind].delta
}

// ClickHouse is the type's name in ClickHouse, without Nullable.
func (t Type) ClickHouse() string {
	if t.Kind == Decimal {
		return fmt.Sprintf("Decimal(%d, %d)", t.Precision, t.Scale)
	}
	return kinds[t.Kind].clickhouse
}

// Arrow is the type's logical Arrow type. A record may carry a string column also as a
// dictionary of it with int32 indexes; its readers accept both.
func (t Type) Arrow() arrow.DataType {
	if t.Kind == Decimal {
		return &arrow.Decimal128Type{Precision: int32(t.Precision), Scale: int32(t.Scale)}
	}
	return kinds[t.Kind].arrow
}

// MarshalText writes the type as event files write it.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (t *Type) UnmarshalText(b []byte) (err error) {
	*t, err = ParseType(string(b))
	return err
}
