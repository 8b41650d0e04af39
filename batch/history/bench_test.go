package history

import (
	"fmt"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
)

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
