package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// aside takes a table's log away for a while, as a disk that does not answer would.
func (w *walk) aside(ctx context.Context) error {
	table, away := w.l.path("history", "visit", "_delta_log"), w.l.path("history", "away")
	if err := os.WriteFile(away, nil, 0o644); err != nil {
		return err
	}
	swap := func() error {
		return unix.Renameat2(unix.AT_FDCWD, table, unix.AT_FDCWD, away, unix.RENAME_EXCHANGE)
	}
	if err := swap(); err != nil {
		return err
	}
	err := w.met(ctx, true, "history.aside")
	if err == nil { // the next worker does it, too, and lives
		err = w.l.says(ctx, w.l.speed.said(), true, "set aside") // or that it still is: it may have said the former already
	}
	if back := swap(); back != nil {
		return back
	}
	if err != nil {
		return err
	}
	if err := os.Remove(away); err != nil {
		return err
	}
	return w.within(ctx, 8*time.Second, false, "history.level") // a worker that dies elsewhere finds the table whole
}

// compact brings files together, of all that is there.
func (w *walk) compact(ctx context.Context) error {
	if err := errors.Join(w.l.importSome(ctx), w.l.batch.complete(ctx)); err != nil {
		return err
	}
	if out, err := w.run(ctx, "compact", "--fresh", "--min-files", "1"); err != nil {
		return fmt.Errorf("watershed compact: %w: %s", err, out)
	}
	return w.l.verified(ctx, "compact")
}

// vacuum removes what those who died have left, as if that had been hours ago.
func (w *walk) vacuum(ctx context.Context) error {
	resume, err := w.l.still()
	if err != nil {
		return err
	}
	hours := time.Now().Add(-3 * time.Hour)
	err = filepath.WalkDir(w.l.path("history"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chtimes(path, hours, hours)
	})
	resume()
	if err != nil {
		return err
	}
	if out, err := w.run(ctx, "vacuum", "--retention", "1h"); err != nil {
		return fmt.Errorf("watershed vacuum: %w: %s", err, out)
	}
	return w.l.verified(ctx, "vacuum")
}

// fileMissing removes a file whose events are in the log.
func (w *walk) fileMissing(ctx context.Context) error {
	return w.breakHistory(ctx, false, os.Remove)
}

// importDamaged damages a file of an import, which is given up and made again.
func (w *walk) importDamaged(ctx context.Context) error {
	return w.breakHistory(ctx, true, w.l.flipBit)
}

func (w *walk) breakHistory(ctx context.Context, imported bool, how func(path string) error) error {
	w.l.healer = w.run
	defer func() { w.l.healer = w.l.once }()
	return w.l.breakHistory(ctx, imported, how)
}

// commitDamaged makes the last commit of a table unreadable. It is set aside: the archiver makes it again from
// the log, or, if it is a compaction's, as it is from the second time on, the files that it replaced are live again.
func (w *walk) commitDamaged(ctx context.Context) error {
	w.l.healer = w.run
	defer func() { w.l.healer = w.l.once }()
	if err := w.l.batch.complete(ctx); err != nil { // the newest commit is one of the log's, or compacted
		return err
	}
	if len(w.remain("durable.set-aside")) == 0 {
		if out, err := w.l.command(ctx, "", "compact", "--fresh", "--min-files", "1"); err != nil {
			return fmt.Errorf("watershed compact: %w: %s", err, out)
		}
	}
	resume, err := w.l.still()
	if err != nil {
		return err
	}
	defer resume()
	commits, err := filepath.Glob(w.l.path("history", "visit", "_delta_log", "*.json"))
	if err != nil {
		return err
	}
	commit := slices.Max(commits)
	text, err := os.ReadFile(commit)
	if err != nil {
		return err
	}
	if err := os.WriteFile(commit, text[:len(text)-3], 0o644); err != nil { // a last action without its end
		return err
	}
	heal, err := w.l.found(ctx, commit)
	if err != nil {
		return err
	}
	return w.l.heal(ctx, heal)
}
