package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/schemas"
)

// everyType is an event with a required and an optional field of every type.
func everyType() *schemas.Event {
	ev := &schemas.Event{Name: "reading", ID: "id", Time: "time"}
	ev.Fields = append(ev.Fields,
		schemas.Field{Name: "id", Type: schemas.Type{Kind: schemas.String}},
		schemas.Field{Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}})
	for _, t := range []schemas.Type{
		{Kind: schemas.String}, {Kind: schemas.Bool}, {Kind: schemas.Int64}, {Kind: schemas.Float64},
		{Kind: schemas.Decimal, Precision: 12, Scale: 2}, {Kind: schemas.Decimal, Precision: 38, Scale: 10},
		{Kind: schemas.Timestamp}, {Kind: schemas.Date},
	} {
		name := strings.NewReplacer("(", "_", ",", "_", ")", "").Replace(t.String())
		ev.Fields = append(ev.Fields,
			schemas.Field{Name: "f_" + name, Type: t},
			schemas.Field{Name: "o_" + name, Type: t, Optional: true})
	}
	return ev
}

// randomRecord makes n events on the date given in days, with seq and row as in the log.
func randomRecord(r *rand.Rand, ev *schemas.Event, n int, date int32, seq int64) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, ev.ArrowSchema())
	for i := range n {
		for k, f := range ev.Fields {
			switch {
			case f.Name == ev.ID:
				b.Field(k).(*array.StringBuilder).Append(fmt.Sprintf("e%d-%d", seq, i))
			case f.Name == ev.Time:
				b.Field(k).(*array.TimestampBuilder).Append(arrow.Timestamp(int64(date)*86_400_000_000 + r.Int64N(86_400_000_000)))
			case f.Optional && r.IntN(3) == 0:
				b.Field(k).AppendNull()
			default:
				appendRandom(r, b.Field(k), f.Type)
			}
		}
		b.Field(len(ev.Fields)).(*array.Int64Builder).Append(seq)
		b.Field(len(ev.Fields) + 1).(*array.Int32Builder).Append(int32(i))
	}
	return b.NewRecord()
}

func appendRandom(r *rand.Rand, to array.Builder, t schemas.Type) {
	switch b := to.(type) {
	case *array.StringBuilder:
		b.Append([]string{"", "a", "ä %2F\"\\", "long " + strings.Repeat("x", 200), "<&>"}[r.IntN(5)])
	case *array.BooleanBuilder:
		b.Append(r.IntN(2) == 0)
	case *array.Int64Builder:
		b.Append(int64(r.Uint64()))
	case *array.Float64Builder:
		b.Append(r.NormFloat64() * 1e6)
	case *array.Decimal128Builder:
		v := decimal128.FromI64(r.Int64N(2e12-1) - (1e12 - 1))
		if t.Precision > 18 {
			v = v.Mul(decimal128.FromI64(1e15)).Add(decimal128.FromI64(r.Int64N(1e15)))
		}
		b.Append(v)
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(r.Int64N(8e15) - 4e15)) // 1843 to 2096
	case *array.Date32Builder:
		b.Append(arrow.Date32(r.IntN(60_000) - 25_000))
	}
}

