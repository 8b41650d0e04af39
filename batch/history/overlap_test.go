package history

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

// What the batch relies on to find duplicates: equal events lie on one date, in whatever files; no two
// rows of a date have one place; and the place of a source's row does not depend on the range by which it
// was imported. Here ranges of a source overlap, a second source has some of its events, and so has the log.
func TestDuplicatesAcrossImportsAndArchive(t *testing.T) {
	ev, root, dir := smallEvent("a"), t.TempDir(), t.TempDir()
	table := mustOpen(t, root, ev)
	at := func(day, hour int) time.Time { return time.Date(2001, 1, day, hour, 0, 0, 0, time.UTC) }
	write := func(name string, from, to int) string { // an event an hour, days 1 to 4
		var text []byte
		for i := from; i < to; i++ {
			text = fmt.Appendf(text, "{\"id\":\"e%d\",\"time\":%q,\"n\":%d}\n", i, at(1, i).Format(time.RFC3339), i)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const hours, firstOfSecond = 96, 60
	source := write("first.ndjson", 0, hours)
	mustImport(t, table, ImportConfig{Path: source, To: at(3, 0)})                         // hours 0 to 47
	mustImport(t, table, ImportConfig{Path: source, From: at(2, 0), To: at(3, 12)})        // hours 24 to 59: day 2 again, whole
	mustImport(t, table, ImportConfig{Path: source, From: at(3, 6), To: at(5, 0)})         // hours 54 to 95: half of day 3 again
	mustImport(t, table, ImportConfig{Path: write("second.ndjson", firstOfSecond, hours)}) // under other row numbers
	// Day 1 came through the log as well, in the message with sequence 7.
	first := snapshot(t, table).Files[0]
	err := table.Scan(t.Context(), first, columnNames(ev), func(rec arrow.Record) error {
		columns := slices.Clone(rec.Columns())
		columns[len(columns)-2] = make64(slices.Repeat([]int64{7}, int(rec.NumRows())))
		addFile(t, table, array.NewRecord(ev.ArrowSchema(), columns, rec.NumRows()), first.Date, testApp, 7)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	var seen identity.Map[identity.Place]
	rows, contents := 0, map[string]int{}
	places := map[int32]map[identity.Place]bool{}
	for i, f := range snapshot(t, table).Files {
		contents[f.Content]++
		if places[f.Date] == nil {
			places[f.Date] = map[identity.Place]bool{}
		}
		reader := column.NewReader()
		err := table.Scan(t.Context(), f, []string{"id", "time", schemas.SeqColumn, schemas.RowColumn}, func(rec arrow.Record) error {
			b := reader.Block(rec)
			prints, err := identity.Of(nil, ev, b)
			if err != nil {
				return err
			}
			at, err := identity.Places(nil, b, uint32(i))
			if err != nil {
				return err
			}
			for k := range prints {
				if places[f.Date][at[k]] {
					t.Errorf("two rows of date %d are at %v", f.Date, at[k])
				}
				places[f.Date][at[k]] = true
				seen.Put(prints[k])
				rows++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen.Len() != hours {
		t.Errorf("%d rows are %d events; want %d", rows, seen.Len(), hours)
	}
	if want := hours + 24 + 6 + (hours - firstOfSecond) + 24; rows != want {
		t.Errorf("got %d rows; want %d", rows, want)
	}
	twice := 0
	for _, n := range contents {
		twice += n - 1
	}
	if twice != 1 { // day 2: rows and row numbers are the same, so the bytes are
		t.Errorf("%d files have the content of another; want that of day 2", twice)
	}
}
