package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/column"
	"watershed/schemas/view"
	"watershed/serving/store"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// database is a name of the test's own, which the reader may read.
func database(t testing.TB) string {
	return "watershed_" + strings.NewReplacer("/", "_", "=", "_", "#", "_").Replace(t.Name())
}

func configOf(t testing.TB, c *devserver.ClickHouse) store.Config {
	user, password := c.Admin()
	return store.Config{Addr: c.Addr(), Database: database(t), User: user, Password: password}
}

func open(t testing.TB) *store.DB {
	t.Helper()
	return openOn(t, devtest.SharedClickHouse(t))
}

func openOn(t testing.TB, c *devserver.ClickHouse) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), configOf(t, c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// admin is a connection of the test's own, besides the store's.
func admin(t testing.TB, c *devserver.ClickHouse) driver.Conn {
	t.Helper()
	user, password := c.Admin()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr: []string{c.Addr()}, Auth: clickhouse.Auth{Username: user, Password: password, Database: database(t)},
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

// ask returns rows as lines of tab-separated text that ClickHouse itself writes.
func ask(t testing.TB, conn driver.Conn, query string) []string {
	t.Helper()
	lines, err := tryAsk(t.Context(), conn, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return lines
}

func tryAsk(ctx context.Context, conn driver.Conn, query string) ([]string, error) {
	var lines []string
	rows, err := conn.Query(ctx, "SELECT formatRowNoNewline('TSV', *) AS line FROM ("+query+")")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, rows.Err()
}

// event is one row to be folded.
type event struct {
	hour  int64 // microseconds
	shop  string
	null  bool // no shop
	ok    bool
	n     int64
	price int64 // hundredths
	x     float64
	day   int32
	word  string
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var decimalType = schemas.Type{Kind: schemas.Decimal, Precision: 10, Scale: 2}

// measure is a measure of the test plan and what it reads of an event.
type measure struct {
	name, fn string
	arg      schemas.Type
	levels   []float64
	raw      string // the argument's SQL over the raw table
}

func kind(k schemas.Kind) schemas.Type { return schemas.Type{Kind: k} }

func measures() []measure {
	return []measure{
		{"flights", "count", schemas.Type{}, nil, ""},
		{"total", "sum", kind(schemas.Int64), nil, "n"},
		{"price", "sum", decimalType, nil, "price"},
		{"weight", "sum", kind(schemas.Float64), nil, "x"},
		{"first", "min", kind(schemas.Date), nil, "day"},
		{"latest", "max", kind(schemas.Timestamp), nil, "hour"},
		{"best", "max", kind(schemas.String), nil, "word"},
		{"dearest", "max", decimalType, nil, "price"},
		{"all_ok", "min", kind(schemas.Bool), nil, "ok"},
		{"mean", "avg", kind(schemas.Int64), nil, "n"},
		{"heft", "avg", kind(schemas.Float64), nil, "x"},
		{"words", "uniq", kind(schemas.String), nil, "word"},
		{"varied", "variance", kind(schemas.Int64), nil, "n"},
		{"swing", "stddev_sample", decimalType, nil, "price"},
		{"wobble", "stddev", kind(schemas.Float64), nil, "x"},
		{"sizes", "histogram", kind(schemas.Int64), []float64{0, 10}, "n"},
		{"vocabulary", "distinct", kind(schemas.String), nil, "word"},
		{"spread", "quantiles", kind(schemas.Float64), []float64{0.5, 0.9}, "x"},
	}
}

// newPlan is a plan of every kind of dimension and measure. Plans of other hashes keep apart.
func newPlan(name string, hash byte) *view.Plan {
	p := &view.Plan{
		Hash: strings.Repeat(fmt.Sprintf("%02x", hash), 32),
		View: &schemas.View{Name: name},
		Dimensions: []view.Dimension{
			{Name: "hour", Type: kind(schemas.Timestamp)},
			{Name: "shop", Type: kind(schemas.String), Nullable: true},
			{Name: "ok", Type: kind(schemas.Bool)},
		},
	}
	for _, m := range measures() {
		f := must(agg.New(m.fn, m.arg, m.levels))
		p.Measures = append(p.Measures, view.Measure{Name: m.name, Func: f, Columns: f.Columns(m.name)})
	}
	return p
}

// states folds events, as a plan's fold does.
func states(t testing.TB, p *view.Plan, events []event) arrow.Record {
	t.Helper()
	type key struct {
		hour     int64
		shop     string
		null, ok bool
	}
	index := make(map[key]int32)
	var keys []key
	groups := make([]int32, len(events))
	for i, e := range events {
		k := key{e.hour, e.shop, e.null, e.ok}
		if _, ok := index[k]; !ok {
			index[k] = int32(len(keys))
			keys = append(keys, k)
		}
		groups[i] = index[k]
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(p.StateSchema().Fields()[:3], nil))
	defer b.Release()
	order := make([]int32, len(keys))
	for i, k := range keys {
		order[i] = int32(i)
		b.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(k.hour))
		if k.null {
			b.Field(1).AppendNull()
		} else {
			b.Field(1).(*array.StringBuilder).Append(k.shop)
		}
		b.Field(2).(*array.BooleanBuilder).Append(k.ok)
	}
	columns := b.NewRecord().Columns()
	inputs := make(map[string]measure)
	for _, m := range measures() {
		inputs[m.name] = m
	}
	for _, m := range p.Measures {
		c := m.Func.New()
		c.Grow(len(keys))
		c.Add(groups, nil, m.Func.Prepare(vector(inputs[m.Name], events)))
		columns = append(columns, c.States(order)...)
	}
	return array.NewRecord(p.StateSchema(), columns, int64(len(keys)))
}

func vector(m measure, events []event) column.Vector {
	v := column.Vector{Kind: m.arg.Kind}
	if m.arg.Kind == schemas.String {
		v.Dict = &column.Dict{}
	}
	for i, e := range events {
		switch m.raw {
		case "n":
			v.Ints = append(v.Ints, e.n)
		case "hour":
			v.Ints = append(v.Ints, e.hour)
		case "day":
			v.Ints = append(v.Ints, int64(e.day))
		case "price":
			v.Decimals = append(v.Decimals, decimal128.FromI64(e.price))
		case "x":
			v.Floats = append(v.Floats, e.x)
		case "ok":
			v.Bools = append(v.Bools, e.ok)
		case "word":
			v.Codes, v.Dict.Strings = append(v.Codes, int32(i)), append(v.Dict.Strings, e.word)
		}
	}
	return v
}

// some makes events that differ with the seed.
func some(seed, n int) []event {
	out := make([]event, n)
	for i := range out {
		x := seed*1000 + i
		out[i] = event{
			hour: int64(x%5)*3_600_000_000 - 7_200_000_000, shop: fmt.Sprintf("shop %d", x%3), null: x%7 == 0, ok: x%2 == 0,
			n: int64(x)*1e15 - 3, price: int64(x%977) - 400, x: float64(x%53) + 0.5, day: int32(x%40000) - 20000, word: fmt.Sprintf("w'%d", x%17),
		}
		if out[i].null {
			out[i].shop = ""
		}
	}
	return out
}

// oracle is what ClickHouse makes of the events itself, sorted.
func oracle(t testing.TB, conn driver.Conn, p *view.Plan, events []event) []string {
	t.Helper()
	const raw = "(SELECT hour, if(none, NULL, shop) AS shop, ok, n, price, x, day, word FROM raw_events)"
	if err := conn.Exec(t.Context(), "CREATE OR REPLACE TABLE raw_events (hour DateTime64(6, 'UTC'), shop String, none Bool, ok Bool, n Int64, price Decimal(10, 2), x Float64, day Date32, word String) ENGINE = MergeTree ORDER BY tuple()"); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, e := range events {
		rows = append(rows, fmt.Sprintf("(fromUnixTimestamp64Micro(%d, 'UTC'), '%s', %t, %t, %d, reinterpret(toInt64(%d), 'Decimal(18, 2)'), %g, addDays(toDate32(0), %d), '%s')",
			e.hour, e.shop, e.null, e.ok, e.n, e.price, e.x, e.day, strings.ReplaceAll(e.word, "'", `\'`)))
	}
	if err := conn.Exec(t.Context(), "INSERT INTO raw_events VALUES "+strings.Join(rows, ", ")); err != nil {
		t.Fatal(err)
	}
	out := []string{"r.hour AS hour", "r.shop AS shop", "r.ok AS ok"}
	for i, m := range measures() {
		arg := ""
		if m.raw != "" {
			arg = "r." + m.raw
		}
		out = append(out, p.Measures[i].Func.RawSQL(arg, false)+" AS "+m.name)
	}
	return ask(t, conn, "SELECT "+strings.Join(out, ", ")+" FROM "+raw+" AS r GROUP BY r.hour, r.shop, r.ok ORDER BY hour, shop, ok")
}

// shown is what a merged view answers, sorted.
func shown(t testing.TB, conn driver.Conn, view string) []string {
	t.Helper()
	return ask(t, conn, "SELECT * FROM "+view+" ORDER BY hour, shop, ok")
}

func ensure(t testing.TB, db *store.DB, fresh bool, plans ...*view.Plan) {
	t.Helper()
	if err := db.EnsurePlans(t.Context(), plans, fresh); err != nil {
		t.Fatal(err)
	}
	if err := db.PublishViews(t.Context(), plans); err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isFenced(err error) bool {
	var f interface {
		Fenced() bool
		Refused() bool
	}
	return errors.As(err, &f) && f.Fenced() && f.Refused()
}

func asPlans(p ...*view.Plan) []*view.Plan { return p }

func escapeQuotes(s string) string { return strings.ReplaceAll(s, "'", `\'`) }

// A database whose tables another version made is refused, by name and with what to do, and left as it is.
func TestOutdatedDatabase(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	openOn(t, c)
	conn := admin(t, c)
	check(t, conn.Exec(t.Context(), "DROP VIEW builds_fence"))
	check(t, conn.Exec(t.Context(), "ALTER TABLE builds DROP COLUMN at_cut"))
	_, err := store.Open(t.Context(), configOf(t, c))
	var outdated *store.OutdatedError
	if !errors.As(err, &outdated) || outdated.Table != "builds" || outdated.Column != "at_cut" {
		t.Fatalf("got %v, want an OutdatedError of builds and at_cut", err)
	}
	var fences uint64
	check(t, conn.QueryRow(t.Context(), "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'builds_fence'").Scan(&fences))
	if fences != 0 {
		t.Error("a refused database was changed")
	}
}
