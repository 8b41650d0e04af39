package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// systemTables are those of ClickHouse that belong to no view.
var systemTables = [...]string{"terms", "positions", "begins", "slices", "condemned", "builds", "live", "audits"}

// spoil empties the marks of all parts of a table, as a disk that was full may have left them: ClickHouse
// cannot read it any more. It reports whether the table had any part.
func (l *life) spoil(ctx context.Context, table string) (bool, error) {
	var files []string
	for tries := 0; len(files) == 0; tries++ {
		paths, err := l.sql(ctx, fmt.Sprintf("SELECT path FROM system.parts WHERE active AND database = 'watershed' AND table = '%s'", table))
		if err != nil || paths == "" && tries > 20 {
			return false, err
		}
		for _, path := range strings.Fields(paths) {
			marks, err := filepath.Glob(filepath.Join(path, "*.cmrk*"))
			if err != nil {
				return false, err
			}
			for _, f := range marks {
				if err := os.Truncate(f, 0); err == nil {
					files = append(files, f)
				} else if !errors.Is(err, fs.ErrNotExist) { // a merge has taken the part away
					return false, err
				}
			}
		}
		if len(files) == 0 {
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return false, err
			}
		}
	}
	_, err := l.sql(ctx, "SYSTEM DROP MARK CACHE")
	return true, err
}

// batchTable is the table of a view's slices, of its newest definition.
func (l *life) batchTable(ctx context.Context, view string) (string, error) {
	table, err := l.speedTable(ctx, view)
	return strings.TrimSuffix(table, "__speed") + "__batch", err
}

// partDamaged damages a table that is drawn. That must heal without an operator: the worker or the next
// batch that meets it drops the table, and a batch computes what it held.
func (l *life) partDamaged(ctx context.Context) error {
	table, err := l.batchTable(ctx, l.views[l.r.IntN(len(l.views))].name)
	switch n := l.r.IntN(len(systemTables) + 2); {
	case err != nil:
		return err
	case n < len(systemTables):
		table = systemTables[n]
	case n == len(systemTables):
		table = strings.TrimSuffix(table, "__batch") + "__speed"
	}
	had, err := l.spoil(ctx, table)
	l.tally.say("  table %s is damaged: %t", table, had)
	return err
}

// damaged lets ClickHouse fail to read tables of each kind; worker and batches die amid healing that.
func (w *walk) damaged(ctx context.Context) error {
	l := w.l
	slices, err := l.batchTable(ctx, "sales")
	if err != nil {
		return err
	}
	speed, err := l.speedTable(ctx, "visits")
	if err != nil {
		return err
	}
	for _, tables := range [][]string{{"terms", "condemned"}, {slices}, {speed, "begins"}} {
		for _, table := range tables {
			if _, err := l.spoil(ctx, table); err != nil {
				return err
			}
		}
		wait, cancel := context.WithTimeout(ctx, giveUp)
		err := l.batch.complete(wait)
		cancel()
		if err != nil {
			return err
		}
		if ok, err := l.check(ctx, false); err != nil || !ok {
			return errors.Join(errors.New("the views are not right"), err)
		}
	}
	return w.met(ctx, true, "store.damaged-dropped", "store.damaged-exchanged")
}
