package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/google/uuid"

	"watershed/schemas"
)

// block is the rows of one insert, by column. It is complete before the insert is opened, so
// that no insert hangs half sent.
type block struct {
	rows    int
	columns []proto.InputColumn
}

func (b *block) put(name string, data wired) {
	b.columns = append(b.columns, proto.InputColumn{Name: name, Data: data})
}

// records adds the columns of records, which are the plan's dimensions and states in order. The
// block refers to the records' memory.
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
		data, err := wireArrays(col, arrays)
		if err != nil {
			return fmt.Errorf("states of %s: column %s: %w", l.id, col.name, err)
		}
		b.put(col.name, data)
	}
	return nil
}

// insert sends a block through a fence.
func (db *DB) insert(ctx context.Context, staging, role string, term uint64, b *block) error {
	return db.send(ctx, staging, db.queryID(role, term), b)
}

// insertUnfenced sends a block straight into a table.
func (db *DB) insertUnfenced(ctx context.Context, table string, b *block) error {
	return db.send(ctx, table, uuid.NewString(), b)
}

// oneBlock keeps a block in one piece from the staging table to the part.
func oneBlock() clickhouse.Settings {
	s := own()
	s["max_insert_threads"] = 1
	s["min_insert_block_size_rows"] = 0
	s["min_insert_block_size_bytes"] = 0
	s["optimize_on_insert"] = 0 // merging is for merges; a block has a group once
	s["send_profile_events"] = 0
	return s
}

// send inserts a block. Until it is sent nothing is inserted; from there on the outcome is what
// ClickHouse says, or unknown.
func (db *DB) send(ctx context.Context, table, id string, b *block) error {
	names := make([]string, len(b.columns))
	for i, c := range b.columns {
		names[i] = quote(c.Name)
		if c.Data.Rows() != b.rows {
			return wrong(fmt.Errorf("column %s of %s has %d rows, want %d", c.Name, table, c.Data.Rows(), b.rows), false)
		}
	}
	sql := fmt.Sprintf("INSERT INTO %s (%s) FORMAT Native", db.name(table), strings.Join(names, ", "))
	w, err := db.wires.take(ctx)
	if err != nil {
		return wrong(err, false)
	}
	sent, err := w.insert(ctx, id, sql, wireSettings(oneBlock()), b.columns)
	db.wires.put(w, err == nil && ctx.Err() == nil) // the context's end may have closed it
	return db.noted(wrong(err, sent))
}

// add adds a column of a system table.
func (b *block) add(name string, values any) {
	switch values := values.(type) {
	case []uint64:
		b.put(name, wired{"UInt64", len(values), [][]byte{bytesOf(values)}})
	case []float64:
		b.put(name, wired{"Float64", len(values), [][]byte{bytesOf(values)}})
	case []bool:
		b.put(name, wired{"Bool", len(values), [][]byte{bytesOf(values)}})
	case []string:
		var out []byte
		for _, s := range values {
			out = appendWord(out, s)
		}
		b.put(name, wired{"String", len(values), [][]byte{out}})
	default:
		panic(fmt.Sprintf("store: no encoding of %T", values))
	}
}

// dates adds a Date32 column of days since 1970-01-01.
func (b *block) dates(name string, days []int32) {
	b.put(name, wired{"Date32", len(days), [][]byte{bytesOf(days)}})
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

// constant adds a column that has one value in every row.
func (b *block) constant(name string, value uint64) {
	const run = 8 << 10
	data := wired{"UInt64", b.rows, nil}
	values := bytesOf(slices.Repeat([]uint64{value}, min(b.rows, run)))
	for left := b.rows; left > 0; left -= run {
		data.chunks = append(data.chunks, values[:8*min(left, run)])
	}
	b.put(name, data)
}
