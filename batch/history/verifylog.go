package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
	"watershed/schemas/identity"
)

// A LogReport is what VerifyLog compared.
type LogReport struct {
	From, To uint64 // sequences of the log that were compared
	Events   int64
	LeftOut  int64 // of them: duplicates that compactions have left out, whose first is in history
	Problems []Problem
}

// windowRows is how many events of the log are held against history at once.
const windowRows = 1 << 20

// VerifyLog holds the part of the log that is still there against history, up to what each type has
// archived: every event of the log must be there exactly once, with all its values, and nothing else may
// be there with sequences of that part. Only a duplicate may be missing, if a compacted file of the log's
// events has one of the same identity that stands before it. The log named by app is read from its beginning. An error means
// that it could not be done.
func VerifyLog(ctx context.Context, root, app string, source OpenSource) (LogReport, error) {
	v := &logVerifier{app: app, root: root, hasher: newRowHasher(), tables: map[string]*Table{}}
	if err := v.run(ctx, source); err != nil {
		return v.report, fmt.Errorf("verify the log against %s: %w", root, err)
	}
	return v.report, nil
}

// A place is a row of a message.
type place struct {
	seq uint64
	row int32
}

// A logged is an event of the log.
type logged struct {
	hash  uint64
	print identity.Fingerprint // of its identity, if its type's table has compacted files
	date  int32
}

type logVerifier struct {
	app    string
	root   string
	hasher *rowHasher
	tables map[string]*Table // that archived this log and can be read
	report LogReport

	from   uint64                      // the window begins behind it
	window map[string]map[place]logged // by type: each event of the log
	rows   int
}

func (v *logVerifier) run(ctx context.Context, open OpenSource) error {
	end, err := v.load(ctx)
	if err != nil || end == 0 {
		return err
	}
	source, _, err := open(ctx, schemas.Position{})
	if err != nil {
		return err
	}
	defer source.Close()
	v.window = map[string]map[place]logged{}
	for first := true; v.report.To < end; first = false {
		chunk, err := source.Next(ctx)
		if err != nil {
			return err
		}
		if first && chunk.Cut != nil && chunk.BeforeCut.Seq <= chunk.After.Seq {
			v.from = chunk.Last.Seq // it begins with a cut, and what lies before is gone
		}
		if first {
			v.report.From = v.from + 1
		}
		if err := v.take(chunk); err != nil {
			return err
		}
		v.report.To = min(chunk.Last.Seq, end)
		if v.rows >= windowRows || v.report.To == end {
			if err := v.compare(ctx, v.report.To); err != nil {
				return err
			}
		}
	}
	return nil
}

// load reads the tables that archived this log. It returns how far the furthest did.
func (v *logVerifier) load(ctx context.Context) (end uint64, err error) {
	logs, err := filepath.Glob(filepath.Join(v.root, "*", logDirName))
	if err != nil {
		return 0, err
	}
	for _, dir := range logs {
		t := readOnly(filepath.Dir(dir))
		err := t.load(ctx)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err == nil {
			t.event, err = t.definition()
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			v.problem(filepath.Base(filepath.Dir(dir)), ProblemLog, dir, "all versions", 0, err)
			continue
		}
		if at, ok := t.state.txns[v.app]; ok {
			v.tables[t.event.Name] = t
			end = max(end, uint64(at))
		}
	}
	return end, nil
}

func (v *logVerifier) archived(t *Table) uint64 { return uint64(t.state.txns[v.app]) }

func (v *logVerifier) problem(typ string, kind ProblemKind, path, where string, rows int64, err error) {
	v.report.Problems = append(v.report.Problems, Problem{Type: typ, Path: path, Kind: kind, Where: where, Rows: rows, Err: err})
}

// take notes the hashes of a chunk's events.
func (v *logVerifier) take(chunk *schemas.Chunk) error {
	for typ, rec := range chunk.Records {
		t := v.tables[typ]
		if t == nil {
			rec.Release()
			continue
		}
		if v.window[typ] == nil {
			v.window[typ] = map[place]logged{}
		}
		hashes, places := v.hasher.events(rec), placesOf(rec)
		prints, dates, err := t.identities(rec)
		if err != nil {
			return err
		}
		for i, p := range places {
			if p.seq <= v.archived(t) {
				event := logged{hash: hashes[i]}
				if prints != nil {
					event.print, event.date = prints[i], dates[i]
				}
				v.window[typ][p] = event
				v.rows++
				v.report.Events++
			}
		}
		rec.Release()
	}
	return nil
}

// compare holds history's events between the window's bounds against the log's, and begins the next.
func (v *logVerifier) compare(ctx context.Context, to uint64) error {
	for typ, t := range v.tables {
		want := v.window[typ]
		seen := map[place]bool{}
		var twice, differs, unknown tally
		for _, f := range t.state.snapshot().Files {
			if f.Import || f.MaxSeq <= v.from || f.MinSeq > to {
				continue
			}
			err := t.Scan(ctx, f, fieldNames(t.event), func(rec arrow.Record) error {
				hashes := v.hasher.events(rec)
				for i, p := range placesOf(rec) {
					if p.seq <= v.from || p.seq > to {
						continue
					}
					h, ok := want[p]
					switch {
					case !ok:
						unknown.add(p)
					case h.hash != hashes[i]:
						differs.add(p)
					}
					if seen[p] && ok {
						twice.add(p)
					}
					seen[p] = true
				}
				return nil
			})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil { // its events count as missing below
				v.problem(typ, ProblemBytes, t.onDisk(f), formatDate(f.Date), f.Rows, err)
			}
		}
		var lost tally
		missing := map[place]logged{}
		for p, event := range want {
			if !seen[p] {
				missing[p] = event
			}
		}
		leftOut, err := t.leaveOut(ctx, missing)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			v.problem(typ, ProblemBytes, t.dir, "compacted files", int64(len(missing)), err)
		}
		v.report.LeftOut += leftOut
		for p := range missing {
			lost.add(p)
		}
		for _, x := range []struct {
			kind ProblemKind
			tally
			text string
		}{
			{ProblemLost, lost, "events of the log are not in history"},
			{ProblemUnknown, unknown, "events are in history, and not in the log"},
			{ProblemDiffers, differs, "events are others in history than in the log"},
			{ProblemTwice, twice, "events are in history more than once"},
		} {
			if x.n > 0 {
				v.problem(typ, x.kind, t.dir, x.where(), x.n, errors.New(x.text))
			}
		}
	}
	v.from, v.rows = to, 0
	clear(v.window)
	return nil
}

// A tally counts places, and knows the first and the last.
type tally struct {
	n      int64
	lo, hi uint64
}

func (t *tally) add(p place) {
	if t.n == 0 {
		t.lo = math.MaxUint64
	}
	t.n++
	t.lo, t.hi = min(t.lo, p.seq), max(t.hi, p.seq)
}

func (t tally) where() string { return fmt.Sprintf("messages %d to %d", t.lo, t.hi) }

func fieldNames(ev *schemas.Event) []string {
	var names []string
	for _, f := range ev.ArrowSchema().Fields() {
		names = append(names, f.Name)
	}
	return names
}

// placesOf are the places of a record's rows, whose last columns are _seq and _row.
func placesOf(rec arrow.Record) []place {
	n := int(rec.NumCols())
	seqs := rec.Column(n - 2).(*array.Int64).Int64Values()
	rows := rec.Column(n - 1).(*array.Int32).Int32Values()
	out := make([]place, len(seqs))
	for i := range out {
		out[i] = place{uint64(seqs[i]), rows[i]}
	}
	return out
}
