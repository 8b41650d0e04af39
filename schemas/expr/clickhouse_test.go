package expr_test

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"watershed/internal/bounded"
	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/expr"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// Values that break things; rows are drawn from them and from the whole range.
var (
	oddInts   = []int64{0, 1, -1, 2, 15, -7, math.MinInt64, math.MinInt64 + 1, math.MaxInt64, math.MaxInt64 - 1, 1 << 32, -1 << 31, 3037000500}
	oddFloats = []float64{0, 1, -1, 0.5, -2.5, 1e308, -1e308, math.MaxFloat64, 5e-324, -5e-324, 9223372036854775807, -9223372036854775808, 9223372036854774784, 1e19, 0.1}
	oddTexts  = []string{"", "a", "A", "ATL", "atl-ord", "Ünïcode ß", "日本語", "😀", "a\nb", `quo'te\`, "\x00nul", "%_", "ATLATL"}
	oddTimes  = []int64{0, -1, 1, -86_400_000_000, 86_399_999_999, -2_208_988_800_000_000, 10_413_791_999_999_999, 1_700_000_000_123_456, 951_782_400_000_000}
	oddDays   = []int64{0, -1, 1, -25567, 120529, 11016, 19723}
	oddUnits  = []string{"0", "1", "-1", "150", "-99999999", "9999999999", "-9999999999"}
	oddWide   = []string{"0", "1", "-100000", "99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "12345678901234567890"}
)

// value draws a value of a field, as ClickHouse's client takes it; timestamps in microseconds.
func value(t *rapid.T, f schemas.Field) any {
	if f.Optional && rapid.IntRange(0, 3).Draw(t, "null") == 0 {
		return nil
	}
	switch f.Type.Kind {
	case schemas.String:
		return rapid.SampledFrom(oddTexts).Draw(t, f.Name)
	case schemas.Bool:
		return rapid.Bool().Draw(t, f.Name)
	case schemas.Int64:
		return rapid.OneOf(rapid.SampledFrom(oddInts), rapid.Int64()).Draw(t, f.Name)
	case schemas.Float64:
		return rapid.OneOf(rapid.SampledFrom(oddFloats), rapid.Float64Range(-1e6, 1e6)).Draw(t, f.Name) + 0
	case schemas.Timestamp:
		return rapid.OneOf(rapid.SampledFrom(oddTimes), rapid.Int64Range(oddTimes[5], oddTimes[6])).Draw(t, f.Name)
	case schemas.Date:
		return time.Unix(86400*rapid.OneOf(rapid.SampledFrom(oddDays), rapid.Int64Range(oddDays[3], oddDays[4])).Draw(t, f.Name), 0).UTC()
	}
	odd := oddUnits
	if f.Type.Precision == 38 {
		odd = oddWide
	}
	v, _ := new(big.Int).SetString(rapid.SampledFrom(odd).Draw(t, f.Name), 10)
	return decimal.NewFromBigInt(v, -int32(f.Type.Scale))
}

func record(t *rapid.T, ev *schemas.Event, rows [][]any) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, ev.ArrowSchema())
	defer b.Release()
	for n, row := range rows {
		for i, v := range row {
			switch fb := b.Field(i).(type) {
			case *array.StringBuilder:
				appendTo(v, fb.Append, fb.AppendNull)
			case *array.BooleanBuilder:
				appendTo(v, fb.Append, fb.AppendNull)
			case *array.Int64Builder:
				appendTo(v, fb.Append, fb.AppendNull)
			case *array.Float64Builder:
				appendTo(v, fb.Append, fb.AppendNull)
			case *array.TimestampBuilder:
				appendTo(v, func(us int64) { fb.Append(arrow.Timestamp(us)) }, fb.AppendNull)
			case *array.Date32Builder:
				appendTo(v, func(t time.Time) { fb.Append(arrow.Date32FromTime(t)) }, fb.AppendNull)
			case *array.Decimal128Builder:
				appendTo(v, func(d decimal.Decimal) { fb.Append(decimal128.FromBigInt(d.Coefficient())) }, fb.AppendNull)
			default:
				t.Fatalf("no builder for %T", fb)
			}
		}
		b.Field(len(row)).(*array.Int64Builder).Append(int64(n))
		b.Field(len(row) + 1).(*array.Int32Builder).Append(0)
	}
	return b.NewRecord()
}

func appendTo[T any](v any, add func(T), null func()) {
	if v == nil {
		null()
		return
	}
	add(v.(T))
}

// generator draws a well-typed expression of a kind.
type generator struct{ t *rapid.T }

func (g generator) pick(of ...string) string { return rapid.SampledFrom(of).Draw(g.t, "pick") }

// expr fills a template: %I stands for an int64, %F a float64, %S a string, %B a bool, %T a
// timestamp, %D a date, %X a decimal.
func (g generator) expr(kind byte, depth int) string {
	leaves := map[byte][]string{
		'I': {"i", "io", "0", "1", "-1", "15", "9223372036854775807", "-9223372036854775808"},
		'F': {"f", "fo", "0.0", "1.5", "-1.0", "1e300", "5e-324"},
		'S': {"s", "so", `"a"`, `""`, `"日本"`, `"it's\\\n"`, `"ATL"`},
		'B': {"b", "bo", "true", "false"},
		'T': {"time", "to", `timestamp("1969-12-31T23:59:59.999999Z")`, `timestamp("2024-02-29T12:00:00Z")`},
		'D': {"day", "date(time)", "date(to)", `date("1969-12-31")`},
		'X': {"d", "dx", `decimal("1.50")`, `decimal("-0.00001")`},
	}
	inner := map[byte][]string{
		'I': {"(%I + %I)", "(%I - %I)", "(%I * %I)", "(%I / %I)", "(%I % %I)", "(%I / 7)", "(%I % -3)", "(-(%I))", "(%B ? %I : %I)", "(%B ? %I : null)",
			"int(%F)", "int(%T)", "size(%S)", "%T.getFullYear()", "%T.getMonth()", "%T.getDate()", "%T.getDayOfMonth()", "%T.getDayOfYear()", "%T.getDayOfWeek()",
			"%T.getHours()", "%T.getMinutes()", "%T.getSeconds()", "%T.getMilliseconds()", "%D.getDayOfWeek()", "%D.getMonth()"},
		'F': {"(%F + %F)", "(%F - %F)", "(%F * %F)", "(%F / %F)", "(-(%F))", "double(%I)", "double(%X)", "(%B ? %F : %F)"},
		'S': {"(%S + %S)", "(%S).lowerAscii()", "(%S).upperAscii()", "(%B ? %S : %S)", "(%B ? null : %S)"},
		'B': {"(%I < %I)", "(%I == %I)", "(%F >= %F)", "(%F != %F)", "(%S < %S)", "(%S == %S)", "(%T <= %T)", "(%D > %D)", "(%X < %X)", "(%X == %X)", "(%B == %B)", "(%B != %B)",
			"(!(%B))", "(%B && %B)", "(%B || %B)", "(%B ? %B : %B)", "has(io)", "(so == null)", "(null != to)", "(%I in [1, -1, 15])", `(%S in ["a", "ATL"])`, "(%F in [0.0, 1.5])",
			"(%B in [true])", `(%X in [decimal("1.5"), decimal("0")])`, `(%T in [timestamp("1970-01-01T00:00:00Z")])`, `(%D in [date("1970-01-01")])`,
			"(%S).startsWith(%S)", "(%S).endsWith(%S)", "(%S).contains(%S)", `(%S).matches("a.b|^A+$")`, `(%S).matches("[^a-z]$")`},
		'T': {`bucket(%T, "1h")`, `bucket(%T, "7d")`, `bucket(%T, "15m")`, "(%B ? %T : %T)"},
		'D': {"date(%T)", "(%B ? %D : %D)"},
		'X': {"(%X + %X)", "(%X - %X)", "(-(%X))", "(%B ? %X : %X)"},
	}
	if depth == 0 {
		return g.pick(leaves[kind]...)
	}
	shape := g.pick(inner[kind]...)
	var b strings.Builder
	for i := 0; i < len(shape); i++ {
		if shape[i] == '%' && i+1 < len(shape) && strings.IndexByte("IFSBTDX", shape[i+1]) >= 0 {
			i++
			b.WriteString(g.expr(shape[i], rapid.IntRange(0, depth-1).Draw(g.t, "depth")))
			continue
		}
		b.WriteByte(shape[i])
	}
	return b.String()
}

// shown is SQL that gives a value as the text that format makes of the Go form's.
func shown(x *expr.Expr) string {
	sql := "(" + x.SQL() + ")"
	switch x.Type().Kind {
	case schemas.Float64:
		sql = "toString(reinterpretAsUInt64(" + sql + "))"
	case schemas.Timestamp:
		sql = "toString(toUnixTimestamp64Micro(" + sql + "))"
	case schemas.Date:
		sql = "toString(toInt64(" + sql + "))"
	default:
		sql = "toString(" + sql + ")"
	}
	return "CAST(" + sql + ", 'Nullable(String)')"
}

func format(v column.Vector, t schemas.Type, i int) string {
	if v.Valid != nil && !v.Valid[i] {
		return "null"
	}
	switch t.Kind {
	case schemas.String:
		return "=" + v.Dict.Strings[v.Codes[i]]
	case schemas.Bool:
		return "=" + strconv.FormatBool(v.Bools[i])
	case schemas.Float64:
		return "=" + strconv.FormatUint(math.Float64bits(v.Floats[i]), 10)
	case schemas.Decimal:
		return "=" + decimal.NewFromBigInt(v.Decimals[i].BigInt(), -int32(t.Scale)).String()
	}
	return "=" + strconv.FormatInt(v.Ints[i], 10)
}

// TestEvalEqualsClickHouse evaluates random expressions over random rows in both forms.
func TestEvalEqualsClickHouse(t *testing.T) {
	ev, e := event(t), env(t)
	conn := connect(t)
	ctx := t.Context()
	columns := []string{"`_n` Int64"}
	for _, f := range ev.Fields {
		typ, raw := f.Type.ClickHouse(), "Int64"
		if f.Optional {
			typ, raw = "Nullable("+typ+")", "Nullable(Int64)"
		}
		if f.Type.Kind == schemas.Timestamp { // the client goes through nanoseconds, which end in 2262
			columns = append(columns, "`_"+f.Name+"` "+raw, "`"+f.Name+"` "+typ+" ALIAS fromUnixTimestamp64Micro(`_"+f.Name+"`, 'UTC')")
			continue
		}
		columns = append(columns, "`"+f.Name+"` "+typ)
	}
	table := 0
	rapid.Check(t, func(t *rapid.T) {
		rows := make([][]any, rapid.IntRange(1, 40).Draw(t, "rows"))
		for n := range rows {
			for _, f := range ev.Fields {
				rows[n] = append(rows[n], value(t, f))
			}
		}
		table++
		name := fmt.Sprintf("things_%d", table)
		if err := conn.Exec(ctx, "CREATE TABLE "+name+" ("+strings.Join(columns, ", ")+") ENGINE = Memory"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := conn.Exec(ctx, "DROP TABLE "+name); err != nil {
				t.Error(err)
			}
		}()
		batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+name)
		if err != nil {
			t.Fatal(err)
		}
		for n, row := range rows {
			if err := batch.Append(append([]any{int64(n)}, row...)...); err != nil {
				t.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			t.Fatal(err)
		}
		var exprs []*expr.Expr
		var sql, types []string
		for range 20 {
			text := generator{t}.expr("IFSBTDX"[rapid.IntRange(0, 6).Draw(t, "kind")], 3)
			x, err := e.Compile(schemas.Expression{Text: text})
			if err != nil {
				continue // a constant sub-expression that is always null, a decimal too wide
			}
			exprs, sql, types = append(exprs, x), append(sql, shown(x)), append(types, "toTypeName("+x.SQL()+")")
		}
		if len(exprs) == 0 {
			return
		}
		rec := record(t, ev, rows)
		defer rec.Release()
		block := column.NewReader().Block(rec)
		vectors := make([]column.Vector, len(exprs))
		for i, x := range exprs {
			if vectors[i], err = x.Eval(block); err != nil {
				t.Fatal(err)
			}
		}
		got, err := conn.Query(ctx, "SELECT `_n`, ["+strings.Join(sql, ", ")+"], ["+strings.Join(types, ", ")+"] FROM "+name+" ORDER BY `_n`")
		if err != nil {
			t.Fatalf("%v\nof %v", err, exprs)
		}
		defer got.Close()
		for n := 0; got.Next(); n++ {
			var at int64
			var values []*string
			var names []string
			if err := got.Scan(&at, &values, &names); err != nil {
				t.Fatal(err)
			}
			for i, x := range exprs {
				want := "null"
				if values[i] != nil {
					want = "=" + *values[i]
				}
				typ := x.Type().ClickHouse()
				if x.Nullable() {
					typ = "Nullable(" + typ + ")"
				}
				if typ != names[i] {
					t.Fatalf("%s: got ClickHouse type %s; want %s\n%s", x, names[i], typ, x.SQL())
				}
				if have := format(vectors[i], x.Type(), n); have != want {
					t.Fatalf("%s on row %v: got %q; ClickHouse has %q\n%s", x, rows[n], have, want, x.SQL())
				}
			}
		}
		if err := got.Err(); err != nil {
			t.Fatalf("%v\nof %v", err, exprs)
		}
	})
}

func connect(t *testing.T) clickhouse.Conn {
	t.Helper()
	server := devtest.SharedClickHouse(t)
	user, password := server.Admin()
	database := fmt.Sprintf("watershed_expr_%d", time.Now().UnixNano())
	open := func(database string) clickhouse.Conn {
		conn, err := clickhouse.Open(&clickhouse.Options{
			Addr: []string{server.Addr()}, Auth: clickhouse.Auth{Database: database, Username: user, Password: password},
			Settings: clickhouse.Settings{"max_query_size": 16 << 20, "async_insert": 0},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
		return conn
	}
	if err := open("default").Exec(t.Context(), "CREATE DATABASE "+database); err != nil {
		t.Fatal(err)
	}
	return open(database)
}

// FuzzCompile holds that no text makes the compiler panic, and that canonical text is a fixed
// point.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{"i + 1", `bucket(time, "1h")`, "b ? i : null", "has(io)", "quantiles(i, 0.5)", `s.matches("a")`, "i in [1]", `decimal("1.5") + d`, "has(1, 2)", "x.y.z", "{}", "@has(i)"} {
		f.Add(s)
	}
	e := env(f)
	f.Fuzz(func(t *testing.T, text string) {
		var x *expr.Expr
		var err error
		bounded.Run(t, func() {
			_, _ = e.CompileMeasure(schemas.Expression{Text: text})
			if x, err = e.Compile(schemas.Expression{Text: text}); err != nil {
				_ = err.Error()
			}
		})
		if err != nil {
			return
		}
		again, err := e.Compile(schemas.Expression{Text: x.String()})
		if err != nil || again.SQL() != x.SQL() || again.String() != x.String() {
			t.Fatalf("%q: canonical %q gives %v, %v", text, x, again, err)
		}
	})
}
