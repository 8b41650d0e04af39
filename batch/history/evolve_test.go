package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unique"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/column"
)

// evolution is a definition with required fields of every type, and the one that came after it: every
// second of them became optional, and optional fields of every type were added.
func evolution() (older, newer *schemas.Event) {
	older, newer = everyType(), everyType()
	older.Fields = slices.DeleteFunc(older.Fields, func(f schemas.Field) bool { return f.Optional })
	for i := range newer.Fields {
		if f := &newer.Fields[i]; i%4 == 0 && strings.HasPrefix(f.Name, "f_") {
			f.Optional = true
		}
	}
	return older, newer
}

// disk is every file below a directory, with its size and time.
func disk(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		out = append(out, fmt.Sprintln(path, info.Size(), info.ModTime()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOpenAndCheckOfOtherDefinitions(t *testing.T) {
	text := schemas.Type{Kind: schemas.String}
	optional := func(name string) schemas.Field { return schemas.Field{Name: name, Type: text, Optional: true} }
	required := func(name string) schemas.Field { return schemas.Field{Name: name, Type: text} }
	edit := func(ev *schemas.Event, change func(*schemas.Event)) *schemas.Event {
		out := plus(ev)
		change(out)
		return out
	}
	base := plus(smallEvent("a"), required("r"), optional("o"))
	relaxed := edit(base, func(ev *schemas.Event) { ev.Fields[3].Optional = true })
	// Each case opens the table by the first definitions, one after the other, and then tries the last.
	// Refusals are named by what the message must have; empty: none.
	f := func(name string, openSays, checkSays string, defs ...*schemas.Event) {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, ev := range defs[:len(defs)-1] {
				mustOpen(t, root, ev)
			}
			last, before := defs[len(defs)-1], disk(t, root)
			refused := func(what string, err error, says string) {
				var mismatch *MismatchError
				switch {
				case says == "" && err != nil:
					t.Errorf("%s: %v", what, err)
				case says != "" && (!errors.As(err, &mismatch) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "new name")):
					t.Errorf("%s: got %v; want a mismatch that says %q and what to do", what, err, says)
				}
			}
			refused("check", Check(t.Context(), root, last), checkSays)
			if after := disk(t, root); !slices.Equal(after, before) {
				t.Errorf("check changed the table: got %v; want %v", after, before)
			}
			var columns []string
			if len(defs) > 1 {
				columns, _ = tableColumns(t, root, "a")
			}
			_, err := Open(t.Context(), root, last)
			refused("open", err, openSays)
			now, _ := tableColumns(t, root, "a")
			for _, c := range columns {
				if c, _, _ = strings.Cut(c, " "); !slices.ContainsFunc(now, func(n string) bool { return strings.HasPrefix(n, c+" ") }) {
					t.Errorf("column %s is gone: %v", c, now)
				}
			}
			if openSays != "" && !slices.Equal(now, columns) {
				t.Errorf("a refusal changed the columns to %v; want %v", now, columns)
			}
		})
	}
	f("first", "", "", base)
	f("same", "", "", base, base)
	f("optional added", "", "", base, plus(base, optional("p")))
	f("optional added in front", "", "", base, edit(base, func(ev *schemas.Event) { ev.Fields = slices.Insert(ev.Fields, 0, optional("p")) }))
	f("other order", "", "", base, edit(base, func(ev *schemas.Event) { slices.Reverse(ev.Fields) }))
	f("made optional", "", "", base, relaxed)
	f("older: lacks what was added", "", "field p is missing", base, plus(base, optional("p")), base)
	f("older: required what is optional now", "", "field r is optional there", base, relaxed, base)
	f("two branches", "", "field p is missing", base, plus(base, optional("p")), plus(base, optional("q")))
	f("required added", "field p is new", "field p is new", base, plus(base, required("p")))
	f("optional made required", "field o is optional there", "field o is optional there", base, edit(base, func(ev *schemas.Event) { ev.Fields[4].Optional = false }))
	f("required removed", "field r is missing", "field r is missing", base, edit(base, func(ev *schemas.Event) { ev.Fields = slices.Delete(ev.Fields, 3, 4) }))
	f("optional removed", "", "field o is missing", base, edit(base, func(ev *schemas.Event) { ev.Fields = ev.Fields[:4] }))
	f("other type", "field o is string there, not int64", "field o is string there, not int64", base,
		edit(base, func(ev *schemas.Event) { ev.Fields[4].Type = schemas.Type{Kind: schemas.Int64} }))
	f("other decimal", "field d is decimal(9,2) there, not decimal(9,3)", "field d is decimal(9,2) there, not decimal(9,3)",
		plus(base, schemas.Field{Name: "d", Type: schemas.Type{Kind: schemas.Decimal, Precision: 9, Scale: 2}}),
		plus(base, schemas.Field{Name: "d", Type: schemas.Type{Kind: schemas.Decimal, Precision: 9, Scale: 3}}))
	f("other case", "field O is written o there", "field O is written o there", base, edit(base, func(ev *schemas.Event) { ev.Fields[4].Name = "O" }))
	f("other id", "its id field", "its id field", base, edit(base, func(ev *schemas.Event) { ev.ID = "r" }))
	f("other time", "its time field", "its time field", plus(base, schemas.Field{Name: "u", Type: schemas.Type{Kind: schemas.Timestamp}}),
		edit(plus(base, schemas.Field{Name: "u", Type: schemas.Type{Kind: schemas.Timestamp}}), func(ev *schemas.Event) { ev.Time = "u" }))
}

