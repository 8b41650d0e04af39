package history

import (
	"fmt"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/schemas"
)

// A file of several row groups is read whole and group by group. Its texts outgrow their dictionary in the first
// group, so that pages with and without one stand in a chunk, and begin with a few in the last.
func TestScanGroups(t *testing.T) {
	const rows = 2*rowGroupRows + 1000
	ev := plus(smallEvent("groups"), schemas.Field{Name: "text", Type: schemas.Type{Kind: schemas.String}, Optional: true})
	text := func(i int) string {
		if i < rowGroupRows {
			return fmt.Sprintf("text number %d", i)
		}
		return fmt.Sprint(i % 3)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, ev.ArrowSchema())
	for i := range rows {
		b.Field(0).(*array.StringBuilder).Append(fmt.Sprint(i))
		b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(i))
		b.Field(2).(*array.Int64Builder).Append(int64(i) * 7)
		if i%5 == 0 {
			b.Field(3).AppendNull()
		} else {
			b.Field(3).(*array.StringBuilder).Append(text(i))
		}
		b.Field(4).(*array.Int64Builder).Append(1)
		b.Field(5).(*array.Int32Builder).Append(int32(i))
	}
	table := mustOpen(t, t.TempDir(), ev)
	addFile(t, table, b.NewRecord(), 0, testApp, 1)
	f := snapshot(t, table).Files[0]
	groups, err := table.RowGroups(f)
	if err != nil || len(groups) != 3 || groups[0] != rowGroupRows || groups[1] != rowGroupRows || groups[2] != rows-2*rowGroupRows {
		t.Fatalf("row groups of %v, %v", groups, err)
	}
	read := func(from, to, first, n int) {
		t.Helper()
		at, kinds := first, map[arrow.Type]bool{}
		err := table.ScanGroups(t.Context(), f, []string{"n", "text", schemas.RowColumn}, from, to, func(rec arrow.Record) error {
			kinds[rec.Column(1).DataType().ID()] = true
			for i := range int(rec.NumRows()) {
				got := "null"
				if rec.Column(1).IsValid(i) {
					got = rec.Column(1).ValueStr(i)
				}
				want := text(at)
				if at%5 == 0 {
					want = "null"
				}
				if v := rec.Column(0).(*array.Int64).Value(i); v != int64(at)*7 || int(rec.Column(2).(*array.Int32).Value(i)) != at || got != want {
					return fmt.Errorf("row %d reads %d, %q", at, v, got)
				}
				at++
			}
			return nil
		})
		if err != nil || at != first+n {
			t.Fatalf("groups %d to %d end at %d, not %d: %v", from, to, at, first+n, err)
		}
		if mixed := len(kinds) == 2; mixed != (from == 0 && to > 0) {
			t.Errorf("groups %d to %d come as %v", from, to, kinds)
		}
	}
	read(0, 1, 0, rowGroupRows)
	read(1, 2, rowGroupRows, rowGroupRows)
	read(2, 9, 2*rowGroupRows, 1000)
	read(1, 3, rowGroupRows, rowGroupRows+1000)
	read(0, 3, 0, rows)
	read(3, 4, rows, 0)
}
