package history

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/schemas"
)

// query runs a query over HTTP and returns its lines.
func query(t testing.TB, c *devserver.ClickHouse, sql string) []string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.HTTPAddr()+"/?default_format=TSVRaw", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(c.Admin())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", sql, body)
	}
	return strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
}

// readableRoot is a new history directory that the shared ClickHouse may read.
func readableRoot(t testing.TB) (*devserver.ClickHouse, string) {
	t.Helper()
	c := devtest.SharedClickHouse(t)
	return c, filepath.Join(devtest.UserFiles(c), strings.ReplaceAll(t.Name(), "/", "_"))
}

func from(table *Table) string { return fmt.Sprintf("deltaLakeLocal('%s')", table.Dir()) }

// clickhouseValue is an expression whose text is the same for equal values here and there.
func clickhouseValue(f schemas.Field) string {
	text := "toString(" + f.Name + ")"
	switch f.Type.Kind {
	case schemas.String:
		text = "hex(" + f.Name + ")"
	case schemas.Bool:
		text = "toString(toUInt8(" + f.Name + "))"
	case schemas.Float64:
		text = "toString(reinterpretAsUInt64(assumeNotNull(" + f.Name + ")))"
	case schemas.Timestamp:
		text = "toString(toUnixTimestamp64Micro(" + f.Name + "))"
	case schemas.Date:
		text = "toString(toInt32(" + f.Name + "))"
	case schemas.Decimal:
		text = fmt.Sprintf("toString(CAST(%s * toDecimal256('1%s', 0) AS Nullable(Int256)))", f.Name, strings.Repeat("0", f.Type.Scale))
	}
	return fmt.Sprintf("if(isNull(%s), 'null', assumeNotNull(%s))", f.Name, text)
}

// ourValue is the same text of an Arrow value.
func ourValue(col arrow.Array, i int) string {
	if col.IsNull(i) {
		return "null"
	}
	switch a := col.(type) {
	case *array.String:
		return fmt.Sprintf("%X", a.Value(i))
	case *array.Boolean:
		return map[bool]string{true: "1", false: "0"}[a.Value(i)]
	case *array.Float64:
		return fmt.Sprint(floatBits(a.Value(i)))
	case *array.Timestamp:
		return fmt.Sprint(int64(a.Value(i)))
	case *array.Date32:
		return fmt.Sprint(int32(a.Value(i)))
	case *array.Decimal128:
		return a.Value(i).BigInt().String()
	}
	return col.ValueStr(i)
}

func ourLines(rec arrow.Record) []string {
	var lines []string
	for i := range int(rec.NumRows()) {
		var cells []string
		for _, col := range rec.Columns() {
			cells = append(cells, ourValue(col, i))
		}
		lines = append(lines, strings.Join(cells, "|"))
	}
	return lines
}

// theirLines are all rows of the table as ClickHouse reads them, with the conditions given.
func theirLines(t testing.TB, c *devserver.ClickHouse, table *Table, where string) []string {
	t.Helper()
	var cells []string
	for _, f := range table.Event().Fields {
		cells = append(cells, clickhouseValue(f))
	}
	cells = append(cells, "toString(_seq)", "toString(_row)")
	lines := query(t, c, "SELECT concatWithSeparator('|', "+strings.Join(cells, ", ")+") FROM "+from(table)+" WHERE "+where)
	slices.Sort(lines)
	return lines
}

func TestClickHouseReadsEveryType(t *testing.T) {
	c, root := readableRoot(t)
	ev := everyType()
	table := mustOpen(t, root, ev)
	var want []string
	r := newRand(11)
	for i, date := range []int32{-20_000, -1, 0, 11_000, 40_000} {
		rec := randomRecord(r, ev, 300, date, int64(i+1))
		addFile(t, table, rec, date, testApp, int64(i+1))
		want = append(want, ourLines(rec)...)
	}
	slices.Sort(want)
	if got := theirLines(t, c, table, "1"); !slices.Equal(got, want) {
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("%d rows, row %d: got\n%s\nwant\n%s", len(got), i, got[i], want[i])
			}
		}
		t.Fatalf("got %d rows; want %d", len(got), len(want))
	}
	if got := query(t, c, "SELECT DISTINCT toString(toInt32(_date)) AS d FROM "+from(table)+" ORDER BY toInt32(d)"); !slices.Equal(got, []string{"-20000", "-1", "0", "11000", "40000"}) {
		t.Errorf("got dates %v", got)
	}
}

