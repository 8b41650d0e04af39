package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"watershed/schemas"
)

// A Source is the log, read in order from a position on.
type Source interface {
	// Next returns the next chunk. It waits until there is one; when ctx ends first it returns an
	// error that is ctx.Err(), has consumed nothing, and may be called again.
	Next(ctx context.Context) (*schemas.Chunk, error)
	Close()
}

// DeadLetters keeps what does not fit its schema.
type DeadLetters interface {
	// DeadLetter returns nil when all are stored durably. The same reject may come again after a crash.
	DeadLetter(ctx context.Context, rejects []schemas.Reject) error
}

// ArchiverConfig says what an Archiver reads and writes.
type ArchiverConfig struct {
	Root string // directory of the tables
	App  string // names the log in the tables' txns: watershed/<stream>/<shard>

	// Source opens the log behind a position, and says which cut's definitions hold there: the newest
	// cut at or before it, or cut 1 if it lies before that.
	Source func(ctx context.Context, after schemas.Position) (Source, schemas.Cut, error)

	DeadLetters DeadLetters

	MaxRows  int64         // of one type that wait for a commit; 0: 1,000,000
	MaxBytes int64         // of all types that wait for a commit; 0: 256 MiB
	MaxAge   time.Duration // of the oldest event that waits for a commit; 0: 1 minute
}

// An Archiver copies the log into history, each event exactly once, whenever its process dies.
//
// Its whole memory of what it has done is the txn in the newest commit of each table: App is the
// sequence, App/hash the message's hash, up to which the table holds everything. A chunk goes these
// steps, and each commit is atomic:
//
//  1. Rejects go to the dead letters. No table has passed them yet: dying here only sends them again.
//  2. Rows are buffered by type and date. Dying here loses nothing: the log has them.
//  3. When a type is due, its files are written. Dying here leaves files that no commit names.
//  4. One commit adds the files and moves the txn. Before it, the type's rows are read from the log
//     again; after it, they are skipped.
//  5. At a cut, every type commits at the cut's position, tables of changed types are widened, and new
//     types begin there, before the next message is read. Dying halfway leaves types behind the cut; the log is read from the one that is
//     furthest behind, the others skip what they have, and the cut is met again.
type Archiver struct {
	cfg ArchiverConfig

	types    map[string]*archivedType // that events are taken of
	rejected uint64                   // rejects up to this sequence are in the dead letters
	waiting  int64                    // bytes of all buffers
	step     func(string)             // called between the steps; tests stop the archiver there

	mu        sync.Mutex // guards positions
	positions map[string]schemas.Position
}

// The steps at which a test may stop an archiver.
const (
	stepRejected = "dead letters stored"
	stepBuffered = "chunk buffered"
	stepFile     = "one file written"
	stepFiles    = "all files of a type written"
	stepCommit   = "type committed"
	stepCutTypes = "old types committed at the cut"
	stepBegun    = "one new type begun at the cut"
	stepWidened  = "one type's table widened at the cut"
	stepCut      = "cut done"
)

// NewArchiver checks the configuration. Nothing is read or written before Run.
func NewArchiver(cfg ArchiverConfig) (*Archiver, error) {
	if cfg.Root == "" || cfg.App == "" || cfg.Source == nil || cfg.DeadLetters == nil {
		return nil, errors.New("archiver: Root, App, Source and DeadLetters must be set")
	}
	if cfg.MaxRows == 0 {
		cfg.MaxRows = 1_000_000
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 256 << 20
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = time.Minute
	}
	return &Archiver{cfg: cfg, step: func(string) {}, positions: map[string]schemas.Position{}}, nil
}

// Positions are, by event type, the positions up to which the tables hold the log. It may be called
// while Run runs.
func (a *Archiver) Positions() map[string]schemas.Position {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]schemas.Position, len(a.positions))
	for name, p := range a.positions {
		out[name] = p
	}
	return out
}

// Run archives until ctx ends or something fails, and returns why. It may be called again: it goes on
// from what the tables say.
func (a *Archiver) Run(ctx context.Context) error {
	defer a.drop()
	a.drop()
	after, err := a.resume(ctx)
	if err != nil {
		return fmt.Errorf("archiver: %w", err)
	}
	source, cut, err := a.cfg.Source(ctx, after)
	if err != nil {
		return fmt.Errorf("archiver: open the log behind %d: %w", after.Seq, err)
	}
	defer source.Close()
	if err := a.begin(ctx, cut, after); err != nil {
		return fmt.Errorf("archiver: %w", err)
	}
	for {
		if err := a.turn(ctx, source); err != nil {
			return fmt.Errorf("archiver: %w", err)
		}
	}
}

// drop forgets everything that is not in the tables.
func (a *Archiver) drop() {
	for _, t := range a.types {
		t.reset()
	}
	a.types, a.waiting, a.rejected = map[string]*archivedType{}, 0, 0
}

