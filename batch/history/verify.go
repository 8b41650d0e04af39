package history

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/internal/durable"
	"watershed/schemas"
)

// A ProblemKind says what is wrong.
type ProblemKind string

// The kinds of problems. The last four are found by VerifyLog.
const (
	ProblemLog     ProblemKind = "log"           // of a table: damaged, or with a hole
	ProblemMissing ProblemKind = "missing"       // a live file is not there
	ProblemBytes   ProblemKind = "bytes"         // a live file is not what was committed
	ProblemRows    ProblemKind = "rows"          // its rows are not those that its commit says
	ProblemLost    ProblemKind = "event missing" // the log has events that history lacks
	ProblemUnknown ProblemKind = "event unknown" // history has events that the log does not
	ProblemDiffers ProblemKind = "event differs" // an event is another one in history
	ProblemTwice   ProblemKind = "event twice"   // an event of the log is in history more than once
)

// A Problem is something in history that is not as it was committed, or as the log has it.
type Problem struct {
	Type  string // the event type
	Path  string // the file, or the table's log
	Kind  ProblemKind
	Where string // date, version or sequences in the log
	Rows  int64  // how many events it is about
	Err   error

	file    File  // of missing, bytes and rows
	version int64 // of log: the commit
}

func (p Problem) String() string {
	s := fmt.Sprintf("%s: %s: %s", p.Type, p.Path, p.Kind)
	if p.Where != "" {
		s += " at " + p.Where
	}
	if p.Rows > 0 {
		s += fmt.Sprintf(", %d events", p.Rows)
	}
	return fmt.Sprintf("%s: %v", s, p.Err)
}

// A Stray is a file that no version of a table names. It does no harm: a process died before its commit,
// or has not come to it yet.
type Stray struct {
	Type  string
	Path  string
	Bytes int64
}

// A VerifyReport is what Verify read.
type VerifyReport struct {
	Types    int
	Files    int
	Rows     int64
	Bytes    int64
	Strays   []Stray
	Problems []Problem
	GivenUp  []Loss // by repairs, and not brought back since: no problems, since somebody accepted it
}

// Verify reads all of history again. Of every table's log: that all commits which are there can be read,
// have no hole between them, lead to what the checkpoints say, and that positions only ascend. Of every
// live file: that its hash is the one committed, that its pages decode, and that its rows, their dates and
// their sequences are those that the commit says. An error means that it could not be done, not that
// something is wrong: that is in the report.
func Verify(ctx context.Context, root string) (VerifyReport, error) {
	var r VerifyReport
	logs, err := filepath.Glob(filepath.Join(root, "*", logDirName))
	if err != nil {
		return r, fmt.Errorf("verify %s: %w", root, err)
	}
	for _, dir := range logs {
		t := readOnly(filepath.Dir(dir))
		err := t.load(ctx)
		if begun, dateErr := t.begun(); dateErr == nil && !begun && errors.Is(err, fs.ErrNotExist) {
			continue // somebody died, or found the disk full, before the table's first commit
		}
		r.Types++
		problems := t.verifyLog(ctx, err)
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		r.Problems = append(r.Problems, problems...)
		if err != nil {
			continue
		}
		r.GivenUp = append(r.GivenUp, t.losses()...)
		if err := t.verifyFiles(ctx, &r); err != nil {
			return r, fmt.Errorf("verify %s: %w", t.dir, err)
		}
	}
	return r, nil
}

// begun tells whether anything was ever put into the table.
func (t *Table) begun() (bool, error) {
	names, err := t.logNames()
	if err != nil || len(names) > 0 {
		return true, err
	}
	dates, err := filepath.Glob(filepath.Join(t.dir, dateColumn+"=*"))
	return len(dates) > 0, err
}

// verifyLog replays the commits that are there. loading is why the table could not be read.
func (t *Table) verifyLog(ctx context.Context, loading error) []Problem {
	var out []Problem
	bad := func(version int64, err error) {
		out = append(out, Problem{Type: t.event.Name, Path: t.commitPath(version), Kind: ProblemLog, version: version,
			Where: fmt.Sprintf("version %d", version), Err: err})
	}
	names, err := t.logNames()
	if err != nil || len(names) == 0 {
		return append(out, Problem{Type: t.event.Name, Path: t.logDir(), Kind: ProblemLog, Where: "all versions", Err: errors.Join(err, loading)})
	}
	s, next := newState(), int64(-1)
	known := names[0].version == 0 // s is complete: all commits before were read
	for _, n := range names {
		if ctx.Err() != nil {
			return out
		}
		if n.checkpoint {
			c, err := t.readCheckpoint(n.version)
			switch {
			case err != nil:
				out = append(out, Problem{Type: t.event.Name, Path: t.checkpointPath(n.version), Kind: ProblemLog, version: n.version,
					Where: fmt.Sprintf("checkpoint %d", n.version), Err: err})
			case known && !sameFiles(c, s):
				bad(n.version, errors.New("the checkpoint says something else than the commits before it"))
			case !known:
				s, known = c, true
			}
			continue
		}
		if next >= 0 && n.version > next {
			bad(next, fmt.Errorf("commits %d to %d are missing", next, n.version-1))
			known = false
		}
		next = n.version + 1
		actions, err := t.readCommit(n.version)
		if err != nil {
			bad(n.version, err)
			known = false
			continue
		}
		for _, a := range actions {
			if a.Txn != nil && ascends(a.Txn.AppID) && a.Txn.Version < s.txns[a.Txn.AppID] {
				bad(n.version, fmt.Errorf("%s goes back from %d to %d", a.Txn.AppID, s.txns[a.Txn.AppID], a.Txn.Version))
			}
		}
		if err := s.apply(n.version, actions); err != nil {
			bad(n.version, err)
		}
	}
	if loading != nil && len(out) == 0 {
		out = append(out, Problem{Type: t.event.Name, Path: t.logDir(), Kind: ProblemLog, Where: "all versions", Err: loading})
	}
	return out
}