// Files of both definitions are read by both, by us and by ClickHouse.
func TestFilesOfOlderDefinitions(t *testing.T) {
	c, root := readableRoot(t)
	older, newer := evolution()
	r := newRand(31)
	before := mustOpen(t, root, older)
	after := mustOpen(t, root, newer)
	type written struct {
		rec  arrow.Record
		full bool // no column is null that was required once
	}
	var files []written
	add := func(table *Table, rec arrow.Record, full bool) {
		date := int32(100 + len(files))
		addFile(t, table, rec, date, testApp, int64(len(files)+1))
		files = append(files, written{rec, full})
	}
	for i := range 2 { // an older process goes on after a newer one
		day, n := int32(100+2*i), 40+i
		add(before, randomRecord(r, older, n, day, int64(2*i+1)), true)
		add(after, randomRecord(r, newer, n, day+1, int64(2*i+2)), false)
	}
	for _, table := range []*Table{after, mustOpen(t, root, newer)} {
		for i, f := range snapshot(t, table).Files {
			if got, want := scanText(t, table, f), text(project(files[i].rec, newer)); got != want {
				t.Errorf("file %d read by the newer definition differs from what was written", i)
			}
		}
	}
	for i, f := range snapshot(t, before).Files {
		var got strings.Builder
		err := before.Scan(t.Context(), f, columnNames(older), func(rec arrow.Record) error {
			got.WriteString(text(rec))
			return nil
		})
		switch {
		case files[i].full && (err != nil || got.String() != text(project(files[i].rec, older))):
			t.Errorf("file %d read by the older definition differs from what was written: %v", i, err)
		case !files[i].full && (err == nil || errors.As(err, new(*CorruptError)) || !strings.Contains(err.Error(), "does not make it optional")):
			t.Errorf("file %d has nulls where the older definition has none: got %v", i, err)
		}
	}
	var want []string
	for _, f := range files {
		want = append(want, ourLines(project(f.rec, newer))...)
	}
	slices.Sort(want)
	if got := theirLines(t, c, after, "1"); !slices.Equal(got, want) {
		t.Errorf("ClickHouse reads %d rows; want %d, or their values differ", len(got), len(want))
	}
	if got := query(t, c, "SELECT count() FROM "+from(after)+" WHERE isNull(o_string) AND _seq % 2 = 1"); got[0] != fmt.Sprint(files[0].rec.NumRows()+files[2].rec.NumRows()) {
		t.Errorf("ClickHouse finds %s nulls in the older files", got)
	}
	report, err := Verify(t.Context(), root)
	if err != nil || len(report.Problems) != 0 || report.Files != len(files) {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

// Columns that a file lacks have the Arrow types of those that it has, and the readers of records take
// them: alone, and beside others.
func TestMissingColumnsHaveTheirTypes(t *testing.T) {
	older, newer := evolution()
	root := t.TempDir()
	n := pageRows + 5
	addFile(t, mustOpen(t, root, older), randomRecord(newRand(32), older, n, 7, 1), 7, testApp, 1)
	table := mustOpen(t, root, newer)
	f := snapshot(t, table).Files[0]
	for _, more := range [][]string{nil, {schemas.SeqColumn}} {
		for _, field := range newer.Fields {
			if older.Field(field.Name) != nil {
				continue
			}
			rows, reader := 0, column.NewReader()
			err := table.Scan(t.Context(), f, append([]string{field.Name}, more...), func(rec arrow.Record) error {
				arr := rec.Column(0)
				want := field.Type.Arrow()
				if field.Type.Kind == schemas.String {
					want = dictionaryType
				}
				if !arrow.TypeEqual(arr.DataType(), want) || arr.NullN() != arr.Len() || !rec.Schema().Field(0).Nullable {
					t.Fatalf("%s: got %d nulls in %d rows of %s; want all, of %s", field.Name, arr.NullN(), arr.Len(), arr.DataType(), want)
				}
				v, err := reader.Block(rec).Field(field.Name)
				if err != nil {
					return err
				}
				if v.Kind != field.Type.Kind || len(v.Valid) != arr.Len() || slices.Contains(v.Valid, true) {
					t.Fatalf("%s: read as %v with %d of %d flags", field.Name, v.Kind, len(v.Valid), arr.Len())
				}
				for _, k := range v.Codes {
					_ = v.Dict.Strings[k]
				}
				if got := max(len(v.Ints), len(v.Floats), len(v.Bools), len(v.Decimals), len(v.Codes)); got != arr.Len() {
					t.Fatalf("%s: %d values in %d rows", field.Name, got, arr.Len())
				}
				rows += arr.Len()
				return nil
			})
			if err != nil || rows != n {
				t.Errorf("%s: got %d rows, %v; want %d", field.Name, rows, err, n)
			}
		}
	}
	// A column that the file was committed with cannot be missing, whatever the file says.
	damaged := File{Size: f.Size, Rows: f.Rows, columns: table.state.snapshot().Files[0].columns}
	for name := range strings.SplitSeq(strings.TrimSuffix(damaged.columns.Value(), ","), ",") {
		if !damaged.has(name) {
			t.Errorf("the commit does not say that the file has %s", name)
		}
	}
	b, err := os.Open(filepath.Join(table.Dir(), filepath.FromSlash(f.Path)))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	damaged.columns = unique.Make("o_string,")
	if _, err := openScan(b, newer, damaged, []string{"o_string"}); err == nil {
		t.Error("a column that the commit names was taken for one that the file lacks")
	}
}

// Processes with several definitions open and write one table at once: it gets the columns of all, each
// in one commit, and every row is there.
func TestConcurrentDefinitions(t *testing.T) {
	root := t.TempDir()
	base := smallEvent("a")
	base.Fields[2].Optional = false
	defs := []*schemas.Event{base}
	want := map[string]bool{}
	for _, f := range base.Fields {
		want[f.Name] = true
	}
	for i := range 3 { // each of them is a branch of its own
		ev := plus(base, schemas.Field{Name: fmt.Sprint("x", i), Type: schemas.Type{Kind: schemas.Float64}, Optional: true})
		ev.Fields[2].Optional = i > 0
		defs = append(defs, ev)
		want[fmt.Sprint("x", i)] = true
	}
	mustOpen(t, root, base)
	const turns = 3
	var wg sync.WaitGroup
	for k, ev := range defs {
		for w := range 2 {
			wg.Go(func() {
				r := newRand(uint64(40 + 2*k + w))
				for turn := range turns {
					table, err := Open(context.Background(), root, ev)
					if err != nil {
						t.Error(err)
						return
					}
					a, err := table.writeParts(5, []bufferPart{{record: randomRecord(r, ev, 2, 5, 1), rows: []int32{0, 1}}}, false, false)
					if err == nil {
						_, err = table.commit(context.Background(), &change{operation: "WRITE", adds: []*add{a},
							txns: []txn{{AppID: fmt.Sprint("w", k, w), Version: int64(turn)}}, expect: snapshotTxns(table, fmt.Sprint("w", k, w), turn)})
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	columns, changes := tableColumns(t, root, "a")
	if len(columns) != len(want)+len(ownColumns()) {
		t.Errorf("got columns %v; want %v", columns, want)
	}
	// One commit created it, and one for each branch added its column; n became optional in one of those.
	if changes != len(defs) {
		t.Errorf("the columns were set %d times; want %d", changes, len(defs))
	}
	wide := plus(base)
	wide.Fields[2].Optional = true
	for i := range 3 {
		wide.Fields = append(wide.Fields, defs[i+1].Fields[3])
	}
	table := mustOpen(t, root, wide)
	rows := 0
	for _, f := range snapshot(t, table).Files {
		rows += strings.Count(scanText(t, table, f), "\n")
	}
	if want := len(defs) * 2 * turns * 2; rows != want {
		t.Errorf("got %d rows; want %d", rows, want)
	}
}

func snapshotTxns(t *Table, app string, turn int) map[string]int64 {
	if turn == 0 {
		return nil
	}
	return map[string]int64{app: int64(turn - 1)}
}

// What was made optional stays known over a checkpoint, so that older definitions still open.
func TestCheckpointKeepsTheDefinition(t *testing.T) {
	root := t.TempDir()
	older, newer := evolution()
	mustOpen(t, root, older)
	table := mustOpen(t, root, newer)
	for table.version() <= checkpointEvery {
		if _, err := table.commit(t.Context(), &change{operation: "NOTHING"}); err != nil {
			t.Fatal(err)
		}
	}
	again := mustOpen(t, root, older)
	if _, err := again.readCheckpoint(checkpointEvery); err != nil {
		t.Fatal(err)
	}
	if len(again.marks) != 0 || again.version() != table.version() {
		t.Errorf("at version %d with %d marks; want %d", again.version(), len(again.marks), table.version())
	}
	tight := plus(newer)
	tight.Fields[3].Optional = false // was never required
	if _, err := Open(t.Context(), root, tight); !errors.As(err, new(*MismatchError)) {
		t.Errorf("got %v; want a mismatch", err)
	}
}

// An import by the definition before, and one by that after, each of a source that lacks the column.
func TestImportAcrossDefinitions(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	older := smallEvent("a")
	newer := plus(older, schemas.Field{Name: "text", Type: schemas.Type{Kind: schemas.String}, Optional: true})
	sources := map[string]string{
		"old.ndjson": `{"id":"1","time":"2001-01-01T00:00:00Z","n":1}`,
		"old.csv":    "id,time,n\n2,2001-01-01 00:00:00,2\n",
		"new.ndjson": `{"id":"3","time":"2001-01-01T00:00:00Z","n":3,"text":"t"}`,
		"new.csv":    "id,time,text\n4,2001-01-01 00:00:00,u\n",
	}
	for name, content := range sources {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	type row struct {
		ID   string  `parquet:"id"`
		Time int64   `parquet:"time,timestamp(microsecond)"`
		N    *int64  `parquet:"n,optional"`
		Text *string `parquet:"text,optional"`
	}
	word := "v"
	whole := writeParquet(t, []row{{ID: "5", Time: 978307200000000, Text: &word}})
	before, after := mustOpen(t, root, older), mustOpen(t, root, newer)
	for _, name := range []string{"old.ndjson", "old.csv"} {
		mustImport(t, before, ImportConfig{Path: filepath.Join(dir, name)})
	}
	for _, name := range []string{"old.ndjson", "new.ndjson", "new.csv"} {
		if r := mustImport(t, after, ImportConfig{Path: filepath.Join(dir, name)}); r.Already != (name == "old.ndjson") {
			t.Errorf("%s: already %t", name, r.Already)
		}
	}
	mustImport(t, after, ImportConfig{Path: whole})
	var got []string
	for _, f := range snapshot(t, after).Files {
		err := after.Scan(t.Context(), f, []string{"id", "n", "text"}, func(rec arrow.Record) error {
			got = append(got, strings.Fields(text(rec))...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(got)
	want := []string{`"1"|"1"|null|`, `"2"|"2"|null|`, `"3"|"3"|"t"|`, `"4"|null|"u"|`, `"5"|null|"v"|`}
	if !slices.Equal(got, want) {
		t.Errorf("got %v; want %v", got, want)
	}
}
