package store

import (
	"context"
	"fmt"

	"watershed/schemas/view"
)

// Scratch makes a database beside this one, to compute in and to throw away: what is written there is
// in no view, and its terms are its own. One that is left of an earlier process is dropped first. The
// caller calls Drop, and closes only the DB that it opened.
func (db *DB) Scratch(ctx context.Context) (*DB, error) {
	out := &DB{client: &client{conn: db.conn, addr: db.addr, database: db.database + "_scratch"}, wires: db.wires, logger: db.logger, of: db.database}
	if err := out.Drop(ctx); err != nil {
		return nil, err
	}
	return out, wrapf(out.prepare(ctx, out.database), "make database %s", out.database)
}

// Drop drops a scratch database. If we stop before, the next Scratch does it.
func (db *DB) Drop(ctx context.Context) error {
	if db.of == "" {
		return fmt.Errorf("database %s is no scratch", db.database)
	}
	return wrapf(db.exec(ctx, "DROP DATABASE IF EXISTS "+quote(db.database)+" SYNC"), "drop database %s", db.database)
}

// Borrow copies slices of a plan from the database that this is a scratch of, as they are.
func (db *DB) Borrow(ctx context.Context, p *view.Plan, ids []uint64) error {
	if len(ids) == 0 {
		return nil
	}
	l := layoutOf(p)
	columns := "_slice, " + names("", l.columns())
	sql := fmt.Sprintf("INSERT INTO %[1]s (%[2]s) SELECT %[2]s FROM %[3]s.%[4]s WHERE _slice IN (%[5]s)",
		db.name(l.batch()), columns, quote(db.of), quote(l.batch()), list(ids))
	return wrapf(db.exec(ctx, sql), "copy slices of view %s", l.view)
}
