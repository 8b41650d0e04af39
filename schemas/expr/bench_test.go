package expr_test

import (
	"fmt"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/schemas"
	"watershed/schemas/column"
)

// BenchmarkEval evaluates what the example views are made of over 64 Ki rows, with
// dictionaries of 200 strings. The bytes per second are rows per second.
func BenchmarkEval(b *testing.B) {
	const rows, strings = 64 << 10, 200
	i, us := array.NewInt64Builder(memory.DefaultAllocator), array.NewTimestampBuilder(memory.DefaultAllocator, arrow.FixedWidthTypes.Timestamp_us.(*arrow.TimestampType))
	codes, dict := array.NewInt32Builder(memory.DefaultAllocator), array.NewStringBuilder(memory.DefaultAllocator)
	for n := range int64(strings) {
		dict.Append(fmt.Sprintf("A%03d", n))
	}
	for n := range int64(rows) {
		i.Append(n*7919%240 - 60)
		us.Append(arrow.Timestamp(1_000_000_000_000_000 + n*5_000_000))
		codes.Append(int32(n * 31 % strings))
	}
	typ := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	text := array.NewDictionaryArray(typ, codes.NewArray(), dict.NewArray())
	columns := []arrow.Array{i.NewArray(), us.NewArray(), text, text}
	names := []string{"i", "time", "s", "id"}
	var fields []arrow.Field
	for n, c := range columns {
		fields = append(fields, arrow.Field{Name: names[n], Type: c.DataType()})
	}
	rec := array.NewRecord(arrow.NewSchema(fields, nil), columns, rows)
	defer rec.Release()
	e := env(b)
	for _, source := range []string{"i > 15", "i + 1", "i * i", "i / 15", `bucket(time, "1h")`, "date(time)", `s in ["A007", "A100"]`, `s.matches("^A1")`, `s + "-" + id`, "i > 15 ? i : 0"} {
		x, err := e.Compile(schemas.Expression{Text: source})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(source, func(b *testing.B) {
			reader := column.NewReader()
			b.SetBytes(rows)
			for b.Loop() {
				if _, err := x.Eval(reader.Block(rec)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
