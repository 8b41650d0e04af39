package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"watershed/batch/history"
)

// A quantity is one that is measured.
type quantity int

const (
	logMessages quantity = iota
	logKiB
	logDiskKiB
	dataFiles
	deltaFiles
	parts
	bookParts
	bookRows
	dateRows
	deadRows
	auditRows
	ownMiB
	clickHouseMiB
	resumeSeconds
	openSeconds
	batchSeconds
	quantities
)

// described says what each quantity is, whether it grows by nature (with the dates, of which each has a
// slice in every view and files of its own), and otherwise how much more than twice of what it was in the
// second quarter it may be in the last.
func (q quantity) described() (name string, natural bool, slack float64) {
	switch q {
	case logMessages:
		return "log: messages", false, 50
	case logKiB:
		return "log: KiB", false, 50
	case logDiskKiB:
		return "log: KiB on disk", false, 1024
	case dataFiles:
		return "history: Parquet files", true, 0
	case deltaFiles:
		return "history: files of the Delta logs", false, 50
	case parts:
		return "ClickHouse: parts", true, 0
	case bookParts:
		return "of these bookkeeping", false, 20
	case bookRows:
		return "bookkeeping rows", false, 100
	case dateRows:
		return "rows per date (slices, builds)", true, 0
	case deadRows: // at most those of a night beside each date: a parcel goes when none of it is kept
		return "condemned, beside a slice that is kept", true, 0
	case auditRows:
		return "audit rows (of 400 nights)", true, 0
	case ownMiB:
		return "our memory, MiB", false, 32
	case clickHouseMiB:
		return "ClickHouse's memory, MiB", false, 128
	case resumeSeconds:
		return "start of the worker, s", false, 1
	case openSeconds:
		return "opening of history, s", false, 0.25
	default:
		return "nightly batch, s", false, 1
	}
}

// A Sample is what was measured at the end of a day.
type Sample struct {
	Day    int
	Since  time.Duration // the simulation began
	Groups int           // that were held against the recount
	Values [quantities]float64
}

func (w *world) measure(ctx context.Context, g *generator) (s Sample, err error) {
	v := &s.Values
	resumed, err := w.resume(ctx, g)
	if err != nil {
		return s, fmt.Errorf("start the worker again: %w", err)
	}
	v[resumeSeconds] = resumed.Seconds()

	began := time.Now()
	for _, ev := range w.defs.Events {
		table, err := history.Open(ctx, w.history(), ev)
		if err != nil {
			return s, err
		}
		if _, err := table.Snapshot(ctx); err != nil {
			return s, err
		}
	}
	v[openSeconds] = time.Since(began).Seconds()

	info, err := w.log.Info(ctx)
	if err != nil {
		return s, err
	}
	v[logMessages], v[logKiB] = float64(info.Messages), float64(info.Bytes)/1024
	if v[dataFiles], v[deltaFiles], err = files(w.history()); err != nil {
		return s, err
	}
	if v[logDiskKiB], err = diskKiB(filepath.Join(w.cfg.Dir, "nats")); err != nil {
		return s, err
	}
	if err := w.measureStore(ctx, v); err != nil {
		return s, err
	}
	debug.FreeOSMemory()
	if v[ownMiB], err = resident(os.Getpid()); err != nil {
		return s, err
	}
	v[clickHouseMiB], err = resident(w.server.Pid())
	return s, err
}

// resume stops both loops, publishes one event and starts them again: how long until it is folded.
func (w *world) resume(ctx context.Context, g *generator) (time.Duration, error) {
	if err := w.halt(); err != nil {
		return 0, err
	}
	began := time.Now()
	seq, err := w.log.Publish(ctx, "order", []byte(g.extra().json()), "")
	if err != nil {
		return 0, err
	}
	if err := w.start(ctx); err != nil {
		return 0, err
	}
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for {
		marks, err := w.db.Positions(ctx, w.plans)
		if err != nil {
			return 0, err
		}
		for _, p := range w.plans {
			if marks[p.Hash].Position.Seq >= seq {
				return time.Since(began), nil
			}
		}
		if time.Since(began) > patience {
			return 0, fmt.Errorf("message %d is not folded within %s: %+v", seq, patience, marks)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// measureStore counts parts and rows in ClickHouse: of the bookkeeping tables apart.
func (w *world) measureStore(ctx context.Context, v *[quantities]float64) error {
	rows, err := ask(ctx, w.server, `SELECT count(), countIf(NOT plan), sumIf(rows, NOT plan AND table NOT IN ('slices', 'builds', 'condemned', 'audits')),
			sumIf(rows, table IN ('slices', 'builds')), sumIf(rows, table = 'condemned'), sumIf(rows, table = 'audits')
		FROM (SELECT table, rows, endsWith(table, '__batch') OR endsWith(table, '__speed') AS plan FROM system.parts WHERE active AND database = '`+database+"')")
	if err != nil {
		return err
	}
	cells := strings.Split(rows[0], "|")
	for i, q := range []quantity{parts, bookParts, bookRows, dateRows, deadRows, auditRows} {
		if v[q], err = strconv.ParseFloat(cells[i], 64); err != nil {
			return err
		}
	}
	return nil
}

// files counts the data files and the files of the Delta logs below a directory.
func files(root string) (data, delta float64, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
		case strings.Contains(path, "_delta_log"):
			delta++
		case strings.HasSuffix(path, ".parquet"):
			data++
		}
		return err
	})
	return data, delta, err
}

func diskKiB(root string) (total float64, err error) {
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += float64(info.Size()) / 1024
		}
		return err
	})
	return total, err
}

// resident is the resident memory of a process, in MiB.
func resident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kib, err := strconv.ParseFloat(strings.Fields(string(rest))[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}
