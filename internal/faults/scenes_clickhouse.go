package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// speedTable is the table of a view's speed states, of its newest definition.
func (l *life) speedTable(ctx context.Context, view string) (string, error) {
	return l.sql(ctx, fmt.Sprintf("SELECT name FROM system.tables WHERE database = 'watershed' AND match(name, '^%s__[0-9a-f]{8}__speed$') ORDER BY metadata_modification_time DESC LIMIT 1", view))
}

// refuse lets ClickHouse refuse a view's speed states, until the function returned is called.
func (l *life) refuse(ctx context.Context, view string) (end func() error, err error) {
	table, err := l.speedTable(ctx, view)
	if err != nil {
		return nil, err
	}
	_, err = l.sql(ctx, fmt.Sprintf("ALTER TABLE `%s` ADD CONSTRAINT refused CHECK throwIf(toInt64(_epoch) >= 0, 'refused') = 0", table))
	return func() error {
		_, err := l.sql(ctx, fmt.Sprintf("ALTER TABLE `%s` DROP CONSTRAINT refused", table))
		return err
	}, err
}

// refused lets one view be refused for a while: the others go on, and it joins them again.
func (w *walk) refused(ctx context.Context) error {
	end, err := w.l.refuse(ctx, "pages")
	if err != nil {
		return err
	}
	err = w.met(ctx, false, "speed.detached")
	if err == nil { // the next worker meets it, too, and lives
		err = w.l.says(ctx, w.l.speed.said(), false, "it goes on apart")
	}
	if err := errors.Join(err, end()); err != nil {
		return err
	}
	return w.met(ctx, false, "speed.joined")
}

// writeKilled makes the writes of a worker slow and kills it amid one: its successor must end that.
func (w *walk) writeKilled(ctx context.Context) error {
	table, err := w.l.speedTable(ctx, "sales")
	if err != nil {
		return err
	}
	if _, err := w.l.sql(ctx, fmt.Sprintf("CREATE MATERIALIZED VIEW slow ENGINE = Null AS SELECT sleep(3) AS s FROM `%s`", table)); err != nil {
		return err
	}
	err = w.writing(ctx)
	if err == nil {
		_ = w.l.speed.signal(syscall.SIGKILL) // or it has just died
		err = w.met(ctx, false, "store.write-killed")
	}
	_, dropErr := w.l.sql(ctx, "DROP VIEW slow")
	return errors.Join(err, dropErr)
}

// writing waits until ClickHouse has a slow write under way.
func (w *walk) writing(ctx context.Context) error {
	for {
		n, err := w.l.sql(ctx, "SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND elapsed > 0.5 AND read_rows + written_rows > 0")
		if err != nil || n != "0" {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// tableLost takes away a view's speed states. The view must answer with an error until a batch has
// computed it anew, which comes without an operator.
func (w *walk) tableLost(ctx context.Context) error {
	resume, err := w.l.still()
	if err != nil {
		return err
	}
	table, err := w.l.speedTable(ctx, "visits")
	if err == nil {
		_, err = w.l.sql(ctx, fmt.Sprintf("DROP TABLE `%s` SYNC", table))
	}
	resume()
	if err != nil {
		return err
	}
	return w.met(ctx, false, "store.sealed")
}

// stranded holds a view back until the log has forgotten what it needs next: it begins again behind the
// build that covers it.
func (w *walk) stranded(ctx context.Context) error {
	w.l.batch.waiting(time.Second) // for a view that does not come
	defer w.l.batch.waiting(patience)
	end, err := w.l.refuse(ctx, "pages")
	if err != nil {
		return err
	}
	err = w.leaveBehind(ctx)
	if err := errors.Join(err, end()); err != nil {
		return err
	}
	if err := w.met(ctx, false, "speed.rescue-begun", "speed.rescued"); err != nil {
		return err
	}
	_, err = w.l.check(ctx, true) // what that counted twice is healed
	return err
}

func (w *walk) leaveBehind(ctx context.Context) error {
	if err := w.l.says(ctx, w.l.speed.said(), false, "it goes on apart"); err != nil {
		return err
	}
	if err := w.l.batch.complete(ctx); err != nil { // the build covers the view
		return err
	}
	resume, err := w.l.still()
	if err != nil {
		return err
	}
	defer resume()
	log, err := w.openLog(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	cut, _, err := log.LastCut(ctx)
	if err != nil {
		return err
	}
	w.l.whole = false
	// No worker would trim within its horizon of duplicates, as is done here: until the next build none is known.
	w.l.ledger.waive()
	if n, err := log.Trim(ctx, cut.Position); err != nil || n == 0 {
		return fmt.Errorf("the log forgot %d messages up to position %d: %w", n, cut.Position.Seq, err)
	}
	return nil
}
