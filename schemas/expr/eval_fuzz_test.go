package expr_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/internal/bounded"
	"watershed/schemas"
	"watershed/schemas/column"
)

// odd is one value of the field, chosen by a number: those that break things, or the number itself.
func odd(b array.Builder, n uint64, optional bool) {
	if optional && n%5 == 0 {
		b.AppendNull()
		return
	}
	pick := func(of int) int { return int(n / 5 % uint64(of)) }
	switch b := b.(type) {
	case *array.StringBuilder:
		b.Append(oddTexts[pick(len(oddTexts))])
	case *array.BooleanBuilder:
		b.Append(n&1 == 0)
	case *array.Int64Builder:
		b.Append(append(oddInts, int64(n))[pick(len(oddInts)+1)])
	case *array.Float64Builder:
		x := math.Float64frombits(n)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			x = 0
		}
		b.Append(append(oddFloats, x)[pick(len(oddFloats)+1)] + 0)
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(oddTimes[pick(len(oddTimes))]))
	case *array.Date32Builder:
		b.Append(arrow.Date32(oddDays[pick(len(oddDays))]))
	case *array.Decimal128Builder:
		texts := oddUnits
		if b.Type().(*arrow.Decimal128Type).Precision == 38 {
			texts = oddWide
		}
		d, err := decimal128.FromString(texts[pick(len(texts))], 38, 0)
		if err != nil {
			panic(err) // a constant
		}
		b.Append(d)
	}
}

// rowsOf makes a record of events out of bytes, eight a field.
func rowsOf(ev *schemas.Event, rows int, data []byte) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, ev.ArrowSchema())
	seed := uint64(len(data))
	for row := range rows {
		for i, f := range ev.Fields {
			if len(data) >= 8 {
				seed, data = binary.LittleEndian.Uint64(data), data[8:]
			} else {
				seed = seed*6364136223846793005 + 1442695040888963407
			}
			odd(b.Field(i), seed>>3, f.Optional)
		}
		b.Field(len(ev.Fields)).(*array.Int64Builder).Append(int64(row))
		b.Field(len(ev.Fields) + 1).(*array.Int32Builder).Append(0)
	}
	return b.NewRecord()
}

// valueText is the value of one row as text.
func valueText(v column.Vector, row int) string {
	if v.Valid != nil && !v.Valid[row] {
		return "null"
	}
	switch v.Kind {
	case schemas.String:
		return fmt.Sprintf("%q", v.Dict.Strings[v.Codes[row]])
	case schemas.Bool:
		return fmt.Sprint(v.Bools[row])
	case schemas.Float64:
		return fmt.Sprint(math.Float64bits(v.Floats[row]), v.Floats[row])
	case schemas.Decimal:
		return v.Decimals[row].BigInt().String()
	}
	return fmt.Sprint(v.Ints[row])
}

// FuzzEval evaluates whatever compiles, over values that break things. A value depends on nothing but its
// row: a block of many rows gives the same as a block for each.
func FuzzEval(f *testing.F) {
	for _, s := range []string{
		"i + io", "i * i", "i / io", "i % -1", "-i", "f / fo", "f * f", "-f", "d + d", "dx - dx", "dx * dx", "double(i) / f", "int(f)",
		`bucket(time, "1h")`, `bucket(to, "7d")`, "date(to)", "time.getFullYear()", `to < timestamp("2001-01-01T00:00:00Z")`, "b && bo || !bo",
		"bo ? i : io", "has(so) ? so : s", "s + so", "size(s + so)", `s.contains("A")`, `so.startsWith("a")`, `s.matches("^A+[a-z]*$")`, "s.lowerAscii()",
		`i in [1, -1, 9223372036854775807]`, `s in ["", "ATL"]`, `decimal("1.5") + d`, "io == null", "f == fo", "day == date(time)", "dx < decimal(\"0\")",
	} {
		f.Add(s, []byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"))
	}
	ev, e := event(f), env(f)
	f.Fuzz(func(t *testing.T, text string, data []byte) {
		const rows = 9
		rec := rowsOf(ev, rows, data)
		var whole column.Vector
		ok := false
		var nullable bool
		bounded.Run(t, func() {
			x, err := e.Compile(schemas.Expression{Text: text})
			if err != nil {
				return
			}
			nullable = x.Nullable()
			whole, err = x.Eval(column.NewReader().Block(rec))
			if ok = err == nil; !ok {
				t.Errorf("%q compiles, and then: %v", text, err)
			}
		})
		if !ok {
			return
		}
		x, err := e.Compile(schemas.Expression{Text: text})
		if err != nil {
			t.Fatal(err)
		}
		for row := range rows {
			alone, err := x.Eval(column.NewReader().Block(rec.NewSlice(int64(row), int64(row)+1)))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := valueText(whole, row), valueText(alone, 0); got != want {
				t.Fatalf("%q: row %d is %s among others, and %s alone", text, row, got, want)
			} else if got == "null" && !nullable {
				t.Fatalf("%q: row %d is null, which the expression says it never is", text, row)
			}
			if whole.Kind == schemas.Float64 && (whole.Valid == nil || whole.Valid[row]) {
				if y := whole.Floats[row]; math.IsNaN(y) || math.IsInf(y, 0) || math.Float64bits(y) == 1<<63 {
					t.Fatalf("%q: row %d is %v", text, row, y)
				}
			}
		}
	})
}
