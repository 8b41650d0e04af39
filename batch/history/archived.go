package history

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/internal/crash"
	"watershed/schemas"
)

// The txns beside App, which is the sequence of the last message archived.
const (
	hashSuffix  = "/hash"   // that message's hash, as a signed number
	asideInfix  = "/aside/" // before a type's name: where that stood when it was set aside, plus 1; 0: it is not any more
	endedSuffix = "/ended"  // the cut at which the type ceased to be defined; it has ended if App is the same
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
	crash.At("history.widened")
	t.owner.step(stepWidened)
	t.table, t.buffer = table, newDateBuffers(ev)
	return nil
}

// An otherLogError says that the log is not the one that a table was archived from.
type otherLogError struct {
	seq  uint64
	name string
}

func (e *otherLogError) Error() string {
	return fmt.Sprintf("the log has another message at %d than the one that %s was archived up to: restore the log, or run `watershed repair`", e.seq, e.name)
}

// add buffers what a chunk has of the type up to a position in it, but for what the table has already.
func (t *archivedType) add(chunk *schemas.Chunk, upTo schemas.Position) error {
	if upTo.Seq <= t.position.Seq {
		if upTo.Seq == t.position.Seq && upTo != t.position {
			return &otherLogError{upTo.Seq, t.table.event.Name}
		}
		return nil
	}
	t.seen = upTo
	if t.since.IsZero() {
		t.since = time.Now()
	}
	rec := chunk.Records[t.table.event.Name]
	if rec == nil || rec.NumRows() == 0 {
		return nil
	}
	empty := t.buffer.rows == 0
	keep := func(_, seq int64) bool { return uint64(seq) > t.position.Seq && uint64(seq) <= upTo.Seq }
	if _, err := t.buffer.add(rec, 0, keep); err != nil {
		return err
	}
	if empty && t.buffer.rows > 0 {
		t.since = time.Now()
	}
	return nil
}

// commit writes what is buffered and moves the type's txn to the position, in one commit. Everything of
// the type at or below the position must be buffered.
func (t *archivedType) commit(ctx context.Context, at schemas.Position, ends bool) error {
	adds, err := t.writeFiles(ctx)
	if err != nil {
		return err
	}
	crash.At("history.files")
	t.owner.step(stepFiles)
	app := t.owner.cfg.App
	c := &change{operation: opArchive, adds: adds, expect: map[string]int64{}}
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
	t.owner.note(c, s.Txns)
	if _, err := t.table.commit(ctx, c); err != nil {
		return fmt.Errorf("archive %s up to %d: %w", t.table.event.Name, at.Seq, err)
	}
	// If we stop here, the table says what happened, and the buffered rows are skipped when read again.
	crash.At("history.committed")
	t.owner.step(stepCommit)
	t.reset()
	t.position, t.seen, t.active = at, at, !ends
	t.owner.publish(t)
	return nil
}

// writeFiles writes a file for each date that is buffered, ready to be added by a commit. Several are written at once,
// because writing a small file is mostly waiting for fsync; of a single large one, the columns are encoded side by side.
func (t *archivedType) writeFiles(ctx context.Context) ([]*add, error) {
	dates := t.buffer.sorted()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writersPerCore * runtime.GOMAXPROCS(0))
	defer func() { _ = group.Wait() }() // also when a test stops us between two files
	adds, written := make([]*add, len(dates)), make(chan struct{}, len(dates))
	for i, d := range dates {
		parts := t.buffer.take(d)
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				release(parts)
				return err
			}
			write := t.table.writeParts
			if len(dates) == 1 {
				write = t.table.writePartsWide
			}
			a, err := write(d, parts, false, false)
			if err == nil {
				adds[i] = a
				written <- struct{}{}
			}
			return err
		})
		for len(written) > 0 {
			<-written
			t.wrote()
		}
	}
	err := group.Wait()
	for len(written) > 0 {
		<-written
		t.wrote()
	}
	return adds, err
}

// wrote is between two files.
func (t *archivedType) wrote() {
	crash.At("history.file")
	t.owner.step(stepFile)
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
