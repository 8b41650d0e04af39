package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"watershed/internal/crash"
	"watershed/schemas"
)

// A reading copies the log, as it is read once, into the tables of some types: the archiver's own into
// those of all types that are not set aside, a lane's into that of one that is.
type reading struct {
	owner    *Archiver
	only     string                   // the type of a lane; empty: all that are not set aside
	types    map[string]*archivedType // that events are taken of
	maxBytes int64                    // that wait for a commit
}

func (r *reading) drop() {
	for _, t := range r.types {
		t.reset()
	}
	clear(r.types)
}

// takes tells whether the reading is that of a type.
func (r *reading) takes(name string) bool {
	if r.only != "" {
		return name == r.only
	}
	return !r.owner.isAside(name)
}

// failed ends a type's part in the reading after an error: the archiver sets it aside and goes on, a lane
// is over. begins is where the type was to begin, if it was. Errors that concern all types are returned.
func (r *reading) failed(ctx context.Context, name string, err error, from *schemas.Position) error {
	if r.only != "" || !isolated(ctx, err) {
		return err
	}
	if t := r.types[name]; t != nil {
		t.reset()
		delete(r.types, name)
	}
	r.owner.setAside(name, err, from)
	crash.At("history.aside")
	r.owner.step(stepAside)
	return nil
}

