package history

import (
	"cmp"
	"context"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
)

// A rowKey is what the rows of a compacted file are sorted by. Views bucket and filter by event time, so
// rows that lie together in time are the ones that are read, or skipped, together.
type rowKey struct {
	time int64 // µs
	seq  int64
	row  int32
}

func (a rowKey) compare(b rowKey) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.seq, b.seq), cmp.Compare(a.row, b.row))
}

// A keyRange is the keys from..to, without to. Its zero value has no bounds.
type keyRange struct {
	from, to       rowKey
	bounded, ended bool
}

func (r keyRange) has(k rowKey) bool {
	return (!r.bounded || k.compare(r.from) >= 0) && (!r.ended || k.compare(r.to) < 0)
}

// sampleKeys is how many keys are looked at to divide a date.
const sampleKeys = 1 << 16

// ranges divides the rows of files, but for those left out, into n ranges of about the same number.
func (w *rewriting) ranges(ctx context.Context, group []int, rows int64, n int) ([]keyRange, error) {
	if n <= 1 {
		return []keyRange{{}}, nil
	}
	step := max(1, rows/sampleKeys)
	var sample []rowKey
	at := int64(0)
	for _, i := range group {
		columns := []string{w.table.event.Time, schemas.SeqColumn, schemas.RowColumn}
		err := w.table.Scan(ctx, w.files[i], columns, func(rec arrow.Record) error {
			keys := keysOf(rec, 0)
			for j := (step - at%step) % step; j < int64(len(keys)); j += step {
				sample = append(sample, keys[j])
			}
			at += int64(len(keys))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(sample, rowKey.compare)
	var out []keyRange
	last := keyRange{}
	for k := 1; k < n; k++ {
		bound := sample[k*len(sample)/n]
		if last.bounded && bound == last.from {
			continue
		}
		last.to, last.ended = bound, true
		out = append(out, last)
		last = keyRange{from: bound, bounded: true}
	}
	return append(out, last), nil
}

// keysOf are the keys of a record's rows: the time is in the column given, the place in the last two.
func keysOf(rec arrow.Record, time int) []rowKey {
	n := int(rec.NumCols())
	times := rec.Column(time).(*array.Timestamp).TimestampValues()
	seqs := rec.Column(n - 2).(*array.Int64).Int64Values()
	rows := rec.Column(n - 1).(*array.Int32).Int32Values()
	out := make([]rowKey, len(times))
	for i := range out {
		out[i] = rowKey{int64(times[i]), seqs[i], rows[i]}
	}
	return out
}

// sorted is the order of rows by their keys.
func sorted(keys []rowKey) []int32 {
	order := make([]int32, len(keys))
	for i := range order {
		order[i] = int32(i)
	}
	if !slices.IsSortedFunc(keys, rowKey.compare) {
		slices.SortFunc(order, func(a, b int32) int { return keys[a].compare(keys[b]) })
	}
	return order
}
