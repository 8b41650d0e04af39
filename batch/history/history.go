// Package history keeps all events for ever, in one Delta Lake table per event type: Parquet files
// partitioned by the UTC date of the event time, and a log of the commits that added and removed them.
// Any engine that reads Delta Lake reads them too.
//
// # Format
//
// A table is a directory <root>/<type> with data files _date=YYYY-MM-DD/<uuid>.parquet and the log
// _delta_log/<20 digits>.json, one JSON action a line, Delta protocol reader 1, writer 2. Every hundredth
// version also leaves a checkpoint in Parquet and its number in _last_checkpoint. Data files hold the
// declared fields, _seq and _row; the date is in the log and the path only.
//
// # Invariants
//
//   - A data file is whole and durable before a commit names it; it never changes afterwards.
//   - A commit is a file put at exactly the version after the one that its writer had read, unless the
//     name is taken. Whoever loses the race reads the winner's commit, checks again that what it wants
//     to do still makes sense, and tries the next version. So any number of processes may write.
//   - Columns are only added, as optional ones, and required ones only become optional. What an older
//     file lacks is null.
//   - What a loop has archived is recorded in the commit that archives it, as a Delta txn. There is no
//     second place to keep in step, and an event of the log is in history exactly once.
package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/google/uuid"

	"watershed/internal/durable"
	"watershed/schemas"
)

// ErrNoSnapshot says that the table has no commit yet at the position asked for.
var ErrNoSnapshot = errors.New("history has not reached that position")

// A CorruptError says that a file of history is not what was once committed. It is never healed by
// trying again.
type CorruptError struct {
	Path string // of the file
	Err  error
}

func (e *CorruptError) Error() string { return fmt.Sprintf("corrupt file %s: %v", e.Path, e.Err) }
func (e *CorruptError) Unwrap() error { return e.Err }

// A Table is the history of one event type. It is safe for concurrent use, and other processes may
// commit to the same directory at the same time.
type Table struct {
	dir   string
	event *schemas.Event
	now   func() time.Time

	encoders sync.Pool // of *fileEncoder

	mu    sync.Mutex // guards what follows
	state *state     // the newest version read
	marks []mark     // txns of the commits read one by one, oldest first
}

// A mark is a txn and the version whose own commit carries it.
type mark struct {
	app     string
	value   int64
	version int64
}

