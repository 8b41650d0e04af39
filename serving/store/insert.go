package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
)

// block is the rows of one insert, by column, as slices that the driver copies whole. It is
// complete before the insert is opened, so that no insert hangs half sent.
type block struct {
	rows    int
	names   []string
	columns []any
}

func (b *block) add(name string, values any) {
	b.names, b.columns = append(b.names, quote(name)), append(b.columns, values)
}

// constant adds a column that has one value in every row.
func (b *block) constant(name string, value uint64) {
	b.add(name, slices.Repeat([]uint64{value}, b.rows))
}

// dates adds a Date32 column of days since 1970-01-01.
func (b *block) dates(name string, days []int32) {
	times := make([]time.Time, len(days))
	for i, d := range days {
		times[i] = time.Unix(int64(d)*86400, 0).UTC()
	}
	b.add(name, times)
}

// positions adds the columns of log positions.
func (b *block) positions(of []schemas.Position) {
	seqs, hashes := make([]uint64, len(of)), make([]uint64, len(of))
	for i, p := range of {
		seqs[i], hashes[i] = p.Seq, p.Hash
	}
	b.add("seq", seqs)
	b.add("hash", hashes)
}

// insert sends a block through a fence.
func (db *DB) insert(ctx context.Context, staging, role string, term uint64, b *block) error {
	return db.send(clickhouse.Context(ctx, clickhouse.WithQueryID(db.queryID(role, term)), clickhouse.WithSettings(oneBlock())), staging, b)
}

// oneBlock keeps a block in one piece from the staging table to the part.
func oneBlock() clickhouse.Settings {
	s := own()
	s["max_insert_threads"] = 1
	s["min_insert_block_size_rows"] = 0
	s["min_insert_block_size_bytes"] = 0
	s["optimize_on_insert"] = 0 // merging is for merges; a block has a group once
	return s
}

// send inserts a block. Until it is sent nothing is inserted; from there on the outcome is
// what ClickHouse says, or unknown.
func (db *DB) send(ctx context.Context, table string, b *block) error {
	batch, err := db.conn.PrepareBatch(ctx, fmt.Sprintf("INSERT INTO %s (%s)", db.name(table), strings.Join(b.names, ", ")))
	if err != nil {
		return wrong(err, false)
	}
	for i, values := range b.columns {
		if err := batch.Column(i).Append(values); err != nil {
			return wrong(fmt.Errorf("column %s of %s: %w", b.names[i], table, err), false)
		}
	}
	if err := batch.Send(); err != nil {
		return wrong(err, true)
	}
	return nil
}

// records adds the columns of records, which are the plan's dimensions and states in order.
func (b *block) records(l *layout, recs []arrow.Record) error {
	columns := l.columns()
	arrays := make([]arrow.Array, len(recs))
	for i, col := range columns {
		for k, rec := range recs {
			if int(rec.NumCols()) != len(columns) || rec.ColumnName(i) != col.name {
				return fmt.Errorf("states of %s: record has columns %v", l.id, rec.Schema().Fields())
			}
			arrays[k] = rec.Column(i)
		}
		if err := b.arrow(col, arrays); err != nil {
			return fmt.Errorf("states of %s: column %s: %w", l.id, col.name, err)
		}
	}
	return nil
}

// arrow adds a column: the arrays one after the other, and for a Nullable one the mask of its
// nulls, by a name of its own.
func (b *block) arrow(col column, arrays []arrow.Array) error {
	if col.nullable {
		mask := make([]uint8, 0, b.rows)
		for _, a := range arrays {
			mask = appendNulls(mask, a)
		}
		b.add(nullMask(col.name), mask)
	}
	nulls := 0
	for _, a := range arrays {
		nulls += a.NullN()
	}
	if nulls > 0 && !col.nullable {
		return fmt.Errorf("null in a column of %s", col.typ)
	}
	values, err := plainValues(col, arrays, b.rows)
	b.add(col.name, values)
	return err
}

// nullMask names the staging column that says which rows are null.
func nullMask(name string) string { return "_null_" + name }

func appendNulls(mask []uint8, a arrow.Array) []uint8 {
	start := len(mask)
	mask = append(mask, make([]uint8, a.Len())...)
	if a.NullN() > 0 {
		for i := range a.Len() {
			if a.IsNull(i) {
				mask[start+i] = 1
			}
		}
	}
	return mask
}

