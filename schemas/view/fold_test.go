package view_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"pgregory.net/rapid"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/agg/aggtest"
	"watershed/schemas/column"
	"watershed/schemas/view"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// reading is an event with a field of every type; all but id and time may be null.
func reading() *schemas.Event {
	ev := &schemas.Event{Name: "reading", ID: "id", Time: "time"}
	field := func(name, typ string, optional bool) {
		t, err := schemas.ParseType(typ)
		if err != nil {
			panic(err)
		}
		ev.Fields = append(ev.Fields, schemas.Field{Name: name, Type: t, Optional: optional})
	}
	field("id", "int64", false)
	field("time", "timestamp", false)
	field("site", "string", false)
	field("tag", "string", true)
	field("ok", "bool", true)
	field("level", "int64", true)
	field("plain", "int64", false)
	field("heat", "float64", true)
	field("price", "decimal(18,2)", true)
	field("due", "timestamp", true)
	field("day", "date", true)
	return ev
}

func definitions(of map[string]string) []schemas.Definition {
	var defs []schemas.Definition
	for _, name := range slices.Sorted(maps.Keys(of)) {
		defs = append(defs, schemas.Definition{Name: name, Expression: schemas.Expression{Text: of[name]}})
	}
	return defs
}

// drawView draws a view whose names are often those of fields, which must not be captured.
func drawView(r *rapid.T) *schemas.View {
	dims, measures := map[string]string{}, map[string]string{}
	for _, d := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		"time=bucket(time, \"1h\")", "hour=bucket(time, \"24h\")", "site=site", "tag=tag", "ok=ok", "level=level", "heat=heat",
		"price=price", "due=due", "day=day", "high=level > 3", "plain=site",
		"length=size(tag)", "both=site + tag", "half=heat / 2.0", "double=price + price", "date=date(time)", "known=tag == null ? site : tag", "minus=-heat",
	}), 0, 4, rapid.ID[string]).Draw(r, "dimensions") {
		name, is, _ := strings.Cut(d, "=")
		dims[name] = is
	}
	for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		"n=count()", "ok=count(ok)", "late=count(level > 2)", "level=sum(level)", "plain=sum(plain)", "heat=sum(heat)", "price=sum(price)",
		"lo=min(level)", "hi=max(heat)", "first=min(time)", "due=max(due)", "site=max(site)", "tag=min(tag)", "day=max(day)",
		"mean=avg(level)", "cost=avg(price)", "warm=avg(heat)",
		"sites=uniq(site)", "tags=uniq(tag)", "heats=uniq(heat)", "prices=uniq(price)", "dues=uniq(due)", "days=uniq(day)", "oks=uniq(ok)",
		"q=quantiles(level, 0.5, 0.99)", "hot=quantiles(heat, 0.1, 0.9)", "pq=quantiles(plain, 0.5)",
		"more=sum(level + plain)", "ratio=avg(heat / double(level))", "rq=quantiles(heat * heat, 0.5)", "zero=uniq(heat * 0.0)", "least=min(-heat)",
		"words=uniq(site + tag)", "cheap=max(price - decimal(\"0.5\"))", "span=max(date(due))", "oks_and=count(ok && level > 0)",
	}), 1, 6, rapid.ID[string]).Draw(r, "measures") {
		name, is, _ := strings.Cut(m, "=")
		if _, taken := dims[name]; taken {
			name += "_of"
		}
		measures[name] = is
	}
	v := &schemas.View{Name: "v", From: "reading", Dimensions: definitions(dims), Measures: definitions(measures)}
	v.Where.Text = rapid.SampledFrom([]string{"", "", "level > 0", "ok", "ok || heat > 0.0", "site != \"a\""}).Draw(r, "where")
	return v
}

// drawEvents draws so many events, the optional fields null a third of the time.
func drawEvents(r *rapid.T, ev *schemas.Event, n int) map[string][]any {
	values := make(map[string][]any)
	for _, f := range ev.Fields {
		g := aggtest.Draw(f.Type)
		if f.Name == "time" {
			g = rapid.Int64Range(-4, 4).Filter(func(int64) bool { return true }).AsAny()
		}
		if f.Optional {
			g = rapid.OneOf(g, g, rapid.Just[any](nil))
		}
		values[f.Name] = rapid.SliceOfN(g, n, n).Draw(r, f.Name)
		if f.Name == "time" {
			for i, x := range values[f.Name] {
				values[f.Name][i] = x.(int64) * 1_700_000_000
			}
		}
	}
	return values
}

