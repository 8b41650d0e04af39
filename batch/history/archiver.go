package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"watershed/internal/crash"
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

// An OpenSource opens the log behind a position, and says which cut's definitions hold there: the newest
// cut at or before it, or the oldest in the log if it lies before that. Of a log that was begun anew
// behind the position, that is the cut that it begins with. If types are named, only their events are
// decoded; all messages are passed all the same.
type OpenSource = func(ctx context.Context, after schemas.Position, types ...string) (Source, schemas.Cut, error)

// ArchiverConfig says what an Archiver reads and writes.
type ArchiverConfig struct {
	Root string // directory of the tables
	App  string // names the log in the tables' txns: watershed/<stream>/<shard>

	Source      OpenSource
	DeadLetters DeadLetters

	MaxRows  int64         // of one type that wait for a commit; 0: 1,000,000
	MaxBytes int64         // of all types that wait for a commit; 0: 256 MiB
	MaxAge   time.Duration // of the oldest event that waits for a commit; 0: 1 minute

	Log *slog.Logger // types that are set aside, and that are back; nil: nothing is logged
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
//     types begin there, before the next message is read. Dying halfway leaves types behind the cut; the
//     log is read from the one that is furthest behind, the others skip what they have, and the cut is
//     met again.
//
// A type whose table fails (a damaged log, no permission, a full disk) is set aside, what it has
// buffered is dropped, and the others go on. It is tried again with growing pauses, reading the log on
// its own from what its table says, and joins the others when it is level with them.
//
// A log that was begun anew starts with a cut that says so: every type that stands at or before
// Cut.Anew commits at that cut, whatever lay between is not in the log any more.
type Archiver struct {
	cfg   ArchiverConfig
	pause pauses
	step  func(string) // called between the steps; tests stop the archiver there

	turn     sync.Mutex // held while a chunk is taken: types join between two. Guards what follows.
	main     *reading
	at       schemas.Position // of the last message taken
	defined  map[string]bool  // the types that hold there
	rejected uint64           // rejects up to this sequence are in the dead letters

	mu        sync.Mutex       // guards what follows
	begun     bool             // positions are those of all types
	reached   schemas.Position // up to here the log has been read for all types that are not set aside
	positions map[string]schemas.Position
	aside     map[string]*aside
	wake      chan struct{} // holds a token when a type was set aside
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
	stepAside    = "one type set aside"
	stepLevel    = "a type that was set aside is level"
)

// NewArchiver checks the configuration. Nothing is read or written before Run.
func NewArchiver(cfg ArchiverConfig) (*Archiver, error) {
	if cfg.Root == "" || cfg.App == "" || cfg.Source == nil || cfg.DeadLetters == nil {
		return nil, errors.New("archiver: Root, App, Source and DeadLetters must be set")
	}
	cfg.MaxRows = cmp.Or(cfg.MaxRows, 1_000_000)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 256<<20)
	cfg.MaxAge = cmp.Or(cfg.MaxAge, time.Minute)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	return &Archiver{
		cfg: cfg, pause: defaultPauses, step: func(string) {},
		positions: map[string]schemas.Position{}, aside: map[string]*aside{}, wake: make(chan struct{}, 1),
	}, nil
}

// Positions are, by event type, the positions up to which the tables hold the log: what lies behind the
// first of them must stay in it. A type whose table cannot be read has the zero Position. It is nil until
// all types are known, and may be called while Run runs.
func (a *Archiver) Positions() map[string]schemas.Position {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.begun {
		return nil
	}
	out := maps.Clone(a.positions)
	for name, p := range out {
		// One that is ahead needs no more, but what we read from there on may be the beginning of another.
		if p.Seq > a.reached.Seq {
			out[name] = a.reached
		}
	}
	return out
}

// Run archives until ctx ends or something fails that concerns all types (the log, the dead letters,
// another archiver of the same log), and returns why. It may be called again: it goes on from what the
// tables say.
func (a *Archiver) Run(ctx context.Context) error {
	a.drop()
	a.mu.Lock()
	clear(a.aside)
	a.mu.Unlock()
	defer a.drop()
	source, cut, err := a.open(ctx)
	if err != nil {
		return fmt.Errorf("archiver: %w", err)
	}
	defer source.Close()
	if err := a.main.begin(ctx, cut, a.at); err != nil {
		return fmt.Errorf("archiver: %w", err)
	}
	a.ready(cut)
	ctx, join := a.goRetry(ctx)
	defer join()
	for {
		if err := a.next(ctx, source); err != nil {
			return fmt.Errorf("archiver: %w", a.explain(err))
		}
	}
}

// drop forgets everything that is not in the tables.
func (a *Archiver) drop() {
	if a.main != nil {
		a.main.drop()
	}
	a.main = &reading{owner: a, types: map[string]*archivedType{}, maxBytes: a.cfg.MaxBytes}
	a.at, a.rejected = schemas.Position{}, 0
}

