package history

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	active   bool
	position schemas.Position // archived and committed
	seen     schemas.Position // buffered, or without events of this type
	buffer   *dateBuffers
	since    time.Time // when the first message that waits was read; zero: nothing waits
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
	t := &archivedType{owner: a, table: table, buffer: newDateBuffers(ev)}
	seq, begun := s.Txns[a.cfg.App]
	end, over := s.Txns[a.cfg.App+endedSuffix]
	t.active = begun && !(over && end == seq)
	if begun {
		t.position = schemas.Position{Seq: uint64(seq), Hash: uint64(s.Txns[a.cfg.App+hashSuffix])}
		t.seen = t.position
	}
	return t, nil
}

// redefine goes over to the definition of a new epoch. Nothing is buffered: at a cut all is committed.
func (t *archivedType) redefine(ctx context.Context, ev *schemas.Event) error {
	if sameDefinition(t.table.event, ev) {
		return nil
	}
	table, err := Open(ctx, t.owner.cfg.Root, ev)
	if err != nil {
		return err
	}
	// If we stop here, the table is as wide as the new epoch needs it. We begin again with the old one's
	// definition, which fits still, and meet the cut again.
	t.owner.step(stepWidened)
	t.table, t.buffer = table, newDateBuffers(ev)
	return nil
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
	empty, before := t.buffer.rows == 0, t.buffer.bytes
	if _, err := t.buffer.add(rec, 0, func(_, seq int64) bool { return uint64(seq) > t.position.Seq }); err != nil {
		return err
	}
	if empty && t.buffer.rows > 0 {
		t.since = time.Now()
	}
	t.owner.waiting += t.buffer.bytes - before
	return nil
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
	t.owner.waiting -= t.buffer.bytes
	var adds []*add
	for _, d := range t.buffer.sorted() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a, err := t.table.writeParts(d, t.buffer.take(d), false, false)
		if err != nil {
			return nil, err
		}
		adds = append(adds, a)
		t.owner.step(stepFile)
	}
	return adds, nil
}

// reset forgets what is buffered.
func (t *archivedType) reset() {
	t.buffer.reset()
	t.since = time.Time{}
}

// due is when the type must commit next, if nothing more comes.
func (t *archivedType) due() (time.Time, bool) {
	switch {
	case t.since.IsZero():
		return time.Time{}, false
	case t.buffer.rows == 0:
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
		if t.buffer.rows >= a.cfg.MaxRows || waits && !now.Before(at) {
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
		if t.buffer.bytes > 0 && (out == nil || t.buffer.bytes > out.buffer.bytes) {
			out = t
		}
	}
	return out
}
