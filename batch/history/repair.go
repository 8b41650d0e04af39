package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"watershed/internal/crash"
	"watershed/internal/durable"
	"watershed/schemas"
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
//     what it archived: the archiver makes it again.
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

// commitFile is for a damaged log of a table.
func (r *repair) commitFile(ctx context.Context, m *Remedy) error {
	t := readOnly(r.dir(m.Problem.Type))
	v := m.Problem.version
	names, err := t.logNames()
	if err != nil {
		return err
	}
	if err := t.load(ctx); err == nil {
		m.Action = fmt.Sprintf("no harm to the newest version, which a checkpoint behind version %d leads to; vacuum removes what lies before it", v)
		return nil
	} else if ctx.Err() != nil {
		return ctx.Err()
	}
	m.Action = fmt.Sprintf("take %s back from a backup, or the whole table; nothing was changed", filepath.Base(t.commitPath(v)))
	if v == 0 || len(names) == 0 || names[len(names)-1].version != v || t.missing(v) {
		return nil
	}
	s, err := t.replay(ctx, v-1)
	if err != nil {
		return nil // damaged before as well
	}
	text, err := os.ReadFile(t.commitPath(v))
	if err != nil {
		return err
	}
	if why := r.lostWith(ctx, m.Problem.Type, s, text); why != "" && !r.opts.AcceptLoss {
		m.Action = why + ": take the commit back from a backup, or accept the loss"
		return nil
	}
	m.Action = "the last commit cannot be read: it is set aside, and the archiver makes it again from the log"
	if r.opts.DryRun {
		return nil
	}
	// If we stop before this, nothing has changed. After it the table is what it was before that commit, its
	// position too: what it archived is read from the log again, and the files that it added are strays.
	if _, err := durable.SetAside(t.commitPath(v)); err != nil {
		return err
	}
	crash.At("history.repair-aside")
	m.Done = true
	return nil
}

// lostWith says what would be lost with the last commit; nothing if the archiver can make it again.
func (r *repair) lostWith(ctx context.Context, typ string, s *state, text []byte) string {
	if !bytes.Contains(text, []byte(`"operation":"STREAMING UPDATE"`)) {
		return "the last commit cannot be read, and may be an import, which would have to be made again"
	}
	seq, begun := s.txns[r.app]
	if !begun || r.source == nil {
		return "the last commit cannot be read, and there is no log to make it from"
	}
	source, _, err := r.source(ctx, schemas.Position{Seq: uint64(seq), Hash: uint64(s.txns[r.app+hashSuffix])}, typ)
	if err != nil {
		return fmt.Sprintf("the last commit cannot be read, and the log does not have all that it archived (%v)", err)
	}
	source.Close()
	return ""
}

// A restoring is a file that is being written again from the log.
type restoring struct {
	remedy  *Remedy
	file    File
	event   *schemas.Event
	buffer  *dateBuffers
	missing string // why it is not possible, if it is not done
	done    bool
}

// readLog reads the log once, from its beginning, and restores the files whose events it has.
func (r *repair) readLog(ctx context.Context, files []*restoring) error {
	var types []string
	last := uint64(0)
	for _, x := range files {
		types = append(types, x.remedy.Problem.Type)
		last = max(last, x.file.MaxSeq)
	}
	slices.Sort(types)
	source, cut, err := r.source(ctx, schemas.Position{}, slices.Compact(types)...)
	if err != nil {
		return err
	}
	defer source.Close()
	defer func() {
		for _, x := range files {
			if x.buffer != nil {
				x.buffer.reset()
			}
		}
	}()
	for first, at := true, uint64(0); at < last; first = false {
		chunk, err := source.Next(ctx)
		if err != nil {
			return err
		}
		begins := uint64(0) // what the log has begins behind it
		if first && chunk.Cut != nil && chunk.BeforeCut.Seq <= chunk.After.Seq {
			begins = chunk.Last.Seq
		}
		for _, x := range files {
			if x.file.MinSeq <= begins {
				continue
			}
			if err := x.take(chunk, cut, at); err != nil {
				return err
			}
			if at < x.file.MaxSeq && chunk.Last.Seq >= x.file.MaxSeq {
				if err := r.restore(ctx, x); err != nil {
					return err
				}
			}
		}
		for _, rec := range chunk.Records {
			rec.Release()
		}
		if at = chunk.Last.Seq; chunk.Cut != nil {
			cut = *chunk.Cut
		}
	}
	return nil
}

// take buffers the file's rows of a chunk that stands behind a cut. No file straddles one.
func (x *restoring) take(chunk *schemas.Chunk, cut schemas.Cut, at uint64) error {
	rec := chunk.Records[x.remedy.Problem.Type]
	if rec == nil || chunk.Last.Seq < x.file.MinSeq || at >= x.file.MaxSeq {
		return nil
	}
	if x.buffer == nil {
		for _, ev := range definedBy(cut) {
			if ev.Name == x.remedy.Problem.Type {
				x.event, x.buffer = ev, newDateBuffers(ev)
			}
		}
		if x.buffer == nil {
			return fmt.Errorf("%s is not defined by cut %d", x.remedy.Problem.Type, cut.Number)
		}
	}
	_, err := x.buffer.add(rec, 0, func(at, seq int64) bool {
		return dateOf(at) == x.file.Date && uint64(seq) >= x.file.MinSeq && uint64(seq) <= x.file.MaxSeq
	})
	return err
}

// restore writes a file again from what was buffered.
func (r *repair) restore(ctx context.Context, x *restoring) error {
	if x.buffer == nil || x.buffer.rows != x.file.Rows {
		found := int64(0)
		if x.buffer != nil {
			found = x.buffer.rows
		}
		x.missing = fmt.Sprintf("the log has %d of its %d events", found, x.file.Rows)
		return nil
	}
	x.done = true
	x.remedy.Action = "its events are in the log, from which it is written again"
	if r.opts.DryRun {
		return nil
	}
	t, err := Open(ctx, r.root, x.event)
	if err != nil {
		return err
	}
	a, err := t.writeParts(x.file.Date, x.buffer.take(x.file.Date), x.file.Unique, false)
	if err != nil {
		return err
	}
	x.remedy.Action, err = t.putBack(ctx, a, []File{x.file})
	x.remedy.Done = err == nil
	return err
}

// putBack puts a file that was written again in the place of damaged ones, and says how. With the bytes of
// the only one it gets its name.
func (t *Table) putBack(ctx context.Context, a *add, damaged []File) (action string, err error) {
	crash.At("history.repair-written")
	// If we stop here, a file lies there that no version names.
	written, err := a.file()
	if err != nil {
		return "", err
	}
	if len(damaged) == 1 && written.SHA256 == damaged[0].SHA256 {
		// If we stop before this, the damaged file is there still; after it, the very bytes that were
		// committed, for all versions that name them.
		err = durable.Replace(t.onDisk(written), t.onDisk(damaged[0]))
		action = "written again from the log, with the same bytes"
	} else {
		c := &change{operation: "REPAIR", adds: []*add{a}}
		for _, f := range damaged {
			c.removes = append(c.removes, t.removal(f))
		}
		// If we stop before this commit, the damaged files are live still; after it, the new one.
		_, err = t.commit(ctx, c)
		action = "written again from the log, as another file of the same events"
	}
	var conflict *conflictError
	if errors.As(err, &conflict) {
		return "another process has removed it meanwhile", nil
	}
	crash.At("history.repair-restored")
	return action, err
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