// addFile writes one record as one file and commits it with the txn app = position.
func addFile(t testing.TB, table *Table, rec arrow.Record, date int32, app string, position int64) int64 {
	t.Helper()
	w, err := table.newFile(date)
	if err != nil {
		t.Fatal(err)
	}
	defer w.abort()
	if err := w.write(rec, nil); err != nil {
		t.Fatal(err)
	}
	a, err := w.close(false, false)
	if err != nil {
		t.Fatal(err)
	}
	s, err := table.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v, err := table.commit(t.Context(), &change{operation: "WRITE", adds: []*add{a}, expect: s.Txns, txns: []txn{{AppID: app, Version: position}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// text is every row of a record as one line, so that records of different Arrow types compare.
func text(rec arrow.Record) string {
	var b []byte
	for i := range int(rec.NumRows()) {
		for k := range int(rec.NumCols()) {
			switch col := rec.Column(k).(type) {
			case *array.Decimal128: // Arrow prints them by way of floats
				if col.IsValid(i) {
					b = strconv.AppendQuote(b, decimalText(col.Value(i), int(col.DataType().(*arrow.Decimal128Type).Scale)))
				} else {
					b = append(b, "null"...)
				}
			default:
				if col.IsValid(i) {
					b = strconv.AppendQuote(b, col.ValueStr(i))
				} else {
					b = append(b, "null"...)
				}
			}
			b = append(b, '|')
		}
		b = append(b, '\n')
	}
	return string(b)
}

func columnNames(ev *schemas.Event) []string {
	var names []string
	for _, f := range ev.ArrowSchema().Fields() {
		names = append(names, f.Name)
	}
	return names
}

func scanText(t testing.TB, table *Table, f File) string {
	t.Helper()
	var b strings.Builder
	err := table.Scan(t.Context(), f, columnNames(table.Event()), func(rec arrow.Record) error {
		b.WriteString(text(rec))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestScanReturnsWhatWasWritten(t *testing.T) {
	ev := everyType()
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, pageRows, pageRows + 1} {
		table, err := Open(t.Context(), t.TempDir(), ev)
		if err != nil {
			t.Fatal(err)
		}
		rec := randomRecord(r, ev, n, -400, 7)
		addFile(t, table, rec, -400, "app", 7)
		s, err := table.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Files) != 1 || s.Files[0].Rows != int64(n) || s.Files[0].MinSeq != 7 || s.Files[0].MaxSeq != 7 || s.Files[0].Date != -400 {
			t.Fatalf("got %+v; want one file of %d rows", s.Files, n)
		}
		if got, want := scanText(t, table, s.Files[0]), text(rec); got != want {
			t.Fatalf("%d rows: scan differs from what was written", n)
		}
	}
}

func TestSnapshotAt(t *testing.T) {
	ev, root := smallEvent("a"), t.TempDir()
	table, err := Open(t.Context(), root, ev)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	want := map[uint64]int64{}
	for p := uint64(5); p < 5*(2*checkpointEvery+10); p += 5 {
		want[p] = addFile(t, table, randomRecord(r, ev, 3, 10, int64(p)), 10, "app", int64(p))
	}
	check := func(table *Table) {
		for p, v := range want {
			if at := (v + 2) % checkpointEvery; at > 4 && at != 50 {
				continue // each read replays up to a hundred commits; it is about the checkpoints
			}
			s, err := table.SnapshotAt(t.Context(), "app", p)
			if err != nil {
				t.Fatal(err)
			}
			if s.Version != v || s.Txns["app"] != int64(p) || len(s.Files) != int(p/5) {
				t.Fatalf("at %d: got version %d, %d files, txn %d; want version %d", p, s.Version, len(s.Files), s.Txns["app"], v)
			}
		}
		for _, p := range []uint64{4, 7, 5 * (2*checkpointEvery + 10)} {
			if _, err := table.SnapshotAt(t.Context(), "app", p); !errors.Is(err, ErrNoSnapshot) {
				t.Fatalf("at %d: got %v; want ErrNoSnapshot", p, err)
			}
		}
	}
	check(table)
	again, err := Open(context.Background(), root, ev)
	if err != nil {
		t.Fatal(err)
	}
	if len(again.marks) > 50 {
		t.Errorf("opening read %d commits; want only those after the checkpoint", len(again.marks))
	}
	check(again)
}

// concat joins records of one schema.
func concat(recs []arrow.Record) arrow.Record {
	if len(recs) == 1 {
		return recs[0]
	}
	var n int64
	cols := make([]arrow.Array, recs[0].NumCols())
	for k := range cols {
		var parts []arrow.Array
		for _, rec := range recs {
			parts = append(parts, rec.Column(k))
		}
		col, err := array.Concatenate(parts, memory.DefaultAllocator)
		if err != nil {
			panic(err)
		}
		cols[k], n = col, int64(col.Len())
	}
	return array.NewRecord(recs[0].Schema(), cols, n)
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func floatBits(x float64) uint64 { return math.Float64bits(x) }
