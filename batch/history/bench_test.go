package history

import (
	"fmt"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/uuid"
)

// BenchmarkID scans ids of some shapes, on one core, and says what they take on disk.
func BenchmarkID(b *testing.B) {
	const n = rowGroupRows
	r := newRand(51)
	for name, id := range map[string]func(i int) string{
		"row":    func(i int) string { return fmt.Sprintf("flights-3m.parquet#%d", 1_000_000+i) },
		"number": func(i int) string { return fmt.Sprintf("ord-%d", 3*i+r.IntN(3)) },
		"uuid4":  func(int) string { return uuid.NewString() },
		"uuid7":  func(int) string { return uuid.Must(uuid.NewV7()).String() },
		"hex":    func(int) string { return fmt.Sprintf("%016x", r.Uint64()) },
	} {
		ev := smallEvent("ids")
		table := mustOpen(b, b.TempDir(), ev)
		build := array.NewRecordBuilder(memory.DefaultAllocator, ev.ArrowSchema())
		for i := range n {
			build.Field(0).(*array.StringBuilder).Append(id(i))
			build.Field(1).(*array.TimestampBuilder).Append(0)
			build.Field(2).AppendNull()
			build.Field(3).(*array.Int64Builder).Append(1)
			build.Field(4).(*array.Int32Builder).Append(0)
		}
		addFile(b, table, build.NewRecord(), 0, testApp, 1)
		f := snapshot(b, table).Files[0]
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := table.Scan(b.Context(), f, []string{"id"}, func(arrow.Record) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds()/1e6, "Mvalues/s")
			b.ReportMetric(float64(f.Size)/n, "bytes/value")
		})
	}
}

// BenchmarkImport brings five months of flights into a new table.
func BenchmarkImport(b *testing.B) {
	cfg := flights(b)
	cfg.To = time.Date(2001, 6, 1, 0, 0, 0, 0, time.UTC)
	var rows int64
	for b.Loop() {
		rows += mustImport(b, mustOpen(b, b.TempDir(), departure()), cfg).Rows
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}

// BenchmarkScan reads columns of an imported table, on one core.
func BenchmarkScan(b *testing.B) {
	table := mustOpen(b, b.TempDir(), departure())
	mustImport(b, table, flights(b))
	s := snapshot(b, table)
	var size int64
	for _, f := range s.Files {
		size += f.Size
	}
	b.Logf("%d rows, %d files, %d bytes", s.Rows(), len(s.Files), size)
	for _, columns := range [][]string{{"time", "origin", "delay"}, {"time"}, {"origin"}, {"delay"}, {"distance"}, {"id"}, {"_seq", "_row"}} {
		b.Run(fmt.Sprint(columns), func(b *testing.B) {
			var rows int64
			for b.Loop() {
				for _, f := range s.Files {
					if err := table.Scan(b.Context(), f, columns, func(rec arrow.Record) error { rows += rec.NumRows(); return nil }); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(rows)*float64(len(columns))/b.Elapsed().Seconds()/1e6, "Mvalues/s")
		})
	}
}
