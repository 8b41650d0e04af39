package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/parquet-go/parquet-go"

	"watershed/internal/devserver"
	"watershed/schemas"
)

// departure is the event of the demo's flights.
func departure() *schemas.Event {
	return &schemas.Event{Name: "departure", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: schemas.Type{Kind: schemas.String}},
		{Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
		{Name: "origin", Type: schemas.Type{Kind: schemas.String}},
		{Name: "destination", Type: schemas.Type{Kind: schemas.String}},
		{Name: "delay", Type: schemas.Type{Kind: schemas.Int64}},
		{Name: "distance", Type: schemas.Type{Kind: schemas.Int64}, Optional: true},
	}}
}

func flights(t testing.TB) ImportConfig {
	t.Helper()
	path, err := devserver.FlightsPath()
	if err != nil {
		t.Fatal(err)
	}
	return ImportConfig{Path: path, Map: map[string]string{"time": "date"}}
}

func mustOpen(t testing.TB, root string, ev *schemas.Event) *Table {
	t.Helper()
	table, err := Open(t.Context(), root, ev)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func mustImport(t testing.TB, table *Table, cfg ImportConfig) ImportReport {
	t.Helper()
	r, err := Import(t.Context(), table, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func snapshot(t testing.TB, table *Table) *Snapshot {
	t.Helper()
	s, err := table.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestImportFlightsByRange(t *testing.T) {
	root := t.TempDir()
	table := mustOpen(t, root, departure())
	middle, end := time.Date(2001, 1, 8, 0, 0, 0, 0, time.UTC), time.Date(2001, 1, 15, 0, 0, 0, 0, time.UTC)
	cfg := flights(t)
	cfg.Path = someFlights(t, cfg.Path, 400_000)
	cfg.To = middle
	var last, total int64
	cfg.Progress = func(done, of int64) { last, total = done, of }
	first := mustImport(t, table, cfg)
	if last != total || total == 0 {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	if again := mustImport(t, table, cfg); !again.Already || again.Rows != 0 || again.Source != first.Source {
		t.Errorf("imported twice: %+v", again)
	}
	cfg.From, cfg.To = middle, end
	second := mustImport(t, table, cfg)
	s := snapshot(t, table)
	source := sourceRows(t, cfg.Path)
	var before, within int64
	for _, r := range source {
		if r.at.Before(middle) {
			before++
		} else if r.at.Before(end) {
			within++
		}
	}
	if first.Rows != before || second.Rows != within || s.Rows() != before+within || first.Rows+first.Outside != int64(len(source)) {
		t.Fatalf("got %+v, %+v, %d in the snapshot; want %d and %d of %d", first, second, s.Rows(), before, within, len(source))
	}
	name := filepath.Base(cfg.Path)
	for _, f := range s.Files {
		if !f.Unique || !f.Import || f.MaxSeq != 0 {
			t.Fatalf("file %+v; want a unique import", f)
		}
		err := table.Scan(t.Context(), f, columnNames(departure()), func(rec arrow.Record) error {
			for i := range int(rec.NumRows()) {
				var row int
				if _, err := fmt.Sscan(rec.Column(7).ValueStr(i), &row); err != nil {
					return err
				}
				if source[row].seen {
					return fmt.Errorf("row %d comes twice", row)
				}
				source[row].seen = true
				got := flightRow{seen: true, at: source[row].at, id: rec.Column(0).ValueStr(i), date: rec.Column(1).ValueStr(i),
					origin: rec.Column(2).ValueStr(i), destination: rec.Column(3).ValueStr(i),
					delay: rec.Column(4).ValueStr(i), distance: rec.Column(5).ValueStr(i)}
				want := source[row]
				want.id = fmt.Sprintf("%s#%d", name, row)
				if got != want || rec.Column(6).ValueStr(i) != "0" {
					return fmt.Errorf("row %d: got %v; want %v", row, got, want)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	report, err := Verify(t.Context(), root)
	if err != nil || len(report.Problems) != 0 || report.Rows != s.Rows() || report.Files != len(s.Files) {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

type flightRow struct {
	seen                                           bool
	at                                             time.Time
	id, date, origin, destination, delay, distance string
}

// A sourceFlight is a row of the flights' file.
type sourceFlight struct {
	Date        int64  `parquet:"date,timestamp(microsecond)"`
	Delay       int64  `parquet:"delay"`
	Distance    int64  `parquet:"distance"`
	Origin      string `parquet:"origin,dict"`
	Destination string `parquet:"destination,dict"`
}

// someFlights is a file of the first n flights.
func someFlights(t *testing.T, path string, n int) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := parquet.NewGenericReader[sourceFlight](f)
	defer r.Close()
	rows := make([]sourceFlight, n)
	if got, err := r.Read(rows); got != n || err != nil {
		t.Fatalf("read %d flights: %v", got, err)
	}
	return writeParquet(t, rows, parquet.MaxRowsPerRowGroup(int64(n)/3))
}

// sourceRows reads the flights by the Parquet library's own row reader.
func sourceRows(t *testing.T, path string) []flightRow {
	t.Helper()
	rows, err := parquet.ReadFile[sourceFlight](path)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]flightRow, len(rows))
	for i, r := range rows {
		out[i] = flightRow{at: time.UnixMicro(r.Date), date: time.UnixMicro(r.Date).UTC().Format("2006-01-02 15:04:05.999999Z"), origin: r.Origin, destination: r.Destination,
			delay: fmt.Sprint(r.Delay), distance: fmt.Sprint(r.Distance)}
	}
	return out
}

// foreign has the types that other writers use for our fields.
type foreign struct {
	When   time.Time `parquet:"when,timestamp(nanosecond)"`
	Ref    string    `parquet:"ref,dict"`
	Count  int32     `parquet:"count,dict"`
	Ratio  float32   `parquet:"ratio"`
	Price  int32     `parquet:"price,decimal(1:9)"`
	Day    int32     `parquet:"day,date"`
	Flag   *bool     `parquet:"flag,optional"`
	Millis int64     `parquet:"millis,timestamp(millisecond),dict"`
}

func foreignEvent() *schemas.Event {
	return &schemas.Event{Name: "sale", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: schemas.Type{Kind: schemas.String}},
		{Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
		{Name: "count", Type: schemas.Type{Kind: schemas.Int64}},
		{Name: "ratio", Type: schemas.Type{Kind: schemas.Float64}},
		{Name: "price", Type: schemas.Type{Kind: schemas.Decimal, Precision: 20, Scale: 3}},
		{Name: "day", Type: schemas.Type{Kind: schemas.Date}},
		{Name: "flag", Type: schemas.Type{Kind: schemas.Bool}, Optional: true},
		{Name: "millis", Type: schemas.Type{Kind: schemas.Timestamp}},
	}}
}

func writeParquet[T any](t *testing.T, rows []T, options ...parquet.WriterOption) string {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, options...)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "foreign.parquet")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func foreignRows(n int) []foreign {
	yes := true
	rows := make([]foreign, n)
	for i := range rows {
		rows[i] = foreign{When: time.Unix(-int64(i)*2_000, 1999).UTC(), Ref: fmt.Sprintf("r%d", i), Count: int32(i % 7), Ratio: float32(i) / 4,
			Price: int32(i - 5), Day: int32(i - 50), Millis: int64(i%3) - 1}
		if i%3 == 0 {
			rows[i].Flag = &yes
		}
	}
	return rows
}

func TestImportForeignParquet(t *testing.T) {
	rows := foreignRows(1000)
	for name, options := range map[string][]parquet.WriterOption{
		"v2":     {parquet.Compression(&parquet.Zstd)},
		"v1":     {parquet.DataPageVersion(1), parquet.Compression(&parquet.Gzip), parquet.PageBufferSize(777)},
		"groups": {parquet.MaxRowsPerRowGroup(100), parquet.Compression(&parquet.Snappy)},
	} {
		t.Run(name, func(t *testing.T) {
			table := mustOpen(t, t.TempDir(), foreignEvent())
			r := mustImport(t, table, ImportConfig{Path: writeParquet(t, rows, options...), Map: map[string]string{"id": "ref", "time": "when"}})
			if r.Rows != int64(len(rows)) {
				t.Fatalf("got %d rows; want %d", r.Rows, len(rows))
			}
			got := map[string]string{}
			for _, f := range snapshot(t, table).Files {
				for line := range strings.Lines(scanText(t, table, f)) {
					id, rest, _ := strings.Cut(line, "|")
					got[id] = rest
				}
			}
			for i, x := range rows {
				flag := "null"
				if x.Flag != nil {
					flag = `"true"`
				}
				want := fmt.Sprintf("%q|%q|%q|%q|%q|%s|%q|%q|%q|\n", x.When.Truncate(time.Microsecond).Format("2006-01-02 15:04:05.999999Z"),
					fmt.Sprint(x.Count), fmt.Sprint(x.Ratio), fmt.Sprintf("%.3f", float64(x.Price)/10), time.Unix(int64(x.Day)*86400, 0).UTC().Format(time.DateOnly),
					flag, time.UnixMilli(x.Millis).UTC().Format("2006-01-02 15:04:05.999999Z"), "0", fmt.Sprint(i))
				if key := fmt.Sprintf("%q", x.Ref); got[key] != want {
					t.Fatalf("row %d: got %s; want %s", i, got[key], want)
				}
			}
		})
	}
}

func TestImportText(t *testing.T) {
	ev := departure()
	want := `"a"|"2001-01-02 03:04:05Z"|"JFK"|"a \"q\", b"|"-3"|null|"0"|"0"|
"b"|"2001-01-03 00:00:00Z"|"LAX"|""|"7"|"12"|"0"|"1"|
`
	f := func(name, content string, mapping map[string]string, want string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		table := mustOpen(t, t.TempDir(), ev)
		mustImport(t, table, ImportConfig{Path: path, Map: mapping})
		var got strings.Builder
		for _, file := range snapshot(t, table).Files {
			got.WriteString(scanText(t, table, file))
		}
		if got.String() != want {
			t.Errorf("%s: got\n%swant\n%s", name, got.String(), want)
		}
	}
	f("e.ndjson", `{"id":"a","time":"2001-01-02T03:04:05Z","origin":"JFK","destination":"a \"q\", b","delay":-3}

{"id":"b","time":"2001-01-03T00:00:00Z","origin":"LAX","destination":"","delay":7,"distance":12}`, nil, want)
	f("e.ndjson", `{"key":"a","time":"2001-01-02T03:04:05Z","origin":"JFK","destination":"a \"q\", b","delay":-3,"more":{}}
{"key":"b","time":"2001-01-03T00:00:00Z","origin":"LAX","destination":"","delay":7,"distance":12}`, map[string]string{"id": "key"}, want)
	f("e.csv", "\ufeffdelay,id,time,origin,destination,distance,more\r\n-3,a,2001-01-02T03:04:05Z,JFK,\"a \"\"q\"\", b\",,x\r\n7,b,978480000000000,LAX,,12,\r\n", nil, want)
	byRow := strings.NewReplacer(`"a"|`, `"n.csv#0"|`, `"b"|`, `"n.csv#1"|`).Replace(want)
	f("n.csv", "delay,t,origin,destination,distance\n-3,2001-01-02T03:04:05Z,JFK,\"a \"\"q\"\", b\",\n7,2001-01-03 00:00:00,LAX,,12\n", map[string]string{"time": "t"}, byRow)
	f("n.ndjson", `{"time":"2001-01-02T03:04:05Z","origin":"JFK","destination":"a \"q\", b","delay":-3}
{"time":"2001-01-03T00:00:00Z","origin":"LAX","destination":"","delay":7,"distance":12}`, nil, strings.ReplaceAll(byRow, "n.csv", "n.ndjson"))
}

func TestImportRefuses(t *testing.T) {
	ev := departure()
	whole, err := os.ReadFile(flights(t).Path)
	if err != nil {
		t.Fatal(err)
	}
	f := func(name string, content []byte, mapping map[string]string, parts ...string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		table := mustOpen(t, t.TempDir(), ev)
		_, err := Import(t.Context(), table, ImportConfig{Path: path, Map: mapping})
		if err == nil {
			t.Fatalf("%s was imported", name)
		}
		for _, part := range append(parts, name) {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %q; want it to name %q", name, err, part)
			}
		}
		if s := snapshot(t, table); s.Version != 0 || len(s.Files) != 0 {
			t.Errorf("%s: version %d with %d files", name, s.Version, len(s.Files))
		}
	}
	time := map[string]string{"time": "date"}
	f("cut.parquet", whole[:len(whole)/2], time, "footer")
	f("foreign.parquet", []byte("delay,id\n1,2\n"), time, "footer")
	f("unmapped.parquet", whole, nil, "column time")
	f("types.parquet", whole, map[string]string{"time": "delay"}, "column delay", "time timestamp")
	damaged := bytes.Clone(whole)
	for i := len(damaged) / 3; i < len(damaged)/3+1000; i++ {
		damaged[i] ^= 0x55
	}
	f("damaged.parquet", damaged, time, "row")
	head := "id,time,origin,destination,delay\n"
	f("time.csv", []byte(head+"a,2001-01-01 00:00:00,A,B,1\nb,2001-01-01,A,B,1\n"), nil, "row 1", "time")
	f("delay.csv", []byte(head+"a,2001-01-01 00:00:00,A,B,1\nb,2001-01-01 00:00:00,A,B,x\n"), nil, "row 1", "column delay", `"x"`)
	f("columns.csv", []byte("id,time\n"), nil, "column origin")
	f("short.csv", []byte(head+"a,b\n"), nil, "row 0", "fields")
	f("more.ndjson", []byte(`{"id":"a","time":"2001-01-01T00:00:00Z","origin":"A","destination":"B","delay":1}`+"\n"+`{"id":"b","x":1}`), nil, "row 1", "x")
	f("what.txt", nil, nil, "format")
}

func TestImportRefusesNull(t *testing.T) {
	rows := foreignRows(10)
	ev := foreignEvent()
	ev.Fields[6].Optional = false
	table := mustOpen(t, t.TempDir(), ev)
	_, err := Import(t.Context(), table, ImportConfig{Path: writeParquet(t, rows), Map: map[string]string{"id": "ref", "time": "when"}})
	if err == nil || !strings.Contains(err.Error(), "row 1: null") || !strings.Contains(err.Error(), "flag") {
		t.Fatalf("got %v; want row 1 of flag refused", err)
	}
}

// Several processes import the same source, and different ones, while others commit: each is there once.
func TestConcurrentCommitters(t *testing.T) {
	root, ev := t.TempDir(), departure()
	dir := t.TempDir()
	const sources, workers = 12, 8
	for i := range sources {
		line := fmt.Sprintf(`{"id":"s%d","time":"2001-01-%02dT00:00:00Z","origin":"A","destination":"B","delay":1}`, i, i+1)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i, ".ndjson")), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	imported := map[int]int{}
	for range workers {
		table := mustOpen(t, root, ev)
		wg.Go(func() {
			for i := range sources {
				r, err := Import(context.Background(), table, ImportConfig{Path: filepath.Join(dir, fmt.Sprint(i, ".ndjson"))})
				if err != nil {
					t.Error(err)
				}
				if !r.Already {
					mu.Lock()
					imported[i]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	s := snapshot(t, mustOpen(t, root, ev))
	if s.Rows() != sources || s.Version != sources {
		t.Errorf("got %d rows at version %d; want %d", s.Rows(), s.Version, sources)
	}
	for i := range sources {
		if imported[i] != 1 {
			t.Errorf("source %d was imported %d times", i, imported[i])
		}
	}
}

func TestImportWhileArchiving(t *testing.T) {
	l, root := script(newRand(5), 40), t.TempDir()
	table := mustOpen(t, root, l.cuts[0].Definitions.Events[0])
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 10 {
			path := filepath.Join(t.TempDir(), fmt.Sprint(i, ".ndjson"))
			line := fmt.Sprintf(`{"id":"import%d","time":"2001-01-01T00:00:00Z"}`, i)
			if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
				t.Error(err)
			}
			if _, err := Import(context.Background(), table, ImportConfig{Path: path}); err != nil {
				t.Error(err)
			}
		}
	})
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	wg.Wait()
	s := snapshot(t, table)
	last := l.cuts[len(l.cuts)-1].Position.Seq
	if want := int64(10 + len(l.want(l.cuts[0].Definitions.Events[0], last))); s.Rows() != want || s.Txns[testApp] != int64(last) {
		t.Errorf("got %d rows, txn %d; want %d, %d", s.Rows(), s.Txns[testApp], want, last)
	}
}
