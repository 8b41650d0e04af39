package history

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/internal/devserver"
	"watershed/schemas"
)

// repeating is n events like randomRecord's, with ids of which there are few, and rows counted from row.
func repeating(r *rand.Rand, ev *schemas.Event, n, ids int, date int32, seq, row int64) arrow.Record {
	rec := randomRecord(r, ev, n, date, seq)
	b := array.NewStringBuilder(memory.DefaultAllocator)
	at := array.NewInt32Builder(memory.DefaultAllocator)
	for i := range n {
		b.Append(fmt.Sprintf("id-%d", r.IntN(ids)))
		at.Append(int32(row) + int32(i))
	}
	columns := slices.Clone(rec.Columns())
	columns[0], columns[len(columns)-1] = b.NewArray(), at.NewArray()
	return array.NewRecord(rec.Schema(), columns, rec.NumRows())
}

// addImported commits a record as an import of its own.
func addImported(t testing.TB, table *Table, rec arrow.Record, date int32, source string) {
	t.Helper()
	w, err := table.newFile(date)
	if err != nil {
		t.Fatal(err)
	}
	defer w.abort()
	if err := w.write(rec, nil); err != nil {
		t.Fatal(err)
	}
	a, err := w.close(false, true)
	if err != nil {
		t.Fatal(err)
	}
	app := importPrefix + source
	a.Tags[tagSource] = app
	if _, err := table.commit(t.Context(), &change{operation: "IMPORT", adds: []*add{a}, txns: []txn{{AppID: app, Version: 1}}, absent: app}); err != nil {
		t.Fatal(err)
	}
}

