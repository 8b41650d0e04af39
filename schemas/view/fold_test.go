package view_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/array"
	"pgregory.net/rapid"

	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/schemas/agg/aggtest"
	"watershed/schemas/column"
	"watershed/schemas/view"
)

func TestMain(m *testing.M) { devtest.Main(m) }

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

// A fold's memory goes with its groups: neither more rows of the same groups nor another flush
// takes more.
func TestMemoryGoesWithGroups(t *testing.T) {
	ev := reading()
	p, err := view.Compile(&schemas.View{Name: "v", From: "reading",
		Dimensions: definitions(map[string]string{"hour": `bucket(time, "1h")`, "site": "site"}),
		Measures:   definitions(map[string]string{"n": "count()", "mean": "avg(plain)", "most": "max(site)", "u": "uniq(plain)", "q": "quantiles(plain, 0.5)"})}, ev)
	if err != nil {
		t.Fatal(err)
	}
	rec := events(ev, departures(ev, 10000), 0, 10000, true)
	fold, reader := p.NewFold(), column.NewReader()
	add := func() {
		t.Helper()
		if err := fold.Add(reader.Block(rec), nil); err != nil {
			t.Fatal(err)
		}
	}
	empty := fold.Bytes()
	add()
	first := fold.Bytes()
	if first <= empty || first > 10000*1000 {
		t.Errorf("a fold of 10,000 events takes %d bytes, an empty one %d", first, empty)
	}
	again := func() int64 {
		for range 40 {
			add()
		}
		return fold.Bytes()
	}
	// Values of quantiles are listed until a list has more repetitions than not.
	counted := again()
	if counted > 3*first {
		t.Errorf("the same events again take %d bytes; want less than three times %d", counted, first)
	}
	if got := again(); got != counted {
		t.Errorf("the same events once more take %d bytes; want %d", got, counted)
	}
	fold.Flush().Release() // the buffers that states are encoded in come with the first flush
	add()
	fold.Flush().Release()
	second := fold.Bytes()
	for range 20 {
		add()
		fold.Flush().Release()
	}
	if got := fold.Bytes(); got != second {
		t.Errorf("twenty flushes later the fold takes %d bytes; want %d", got, second)
	}
}