// open finds where to read on, behind the position of the type that is furthest behind, and opens the
// log there. A type that ended, or that never began, does not count; one whose table cannot be read, or
// whose position was trimmed while others' were not, is set aside.
func (a *Archiver) open(ctx context.Context) (Source, schemas.Cut, error) {
	stands, err := a.resume(ctx)
	if err != nil {
		return nil, schemas.Cut{}, err
	}
	if failing := a.Failing(); len(stands) == 0 && len(failing) > 0 {
		return nil, schemas.Cut{}, fmt.Errorf("no table can be read: %w", errors.Join(slices.Collect(maps.Values(failing))...))
	}
	for {
		first, any := schemas.Position{}, false
		for _, p := range stands {
			if !any || p.Seq < first.Seq {
				first, any = p, true
			}
		}
		source, cut, err := a.cfg.Source(ctx, first)
		if err != nil {
			err = a.explain(fmt.Errorf("open the log behind %d: %w", first.Seq, err))
			behind := len(stands)
			for name, p := range stands {
				if isTrimmed(err) && p == first {
					a.setAside(name, err, &p)
					delete(stands, name)
				}
			}
			if len(stands) > 0 && len(stands) < behind {
				continue
			}
			return nil, cut, err
		}
		if first.Seq == 0 && cut.Number > 1 && cut.Anew == 0 {
			source.Close()
			return nil, cut, fmt.Errorf("%s holds nothing of a log that was trimmed and begins with cut %d: restore history, then run `watershed repair`", a.cfg.Root, cut.Number)
		}
		a.reach(first)
		return source, cut, nil
	}
}

// resume returns where the types stand that take events. Those whose tables cannot be read, and those that
// other tables say were set aside and that do not take events, are set aside.
func (a *Archiver) resume(ctx context.Context) (map[string]schemas.Position, error) {
	logs, err := filepath.Glob(filepath.Join(a.cfg.Root, "*", logDirName))
	if err != nil {
		return nil, err
	}
	stands, noted := map[string]schemas.Position{}, map[string]schemas.Position{}
	failed := map[string]error{}
	for _, dir := range logs {
		name := filepath.Base(filepath.Dir(dir))
		t := readOnly(filepath.Dir(dir))
		err := t.load(ctx)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil && isolated(ctx, err):
			failed[name] = err
			continue
		case err != nil:
			return nil, err
		}
		for other, from := range a.noted(t.state.txns) {
			if have, ok := noted[other]; !ok || from.Seq > have.Seq {
				noted[other] = from
			}
		}
		p, begun, ended := a.stands(t)
		a.rejected = max(a.rejected, p.Seq)
		if begun && !ended {
			stands[name] = p
		}
	}
	for name := range noted {
		if _, there := stands[name]; !there && failed[name] == nil {
			failed[name] = errors.New("it was set aside before this start")
		}
	}
	for name, err := range failed {
		var from *schemas.Position
		if at, ok := noted[name]; ok {
			from = &at
		}
		a.setAside(name, err, from)
	}
	return stands, nil
}

// recorded is what a type's table says of our log; fs.ErrNotExist if nothing.
func (a *Archiver) recorded(ctx context.Context, name string) (p schemas.Position, ended bool, err error) {
	t := readOnly(filepath.Join(a.cfg.Root, name))
	if err := t.load(ctx); err != nil {
		return p, false, err
	}
	p, begun, ended := a.stands(t)
	if !begun {
		return p, false, fs.ErrNotExist
	}
	return p, ended, nil
}

// stands is what a table that was read says of our log.
func (a *Archiver) stands(t *Table) (p schemas.Position, begun, ended bool) {
	txns := t.state.txns
	seq, begun := txns[a.cfg.App]
	end, over := txns[a.cfg.App+endedSuffix]
	return schemas.Position{Seq: uint64(seq), Hash: uint64(txns[a.cfg.App+hashSuffix])}, begun, over && end == seq
}

// next takes one chunk, or what became due while there was none.
func (a *Archiver) next(ctx context.Context, source Source) error {
	a.turn.Lock()
	due, waits := a.main.due()
	a.turn.Unlock()
	chunk, err := next(ctx, source, due, waits)
	if err != nil {
		return err
	}
	a.turn.Lock()
	defer a.turn.Unlock()
	if chunk != nil {
		if err := a.letters(ctx, chunk); err != nil {
			return err
		}
		if err := a.main.take(ctx, chunk); err != nil {
			return err
		}
		a.reach(chunk.Last)
		if chunk.Cut != nil {
			a.define(*chunk.Cut)
		}
	}
	return a.main.commitDue(ctx)
}

// letters stores a chunk's rejects. Whatever type they are of, no table passes them before that.
func (a *Archiver) letters(ctx context.Context, chunk *schemas.Chunk) error {
	fresh := chunk.Rejects[:0:0]
	for _, r := range chunk.Rejects {
		if r.Seq > a.rejected {
			fresh = append(fresh, r)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := a.cfg.DeadLetters.DeadLetter(ctx, fresh); err != nil {
		return fmt.Errorf("dead letters of %d to %d: %w", fresh[0].Seq, fresh[len(fresh)-1].Seq, err)
	}
	crash.At("history.rejected")
	a.step(stepRejected)
	return nil
}

// reach notes how far the log has been read.
func (a *Archiver) reach(at schemas.Position) {
	a.at = at
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reached = at
}

func (a *Archiver) define(cut schemas.Cut) {
	a.defined = map[string]bool{}
	for _, ev := range definedBy(cut) {
		a.defined[ev.Name] = true
	}
}

// ready makes the positions known: they are those of all types now.
func (a *Archiver) ready(cut schemas.Cut) {
	a.define(cut)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun = true
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

// isTrimmed tells whether a position lies before what the log still has.
func isTrimmed(err error) bool {
	var gone interface{ Trimmed() bool }
	return errors.As(err, &gone) && gone.Trimmed()
}

// explain adds what heals an error to it.
func (a *Archiver) explain(err error) error {
	if isTrimmed(err) {
		return fmt.Errorf("the log was trimmed before its events were in %s; run `watershed repair`, which says what can be saved: %w", a.cfg.Root, err)
	}
	return err
}
