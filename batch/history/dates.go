package history

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
)

// dateBuffers hold rows of records by the date of their event time, until they are written. Rows of a
// date stay in the order in which they came. Records are kept, not copied.
type dateBuffers struct {
	event  *schemas.Event
	timeAt int // column of the event time
	dates  map[int32]*dateBuffer
	rows   int64
	bytes  int64 // about, of all rows
}

type dateBuffer struct {
	parts []bufferPart
	bytes int64
	last  int // number of the record that came last
}

// A bufferPart is some rows of a record.
type bufferPart struct {
	record arrow.Record
	rows   []int32
}

func newDateBuffers(ev *schemas.Event) *dateBuffers {
	return &dateBuffers{event: ev, timeAt: ev.ArrowSchema().FieldIndices(ev.Time)[0], dates: map[int32]*dateBuffer{}}
}

// add buffers the rows that keep accepts by event time (µs) and _seq. n numbers the records.
func (b *dateBuffers) add(rec arrow.Record, n int, keep func(at, seq int64) bool) (int64, error) {
	if err := b.check(rec); err != nil {
		return 0, err
	}
	times := rec.Column(b.timeAt).(*array.Timestamp).TimestampValues()
	seqs := rec.Column(int(rec.NumCols()) - 2).(*array.Int64).Int64Values()
	parts := map[int32][]int32{}
	var taken int64
	date, rows := int32(0), []int32(nil) // of the row before: rows of one date mostly come together
	for i, at := range times {
		if !keep(int64(at), seqs[i]) {
			continue
		}
		if d := dateOf(int64(at)); d != date || rows == nil {
			if rows != nil {
				parts[date] = rows
			}
			if date, rows = d, parts[d]; rows == nil {
				rows = make([]int32, 0, 64)
			}
		}
		rows = append(rows, int32(i))
		taken++
	}
	if rows != nil {
		parts[date] = rows
	}
	for _, col := range rec.Columns() {
		col.NullN() // arrays count them when they are first asked, and files of several dates are written at once
	}
	size := recordBytes(rec)
	for d, rows := range parts {
		rec.Retain()
		share := max(1, size*int64(len(rows))/rec.NumRows())
		x := b.dates[d]
		if x == nil {
			x = &dateBuffer{}
			b.dates[d] = x
		}
		x.parts, x.bytes, x.last = append(x.parts, bufferPart{rec, rows}), x.bytes+share, n
		b.bytes += share
		b.rows += int64(len(rows))
	}
	return taken, nil
}

// check holds a record against the type's definition.
func (b *dateBuffers) check(rec arrow.Record) error {
	fields := b.event.ArrowSchema().Fields()
	if int(rec.NumCols()) != len(fields) {
		return fmt.Errorf("a record of %s has %d columns, not %d", b.event.Name, rec.NumCols(), len(fields))
	}
	for i, f := range fields {
		got := rec.Column(i).DataType()
		fits := arrow.TypeEqual(got, f.Type) || f.Type.ID() == arrow.STRING && arrow.TypeEqual(got, dictionaryType)
		if rec.ColumnName(i) != f.Name || !fits {
			return fmt.Errorf("column %d of a record of %s is %s %s, not %s %s", i, b.event.Name, rec.ColumnName(i), got, f.Name, f.Type)
		}
	}
	return nil
}

// ready are the dates to write now, in order: those whose last record is at or below n, and the largest
// while all together take more than limit bytes.
func (b *dateBuffers) ready(n int, limit int64) []int32 {
	var out, rest []int32
	left := b.bytes
	for d, x := range b.dates {
		if x.last <= n {
			out = append(out, d)
			left -= x.bytes
		} else {
			rest = append(rest, d)
		}
	}
	if left > limit {
		slices.SortFunc(rest, func(x, y int32) int { return int(b.dates[y].bytes - b.dates[x].bytes) })
		for _, d := range rest {
			if left <= limit/2 { // make room for more than the next record
				break
			}
			out = append(out, d)
			left -= b.dates[d].bytes
		}
	}
	slices.Sort(out)
	return out
}

// take hands a date's rows over, to be released by writeParts.
func (b *dateBuffers) take(d int32) []bufferPart {
	x := b.dates[d]
	delete(b.dates, d)
	b.bytes -= x.bytes
	for _, p := range x.parts {
		b.rows -= int64(len(p.rows))
	}
	return x.parts
}

// reset forgets all rows.
func (b *dateBuffers) reset() {
	for _, x := range b.dates {
		release(x.parts)
	}
	b.dates, b.rows, b.bytes = map[int32]*dateBuffer{}, 0, 0
}

// sorted are the dates that have rows.
func (b *dateBuffers) sorted() []int32 {
	out := make([]int32, 0, len(b.dates))
	for d := range b.dates {
		out = append(out, d)
	}
	slices.Sort(out)
	return out
}

func release(parts []bufferPart) {
	for _, p := range parts {
		p.record.Release()
	}
}

// dateOf is the UTC date, in days, of an instant in microseconds.
func dateOf(us int64) int32 { return int32(floorDiv(us, int64(day/time.Microsecond))) }

func recordBytes(rec arrow.Record) int64 {
	var n int64
	for _, col := range rec.Columns() {
		for _, b := range col.Data().Buffers() {
			if b != nil {
				n += int64(b.Len())
			}
		}
	}
	return n
}

// writeParts writes one file of one date's rows and releases them.
func (t *Table) writeParts(date int32, parts []bufferPart, unique, imported bool) (*add, error) {
	return t.writePartsBy(1, date, parts, unique, imported)
}

// writePartsWide does it with all cores.
func (t *Table) writePartsWide(date int32, parts []bufferPart, unique, imported bool) (*add, error) {
	return t.writePartsBy(runtime.GOMAXPROCS(0), date, parts, unique, imported)
}

func (t *Table) writePartsBy(cores int, date int32, parts []bufferPart, unique, imported bool) (*add, error) {
	defer release(parts)
	w, err := t.newFile(date)
	if err != nil {
		return nil, err
	}
	defer w.abort()
	w.cores = cores
	for _, p := range parts {
		if err := w.write(p.record, p.rows); err != nil {
			return nil, err
		}
	}
	return w.close(unique, imported)
}
