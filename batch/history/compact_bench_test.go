package history

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"watershed/internal/devserver"
	"watershed/schemas"
)

func pageview() *schemas.Event {
	ev := &schemas.Event{Name: "pageview", ID: "id", Time: "time"}
	for _, f := range []struct {
		name string
		typ  schemas.Type
	}{
		{"id", schemas.Type{Kind: schemas.String}}, {"time", schemas.Type{Kind: schemas.Timestamp}}, {"user", schemas.Type{Kind: schemas.Int64}},
		{"page", schemas.Type{Kind: schemas.String}}, {"country", schemas.Type{Kind: schemas.String}}, {"device", schemas.Type{Kind: schemas.String}},
		{"status", schemas.Type{Kind: schemas.Int64}}, {"latency", schemas.Type{Kind: schemas.Float64}},
		{"amount", schemas.Type{Kind: schemas.Decimal, Precision: 18, Scale: 2}},
	} {
		ev.Fields = append(ev.Fields, schemas.Field{Name: f.name, Type: f.typ})
	}
	return ev
}

// pageviews are n page views of one message on the first day, within 10 s around a moment of it.
func pageviews(r *rand.Rand, zipf *rand.Zipf, n int, moment, seq int64) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, pageview().ArrowSchema())
	text := func(k int, v string) { b.Field(k).(*array.StringBuilder).Append(v) }
	for i := range n {
		text(0, fmt.Sprintf("%016x", r.Uint64()))
		b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(min(86_399_999_999, max(0, moment+r.Int64N(10_000_000)))))
		b.Field(2).(*array.Int64Builder).Append(int64(1e6 * r.Float64() * r.Float64()))
		text(3, fmt.Sprintf("/page/%d", zipf.Uint64()))
		text(4, fmt.Sprintf("c%02d", int(50*r.Float64()*r.Float64())))
		text(5, []string{"desktop", "phone", "tablet", "tv"}[r.IntN(4)])
		b.Field(6).(*array.Int64Builder).Append([]int64{200, 200, 200, 200, 200, 200, 200, 301, 404, 500}[r.IntN(10)])
		b.Field(7).(*array.Float64Builder).Append(math.Exp(4 + r.NormFloat64()))
		b.Field(8).(*array.Decimal128Builder).Append(decimal128.FromI64(r.Int64N(20_000)))
		b.Field(9).(*array.Int64Builder).Append(seq)
		b.Field(10).(*array.Int32Builder).Append(int32(i))
	}
	return b.NewRecord()
}

// BenchmarkCompact compacts a day of page views that was archived in many files, and the flights of two
// years, and says what an event takes on disk before and after, and in one Parquet file each that
// ClickHouse, in several orders, and DuckDB write of the compacted rows with zstd.
func BenchmarkCompact(b *testing.B) {
	c, root := readableRoot(b)
	const files, each = 48, 25_000
	r := newRand(61)
	zipf := rand.NewZipf(r, 1.1, 8, 9_999)
	views := mustOpen(b, root, pageview())
	for k := range int64(files) {
		addFile(b, views, pageviews(r, zipf, each, k*86_400_000_000/files, k+1), 0, testApp, k+1)
	}
	trips := mustOpen(b, root, departure())
	mustImport(b, trips, flights(b))
	for _, x := range []struct {
		table  *Table
		orders []string
	}{
		{views, []string{"time, _seq, _row", "country, time, _seq, _row", "device, time, _seq, _row", "_seq, _row"}},
		{trips, []string{"time, _seq, _row", "origin, time, _seq, _row"}},
	} {
		name := x.table.event.Name
		before := snapshot(b, x.table)
		b.Run(name, func(b *testing.B) {
			report := CompactReport{}
			for b.Loop() {
				if s := snapshot(b, x.table); s.Version == before.Version {
					report = compacted(b, root, CompactOptions{Type: name, MinFiles: 1, Every: true})
				}
			}
			bytes := func(s *Snapshot) (n int64) {
				for _, f := range s.Files {
					n += f.Size
				}
				return n
			}
			after := snapshot(b, x.table)
			events := float64(after.Rows())
			b.ReportMetric(float64(bytes(before))/events, "before-B/event")
			b.ReportMetric(float64(bytes(after))/events, "after-B/event")
			b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mevents/s")
			for _, order := range x.orders {
				b.Logf("%s: %d dates; ClickHouse, zstd, ORDER BY _date, %s: %.2f B/event", name, len(report.Dates), order, float64(byClickHouse(b, c, x.table, order))/events)
			}
			for _, version := range []string{"v1", "v2"} {
				b.Logf("%s: DuckDB, zstd, pages %s: %.2f B/event", name, version, float64(byDuckDB(b, x.table, after, version))/events)
			}
		})
	}
}

