package decode_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/internal/bounded"
	"watershed/internal/decode"
	"watershed/schemas"
)

func formatOf(t testing.TB, header map[string]string) decode.Format {
	t.Helper()
	f, err := decode.FormatOf(func(name string) string { return header[name] })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// arrowTypes are the Arrow types in which each kind of field may come.
func arrowTypes(t schemas.Type) []arrow.DataType {
	switch t.Kind {
	case schemas.String:
		return []arrow.DataType{arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString,
			&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String},
			&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint16, ValueType: arrow.BinaryTypes.String},
			&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int64, ValueType: arrow.BinaryTypes.String}}
	case schemas.Int64:
		return []arrow.DataType{arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64,
			arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64}
	case schemas.Float64:
		return []arrow.DataType{arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64}
	case schemas.Decimal:
		return []arrow.DataType{&arrow.Decimal128Type{Precision: int32(t.Precision), Scale: int32(t.Scale)}, &arrow.Decimal128Type{Precision: 38, Scale: int32(t.Scale)}}
	case schemas.Timestamp:
		var all []arrow.DataType
		for _, u := range []arrow.TimeUnit{arrow.Second, arrow.Millisecond, arrow.Microsecond, arrow.Nanosecond} {
			all = append(all, &arrow.TimestampType{Unit: u}, &arrow.TimestampType{Unit: u, TimeZone: "Europe/Berlin"})
		}
		return all
	}
	return []arrow.DataType{t.Arrow()}
}

