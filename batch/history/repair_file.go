package history

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"watershed/internal/crash"
	"watershed/internal/durable"
	"watershed/schemas"
)

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
