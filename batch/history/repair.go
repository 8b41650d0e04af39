package history

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"watershed/internal/crash"
)

// RepairOptions say how far a repair may go.
type RepairOptions struct {
	AcceptLoss bool // take away what cannot be restored, so that what is left can be read
	DryRun     bool // only report what would be done
}

// A Remedy is what was done about a problem, or would be.
type Remedy struct {
	Problem Problem
	Done    bool
	Action  string          // what was done, or what is to be done by whom
	Import  string          // SHA-256 of the source whose import is to be made again; empty: none
	Range   string          // of that import, as from..to; empty: all of the source
	Lost    map[int32]int64 // events that are not in history any more, by date
}

// A RepairReport says what a repair did.
type RepairReport struct {
	Remedies []Remedy // in the order of the problems
}

// Left are the problems that are still there.
func (r RepairReport) Left() []Remedy {
	return slices.DeleteFunc(slices.Clone(r.Remedies), func(m Remedy) bool { return m.Done })
}

// Repair restores what Verify found to be wrong from what is intact.
//
//   - A file whose events the log still has is written again. Its bytes are mostly the very same: then it
//     gets its old name back, and no version changes. Otherwise one commit removes it and adds the new one.
//   - So is a file that a compaction wrote, if the log still has all of its events. Its duplicates, which the
//     log has too, are left out again.
//   - A file of an import cannot be restored from here: the import must be made again. With AcceptLoss one
//     commit removes all files of that import and its txn, so that it can be.
//   - Any other file is lost. With AcceptLoss it is removed, and its events are counted.
//   - A commit that cannot be read, and is the last of its table's log, is set aside if the log still has
//     what it archived: the archiver makes it again. So is one that only compacted, if the files that it
//     replaced are there still: they are live again, and what it wrote is for vacuum.
//
// It may be stopped anywhere and called again. source is the log; nil: there is none.
func Repair(ctx context.Context, root, app string, problems []Problem, source OpenSource, opts RepairOptions) (RepairReport, error) {
	r := &repair{root: root, app: app, source: source, opts: opts, remedies: make([]Remedy, len(problems))}
	for i, p := range problems {
		r.remedies[i].Problem = p
	}
	if err := r.run(ctx); err != nil {
		return RepairReport{r.remedies}, fmt.Errorf("repair %s: %w", root, err)
	}
	return RepairReport{r.remedies}, nil
}

const noLog = "the log does not have its events any more"

type repair struct {
	root, app string
	source    OpenSource
	opts      RepairOptions
	remedies  []Remedy
}

func (r *repair) run(ctx context.Context) error {
	var fromLog []*restoring
	var compacted []*Remedy
	imports := map[string]bool{} // by type and txn: removed
	for i := range r.remedies {
		m := &r.remedies[i]
		var err error
		switch p := m.Problem; {
		case p.Kind == ProblemLog:
			err = r.commitFile(ctx, m)
		case p.file.Path == "":
			m.Action = "history and log differ: take the table back from a backup, or correct it by hand; nothing was changed"
		case p.file.Import:
			err = r.imported(ctx, m, imports)
		case p.file.AsOf > 0:
			compacted = append(compacted, m)
		default:
			fromLog = append(fromLog, &restoring{remedy: m, file: p.file, missing: noLog})
		}
		if err != nil {
			return err
		}
	}
	if len(fromLog) > 0 && r.source != nil {
		if err := r.readLog(ctx, fromLog); err != nil {
			return err
		}
	}
	left, err := r.compactedFiles(ctx, compacted)
	if err != nil {
		return err
	}
	for _, m := range compacted {
		if why, ok := left[m]; ok {
			fromLog = append(fromLog, &restoring{remedy: m, file: m.Problem.file, missing: why})
		}
	}
	for _, x := range fromLog {
		if x.done {
			continue
		}
		if err := r.lose(ctx, x.remedy, x.missing, []File{x.file}, ""); err != nil {
			return err
		}
	}
	return nil
}

func (r *repair) dir(typ string) string { return filepath.Join(r.root, typ) }

// lose removes files for good, if that is wanted: those of an import (source), or any.
func (r *repair) lose(ctx context.Context, m *Remedy, why string, files []File, source string) error {
	if !r.opts.AcceptLoss || r.opts.DryRun {
		m.Action = why + ": take the file back from a backup, or give its events up by accepting their loss"
		return nil
	}
	t := readOnly(r.dir(m.Problem.Type))
	if err := t.load(ctx); err != nil {
		return err
	}
	c := &change{operation: "REPAIR", expect: t.state.txns}
	lost := map[int32]int64{}
	for _, f := range files {
		if _, live := t.state.files[f.Path]; live {
			c.removes = append(c.removes, t.removal(f))
			lost[f.Date] += f.Rows
		}
	}
	c.txns = t.lossNotes(source, lost)
	// If we stop before this commit, nothing has changed; after it, the files are not live, and verify does
	// not find them any more; what was given up stands in the commit itself, and verify tells that for good.
	if len(c.removes) > 0 {
		if _, err := t.commit(ctx, c); err != nil {
			return err
		}
		crash.At("history.repair-removed")
	}
	m.Done, m.Lost = true, lost
	m.Action = why + ": it was removed, and its events are gone"
	return nil
}

// imported is for a file that came by an import. All files of the import go together: making it again
// brings all of them.
func (r *repair) imported(ctx context.Context, m *Remedy, removed map[string]bool) error {
	app := m.Problem.file.source
	m.Import, m.Range, _ = strings.Cut(strings.TrimPrefix(app, importPrefix), "/")
	why := fmt.Sprintf("the import of the source with SHA-256 %s must be made again", m.Import)
	key := m.Problem.Type + " " + app
	if removed[key] {
		m.Done, m.Action = true, why
		return nil
	}
	t := readOnly(r.dir(m.Problem.Type))
	if err := t.load(ctx); err != nil {
		return err
	}
	var files []File
	for _, f := range t.state.snapshot().Files {
		if f.Path == m.Problem.file.Path || app != "" && f.source == app {
			files = append(files, f)
		}
	}
	if err := r.lose(ctx, m, why, files, app); err != nil {
		return err
	}
	if m.Done {
		removed[key] = true
		m.Action = why + ": its files were removed, so that it can be"
	}
	return nil
}

// removal is the action that removes a live file.
func (t *Table) removal(f File) *remove {
	return &remove{
		Path: encodePath(f.Path), DeletionTimestamp: t.now().UnixMilli(), DataChange: true, ExtendedMetadata: true,
		PartitionValues: map[string]string{dateColumn: formatDate(f.Date)}, Size: f.Size,
	}
}

// onDisk is where a file of the table lies.
func (t *Table) onDisk(f File) string { return filepath.Join(t.dir, filepath.FromSlash(f.Path)) }
