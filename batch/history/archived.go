package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
)

// The txns beside App, which is the sequence of the last message archived.
const (
	hashSuffix  = "/hash"  // that message's hash, as a signed number
	endedSuffix = "/ended" // the cut at which the type ceased to be defined; it has ended if App is the same
)

// idleAges is after how many ages a type without events commits its position alone, so that neither a
// restart nor a trim of the log has to go back to its last event.
const idleAges = 10

// An archivedType is one type's table and what waits to be committed to it.
type archivedType struct {
	owner    *Archiver
	table    *Table
	timeAt   int // column of the event time
	active   bool
	position schemas.Position // archived and committed
	seen     schemas.Position // buffered, or without events of this type
	dates    map[int32]*dateBuffer
	rows     int64
	bytes    int64
	since    time.Time // when the first message that waits was read; zero: nothing waits
}

// A dateBuffer is the events of one date, in log order.
type dateBuffer struct {
	parts []bufferPart
	rows  int64
}

type bufferPart struct {
	record arrow.Record
	rows   []int32
}

func (a *Archiver) openType(ctx context.Context, ev *schemas.Event) (*archivedType, error) {
	table, err := Open(ctx, a.cfg.Root, ev)
	if err != nil {
		return nil, err
	}
	s, err := table.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	t := &archivedType{owner: a, table: table, dates: map[int32]*dateBuffer{}}
	t.timeAt = ev.ArrowSchema().FieldIndices(ev.Time)[0]
	seq, begun := s.Txns[a.cfg.App]
	end, over := s.Txns[a.cfg.App+endedSuffix]
	t.active = begun && !(over && end == seq)
	if begun {
		t.position = schemas.Position{Seq: uint64(seq), Hash: uint64(s.Txns[a.cfg.App+hashSuffix])}
		t.seen = t.position
	}
	return t, nil
}

// add buffers what a chunk has of the type, but for what the table has already.
func (t *archivedType) add(chunk *schemas.Chunk) error {
	if chunk.Last.Seq <= t.position.Seq {
		if chunk.Last.Seq == t.position.Seq && chunk.Last != t.position {
			return fmt.Errorf("the log has another message at %d than the one that %s was archived up to", chunk.Last.Seq, t.table.event.Name)
		}
		return nil
	}
	t.seen = chunk.Last
	if t.since.IsZero() {
		t.since = time.Now()
	}
	rec := chunk.Records[t.table.event.Name]
	if rec == nil || rec.NumRows() == 0 {
		return nil
	}
	if err := t.check(rec); err != nil {
		return err
	}
	return t.split(rec)
}

// check holds a record against the definition that the table was opened with.
func (t *archivedType) check(rec arrow.Record) error {
	fields := t.table.event.ArrowSchema().Fields()
	if int(rec.NumCols()) != len(fields) {
		return fmt.Errorf("a record of %s has %d columns, not %d", t.table.event.Name, rec.NumCols(), len(fields))
	}
	for i, f := range fields {
		if got := rec.ColumnName(i); got != f.Name {
			return fmt.Errorf("column %d of a record of %s is %s, not %s", i, t.table.event.Name, got, f.Name)
		}
	}
	return nil
}