// ascends tells whether a txn is a position, which only grows.
func ascends(app string) bool {
	return strings.HasPrefix(app, "watershed/") && !strings.HasSuffix(app, hashSuffix) && !strings.Contains(app, asideInfix)
}

// sameFiles tells whether a checkpoint has the files that the commits lead to.
func sameFiles(checkpoint, s *state) bool {
	for name := range checkpoint.files {
		if _, ok := s.files[name]; !ok {
			return false
		}
	}
	return len(checkpoint.files) == len(s.files)
}

// verifyFiles holds the live files against their commits, and looks for those that nobody names.
func (t *Table) verifyFiles(ctx context.Context, r *VerifyReport) error {
	ev, err := t.definition()
	if err != nil {
		r.Problems = append(r.Problems, Problem{Type: t.event.Name, Path: t.logDir(), Kind: ProblemLog, Where: "schema", Err: err})
		ev = t.event
	}
	typed := &Table{dir: t.dir, event: ev, now: t.now}
	for _, f := range t.state.snapshot().Files {
		kind, err := typed.verifyFile(ctx, f)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.Problems = append(r.Problems, Problem{Type: t.event.Name, Path: t.onDisk(f), Kind: kind, Where: formatDate(f.Date), Rows: f.Rows, Err: err, file: f})
		}
		r.Files++
		r.Rows += f.Rows
		r.Bytes += f.Size
	}
	dirs, err := filepath.Glob(filepath.Join(t.dir, dateColumn+"=*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := path.Join(filepath.Base(dir), e.Name())
			_, live := t.state.files[name]
			_, removed := t.state.removed[name]
			info, err := e.Info()
			if live || removed || durable.IsTemp(e.Name()) || err != nil {
				continue
			}
			r.Strays = append(r.Strays, Stray{t.event.Name, filepath.Join(dir, e.Name()), info.Size()})
		}
	}
	return nil
}

// verifyFile says what is wrong with a live file.
func (t *Table) verifyFile(ctx context.Context, f File) (ProblemKind, error) {
	sum, n, err := hashFile(t.onDisk(f))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ProblemMissing, err
	case err != nil:
		return ProblemBytes, err
	case n != f.Size:
		return ProblemBytes, fmt.Errorf("%d bytes, not the %d committed", n, f.Size)
	case sum != f.SHA256:
		return ProblemBytes, errors.New("its hash is not the one committed")
	}
	columns := []string{schemas.SeqColumn, schemas.RowColumn}
	timed := t.event.Time != ""
	if timed {
		columns = append(columns, t.event.Time)
	}
	rows, lo, hi, strangers := int64(0), uint64(math.MaxInt64), uint64(0), 0
	err = t.Scan(ctx, f, columns, func(rec arrow.Record) error {
		rows += rec.NumRows()
		for _, seq := range rec.Column(0).(*array.Int64).Int64Values() {
			lo, hi = min(lo, uint64(seq)), max(hi, uint64(seq))
		}
		if timed {
			for _, at := range rec.Column(2).(*array.Timestamp).TimestampValues() {
				if dateOf(int64(at)) != f.Date {
					strangers++
				}
			}
		}
		return nil
	})
	switch {
	case err != nil:
	case rows != f.Rows:
		err = fmt.Errorf("%d rows, not the %d committed", rows, f.Rows)
	case rows > 0 && (lo != f.MinSeq || hi != f.MaxSeq):
		err = fmt.Errorf("messages %d to %d, not the %d to %d committed", lo, hi, f.MinSeq, f.MaxSeq)
	case strangers > 0:
		err = fmt.Errorf("%d rows are of another date", strangers)
	}
	return ProblemRows, err
}

// hashFile is a file's SHA-256 in hex, and its size.
func hashFile(name string) (string, int64, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	return hex.EncodeToString(sum.Sum(nil)), n, err
}

// definition is the table's definition as its log has it: all fields that any event there has.
func (t *Table) definition() (*schemas.Event, error) {
	var columns deltaStruct
	if err := json.Unmarshal([]byte(t.state.meta.SchemaString), &columns); err != nil {
		return nil, err
	}
	ev := &schemas.Event{Name: t.event.Name, ID: t.state.meta.Configuration[configID], Time: t.state.meta.Configuration[configTime]}
	for _, c := range columns.Fields {
		if isOurs(c.Name) {
			continue
		}
		typ, err := typeOf(c.Type)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		ev.Fields = append(ev.Fields, schemas.Field{Name: c.Name, Type: typ, Optional: c.Nullable})
	}
	if ev.Field(ev.ID) == nil || ev.Field(ev.Time) == nil {
		return nil, fmt.Errorf("the columns have no id %q or no time %q", ev.ID, ev.Time)
	}
	return ev, nil
}

// typeOf is the field type of a Delta type.
func typeOf(delta string) (schemas.Type, error) {
	for k := schemas.String; k <= schemas.Date; k++ {
		if t := (schemas.Type{Kind: k}); k != schemas.Decimal && t.Delta() == delta {
			return t, nil
		}
	}
	t := schemas.Type{Kind: schemas.Decimal}
	if _, err := fmt.Sscanf(delta, "decimal(%d,%d)", &t.Precision, &t.Scale); err != nil || t.Delta() != delta {
		return t, fmt.Errorf("%q is no type that a field has", delta)
	}
	return t, nil
}