// plainValues gathers arrays as the staging column wants them; what is below a null is
// unspecified. One array's memory is shared, not copied.
func plainValues(col column, arrays []arrow.Array, rows int) (any, error) {
	switch col.arrow.ID() {
	case arrow.INT64:
		return gather(arrays, func(a *array.Int64) []int64 { return a.Int64Values() })
	case arrow.UINT64:
		return gather(arrays, func(a *array.Uint64) []uint64 { return a.Uint64Values() })
	case arrow.FLOAT64:
		return gather(arrays, func(a *array.Float64) []float64 { return a.Float64Values() })
	case arrow.DATE32:
		return gather(arrays, func(a *array.Date32) []int32 {
			return arrow.Int32Traits.CastFromBytes(arrow.Date32Traits.CastToBytes(a.Date32Values()))
		})
	case arrow.TIMESTAMP:
		return gather(arrays, func(a *array.Timestamp) []int64 {
			return arrow.Int64Traits.CastFromBytes(arrow.TimestampTraits.CastToBytes(a.TimestampValues()))
		})
	case arrow.DECIMAL128:
		values, err := gather(arrays, func(a *array.Decimal128) []byte { return arrow.Decimal128Traits.CastToBytes(a.Values()) })
		return fixed(values, 16), err
	case arrow.FIXED_SIZE_BINARY:
		values, err := gather(arrays, fixedBytes)
		return fixed(values, col.arrow.(*arrow.FixedSizeBinaryType).ByteWidth), err
	case arrow.BOOL:
		return bools(arrays, rows)
	case arrow.STRING, arrow.BINARY:
		return texts(arrays, rows)
	}
	return nil, fmt.Errorf("no encoding of Arrow's %s as %s", col.arrow, col.typ)
}

// gather concatenates the arrays' values.
func gather[A arrow.Array, T any](arrays []arrow.Array, values func(A) []T) ([]T, error) {
	var out []T
	for i, arr := range arrays {
		a, ok := arr.(A)
		if !ok {
			return nil, fmt.Errorf("unexpected Arrow type %s", arr.DataType())
		}
		if i == 0 {
			out = slices.Clip(values(a))
			continue
		}
		out = append(out, values(a)...)
	}
	return out, nil
}

// fixed cuts a column of values that are so many bytes wide: the driver wants FixedString one
// by one.
func fixed(values []byte, width int) [][]byte {
	out := make([][]byte, 0, len(values)/width)
	for v := range slices.Chunk(values, width) {
		out = append(out, v)
	}
	return out
}

func fixedBytes(a *array.FixedSizeBinary) []byte {
	width := a.DataType().(*arrow.FixedSizeBinaryType).ByteWidth
	from := a.Data().Offset() * width
	return a.Data().Buffers()[1].Bytes()[from : from+a.Len()*width]
}

func bools(arrays []arrow.Array, rows int) (any, error) {
	out := make([]bool, 0, rows)
	for _, arr := range arrays {
		a, ok := arr.(*array.Boolean)
		if !ok {
			return nil, fmt.Errorf("unexpected Arrow type %s", arr.DataType())
		}
		for i := range a.Len() {
			out = append(out, a.Value(i))
		}
	}
	return out, nil
}

// texts lists strings in the records' own memory, which outlives the insert.
func texts(arrays []arrow.Array, rows int) (any, error) {
	out := make([]string, 0, rows)
	for _, arr := range arrays {
		switch a := arr.(type) {
		case *array.String:
			for i := range a.Len() {
				out = append(out, a.Value(i))
			}
		case *array.Binary:
			for i := range a.Len() {
				v := a.Value(i)
				out = append(out, unsafe.String(unsafe.SliceData(v), len(v)))
			}
		case *array.Dictionary:
			words, ok := a.Dictionary().(*array.String)
			if !ok {
				return nil, fmt.Errorf("unexpected Arrow type %s", arr.DataType())
			}
			for i := range a.Len() {
				word := ""
				if a.IsValid(i) {
					word = words.Value(a.GetValueIndex(i))
				}
				out = append(out, word)
			}
		default:
			return nil, fmt.Errorf("unexpected Arrow type %s", arr.DataType())
		}
	}
	return out, nil
}