// resume finds where to read on: behind the position of the type that is furthest behind. A type that
// ended, or that never began, does not count.
func (a *Archiver) resume(ctx context.Context) (schemas.Position, error) {
	logs, err := filepath.Glob(filepath.Join(a.cfg.Root, "*", logDirName))
	if err != nil {
		return schemas.Position{}, err
	}
	var first schemas.Position
	any := false
	for _, dir := range logs {
		p, ended, err := a.recorded(ctx, filepath.Dir(dir))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return schemas.Position{}, err
		}
		a.rejected = max(a.rejected, p.Seq)
		if !ended && (!any || p.Seq < first.Seq) {
			first, any = p, true
		}
	}
	return first, nil
}

// recorded is what a table says of our log; os.ErrNotExist if nothing.
func (a *Archiver) recorded(ctx context.Context, dir string) (p schemas.Position, ended bool, err error) {
	t := readOnly(dir)
	if err := t.load(ctx); err != nil {
		return p, false, err
	}
	seq, ok := t.state.txns[a.cfg.App]
	if !ok {
		return p, false, os.ErrNotExist
	}
	end, over := t.state.txns[a.cfg.App+endedSuffix]
	return schemas.Position{Seq: uint64(seq), Hash: uint64(t.state.txns[a.cfg.App+hashSuffix])}, over && end == seq, nil
}

// begin opens the tables of all types that a cut defines. One that has not begun yet begins at the
// position given.
func (a *Archiver) begin(ctx context.Context, cut schemas.Cut, at schemas.Position) error {
	for _, ev := range definedBy(cut) {
		if t := a.types[ev.Name]; t != nil {
			if err := t.redefine(ctx, ev); err != nil {
				return err
			}
			continue
		}
		t, err := a.openType(ctx, ev)
		if err != nil {
			return err
		}
		if !t.active && t.position.Seq <= at.Seq { // an ended type is ahead of us if we read old log again
			// A type begins at the cut that defines it, or with the log. Anywhere else its history has been
			// lost, and beginning here would hide that.
			if at.Seq != 0 && at != cut.Position {
				return fmt.Errorf("%s is defined, but its history is missing at %s while other types stand at %d: restore it, or start from an empty directory",
					ev.Name, filepath.Join(a.cfg.Root, ev.Name), at.Seq)
			}
			if err := t.commit(ctx, at, false); err != nil {
				return err
			}
			// If we stop here, the types that have not begun begin when the same position is met again: no
			// type goes on before all have begun.
			a.step(stepBegun)
		}
		a.types[ev.Name] = t
		a.publish(t)
	}
	return nil
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

// turn takes one chunk, or what became due while there was none.
func (a *Archiver) turn(ctx context.Context, source Source) error {
	chunk, err := a.next(ctx, source)
	if err != nil {
		return err
	}
	if chunk != nil {
		if err := a.take(ctx, chunk); err != nil {
			return err
		}
	}
	return a.commitDue(ctx)
}

// next waits for a chunk until something is due; then it returns none.
func (a *Archiver) next(ctx context.Context, source Source) (*schemas.Chunk, error) {
	wait := ctx
	if due, ok := a.due(); ok {
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

// take goes through the steps 1, 2 and 5 with one chunk.
func (a *Archiver) take(ctx context.Context, chunk *schemas.Chunk) error {
	fresh := chunk.Rejects[:0:0]
	for _, r := range chunk.Rejects {
		if r.Seq > a.rejected {
			fresh = append(fresh, r)
		}
	}
	if len(fresh) > 0 {
		if err := a.cfg.DeadLetters.DeadLetter(ctx, fresh); err != nil {
			return fmt.Errorf("dead letters of %d to %d: %w", fresh[0].Seq, fresh[len(fresh)-1].Seq, err)
		}
		a.step(stepRejected)
	}
	for _, t := range a.types {
		if err := t.add(chunk); err != nil {
			return err
		}
	}
	a.step(stepBuffered)
	if chunk.Cut != nil {
		return a.cross(ctx, chunk.Cut)
	}
	return nil
}

// cross ends the epoch: when it returns, every type of the old and of the new definitions has a commit
// whose txn is the cut's position, and nothing is buffered.
func (a *Archiver) cross(ctx context.Context, cut *schemas.Cut) error {
	stays := map[string]bool{}
	for _, ev := range definedBy(*cut) {
		stays[ev.Name] = true
	}
	for _, name := range a.names() {
		t := a.types[name]
		if t.position.Seq < cut.Position.Seq {
			if err := t.commit(ctx, cut.Position, !stays[name]); err != nil {
				return err
			}
		}
		if !stays[name] {
			t.reset()
			delete(a.types, name)
			a.forget(name)
		}
	}
	a.step(stepCutTypes)
	if err := a.begin(ctx, *cut, cut.Position); err != nil {
		return err
	}
	a.step(stepCut)
	return nil
}

func (a *Archiver) names() []string {
	names := make([]string, 0, len(a.types))
	for name := range a.types {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (a *Archiver) publish(t *archivedType) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.positions[t.table.event.Name] = t.position
}

func (a *Archiver) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.positions, name)
}