// events is the record of the events from..to, strings as dictionaries if asked.
func events(ev *schemas.Event, values map[string][]any, from, to int, dictionary bool) arrow.Record {
	var fields []arrow.Field
	var columns []arrow.Array
	for _, f := range ev.Fields {
		a := aggtest.Array(f.Type, values[f.Name][from:to], dictionary)
		fields = append(fields, arrow.Field{Name: f.Name, Type: a.DataType(), Nullable: f.Optional})
		columns = append(columns, a)
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), columns, int64(to-from))
}

// Whatever the view, the events and the way in which they are split: what Go folds and
// ClickHouse merges, what ClickHouse folds and merges, and the oracle are equal.
func TestFoldEqualsClickHouse(t *testing.T) {
	db, err := aggtest.New(devtest.SharedClickHouse(t), "view_fold")
	if err != nil {
		t.Fatal(err)
	}
	ev := reading()
	var raw []string
	for _, f := range ev.Fields {
		typ := f.Type.ClickHouse()
		if f.Optional {
			typ = "Nullable(" + typ + ")"
		}
		raw = append(raw, f.Name+" "+typ)
	}
	if err := db.Table("raw", raw); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		must := func(err error) {
			r.Helper()
			if err != nil {
				r.Fatal(err)
			}
		}
		p, err := view.Compile(drawView(r), ev)
		must(err)
		n := rapid.IntRange(0, 80).Draw(r, "events")
		values := drawEvents(r, ev, n)
		must(db.Exec("TRUNCATE TABLE raw"))
		must(db.Insert("raw", events(ev, values, 0, n, false)))
		stageStates(r, db, p, ev, values, n)

		want, err := db.Rows(p.SelectFinal("raw"))
		must(err)
		for _, form := range []struct{ name, sql string }{
			{"folded by Go, merged by ClickHouse", p.SelectFinished("(" + castStates(p, "staged") + ")")},
			{"folded and merged by ClickHouse", p.SelectFinished("(" + p.SelectStates("(SELECT * FROM raw WHERE id % 2 = 0)") + " UNION ALL " +
				p.SelectStates("(SELECT * FROM raw WHERE id % 2 != 0)") + ")")},
		} {
			got, err := db.Rows(form.sql)
			must(err)
			equal(r, form.name, p, want, got, values)
		}
	})
}

// stageStates folds the events in parts with one fold, flushed between, into table staged.
func stageStates(r *rapid.T, db *aggtest.DB, p *view.Plan, ev *schemas.Event, values map[string][]any, n int) {
	var cols []string
	for _, c := range p.Columns() {
		typ := c.Staged
		if c.Key {
			typ = c.ClickHouse
		}
		cols = append(cols, c.Name+" "+typ)
	}
	if err := db.Table("staged", cols); err != nil {
		r.Fatal(err)
	}
	fold, reader := p.NewFold(), column.NewReader()
	flush := func() {
		groups, rows := fold.Groups(), fold.Rows()
		rec := fold.Flush()
		if int(rec.NumRows()) != groups || !rec.Schema().Equal(p.StateSchema()) || rows < int64(groups) {
			r.Fatalf("flushed %d rows of %s; want %d groups of %d events, %s", rec.NumRows(), rec.Schema(), groups, rows, p.StateSchema())
		}
		if fold.Groups() != 0 || fold.Rows() != 0 {
			r.Fatalf("%d groups of %d events are left after a flush", fold.Groups(), fold.Rows())
		}
		if groups > 0 {
			inOrder(r, p, rec)
			if err := db.Insert("staged", rec); err != nil {
				r.Fatal(err)
			}
		}
	}
	for from := 0; from < n; {
		to := from + rapid.IntRange(1, n-from).Draw(r, "part")
		rec := events(ev, values, from, to, rapid.Bool().Draw(r, "dictionary"))
		var rows []int32
		if rapid.Bool().Draw(r, "listed") {
			// The block holds more than the fold is to see: the rest comes with another call.
			rows = []int32{}
			var rest []int32
			for i := range int32(to - from) {
				if rapid.Bool().Draw(r, "now") {
					rows = append(rows, i)
				} else {
					rest = append(rest, i)
				}
			}
			if len(rest) == 0 {
				rest = []int32{}
			}
			if err := fold.Add(reader.Block(rec), rest); err != nil {
				r.Fatal(err)
			}
		}
		if err := fold.Add(reader.Block(rec), rows); err != nil {
			r.Fatal(err)
		}
		if rapid.Bool().Draw(r, "flush") {
			flush()
		}
		from = to
	}
	flush()
}