// Statistics decide which files an engine skips: a wrong one loses rows.
func TestClickHouseFindsBoundaryRows(t *testing.T) {
	c, root := readableRoot(t)
	ev := everyType()
	table := mustOpen(t, root, ev)
	r := newRand(12)
	var recs []arrow.Record
	for i := range 20 {
		rec := randomRecord(r, ev, 5, int32(100+i), int64(i+1))
		recs = append(recs, rec)
		addFile(t, table, rec, int32(100+i), testApp, int64(i+1))
	}
	for _, rec := range recs {
		for i := range int(rec.NumRows()) {
			line := ourLines(rec)[i]
			us := int64(rec.Column(1).(*array.Timestamp).Value(i))
			n := rec.Column(6).ValueStr(i)
			where := fmt.Sprintf("time = fromUnixTimestamp64Micro(%d, 'UTC') AND f_int64 = %s", us, n)
			if got := theirLines(t, c, table, where); !slices.Contains(got, line) {
				t.Fatalf("%s: got %v; want %s", where, got, line)
			}
		}
		break
	}
	if got := ev.Fields[6].Name; got != "f_int64" {
		t.Fatalf("column 6 is %s", got)
	}
}

func TestClickHouseReadsCheckpointsAndRemoves(t *testing.T) {
	c, root := readableRoot(t)
	ev := smallEvent("many")
	table := mustOpen(t, root, ev)
	r := newRand(13)
	var want []string
	const commits = 310
	for i := range commits {
		rec := randomRecord(r, ev, 2, int32(i%5), int64(i+1))
		addFile(t, table, rec, int32(i%5), testApp, int64(i+1))
		want = append(want, ourLines(rec)...)
	}
	// One file goes again; a checkpoint after it must not bring it back.
	s := snapshot(t, table)
	gone := s.Files[0]
	removed := &remove{Path: encodePath(gone.Path), DeletionTimestamp: table.now().UnixMilli(), DataChange: true, ExtendedMetadata: true,
		PartitionValues: map[string]string{dateColumn: formatDate(gone.Date)}, Size: gone.Size}
	if _, err := table.commit(t.Context(), &change{operation: "DELETE", removes: []*remove{removed}}); err != nil {
		t.Fatal(err)
	}
	want = slices.DeleteFunc(want, func(line string) bool { return strings.Contains(line, fmt.Sprintf("|%d|", gone.MinSeq)) })
	for i := commits; i < 420; i++ {
		rec := randomRecord(r, ev, 1, 1, int64(i+1))
		addFile(t, table, rec, 1, testApp, int64(i+1))
		want = append(want, ourLines(rec)...)
	}
	slices.Sort(want)
	if got := theirLines(t, c, table, "1"); !slices.Equal(got, want) {
		t.Errorf("ClickHouse reads %d rows; want %d", len(got), len(want))
	}
	again := mustOpen(t, root, ev)
	var ours []string
	for _, f := range snapshot(t, again).Files {
		err := again.Scan(t.Context(), f, columnNames(ev), func(rec arrow.Record) error {
			ours = append(ours, ourLines(rec)...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(ours)
	if !slices.Equal(ours, want) {
		t.Errorf("we read %d rows; want %d", len(ours), len(want))
	}
	if len(again.marks) > checkpointEvery {
		t.Errorf("opening read %d commits; want those after the checkpoint", len(again.marks))
	}
}

// A name that needs percent-encoding in the log is found by both.
func TestPercentEncodedPath(t *testing.T) {
	c, root := readableRoot(t)
	ev := smallEvent("odd")
	table := mustOpen(t, root, ev)
	rec := randomRecord(newRand(14), ev, 3, 5, 1)
	w, err := table.newFileNamed(5, "a b%2F+ü#?.parquet")
	if err != nil {
		t.Fatal(err)
	}
	defer w.abort()
	if err := w.write(rec, nil); err != nil {
		t.Fatal(err)
	}
	a, err := w.close(false, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.commit(t.Context(), &change{operation: "WRITE", adds: []*add{a}}); err != nil {
		t.Fatal(err)
	}
	want := ourLines(rec)
	slices.Sort(want)
	if got := theirLines(t, c, table, "1"); !slices.Equal(got, want) {
		t.Errorf("got %v; want %v", got, want)
	}
	table = mustOpen(t, root, ev)
	if got := scanText(t, table, snapshot(t, table).Files[0]); got != text(rec) {
		t.Errorf("got %s; want %s", got, text(rec))
	}
}

func TestClickHouseReadsTheArchive(t *testing.T) {
	c, root := readableRoot(t)
	l := script(newRand(15), 30)
	if err := l.archiver(t, root).Run(t.Context()); err == nil {
		t.Fatal("the script has no end")
	}
	for _, ev := range l.cuts[len(l.cuts)-1].Definitions.Events {
		table := mustOpen(t, root, ev)
		var want []string
		for _, m := range l.messages {
			if m.typ == ev.Name && !m.reject {
				want = append(want, ourLines(project(m.record, ev))...)
			}
		}
		slices.Sort(want)
		if got := theirLines(t, c, table, "1"); !slices.Equal(got, want) {
			t.Errorf("%s: ClickHouse reads %d rows; want %d", ev.Name, len(got), len(want))
		}
	}
}