// begin opens the tables of all types that a cut defines. One that has not begun yet begins at the
// position given.
func (r *reading) begin(ctx context.Context, cut schemas.Cut, at schemas.Position) error {
	for _, ev := range definedBy(cut) {
		if !r.takes(ev.Name) {
			continue
		}
		if err := r.beginType(ctx, ev, cut, at); err != nil {
			var from *schemas.Position
			var lost *lostTableError
			if mayBegin(cut, at) && !errors.As(err, &lost) {
				from = &at
			}
			if err := r.failed(ctx, ev.Name, err, from); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayBegin tells whether a type may begin at a position: at the cut that defines it, or with the log.
// Anywhere else its history has been lost, and beginning there would hide that.
func mayBegin(cut schemas.Cut, at schemas.Position) bool { return at.Seq == 0 || at == cut.Position }

func (r *reading) beginType(ctx context.Context, ev *schemas.Event, cut schemas.Cut, at schemas.Position) error {
	if t := r.types[ev.Name]; t != nil {
		return t.redefine(ctx, ev)
	}
	if there, err := Exists(r.owner.cfg.Root, ev.Name); err != nil {
		return err
	} else if !there && !liesBefore(at, cut) { // before an empty table is made, which a backup would have to replace
		if err := r.mayBeginHere(ctx, ev, cut, at); err != nil {
			return err
		}
	}
	t, err := r.owner.openType(ctx, ev)
	if err != nil {
		return err
	}
	if !t.active && t.position.Seq <= at.Seq { // an ended type is ahead of us if we read old log again
		if liesBefore(at, cut) {
			return nil // the cut comes as the first message, and the type begins there
		}
		if err := r.mayBeginHere(ctx, ev, cut, at); err != nil {
			return err
		}
		if err := t.commit(ctx, at, false); err != nil {
			return err
		}
		// If we stop here, the types that have not begun begin when the same position is met again: no
		// type goes on before all have begun, but for those that are set aside.
		crash.At("history.begun")
		r.owner.step(stepBegun)
	}
	r.types[ev.Name] = t
	r.owner.publish(t)
	return nil
}

// mayBeginHere refuses a type whose history is lost: beginning it again would hide that.
func (r *reading) mayBeginHere(ctx context.Context, ev *schemas.Event, cut schemas.Cut, at schemas.Position) error {
	if at.Seq == 0 {
		return nil
	}
	fresh, err := r.owner.definesFirst(ctx, cut, ev.Name)
	if err != nil {
		return err
	}
	if !fresh || at != cut.Position {
		return &lostTableError{ev.Name, filepath.Join(r.owner.cfg.Root, ev.Name), at.Seq}
	}
	return nil
}

// A lostTableError says that a type's history is gone, or begins too late.
type lostTableError struct {
	name, dir string
	at        uint64
}

func (e *lostTableError) Error() string {
	return fmt.Sprintf("%s is defined, but its history is missing at %s while other types stand at %d: take the directory back from a backup, or run `watershed repair`, which says what the log still has of it",
		e.name, e.dir, e.at)
}

// definesFirst tells whether a type is new in a cut, so that its history may begin there. If the cut before
// was trimmed, all types of this one had begun by then: the log is not trimmed up to a cut before that.
func (a *Archiver) definesFirst(ctx context.Context, cut schemas.Cut, name string) (bool, error) {
	if cut.Anew > 0 {
		return true, nil // which types were defined before is not in the log any more
	}
	if cut.Previous.Seq == 0 {
		return false, nil // all its types begin with the log
	}
	source, before, err := a.cfg.Source(ctx, cut.Previous, name)
	if isTrimmed(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("the cut before cut %d: %w", cut.Number, err)
	}
	source.Close()
	return !slices.ContainsFunc(definedBy(before), func(ev *schemas.Event) bool { return ev.Name == name }), nil
}

// liesBefore tells whether a position belongs to the log that was there before it was begun anew.
func liesBefore(at schemas.Position, cut schemas.Cut) bool {
	return cut.Anew > 0 && at.Seq <= cut.Anew
}

// definedBy are the types that a cut's epoch has events of. Where an old and a new definition have one
// name, the new one counts.
func definedBy(cut schemas.Cut) []*schemas.Event {
	events := slices.Clone(cut.Definitions.Events)
	for _, ev := range cut.Retiring.Events {
		if cut.Definitions.Event(ev.Name) == nil {
			events = append(events, ev)
		}
	}
	slices.SortFunc(events, func(x, y *schemas.Event) int { return strings.Compare(x.Name, y.Name) })
	return events
}

// next waits for a chunk until something is due; then it returns none.
func next(ctx context.Context, source Source, due time.Time, waits bool) (*schemas.Chunk, error) {
	wait := ctx
	if waits {
		var cancel context.CancelFunc
		wait, cancel = context.WithDeadline(ctx, due)
		defer cancel()
	}
	chunk, err := source.Next(wait)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return nil, nil
	}
	return chunk, err
}

// take goes through the steps 2 and 5 with one chunk.
func (r *reading) take(ctx context.Context, chunk *schemas.Chunk) error {
	for _, name := range r.names() {
		if err := r.types[name].add(chunk, chunk.Last); err != nil {
			if err := r.failed(ctx, name, err, nil); err != nil {
				return err
			}
		}
	}
	crash.At("history.buffered")
	r.owner.step(stepBuffered)
	if chunk.Cut != nil {
		return r.cross(ctx, chunk.Cut)
	}
	return nil
}

// cross ends the epoch: when it returns, every type of the old and of the new definitions has a commit
// whose txn is the cut's position, or is set aside, and nothing is buffered.
func (r *reading) cross(ctx context.Context, cut *schemas.Cut) error {
	stays := map[string]bool{}
	for _, ev := range definedBy(*cut) {
		stays[ev.Name] = true
	}
	for _, name := range r.names() {
		t := r.types[name]
		if t.position.Seq < cut.Position.Seq {
			if err := t.commit(ctx, cut.Position, !stays[name]); err != nil {
				if err := r.failed(ctx, name, err, nil); err != nil {
					return err
				}
				continue
			}
		}
		if !stays[name] {
			t.reset()
			delete(r.types, name)
			if r.only == "" { // a lane may meet the cut at which it begins again
				r.owner.forget(name)
			}
		}
	}
	if err := r.endOthers(ctx, cut, stays); err != nil {
		return err
	}
	crash.At("history.cut-old")
	r.owner.step(stepCutTypes)
	if err := r.begin(ctx, *cut, cut.Position); err != nil {
		return err
	}
	crash.At("history.cut")
	r.owner.step(stepCut)
	return nil
}

// endOthers ends the types that a log begun anew does not define, and that took events of the log
// before it. No reading has them open: which definitions they had is not known any more.
func (r *reading) endOthers(ctx context.Context, cut *schemas.Cut, stays map[string]bool) error {
	if cut.Anew == 0 {
		return nil
	}
	logs, err := filepath.Glob(filepath.Join(r.owner.cfg.Root, "*", logDirName))
	if err != nil {
		return err
	}
	for _, dir := range logs {
		name := filepath.Base(filepath.Dir(dir))
		if stays[name] || !r.takes(name) {
			continue
		}
		p, ended, err := r.owner.recorded(ctx, name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (ended || p.Seq >= cut.Position.Seq) {
			continue
		}
		if err == nil {
			t := &archivedType{owner: r.owner, table: readOnly(filepath.Dir(dir)), position: p, buffer: &dateBuffers{}}
			if err = t.table.load(ctx); err == nil {
				// If we stop here, the types that have not ended yet end when the cut is met again.
				err = t.commit(ctx, cut.Position, true)
			}
			r.owner.forget(name)
		}
		if err != nil {
			if err := r.failed(ctx, name, err, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reading) names() []string {
	names := make([]string, 0, len(r.types))
	for name := range r.types {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// due is when the first type must commit, if nothing more comes.
func (r *reading) due() (first time.Time, ok bool) {
	for _, t := range r.types {
		if at, waits := t.due(); waits && (!ok || at.Before(first)) {
			first, ok = at, true
		}
	}
	return first, ok
}

// commitDue commits the types that are full or old, and the fullest while all together are too large.
func (r *reading) commitDue(ctx context.Context) error {
	now := time.Now()
	for _, name := range r.names() {
		t := r.types[name]
		at, waits := t.due()
		if t.buffer.rows >= r.owner.cfg.MaxRows || waits && !now.Before(at) {
			if err := r.commit(ctx, t); err != nil {
				return err
			}
		}
	}
	for {
		waiting, fullest := r.waiting()
		if waiting <= r.maxBytes {
			return nil
		}
		if err := r.commit(ctx, fullest); err != nil {
			return err
		}
	}
}

// commit commits what a type has seen.
func (r *reading) commit(ctx context.Context, t *archivedType) error {
	if err := t.commit(ctx, t.seen, false); err != nil {
		return r.failed(ctx, t.table.event.Name, err, nil)
	}
	return nil
}

// waiting is how many bytes all buffers have, and whose is the largest.
func (r *reading) waiting() (bytes int64, fullest *archivedType) {
	for _, t := range r.types {
		bytes += t.buffer.bytes
		if fullest == nil || t.buffer.bytes > fullest.buffer.bytes {
			fullest = t
		}
	}
	return bytes, fullest
}