// inOrder holds the record's first dimension against the order of ClickHouse's keys, null last.
func inOrder(r rapid.TB, p *view.Plan, rec arrow.Record) {
	r.Helper()
	for i := 1; len(p.Dimensions) > 0 && i < int(rec.NumRows()); i++ {
		c := rec.Column(0)
		ok := c.IsNull(i) || c.IsValid(i-1)
		if c.IsValid(i) && ok {
			switch c := c.(type) {
			case *array.Int64:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.Timestamp:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.Date32:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.Float64:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.String:
				ok = c.Value(i-1) <= c.Value(i)
			case *array.Decimal128:
				ok = c.Value(i-1).Cmp(c.Value(i)) <= 0
			case *array.Boolean:
				ok = !c.Value(i-1) || c.Value(i)
			}
		}
		if !ok {
			r.Fatalf("row %d is out of order: %s", i, c)
		}
	}
}

// castStates selects staged states in their real types, as a store's materialized view does.
func castStates(p *view.Plan, from string) string {
	var cols []string
	for _, c := range p.Columns() {
		name := view.Quote(c.Name)
		cols = append(cols, fmt.Sprintf("CAST(%s, '%s') AS %s", name, strings.ReplaceAll(c.ClickHouse, "'", `\'`), name))
	}
	return "SELECT " + strings.Join(cols, ", ") + " FROM " + from
}

// equal compares finished rows without regard to their order.
func equal(r rapid.TB, form string, p *view.Plan, want, got [][]string, values map[string][]any) {
	r.Helper()
	dims := len(p.Dimensions)
	index := func(rows [][]string) map[string][]string {
		by := make(map[string][]string)
		for _, row := range rows {
			key := fmt.Sprintf("%q", row[:dims])
			if by[key] != nil {
				r.Fatalf("%s: group %s comes twice", form, key)
			}
			by[key] = row[dims:]
		}
		return by
	}
	w, g := index(want), index(got)
	if len(w) != len(g) {
		r.Fatalf("%s: got %d groups, %v; want %d, %v", form, len(g), g, len(w), w)
	}
	for key, row := range w {
		for i, x := range row {
			if g[key] == nil {
				r.Fatalf("%s: group %s is missing", form, key)
			}
			if !same(p.Measures[i], x, g[key][i], values) {
				r.Fatalf("%s: %s of group %s is %s; want %s", form, p.Measures[i].Name, key, g[key][i], x)
			}
		}
	}
}

// same compares finished values: exactly, but sums and means of floats within 1e-9 of the sum
// of magnitudes.
func same(m view.Measure, want, got string, values map[string][]any) bool {
	if want == got {
		return true
	}
	name := m.Func.Name()
	if m.Arg == nil || m.Arg.Type().Kind != schemas.Float64 || name != "sum" && name != "avg" {
		return false
	}
	var w, g, scale float64
	if json.Unmarshal([]byte(want), &w) != nil || json.Unmarshal([]byte(got), &g) != nil {
		return false
	}
	for _, v := range values["heat"] {
		if x, ok := v.(float64); ok {
			scale += math.Abs(x)
		}
	}
	return math.Abs(w-g) <= 1e-9*scale
}

// The numbers stay right when keys are many: more groups than any first table holds, over
// several chunks and blocks, with each group's count known.
func TestManyGroups(t *testing.T) {
	ev := reading()
	v := &schemas.View{Name: "v", From: "reading",
		Dimensions: definitions(map[string]string{"plain": "plain", "site": "site", "tag": "tag"}), Measures: definitions(map[string]string{"n": "count()"})}
	p, err := view.Compile(v, ev)
	if err != nil {
		t.Fatal(err)
	}
	const n = 30000
	values := make(map[string][]any)
	want := make(map[string]uint64)
	for _, f := range ev.Fields {
		values[f.Name] = make([]any, n)
	}
	for i := range n {
		values["id"][i], values["time"][i] = int64(i), int64(i)
		values["plain"][i], values["site"][i] = int64(i%997), "s"+strconv.Itoa(i%11)
		if i%3 > 0 {
			values["tag"][i] = strconv.Itoa(i % 3)
		}
		want[fmt.Sprint(values["plain"][i], values["site"][i], values["tag"][i])] += 2
	}
	fold, reader := p.NewFold(), column.NewReader()
	for range 2 {
		for from := 0; from < n; from += 10000 {
			if err := fold.Add(reader.Block(events(ev, values, from, from+10000, true)), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	rec := fold.Flush()
	if int(rec.NumRows()) != len(want) {
		t.Fatalf("got %d groups; want %d", rec.NumRows(), len(want))
	}
	for i := range int(rec.NumRows()) {
		var tag any
		if rec.Column(2).IsValid(i) {
			tag = rec.Column(2).(*array.String).Value(i)
		}
		key := fmt.Sprint(rec.Column(0).(*array.Int64).Value(i), rec.Column(1).(*array.String).Value(i), tag)
		if got := rec.Column(3).(*array.Uint64).Value(i); got != want[key] {
			t.Fatalf("group %s has %d events; want %d", key, got, want[key])
		}
	}
}