// generate appends a random value to a builder, and returns it as JSON; some do not fit.
func generate(rnd *rand.Rand, b array.Builder, f schemas.Field) string {
	odd := rnd.IntN(60) == 0
	if odd && rnd.IntN(2) == 0 || f.Optional && rnd.IntN(5) == 0 {
		b.AppendNull()
		return "null"
	}
	instant := func(unit time.Duration) (v int64, text string) {
		at := logTime.Add(-time.Duration(rnd.Int64N(int64(1000 * time.Hour)))).Truncate(unit)
		if odd {
			at = []time.Time{logTime.Add(240 * time.Hour), time.Date(1690, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}[rnd.IntN(3)]
		}
		return int64(at.Sub(time.Unix(0, 0)) / unit), `"` + at.UTC().Format(time.RFC3339Nano) + `"`
	}
	text := func() string {
		s := []string{"", "x", "é😀", fmt.Sprint("city ", rnd.IntN(50)), `quo"ted\`}[rnd.IntN(5)]
		if odd {
			s = "bad \xff\x01"
		}
		return s
	}
	quoted := func(s string) string {
		if odd {
			return `"` + s + `"`
		}
		q, _ := json.Marshal(s)
		return string(q)
	}
	whole := rnd.Int64N(100)
	switch b := b.(type) {
	case *array.StringBuilder:
		s := text()
		b.Append(s)
		return quoted(s)
	case *array.LargeStringBuilder:
		s := text()
		b.Append(s)
		return quoted(s)
	case *array.BinaryDictionaryBuilder:
		s := text()
		if err := b.AppendString(s); err != nil {
			panic(err)
		}
		return quoted(s)
	case *array.BooleanBuilder:
		b.Append(whole%2 == 0)
		return fmt.Sprint(whole%2 == 0)
	case *array.Int8Builder:
		b.Append(int8(-whole))
		whole = -whole
	case *array.Int16Builder:
		b.Append(int16(-whole))
		whole = -whole
	case *array.Int32Builder:
		b.Append(int32(-whole))
		whole = -whole
	case *array.Int64Builder:
		b.Append(math.MinInt64 + whole)
		whole = math.MinInt64 + whole
	case *array.Uint8Builder:
		b.Append(uint8(whole + 100))
		whole += 100
	case *array.Uint16Builder:
		b.Append(uint16(whole + 50000))
		whole += 50000
	case *array.Uint32Builder:
		b.Append(uint32(whole + 4e9))
		whole += 4e9
	case *array.Uint64Builder:
		u := uint64(whole)
		if odd {
			u += math.MaxInt64
		}
		b.Append(u)
		return fmt.Sprint(u)
	case *array.Float32Builder:
		b.Append(float32(whole) / 4)
		return fmt.Sprint(float32(whole) / 4)
	case *array.Float64Builder:
		if odd {
			b.Append(math.Inf(1))
			return `"Inf"`
		}
		v := rnd.NormFloat64() * math.Pow(10, float64(rnd.IntN(40)))
		b.Append(v)
		return fmt.Sprint(v)
	case *array.Decimal128Builder:
		v := decimal128.FromI64(whole - 50)
		if odd {
			v = decimal128.New(math.MaxInt64, 0)
		}
		b.Append(v)
		return v.ToString(int32(f.Type.Scale))
	case *array.TimestampBuilder:
		unit := b.Type().(*arrow.TimestampType).Unit.Multiplier()
		v, text := instant(unit)
		b.Append(arrow.Timestamp(v))
		return text
	case *array.Date32Builder:
		if odd {
			b.Append(math.MaxInt32)
			return `"9999-99-99"`
		}
		b.Append(arrow.Date32(whole))
		return `"` + arrow.Date32(whole).FormattedString() + `"`
	default:
		panic(fmt.Sprintf("no builder %T", b))
	}
	return fmt.Sprint(whole)
}

// random makes a stream with columns of random types in random order, and the same events as JSON.
func random(rnd *rand.Rand, ev *schemas.Event) (stream []byte, lines []byte) {
	var fields []arrow.Field
	for _, i := range rnd.Perm(len(ev.Fields)) {
		f := ev.Fields[i]
		if f.Optional && rnd.IntN(8) == 0 {
			continue
		}
		all := arrowTypes(f.Type)
		fields = append(fields, arrow.Field{Name: f.Name, Type: all[rnd.IntN(len(all))], Nullable: true})
	}
	if ev.IgnoreUnknown {
		fields = append(fields, arrow.Field{Name: "zz", Type: arrow.BinaryTypes.Binary, Nullable: true}, arrow.Field{Name: "zy", Type: arrow.FixedWidthTypes.Time32s},
			arrow.Field{Name: "zx", Type: arrow.Null}, arrow.Field{Name: "zw", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.PrimitiveTypes.Int64}})
		rnd.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	}
	schema := arrow.NewSchema(fields, nil)
	var buf, text bytes.Buffer
	w := ipc.NewWriter(&buf, ipc.WithSchema(schema))
	for range 1 + rnd.IntN(3) {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		n := 1 + rnd.IntN(40)
		for range n {
			var parts []string
			for i, f := range fields {
				if d := ev.Field(f.Name); d != nil {
					parts = append(parts, fmt.Sprintf("%q:%s", f.Name, generate(rnd, b.Field(i), *d)))
				} else {
					b.Field(i).AppendEmptyValue()
				}
			}
			fmt.Fprintf(&text, "{%s}\n", strings.Join(parts, ","))
		}
		rec := b.NewRecord()
		if err := w.Write(rec); err != nil {
			panic(err)
		}
		rec.Release()
		b.Release()
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes(), text.Bytes()
}

// TestArrowEqualsJSON writes random events with Arrow's library, in every type that a field may come in, and as JSON:
// the same ones fit, with the same values, and what does not fit comes back as JSON that does not fit either.
func TestArrowEqualsJSON(t *testing.T) {
	limits := decode.Limits{Past: 1000 * time.Hour, Future: time.Hour}
	format := formatOf(t, map[string]string{decode.ContentType: decode.ArrowStream})
	rnd := rand.New(rand.NewPCG(5, 6))
	fits, refused := 0, 0
	for range 400 {
		ev := everyType()
		ev.IgnoreUnknown = rnd.IntN(2) == 0
		stream, lines := random(rnd, ev)
		a, j := decode.New(ev, limits), decode.New(ev, limits)
		for range 1 + rnd.IntN(2) { // twice into one record
			got, want := a.AppendAs(format, stream, 7, logTime), j.Append(lines, 7, logTime)
			if len(got) != len(want) {
				t.Fatalf("%d rejects %+v; want %d %+v", len(got), got, len(want), want)
			}
			for i := range got {
				if got[i].Row != want[i].Row {
					t.Errorf("rejected row %d (%s); want %d (%s)", got[i].Row, got[i].Reason, want[i].Row, want[i].Reason)
				}
				again := j.AppendAs(formatOf(t, got[i].Header), got[i].Payload, 7, logTime)
				if len(again) != 1 || !strings.HasPrefix(got[i].Reason, "field ") {
					t.Errorf("row %d (%s) fits as %s", got[i].Row, got[i].Reason, got[i].Payload)
				}
			}
			refused += len(got)
		}
		x, y := a.Record(), j.Record()
		if g, w := fmt.Sprint(values(ev, x)), fmt.Sprint(values(ev, y)); g != w {
			t.Fatalf("got  %s\nwant %s", g, w)
		}
		for i := range 2 {
			n := len(ev.Fields) + i
			if g, w := fmt.Sprint(x.Column(n)), fmt.Sprint(y.Column(n)); g != w {
				t.Fatalf("got %s; want %s", g, w)
			}
		}
		fits += int(x.NumRows())
		x.Release()
		y.Release()
	}
	if fits < 1000 || refused < 100 {
		t.Errorf("%d events fitted and %d did not; want more to compare", fits, refused)
	}
}

// TestArrowSchemas refuses streams as a whole that are not of the event's type.
func TestArrowSchemas(t *testing.T) {
	format := formatOf(t, map[string]string{decode.ContentType: decode.ArrowStream})
	id, at := arrow.Field{Name: "s", Type: arrow.BinaryTypes.String}, arrow.Field{Name: "t", Type: arrow.FixedWidthTypes.Timestamp_us}
	f := func(want string, options []ipc.Option, fields ...arrow.Field) {
		t.Helper()
		schema := arrow.NewSchema(fields, nil)
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for i := range fields {
			b.Field(i).AppendEmptyValue()
		}
		rec := b.NewRecord()
		var buf bytes.Buffer
		w := ipc.NewWriter(&buf, append(options, ipc.WithSchema(schema))...)
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
		w.Close()
		d := decode.New(everyType(), decode.Limits{Past: 100 * 365 * 24 * time.Hour})
		d.Append([]byte("{"+base+"}"), 1, logTime)
		rejects := d.AppendAs(format, buf.Bytes(), 2, logTime)
		if want == "" && len(rejects) == 0 && d.Rows() == 2 {
			return
		}
		if len(rejects) != 1 || rejects[0].Row != -1 || !strings.Contains(rejects[0].Reason, want) || want == "" || d.Rows() != 1 {
			t.Errorf("got %+v and %d rows; want one reject of all with %q", rejects, d.Rows(), want)
		}
	}
	f("", nil, id, at)
	f("field t: missing", nil, id)
	f(`field "zz": not declared`, nil, id, at, arrow.Field{Name: "zz", Type: arrow.PrimitiveTypes.Int64})
	f("field i: want int64, got an Arrow column of utf8", nil, id, at, arrow.Field{Name: "i", Type: arrow.BinaryTypes.String})
	f("field d: want decimal(9, 2), got an Arrow column of decimal128(9, 3)", nil, id, at, arrow.Field{Name: "d", Type: &arrow.Decimal128Type{Precision: 9, Scale: 3}})
	f("nested or unknown", nil, id, at, arrow.Field{Name: "o", Type: arrow.ListOf(arrow.BinaryTypes.String)})
	f("field s: comes twice", nil, id, at, id)
	f("compressed", []ipc.Option{ipc.WithZstd()}, id, at)
}

// sameInParts fails the test unless a stream that is read in parts has the same events, and the same others.
func sameInParts(t *testing.T, ev *schemas.Event, stream []byte, want [][]string, rejects []schemas.Reject) {
	t.Helper()
	var got [][]string
	var bad []int
	read := func(take func(arrow.Record, []schemas.Reject) error) error {
		// A message may have 64 MiB of text, and this as much: no row is refused for its texts alone.
		return decode.New(ev, decode.Limits{}).ReadArrow(stream, logTime, decode.ArrowParts{Row: 64 << 20, Text: 64 << 20}, take)
	}
	bounded.Run(t, func() { _ = read(func(arrow.Record, []schemas.Reject) error { return nil }) })
	err := read(func(rec arrow.Record, rejects []schemas.Reject) error {
		got = append(got, values(ev, rec)...)
		for _, r := range rejects {
			bad = append(bad, r.Row)
		}
		return nil
	})
	if len(rejects) > 0 && rejects[0].Row < 0 {
		return // some are refused whole that can be read in parts
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || len(bad) != len(rejects) {
		t.Fatalf("in parts: %v, %d events and %d others; want %d and %d", err, len(got), len(bad), len(want), len(rejects))
	}
	for i, r := range rejects {
		if r.Row != bad[i] {
			t.Errorf("in parts row %d does not fit; want %d", bad[i], r.Row)
		}
	}
}

func FuzzArrow(f *testing.F) {
	rnd := rand.New(rand.NewPCG(7, 8))
	strict, loose := everyType(), lenient()
	for range 20 {
		stream, _ := random(rnd, loose)
		f.Add(stream)
		stream, _ = random(rnd, strict)
		f.Add(stream)
	}
	format := formatOf(f, map[string]string{decode.ContentType: decode.ArrowStream})
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, ev := range []*schemas.Event{strict, loose} {
			d := decode.New(ev, decode.Limits{})
			var rejects []schemas.Reject
			bounded.Run(t, func() { rejects = d.AppendAs(format, message, 1, logTime) })
			if d.Rows() == 0 && len(rejects) == 0 {
				t.Error("neither an event nor a reject")
			}
			rec := d.Record()
			all := values(ev, rec)
			rec.Release()
			sameInParts(t, ev, message, all, rejects)
			for i, r := range rejects {
				if r.Row < 0 && len(all) > 0 {
					t.Errorf("%d rows of a message that was refused: %s", len(all), r.Reason)
				}
				if r.Row >= 0 && i < 100 && len(decode.New(ev, decode.Limits{}).AppendAs(formatOf(t, r.Header), r.Payload, 1, logTime)) == 0 {
					t.Errorf("row %d (%s) fits as %s", r.Row, r.Reason, r.Payload)
				}
			}
		}
	})
}

// TestArrowIsBounded decodes streams of about 1 MiB that stand for much more.
func TestArrowIsBounded(t *testing.T) {
	format := formatOf(t, map[string]string{decode.ContentType: decode.ArrowStream})
	f := func(want, text string, at time.Time, n int) {
		t.Helper()
		schema := arrow.NewSchema([]arrow.Field{{Name: "t", Type: arrow.FixedWidthTypes.Timestamp_us},
			{Name: "s", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}}}, nil)
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for range n {
			b.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(at.UnixMicro()))
			if err := b.Field(1).(*array.BinaryDictionaryBuilder).AppendString(text); err != nil {
				t.Fatal(err)
			}
		}
		var buf bytes.Buffer
		w := ipc.NewWriter(&buf, ipc.WithSchema(schema))
		if err := w.Write(b.NewRecord()); err != nil {
			t.Fatal(err)
		}
		w.Close()
		bounded.Run(t, func() {
			d := decode.New(everyType(), decode.Limits{})
			rejects := d.AppendAs(format, buf.Bytes(), 1, logTime)
			if len(rejects) != 1 || rejects[0].Row != -1 || !strings.Contains(rejects[0].Reason, want) || d.Rows() != 0 {
				t.Errorf("got %d rejects and %d rows; want the message refused: %s", len(rejects), d.Rows(), want)
			}
		})
	}
	f("too much text", strings.Repeat("x", 500<<10), logTime, 200)
	f("too many", "x", time.Unix(0, 0), 100_000)
	f("too many", strings.Repeat("x", 100<<10), time.Unix(0, 0), 500)
}