// byClickHouse is how many bytes the table's rows take as a Parquet file that ClickHouse writes.
func byClickHouse(b *testing.B, c *devserver.ClickHouse, table *Table, order string) int64 {
	b.Helper()
	path := filepath.Join(filepath.Dir(table.Dir()), "sorted.parquet")
	query(b, c, fmt.Sprintf("INSERT INTO FUNCTION file('%s', Parquet) SELECT * EXCEPT _date FROM deltaLakeLocal('%s') ORDER BY _date, %s "+
		"SETTINGS engine_file_truncate_on_insert = 1, output_format_parquet_compression_method = 'zstd'", path, table.Dir(), order))
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	return info.Size()
}

// byDuckDB is how many bytes a snapshot's rows take as a Parquet file that DuckDB writes, in the order of compacted files.
func byDuckDB(b *testing.B, table *Table, s *Snapshot, version string) int64 {
	b.Helper()
	var files []string
	for _, f := range s.Files {
		files = append(files, "'"+filepath.Join(table.Dir(), filepath.FromSlash(f.Path))+"'")
	}
	path := filepath.Join(b.TempDir(), "sorted.parquet")
	duckQuery(b, []string{fmt.Sprintf("COPY (SELECT * FROM read_parquet([%s], hive_partitioning = false) ORDER BY time, _seq, _row) TO '%s' (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION %s)",
		strings.Join(files, ", "), path, version)})
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	return info.Size()
}

// BenchmarkZstd encodes the columns that are stored with zstd at each level: ids and latencies of page views, in the order of
// a compacted file.
func BenchmarkZstd(b *testing.B) {
	const rows = 8 * pageRows
	r := newRand(62)
	rec := pageviews(r, rand.NewZipf(r, 1.1, 8, 9_999), rows, 0, 1)
	for _, column := range []int{0, 7} {
		f := pageview().Fields[column]
		for _, level := range []zstd.Level{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression} {
			b.Run(fmt.Sprintf("%s/%s", f.Name, level), func(b *testing.B) {
				form := form{codec: &zstd.Codec{Level: level}}
				if f.Type.Kind == schemas.String {
					form.encoding = &parquet.DeltaByteArray
				}
				node, err := form.node(f)
				if err != nil {
					b.Fatal(err)
				}
				size := 0
				for b.Loop() {
					if size, err = trial(f, node, rec.Column(column), wholeOrder(rows)); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(size)/rows, "bytes/value")
				b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mvalues/s")
			})
		}
	}
}

// BenchmarkNumbers scans the numbers of page views in each form that they can be stored in, on one core, in the order of a
// compacted file, and says what they take on disk.
func BenchmarkNumbers(b *testing.B) {
	const rows = rowGroupRows
	r := newRand(63)
	rec := pageviews(r, rand.NewZipf(r, 1.1, 8, 9_999), rows, 43_200_000_000, 1)
	for _, column := range []int{2, 6, 7, 8} {
		f := pageview().Fields[column]
		for _, form := range forms(f.Type) {
			name := "plain"
			if form.encoding != nil {
				name = form.encoding.Encoding().String()
			}
			b.Run(fmt.Sprintf("%s/%s/%s", f.Name, name, form.codec), func(b *testing.B) {
				table := mustOpen(b, b.TempDir(), pageview())
				group := parquet.Group{}
				for _, other := range ownFields(pageview()) {
					stored := forms(other.Type)[0]
					if other.Name == f.Name {
						stored = form
					}
					node, err := stored.node(other)
					if err != nil {
						b.Fatal(err)
					}
					group[other.Name] = node
				}
				w, err := table.newFileAs(0, newFileName(), parquet.NewSchema("pageview", group))
				if err != nil {
					b.Fatal(err)
				}
				defer w.abort()
				if err := w.write(rec, nil); err != nil {
					b.Fatal(err)
				}
				a, err := w.close(false, false)
				if err != nil {
					b.Fatal(err)
				}
				file := File{Path: w.path, Size: a.Size, Rows: rows}
				size, err := trial(f, group[f.Name], rec.Column(column), wholeOrder(rows))
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if err := table.Scan(b.Context(), file, []string{f.Name}, func(arrow.Record) error { return nil }); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(size)/rows, "bytes/value")
				b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mvalues/s")
			})
		}
	}
}

func wholeOrder(n int) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	return order
}