// Open opens the table of an event type below root and creates it if it is absent. A table that was
// created for another definition of the type is widened if that is possible: the definition may add
// optional fields and make required ones optional. It may also be an older one, that lacks optional
// fields of the table: rows written by it have nulls there. Any other is a *MismatchError.
func Open(ctx context.Context, root string, ev *schemas.Event) (*Table, error) {
	t := &Table{dir: filepath.Join(root, ev.Name), event: ev, now: time.Now}
	err := durable.MkdirAll(t.logDir())
	if err == nil {
		err = t.loadOrCreate(ctx)
	}
	if err == nil {
		err = t.widen(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open history of %s: %w", ev.Name, err)
	}
	return t, nil
}

func (t *Table) loadOrCreate(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.load(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		err = t.create(ctx)
	}
	return err
}

// readOnly is a table whose definition is not known: good for what the log says.
func readOnly(dir string) *Table {
	return &Table{dir: dir, event: &schemas.Event{Name: filepath.Base(dir)}, now: time.Now}
}

// Exists tells whether root has a table of that event type.
func Exists(root, eventType string) (bool, error) {
	names, err := readOnly(filepath.Join(root, eventType)).logNames()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(names) > 0, err
}

// Event is the definition that the table was opened with.
func (t *Table) Event() *schemas.Event { return t.event }

// Dir is the table's directory, which is what other engines are pointed at.
func (t *Table) Dir() string { return t.dir }

func (t *Table) logDir() string { return filepath.Join(t.dir, logDirName) }

// create puts version 0. Of several creators one wins; the others read what it put.
func (t *Table) create(ctx context.Context) error {
	schema, err := deltaSchema(t.event)
	if err != nil {
		return err
	}
	now := t.now().UnixMilli()
	actions := []action{
		{CommitInfo: newCommitInfo("CREATE TABLE", now)},
		{Protocol: &protocol{MinReaderVersion: 1, MinWriterVersion: 2}},
		{MetaData: &metaData{
			ID:               uuid.NewString(),
			Format:           fileFormat{Provider: "parquet", Options: map[string]string{}},
			SchemaString:     schema,
			PartitionColumns: []string{dateColumn},
			Configuration:    map[string]string{configID: t.event.ID, configTime: t.event.Time},
			CreatedTime:      now,
		}},
	}
	err = t.put(0, actions)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// If we stop here, the table exists and is empty: the next Open reads it.
	return t.load(ctx)
}

// A Snapshot is one version of a table: the files that it consists of.
type Snapshot struct {
	Version int64
	Files   []File           // sorted by date, then path
	Txns    map[string]int64 // by app id: the newest version recorded
}

// Rows is the number of rows of all files.
func (s *Snapshot) Rows() int64 {
	var n int64
	for _, f := range s.Files {
		n += f.Rows
	}
	return n
}

// A File is one immutable Parquet file of a table, all of whose rows lie on one date.
type File struct {
	Path    string // relative to the table's directory, not encoded
	Date    int32  // days since 1970-01-01
	Size    int64  // bytes
	Rows    int64
	SHA256  string // of the file's bytes, hex
	Content string // names the set of events in the file; see the function Content
	Unique  bool   // no identity occurs twice within the file
	Import  bool   // its rows came by an import, not through the log

	// Distinct is an id, or empty: all files of a date in one version that bear the same id hold no
	// identity twice, neither within one nor in two of them.
	Distinct string

	// AsOf is the version of the table whose rows a compaction brought together in the file: it holds
	// nothing that was not there already. 0: no compaction wrote the file.
	AsOf int64
	// Duplicates is how many rows of the date compactions have left out in all. One of a compaction's files
	// says it.
	Duplicates int64

	MinSeq uint64 // smallest and largest _seq; 0 for imports
	MaxSeq uint64

	source  string                // of an imported file: the txn of its import
	columns unique.Handle[string] // the file's, sorted, each followed by a comma; zero: not known
}

// Origin names where the rows of the file came from: empty for the log, else an import. Files of one
// origin have no two rows with equal places.
func (f File) Origin() string {
	if f.Import && f.source == "" { // of an import before they were named
		return "file/" + f.Path
	}
	return f.source
}

// Snapshot returns the newest version. Only commits that were not read before are read.
func (t *Table) Snapshot(ctx context.Context) (*Snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.refresh(ctx); err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", t.event.Name, err)
	}
	return t.state.snapshot(), nil
}

// SnapshotAt returns the version whose own commit carries the txn app = position, whatever was committed
// after it: the history of the log up to exactly that position, and of the imports that came before that
// commit. The error is ErrNoSnapshot if there is none, or not yet.
func (t *Table) SnapshotAt(ctx context.Context, app string, position uint64) (*Snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.refresh(ctx); err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", t.event.Name, err)
	}
	version, err := t.find(ctx, app, int64(position))
	if err != nil {
		return nil, fmt.Errorf("snapshot of %s at %s = %d: %w", t.event.Name, app, position, err)
	}
	// Its writer may have linked the commit and not yet synced the name. Whoever builds on this snapshot
	// must not see it vanish in a power cut.
	if err := durable.SyncDir(t.logDir()); err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", t.event.Name, err)
	}
	if version == t.state.version {
		return t.state.snapshot(), nil
	}
	s, err := t.replay(ctx, version)
	if err != nil {
		return nil, fmt.Errorf("snapshot of %s at version %d: %w", t.event.Name, version, err)
	}
	return s.snapshot(), nil
}

// find returns the version whose own commit carries that txn. A position only grows from commit to
// commit, so the search goes backwards until it is passed.
func (t *Table) find(ctx context.Context, app string, value int64) (int64, error) {
	if newest, ok := t.state.txns[app]; !ok || newest < value {
		return 0, ErrNoSnapshot
	}
	oldest := t.state.version + 1 // of the versions that the marks cover
	if len(t.marks) > 0 {
		oldest = t.marks[0].version
	}
	for _, m := range slices.Backward(t.marks) {
		if m.app == app && m.value <= value {
			return matchMark(m, value)
		}
	}
	for v := oldest - 1; v >= 0; v-- {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		actions, err := t.readCommit(v)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, ErrNoSnapshot // vacuum took it away: nobody keeps that position
		}
		if err != nil {
			return 0, err
		}
		for _, a := range actions {
			if a.Txn != nil && a.Txn.AppID == app && a.Txn.Version <= value {
				return matchMark(mark{app, a.Txn.Version, v}, value)
			}
		}
	}
	return 0, ErrNoSnapshot
}

func matchMark(m mark, value int64) (int64, error) {
	if m.value != value {
		return 0, ErrNoSnapshot
	}
	return m.version, nil
}