func compacted(t testing.TB, root string, opts CompactOptions) CompactReport {
	t.Helper()
	r, err := Compact(t.Context(), root, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// distinctLines are the events that count, by ClickHouse: of each identity the one at the first place; with
// an expression that tells origins apart, those of each.
func distinctLines(t testing.TB, c *devserver.ClickHouse, table *Table, origin ...string) []string {
	t.Helper()
	var cells []string
	for _, f := range table.Event().Fields {
		cells = append(cells, clickhouseValue(f))
	}
	cells = append(cells, "toString(_seq)", "toString(_row)")
	lines := query(t, c, "SELECT concatWithSeparator('|', "+strings.Join(cells, ", ")+") FROM "+from(table)+" ORDER BY _seq, _row LIMIT 1 BY "+strings.Join(append([]string{"id", "_date"}, origin...), ", "))
	slices.Sort(lines)
	return lines
}

func contents(s *Snapshot) map[int32]string {
	files, out := map[int32][]File{}, map[int32]string{}
	for _, f := range s.Files {
		files[f.Date] = append(files[f.Date], f)
	}
	for date, of := range files {
		out[date] = Content(of)
	}
	return out
}

// A table of every type, dates with files of the log and of two imports, in which most identities occur
// several times: after compaction ClickHouse reads of each origin the events that it found to count before,
// once each, and over all origins the same ones count as before.
func TestCompact(t *testing.T) {
	c, root := readableRoot(t)
	ev := everyType()
	table := mustOpen(t, root, ev)
	r := newRand(51)
	dates := []int32{-3, 11_000, 11_001}
	seq := int64(0)
	for range 6 {
		for _, date := range dates {
			seq++
			addFile(t, table, repeating(r, ev, 400+r.IntN(400), 3000, date, seq, 0), date, testApp, seq)
		}
	}
	for k, source := range []string{"a", "b"} {
		for _, date := range dates[1:] {
			addImported(t, table, repeating(r, ev, 300, 3000, date, 0, int64(1000*k)), date, source+fmt.Sprint(date))
		}
	}
	before := snapshot(t, table)
	// The log's rows have a sequence, and those of the second import row numbers from 1000 on.
	want, counting := distinctLines(t, c, table, "least(_seq, 1), if(_seq > 0, 0, intDiv(_row, 1000))"), distinctLines(t, c, table)

	dry := compacted(t, root, CompactOptions{DryRun: true})
	if s := snapshot(t, table); s.Version != before.Version || len(dry.Dates) != len(dates) || dry.Dates[0].Bytes == 0 {
		t.Fatalf("a dry run: got version %d and %+v; want %d, and all dates told", s.Version, dry, before.Version)
	}
	report := compacted(t, root, CompactOptions{Memory: leastCompactMemory, FileBytes: 1})
	after := snapshot(t, table)
	if got := theirLines(t, c, table, "1"); !slices.Equal(got, want) {
		t.Fatalf("ClickHouse reads %d rows that are not the %d distinct ones of before", len(got), len(want))
	}
	if got := distinctLines(t, c, table); !slices.Equal(got, counting) || len(got) == len(want) {
		t.Fatalf("of %d rows %d count; want the %d of before, and some in several origins", len(want), len(got), len(counting))
	}
	if x, y := contents(before), contents(after); fmt.Sprint(x) != fmt.Sprint(y) {
		t.Errorf("contents by date went from %v to %v", x, y)
	}
	dropped, into, most := int64(0), 0, 0
	for _, d := range report.Dates {
		dropped, into, most = dropped+d.Duplicates, into+d.Into, max(most, d.Passes)
		if d.Lost != "" {
			t.Errorf("%s was lost: %s", d.Date, d.Lost)
		}
	}
	if want := before.Rows() - after.Rows(); dropped != want || dropped == 0 || into != len(after.Files) || most < 2 {
		t.Errorf("report: %d duplicates, %d files, %d passes; want %d, %d and several", dropped, into, most, want, len(after.Files))
	}
	sum := int64(0)
	ids, origins := map[string]string{}, map[int32]map[string]bool{} // by date and origin; ids by date
	for _, f := range after.Files {
		sum += f.Duplicates
		key := fmt.Sprint(f.Date, f.Origin())
		if f.Distinct == "" || !f.Unique || f.AsOf != before.Version || ids[key] != "" && ids[key] != f.Distinct {
			t.Errorf("%s: tags %+v; want one id an origin, distinct rows, and version %d", f.Path, f, before.Version)
		}
		ids[key] = f.Distinct
		if origins[f.Date] == nil {
			origins[f.Date] = map[string]bool{}
		}
		origins[f.Date][f.Distinct] = true
		if f.Import != (f.MaxSeq == 0) || f.Import != strings.HasPrefix(f.Origin(), importPrefix) {
			t.Errorf("%s holds messages up to %d; imported %t from %q", f.Path, f.MaxSeq, f.Import, f.Origin())
		}
	}
	for _, date := range dates { // the first has no imports; on the others the origins share events
		if got, want := len(origins[date]), min(1+2*int(date-dates[0]), 3); got != want {
			t.Errorf("%s has %d ids; want %d", formatDate(date), got, want)
		}
	}
	if sum != dropped {
		t.Errorf("the files say that %d duplicates were left out; want %d", sum, dropped)
	}
	checkSorted(t, table, after)
	if v, err := Verify(t.Context(), root); err != nil || len(v.Problems) > 0 {
		t.Errorf("verify: %v, %v", v.Problems, err)
	}
	if again := compacted(t, root, CompactOptions{MinFiles: 1, Every: true}); len(again.Dates) != 0 {
		t.Errorf("compacted once more: %+v; want nothing to do", again)
	}
	// What came before can still be read as it was.
	old, err := table.SnapshotAt(t.Context(), testApp, uint64(seq))
	if err != nil || len(old.Files) != len(dates)*6 {
		t.Errorf("the version of before: %v, %v; want %d files", old, err, len(dates)*6)
	}
}

// checkSorted holds the order of the rows of each file.
func checkSorted(t *testing.T, table *Table, s *Snapshot) {
	t.Helper()
	for _, f := range s.Files {
		var last rowKey
		first := true
		err := table.Scan(t.Context(), f, []string{table.event.Time, schemas.SeqColumn, schemas.RowColumn}, func(rec arrow.Record) error {
			for _, k := range keysOf(rec, 0) {
				if !first && k.compare(last) <= 0 {
					t.Fatalf("%s: %+v comes behind %+v", f.Path, k, last)
				}
				last, first = k, false
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A late file stays beside until it is shared, makes the date not distinct, and is compacted with the rest
// when it is; its duplicates are found among compacted rows.
func TestCompactAgain(t *testing.T) {
	c, root := readableRoot(t)
	ev := smallEvent("a")
	table := mustOpen(t, root, ev)
	r := newRand(52)
	for seq := int64(1); seq <= 3; seq++ {
		addFile(t, table, repeating(r, ev, 100, 150, 5, seq, 0), 5, testApp, seq)
	}
	addFile(t, table, repeating(r, ev, 100, 150, 5, 9, 0), 5, testApp, 9)
	opts := CompactOptions{App: testApp, Keep: []uint64{3, 9}, MinFiles: 1}
	if got := compacted(t, root, opts).Dates; len(got) != 1 || got[0].Files != 3 || got[0].Into != 1 {
		t.Fatalf("got %+v; want the three files that the oldest kept cut has", got)
	}
	s := snapshot(t, table)
	if len(s.Files) != 2 || (s.Files[0].Distinct == "") == (s.Files[1].Distinct == "") {
		t.Fatalf("got %+v; want one compacted file and one beside", s.Files)
	}
	want, sum := distinctLines(t, c, table), Content(s.Files)
	if r := compacted(t, root, opts); len(r.Dates) != 0 || r.Unshared != 1 {
		t.Errorf("got %+v; want nothing, and one date that waits", r)
	}
	opts.Keep = []uint64{9}
	got := compacted(t, root, opts).Dates
	s = snapshot(t, table)
	if len(got) != 1 || len(s.Files) != 1 || Content(s.Files) != sum {
		t.Fatalf("got %+v, files %+v; want one file of the same content", got, s.Files)
	}
	if lines := theirLines(t, c, table, "1"); !slices.Equal(lines, want) || s.Files[0].Duplicates != 400-int64(len(want)) {
		t.Errorf("%d rows, %d left out; want %d of 400", len(lines), s.Files[0].Duplicates, len(want))
	}
}

// Origins that share no event are distinct together.
func TestCompactDistinctOrigins(t *testing.T) {
	root, ev := t.TempDir(), smallEvent("a")
	table := mustOpen(t, root, ev)
	r := newRand(55)
	for seq := int64(1); seq <= 2; seq++ {
		addFile(t, table, randomRecord(r, ev, 100, 5, seq), 5, testApp, seq)
	}
	addImported(t, table, repeating(r, ev, 300, 100, 5, 0, 0), 5, "a")
	before := snapshot(t, table)
	compacted(t, root, CompactOptions{Memory: leastCompactMemory})
	s := snapshot(t, table)
	if len(s.Files) != 2 || s.Files[0].Distinct != s.Files[1].Distinct || s.Files[0].Distinct == "" {
		t.Errorf("got %+v; want two files with one id", s.Files)
	}
	// Each origin keeps its content, so that it can go and come back.
	byOrigin := func(s *Snapshot) map[string]string {
		files, out := map[string][]File{}, map[string]string{}
		for _, f := range s.Files {
			files[f.Origin()] = append(files[f.Origin()], f)
		}
		for origin, of := range files {
			out[origin] = Content(of)
		}
		return out
	}
	if x, y := byOrigin(before), byOrigin(s); !maps.Equal(x, y) {
		t.Errorf("contents by origin went from %v to %v", x, y)
	}
}

// What was written is read back before it takes the place of anything.
func TestCompactReadsBack(t *testing.T) {
	root, ev := t.TempDir(), everyType()
	table := mustOpen(t, root, ev)
	r := newRand(56)
	for seq := int64(1); seq <= 3; seq++ {
		addFile(t, table, repeating(r, ev, 200, 300, 5, seq, 0), 5, testApp, seq)
	}
	c := &compaction{opts: CompactOptions{MinFiles: 1}}
	due, err := c.due(t.Context(), readOnly(table.Dir()))
	if err != nil || len(due) != 1 {
		t.Fatalf("got %v, %v; want one date", due, err)
	}
	w := &rewriting{dateFiles: due[0], memory: leastCompactMemory, fileBytes: defaultFileBytes}
	if err := w.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := w.origins[0]
	written := o.adds[0]
	fresh := func() { o.adds[0] = written }
	other := func(rec arrow.Record) { // a valid file of other rows, in the place of the one written
		f, err := w.table.newFile(5)
		if err != nil {
			t.Fatal(err)
		}
		defer f.abort()
		if err := f.write(rec, nil); err != nil {
			t.Fatal(err)
		}
		if o.adds[0], err = f.close(true, false); err != nil {
			t.Fatal(err)
		}
	}
	var rows arrow.Record
	file, err := written.file()
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Scan(t.Context(), file, fieldNames(ev), func(rec arrow.Record) error { rows = rec; return nil }); err != nil {
		t.Fatal(err)
	}
	if other(rows); w.readBack(t.Context(), o) != nil {
		t.Error("the same rows in another file were refused")
	}
	for k := range int(rows.NumCols()) { // two rows of a column change places
		if at := differing(rows.Column(k)); at > 0 {
			if other(swapped(t, rows, k, at)); w.readBack(t.Context(), o) == nil {
				t.Errorf("rows 0 and %d have exchanged their %s, and nothing was noticed", at, rows.ColumnName(k))
			}
		}
	}
	if other(rows.NewSlice(1, rows.NumRows())); w.readBack(t.Context(), o) == nil {
		t.Error("a row is missing, and nothing was noticed")
	}
	fresh()
	flipBit(t, table.onDisk(file))
	if w.readBack(t.Context(), o) == nil {
		t.Error("a damaged file was accepted")
	}
}

// differing is the first row that has another value than row 0; 0: there is none.
func differing(col arrow.Array) int {
	for i := 1; i < col.Len(); i++ {
		if !array.SliceEqual(col, 0, 1, col, int64(i), int64(i)+1) {
			return i
		}
	}
	return 0
}

// swapped is a record in which rows 0 and i have exchanged their values of a column.
func swapped(t *testing.T, rec arrow.Record, k, i int) arrow.Record {
	t.Helper()
	n := rec.NumRows()
	col, at := rec.Column(k), int64(i)
	part := func(from, to int64) arrow.Array { return array.NewSlice(col, from, to) }
	column, err := array.Concatenate([]arrow.Array{part(at, at+1), part(1, at), part(0, 1), part(at+1, n)}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	columns := slices.Clone(rec.Columns())
	columns[k] = column
	return array.NewRecord(rec.Schema(), columns, n)
}

// Of a change that comes while a date is being compacted nothing is taken back.
func TestCompactLosesRaces(t *testing.T) {
	root, ev := t.TempDir(), smallEvent("a")
	table := mustOpen(t, root, ev)
	r := newRand(53)
	for seq := int64(1); seq <= 4; seq++ {
		addFile(t, table, randomRecord(r, ev, 50, 5, seq), 5, testApp, seq)
	}
	begin := func() *rewriting {
		c := &compaction{opts: CompactOptions{MinFiles: 1}}
		due, err := c.due(t.Context(), readOnly(table.Dir()))
		if err != nil || len(due) != 1 {
			t.Fatalf("got %v, %v; want one date", due, err)
		}
		return &rewriting{dateFiles: due[0], memory: leastCompactMemory, fileBytes: defaultFileBytes}
	}
	first, second := begin(), begin()
	addFile(t, table, randomRecord(r, ev, 50, 5, 5), 5, testApp, 5) // goes beside
	if err := first.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := second.run(t.Context()); err == nil {
		t.Error("a second compaction of the same files was committed")
	}
	s := snapshot(t, table)
	if len(s.Files) != 2 || s.Rows() != 250 {
		t.Errorf("got %d files of %d rows; want 2 of 250", len(s.Files), s.Rows())
	}
	if v, err := Verify(t.Context(), root); err != nil || len(v.Problems)+len(v.Strays) > 0 {
		t.Errorf("verify: %+v, %v; want nothing wrong, and no strays", v, err)
	}
	// A file that a repair gives up takes the compaction with it.
	third := begin()
	third.files = s.Files
	if _, err := table.commit(t.Context(), &change{operation: "REPAIR", removes: []*remove{table.removal(s.Files[0])}}); err != nil {
		t.Fatal(err)
	}
	if err := third.run(t.Context()); err == nil {
		t.Error("a compaction brought back what a repair had given up")
	}
}

// The contents of a date's files add up: every other set of files has another sum.
func TestContent(t *testing.T) {
	f := func(contents ...string) string {
		var files []File
		for _, c := range contents {
			files = append(files, File{Content: c})
		}
		return Content(files)
	}
	hex := func(b string) string { return strings.Repeat(b, 32) }
	if f(hex("01"), hex("02")) != hex("03") || f(hex("02"), hex("01")) != hex("03") || f(hex("ff"), hex("00")[:62]+"01") != hex("00") {
		t.Error("contents are not added as numbers of 256 bits")
	}
	for _, other := range []string{f(), f(hex("03"), hex("03")), f(hex("01")), f("text"), f("text", "text"), f("other")} {
		if other == hex("03") {
			t.Error("other files have the same content")
		}
	}
}

// What a date costs: dates are done by how many files they are rid of, within a limit of bytes, and not
// again for a few late events.
func TestCompactIsBounded(t *testing.T) {
	root, ev := t.TempDir(), smallEvent("a")
	table := mustOpen(t, root, ev)
	r := newRand(54)
	seq := int64(0)
	put := func(date int32, n int) {
		seq++
		addFile(t, table, randomRecord(r, ev, n, date, seq), date, testApp, seq)
	}
	for range 2 {
		put(1, 1000)
	}
	for range 5 {
		put(2, 1000)
	}
	if got := compacted(t, root, CompactOptions{MaxBytes: 1}); len(got.Dates) != 1 || got.Dates[0].Date != "1970-01-03" || got.Left != 1 {
		t.Errorf("got %+v; want the date of most files alone, and one left", got)
	}
	put(2, 5)
	put(2, 5)
	day := func(d int) time.Time { return time.Unix(int64(d)*86400, 0) }
	if got := compacted(t, root, CompactOptions{From: day(2), To: day(3)}); len(got.Dates) != 0 {
		t.Errorf("got %+v; want a date with little that is new left alone", got)
	}
	if got := compacted(t, root, CompactOptions{From: day(2), To: day(3), Every: true}); len(got.Dates) != 1 || got.Dates[0].Files != 3 {
		t.Errorf("got %+v; want it done", got)
	}
	if got := compacted(t, root, CompactOptions{}); len(got.Dates) != 1 || got.Dates[0].Date != "1970-01-02" {
		t.Errorf("got %+v; want the other date", got)
	}
	if _, err := Compact(t.Context(), root, CompactOptions{Type: "nothing"}); err == nil {
		t.Error("a type without history was accepted")
	}
}