// split puts the record's rows into the buffers of their dates.
func (t *archivedType) split(rec arrow.Record) error {
	n := int(rec.NumCols())
	times, ok1 := rec.Column(t.timeAt).(*array.Timestamp)
	seqs, ok2 := rec.Column(n - 2).(*array.Int64)
	if !ok1 || !ok2 {
		return fmt.Errorf("a record of %s has an event time or a sequence of a wrong type", t.table.event.Name)
	}
	parts := map[int32][]int32{}
	for i, at := range times.TimestampValues() {
		if uint64(seqs.Value(i)) > t.position.Seq {
			d := dateOf(int64(at))
			parts[d] = append(parts[d], int32(i))
		}
	}
	if t.rows == 0 {
		t.since = time.Now()
	}
	for d, rows := range parts {
		b := t.dates[d]
		if b == nil {
			b = &dateBuffer{}
			t.dates[d] = b
		}
		rec.Retain()
		b.parts = append(b.parts, bufferPart{rec, rows})
		b.rows += int64(len(rows))
		t.rows += int64(len(rows))
	}
	if len(parts) > 0 {
		size := recordBytes(rec)
		t.bytes += size
		t.owner.waiting += size
	}
	return nil
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

// commit writes what is buffered and moves the type's txn to the position, in one commit. Everything of
// the type at or below the position must be buffered.
func (t *archivedType) commit(ctx context.Context, at schemas.Position, ends bool) error {
	adds, err := t.writeFiles(ctx)
	if err != nil {
		return err
	}
	t.owner.step(stepFiles)
	app := t.owner.cfg.App
	c := &change{operation: "STREAMING UPDATE", adds: adds, expect: map[string]int64{}}
	s, err := t.table.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, suffix := range []string{hashSuffix, endedSuffix} {
		if v, ok := s.Txns[app+suffix]; ok {
			c.expect[app+suffix] = v
		}
	}
	if _, begun := s.Txns[app]; begun {
		// What we believe, not what the table says: if they differ, somebody else archives this log.
		c.expect[app] = int64(t.position.Seq)
	}
	c.txns = []txn{{AppID: app, Version: int64(at.Seq)}, {AppID: app + hashSuffix, Version: int64(at.Hash)}}
	if ends {
		c.txns = append(c.txns, txn{AppID: app + endedSuffix, Version: int64(at.Seq)})
	}
	if _, err := t.table.commit(ctx, c); err != nil {
		return fmt.Errorf("archive %s up to %d: %w", t.table.event.Name, at.Seq, err)
	}
	// If we stop here, the table says what happened, and the buffered rows are skipped when read again.
	t.owner.step(stepCommit)
	t.reset()
	t.position, t.seen, t.active = at, at, !ends
	t.owner.publish(t)
	return nil
}

// writeFiles writes a file for each date that is buffered, ready to be added by a commit.
func (t *archivedType) writeFiles(ctx context.Context) ([]*add, error) {
	var adds []*add
	dates := make([]int32, 0, len(t.dates))
	for d := range t.dates {
		dates = append(dates, d)
	}
	slices.Sort(dates)
	for _, d := range dates {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a, err := t.writeDate(d)
		if err != nil {
			return nil, err
		}
		adds = append(adds, a)
		t.owner.step(stepFile)
	}
	return adds, nil
}

func (t *archivedType) writeDate(date int32) (*add, error) {
	w, err := t.table.newFile(date)
	if err != nil {
		return nil, err
	}
	defer w.abort()
	for _, p := range t.dates[date].parts {
		if err := w.write(p.record, p.rows); err != nil {
			return nil, err
		}
	}
	return w.close(false, false)
}

// reset forgets what is buffered.
func (t *archivedType) reset() {
	for _, b := range t.dates {
		for _, p := range b.parts {
			p.record.Release()
		}
	}
	t.owner.waiting -= t.bytes
	t.dates, t.rows, t.bytes, t.since = map[int32]*dateBuffer{}, 0, 0, time.Time{}
}

// due is when the type must commit next, if nothing more comes.
func (t *archivedType) due() (time.Time, bool) {
	switch {
	case t.since.IsZero():
		return time.Time{}, false
	case t.rows == 0:
		return t.since.Add(idleAges * t.owner.cfg.MaxAge), true
	}
	return t.since.Add(t.owner.cfg.MaxAge), true
}

func (a *Archiver) due() (first time.Time, ok bool) {
	for _, t := range a.types {
		if at, waits := t.due(); waits && (!ok || at.Before(first)) {
			first, ok = at, true
		}
	}
	return first, ok
}

// commitDue commits the types that are full or old, and the fullest while all together are too large.
func (a *Archiver) commitDue(ctx context.Context) error {
	now := time.Now()
	for _, name := range a.names() {
		t := a.types[name]
		at, waits := t.due()
		if t.rows >= a.cfg.MaxRows || waits && !now.Before(at) {
			if err := t.commit(ctx, t.seen, false); err != nil {
				return err
			}
		}
	}
	for a.waiting > a.cfg.MaxBytes {
		fullest := a.fullest()
		if fullest == nil {
			return errors.New("buffers are full and empty at once")
		}
		if err := fullest.commit(ctx, fullest.seen, false); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archiver) fullest() *archivedType {
	var out *archivedType
	for _, t := range a.types {
		if t.bytes > 0 && (out == nil || t.bytes > out.bytes) {
			out = t
		}
	}
	return out
}
