package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"watershed/internal/durable"
)

// A state is all that the log says up to one version.
type state struct {
	version  int64
	protocol *protocol
	meta     *metaData
	txns     map[string]int64
	files    map[string]live    // by decoded path
	removed  map[string]*remove // by decoded path: tombstones, kept for vacuum
	cached   *Snapshot          // of this version, once made
}

// maxMarks is how many txns of the newest commits are remembered.
const maxMarks = 4096

type live struct {
	add  *add
	file File
}

func newState() *state {
	return &state{version: -1, txns: map[string]int64{}, files: map[string]live{}, removed: map[string]*remove{}}
}

// apply takes the commit of the next version into the state.
func (s *state) apply(version int64, actions []action) error {
	s.cached = nil
	for _, a := range actions {
		if err := s.take(a); err != nil {
			return err
		}
	}
	s.version = version
	return nil
}

func (s *state) take(a action) error {
	switch {
	case a.Protocol != nil:
		s.protocol = a.Protocol
	case a.MetaData != nil:
		s.meta = a.MetaData
	case a.Txn != nil:
		s.txns[a.Txn.AppID] = a.Txn.Version
	case a.Add != nil:
		f, err := a.Add.file()
		if err != nil {
			return err
		}
		s.files[f.Path] = live{a.Add, f}
		delete(s.removed, f.Path)
	case a.Remove != nil:
		p, err := decodePath(a.Remove.Path)
		if err != nil {
			return err
		}
		delete(s.files, p)
		s.removed[p] = a.Remove
	}
	return nil
}

func (s *state) snapshot() *Snapshot {
	if s.cached == nil {
		files := make([]File, 0, len(s.files))
		for _, l := range s.files {
			files = append(files, l.file)
		}
		slices.SortFunc(files, func(a, b File) int {
			return cmp.Or(cmp.Compare(a.Date, b.Date), strings.Compare(a.Path, b.Path))
		})
		s.cached = &Snapshot{Version: s.version, Files: files, Txns: maps.Clone(s.txns)}
	}
	return s.cached
}

// load reads the table afresh: the newest checkpoint, then the commits after it. The error is
// fs.ErrNotExist if there is no table.
func (t *Table) load(ctx context.Context) error {
	s, err := t.fromCheckpoint(t.lastCheckpoint())
	if err != nil {
		return err
	}
	t.state, t.marks = s, nil
	if err := t.refresh(ctx); err != nil {
		return err
	}
	names, err := t.logNames()
	if err != nil {
		return err
	}
	switch {
	case len(names) > 0 && names[len(names)-1].version > t.state.version && t.missing(t.state.version+1):
		// The commits behind a hole count: without them their files would be gone, and the next commit would
		// take the hole's number.
		return &CorruptError{t.commitPath(t.state.version + 1), fmt.Errorf("the commit is missing, though %s is there", names[len(names)-1].name)}
	case t.state.version < 0:
		return fmt.Errorf("%s: %w", t.logDir(), fs.ErrNotExist)
	case t.state.meta == nil || t.state.protocol == nil:
		return &CorruptError{t.logDir(), errors.New("no metaData or no protocol in the log")}
	}
	return nil
}

// missing tells whether there is no commit of that version, for good: another process may have put it
// since it was looked for.
func (t *Table) missing(v int64) bool {
	_, err := os.Stat(t.commitPath(v))
	return errors.Is(err, fs.ErrNotExist)
}

// refresh reads the commits that came since. A name that is taken holds a whole commit, so the first
// name that is free is the end.
func (t *Table) refresh(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := t.state.version + 1
		actions, err := t.readCommit(v)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.state.apply(v, actions); err != nil {
			return &CorruptError{t.commitPath(v), err}
		}
		for _, a := range actions {
			if a.Txn != nil {
				t.marks = append(t.marks, mark{a.Txn.AppID, a.Txn.Version, v})
			}
		}
		t.forgetMarks()
	}
}

// forgetMarks keeps the marks of a process that runs for years within bounds: the older half goes, by
// whole versions, whose commits are read again when they are looked for.
func (t *Table) forgetMarks() {
	if len(t.marks) < maxMarks {
		return
	}
	from := t.marks[len(t.marks)/2].version
	first := slices.IndexFunc(t.marks, func(m mark) bool { return m.version >= from })
	t.marks = slices.Clone(t.marks[first:])
}

// replay makes the state of an older version.
func (t *Table) replay(ctx context.Context, version int64) (*state, error) {
	s, err := t.fromCheckpoint(version / checkpointEvery * checkpointEvery)
	if err != nil {
		return nil, err
	}
	for s.version < version {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v := s.version + 1
		actions, err := t.readCommit(v)
		if err != nil {
			return nil, err
		}
		if err := s.apply(v, actions); err != nil {
			return nil, &CorruptError{t.commitPath(v), err}
		}
	}
	return s, nil
}

// fromCheckpoint reads the newest readable checkpoint at or below version, or starts from nothing. Vacuum
// keeps two checkpoints and all commits behind the first, so that one may be damaged.
func (t *Table) fromCheckpoint(version int64) (*state, error) {
	for v := version / checkpointEvery * checkpointEvery; v > 0; v -= checkpointEvery {
		s, err := t.readCheckpoint(v)
		if err == nil {
			return s, nil
		}
		var corrupt *CorruptError
		if !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &corrupt) {
			return nil, err
		}
	}
	return newState(), nil
}

func (t *Table) commitPath(v int64) string { return filepath.Join(t.logDir(), versionName(v)) }

func (t *Table) readCommit(v int64) ([]action, error) {
	text, err := os.ReadFile(t.commitPath(v))
	if err != nil {
		return nil, err
	}
	actions, err := decodeActions(text)
	if err != nil {
		return nil, &CorruptError{t.commitPath(v), err}
	}
	return actions, nil
}

func (t *Table) put(version int64, actions []action) error {
	text, err := encodeActions(actions)
	if err != nil {
		return err
	}
	return durable.PutIfAbsent(t.commitPath(version), text)
}

// lastCheckpoint is the version of the newest checkpoint in the directory; 0 if there is none. The hint
// in _last_checkpoint is for other engines: two writers may leave it at the older of theirs.
func (t *Table) lastCheckpoint() int64 {
	names, err := t.logNames()
	if err != nil {
		return 0
	}
	for _, n := range slices.Backward(names) {
		if n.checkpoint {
			return n.version
		}
	}
	return 0
}
