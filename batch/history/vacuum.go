package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"watershed/internal/crash"
	"watershed/internal/durable"
)

// VacuumOptions say what a vacuum keeps.
type VacuumOptions struct {
	App  string   // names the log in the tables' txns: watershed/<stream>/<shard>
	Keep []uint64 // positions at which SnapshotAt must go on working: the cuts of kept builds

	// Retention is how long what nothing names any more is kept: 0 for 7 days, at most 30. It must be
	// longer than any commit, import or scan takes.
	Retention time.Duration

	DryRun bool             // only report what would go
	Now    func() time.Time // nil: time.Now
}

// A VacuumReport says what a vacuum removed, or would.
type VacuumReport struct {
	Files       int // data files that no kept version names
	Temps       int // left over by processes that died
	Commits     int // of the tables' logs that a checkpoint covers
	Checkpoints int
	Bytes       int64
	Paths       []string // of all of them
}

const defaultRetention = 7 * 24 * time.Hour

// Vacuum removes from all tables below root what nothing needs any more: data files that neither the
// newest version nor one at a kept position names, temporary files, and the part of the tables' logs that
// lies before the last but one checkpoint and before all kept positions. What is younger than the
// retention stays, since a writer may be about to commit it, or a reader be reading it; so does what is no
// file of ours. Afterwards SnapshotAt knows the positions kept and those behind them.
//
// It may be stopped anywhere, and run while others write. A table that cannot be read is an error, and
// the other tables are vacuumed all the same.
func Vacuum(ctx context.Context, root string, opts VacuumOptions) (VacuumReport, error) {
	var r VacuumReport
	opts.Retention = cmp.Or(opts.Retention, defaultRetention)
	if opts.Retention > tombstoneAge || opts.Retention < 0 {
		return r, fmt.Errorf("vacuum %s: a retention of %v is not possible: it is at most %v", root, opts.Retention, tombstoneAge)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	logs, err := filepath.Glob(filepath.Join(root, "*", logDirName))
	if err != nil {
		return r, fmt.Errorf("vacuum %s: %w", root, err)
	}
	for _, dir := range logs {
		v := &vacuum{table: readOnly(filepath.Dir(dir)), opts: opts, before: opts.Now().Add(-opts.Retention), report: &r}
		if tableErr := v.run(ctx); tableErr != nil {
			err = errors.Join(err, fmt.Errorf("vacuum %s: %w", v.table.dir, tableErr))
		}
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
	}
	return r, err
}

// A vacuum is one of one table.
type vacuum struct {
	table  *Table
	opts   VacuumOptions
	before time.Time // what is younger stays
	report *VacuumReport
}

func (v *vacuum) run(ctx context.Context) error {
	t := v.table
	if err := t.load(ctx); err != nil {
		return err
	}
	kept := []*state{t.state}
	oldest := t.state.version // that must stay readable
	for _, position := range v.opts.Keep {
		version, err := t.find(ctx, v.opts.App, int64(position))
		if errors.Is(err, ErrNoSnapshot) {
			continue // the type was not defined there
		}
		if err != nil {
			return err
		}
		s, err := t.replay(ctx, version)
		if err != nil {
			return err
		}
		kept, oldest = append(kept, s), min(oldest, version)
	}
	if err := v.files(kept); err != nil {
		return err
	}
	return v.log(oldest)
}

// files removes data files and temporary files.
func (v *vacuum) files(kept []*state) error {
	dirs, err := filepath.Glob(filepath.Join(v.table.dir, dateColumn+"=*"))
	if err != nil {
		return err
	}
	for _, dir := range append(dirs, v.table.logDir(), v.table.dir) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := path.Join(filepath.Base(dir), e.Name())
			switch {
			case e.IsDir():
			case durable.IsTemp(e.Name()):
				err = v.remove(filepath.Join(dir, e.Name()), &v.report.Temps)
			case dir != v.table.logDir() && dir != v.table.dir && strings.HasSuffix(name, ".parquet") && !v.needed(kept, name):
				err = v.remove(filepath.Join(dir, e.Name()), &v.report.Files)
			}
			// If we stop here, fewer files lie there that no version names.
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// needed tells whether a version that is kept has the file, or one of which it was removed not long ago.
func (v *vacuum) needed(kept []*state, name string) bool {
	for _, s := range kept {
		if _, ok := s.files[name]; ok {
			return true
		}
	}
	r := v.table.state.removed[name]
	return r != nil && !time.UnixMilli(r.DeletionTimestamp).Before(v.before)
}

// remove takes one file away if it is old enough, and counts it.
func (v *vacuum) remove(name string, count *int) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another vacuum was here
	}
	if err != nil {
		return err
	}
	if !info.ModTime().Before(v.before) {
		return nil
	}
	if !v.opts.DryRun {
		// A name that comes back after a power cut is removed by the next vacuum.
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		crash.At("history.vacuum-removed")
	}
	*count++
	v.report.Bytes += info.Size()
	v.report.Paths = append(v.report.Paths, name)
	return nil
}

// log removes commits and checkpoints before a checkpoint from which every kept version can be made.
func (v *vacuum) log(oldest int64) error {
	t := v.table
	names, err := t.logNames()
	if err != nil {
		return err
	}
	floor, err := v.floor(oldest, names)
	if err != nil || floor == 0 {
		return err
	}
	// Oldest first: if we stop anywhere, what is left is contiguous, and checkpoints come after the commits
	// that led to them.
	for _, n := range names {
		if n.version >= floor {
			break
		}
		count := &v.report.Commits
		if n.checkpoint {
			count = &v.report.Checkpoints
		}
		before := *count
		if err := v.remove(filepath.Join(t.logDir(), n.name), count); err != nil {
			return err
		}
		if *count == before {
			break // too young, and so is all that follows
		}
	}
	return nil
}

// floor is the newest checkpoint that is at or before the version given and the last but one, and that can
// be read as the last can; 0 if there is none.
func (v *vacuum) floor(oldest int64, names []logName) (int64, error) {
	var checkpoints []int64
	for _, n := range names {
		if n.checkpoint {
			checkpoints = append(checkpoints, n.version)
		}
	}
	if len(checkpoints) < 2 {
		return 0, nil
	}
	last := checkpoints[len(checkpoints)-1]
	if _, err := v.table.readCheckpoint(last); err != nil {
		return 0, err
	}
	for _, c := range slices.Backward(checkpoints[:len(checkpoints)-1]) {
		if c > oldest {
			continue
		}
		_, err := v.table.readCheckpoint(c)
		return c, err
	}
	return 0, nil
}

// A logName is a commit or a checkpoint in a table's log.
type logName struct {
	name       string
	version    int64
	checkpoint bool
}

// logNames lists a table's log by version, a commit before its checkpoint.
func (t *Table) logNames() ([]logName, error) {
	entries, err := os.ReadDir(t.logDir())
	if err != nil {
		return nil, err
	}
	var names []logName
	for _, e := range entries {
		n := logName{name: e.Name()}
		switch {
		case parseVersion(e.Name(), ".json", &n.version):
		case parseVersion(e.Name(), checkpointSuffix, &n.version):
			n.checkpoint = true
		default:
			continue
		}
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b logName) int {
		return cmp.Or(cmp.Compare(a.version, b.version), -cmp.Compare(a.name, b.name))
	})
	return names, nil
}

// parseVersion reads the version in the name of a file of the log.
func parseVersion(name, suffix string, version *int64) bool {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != versionDigits {
		return false
	}
	_, err := fmt.Sscanf(digits, "%020d", version)
	return err == nil
}
