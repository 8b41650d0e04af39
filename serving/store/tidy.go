package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"watershed/internal/crash"
	"watershed/schemas"
)

const (
	idleRows   = 8    // of a kind that may lie about: to delete them at once costs as much as to delete one
	keepAudits = 400  // builds whose audits are kept
	deleteIDs  = 5000 // of one DELETE

	deletePatience = 30 * time.Second // with ClickHouse, which takes milliseconds when all is well
)

// tidy deletes bookkeeping that no decision rests on any more, once there is some of a kind, so that it
// stays as small as what is kept, however many nights there were:
//
//   - a condemned slice whose parcel is gone: first from the slices, then from the condemned;
//   - a condemned build that is not listed any more;
//   - flips to builds that are not listed, but never the newest flip;
//   - terms, but never the newest of a role;
//   - audits of old builds.
//
// ALTER DELETE rewrites parts, one by one and each whole, so that a reader sees a part as it was or
// without the rows. What may never be missed (the newest flip, the newest terms) is named as a
// constant that the condition spares, and rows that are inserted meanwhile are not touched at all. If
// ClickHouse stops halfway it goes on when it is back; if we stop between two, the next call does
// the rest. An id that was deleted does not come back: ids begin with their term, and the newest
// term stays, here and in the log's counter.
func (db *DB) tidy(ctx context.Context, live schemas.Live, b *books, gone []uint64) error {
	if err := db.tidySlices(ctx, gone); err != nil {
		return err
	}
	for _, d := range []struct{ table, where string }{
		{"condemned", fmt.Sprintf("plan = '' AND slice NOT IN (%s)", list(b.builds))},
		{"live", fmt.Sprintf("flip < %d AND build NOT IN (%s)", live.Flip, list(b.builds))},
	} {
		if b.idle[d.table] < idleRows {
			continue
		}
		if _, err := db.delete(ctx, d.table, d.where); err != nil {
			return err
		}
	}
	for _, role := range []string{RoleSpeed, RoleBatch} {
		if b.idle[role] < idleRows {
			continue
		}
		newest, err := db.Term(ctx, role)
		if err != nil {
			return err
		}
		if _, err := db.delete(ctx, "terms", fmt.Sprintf("role = %s AND term < %d", literal(role), newest)); err != nil {
			return err
		}
	}
	if b.idle["audits"] < keepAudits+idleRows {
		return nil
	}
	old, err := rows[struct {
		Build uint64 `ch:"build"`
	}](ctx, db.client, fmt.Sprintf("SELECT DISTINCT build FROM %s ORDER BY build DESC LIMIT 1 OFFSET %d", db.name("audits"), keepAudits))
	if err != nil || len(old) == 0 {
		return err
	}
	_, err = db.delete(ctx, "audits", fmt.Sprintf("build <= %d", old[0].Build))
	return err
}

// tidySlices deletes condemned slices that are gone.
func (db *DB) tidySlices(ctx context.Context, gone []uint64) error {
	if len(gone) < idleRows {
		return nil
	}
	for some := range slices.Chunk(gone, deleteIDs) {
		// If we stop between the two, the next call finds the slices condemned and gone again. Those that are
		// listed still must stay condemned.
		for _, d := range []struct{ table, where string }{
			{"slices", "slice IN (" + list(some) + ")"},
			{"condemned", "plan != '' AND slice IN (" + list(some) + ")"},
		} {
			if done, err := db.delete(ctx, d.table, d.where); err != nil || !done {
				return err
			}
		}
	}
	return nil
}

// delete deletes rows of a system table and waits for it; done is false if ClickHouse has not got round to it
// in time. A condition that holds for none costs a look and no more.
func (db *DB) delete(ctx context.Context, table, where string) (done bool, err error) {
	got, err := rows[struct {
		N uint64 `ch:"n"`
	}](ctx, db.client, fmt.Sprintf("SELECT count() AS n FROM %s WHERE %s", db.name(table), where))
	if err != nil || len(got) == 1 && got[0].N == 0 {
		return err == nil, wrapf(err, "tidy table %s", table)
	}
	sql := fmt.Sprintf("ALTER TABLE %s DELETE WHERE %s SETTINGS mutations_sync = 0", db.name(table), where)
	if err := db.exec(ctx, sql); err != nil {
		return false, wrapf(err, "tidy table %s", table)
	}
	if done, err = db.deleted(ctx, table); err != nil || !done {
		return false, wrapf(err, "tidy table %s", table)
	}
	crash.At("store.tidied")
	return true, nil
}

// deleted waits until ClickHouse has deleted what it was asked to. To let the statement itself wait would be
// simpler, but a disk that was full at the wrong moment leaves a mutation that neither ends nor fails, seen
// in version 26.7, and the part that it was writing cannot be read. So after some patience the
// mutation is taken back, which is harmless: nothing rests on what it was to delete, and the next call asks
// again. If it has left the table damaged, that is the error, and the table is renewed.
func (db *DB) deleted(ctx context.Context, table string) (bool, error) {
	limit := time.Now().Add(db.patience)
	of := fmt.Sprintf("database = %s AND table = %s", literal(db.database), literal(table))
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		got, err := rows[struct {
			N      uint64 `ch:"n"`
			Reason string `ch:"reason"`
		}](ctx, db.client, "SELECT count() AS n, max(latest_fail_reason) AS reason FROM system.mutations WHERE NOT is_done AND "+of)
		if err != nil || len(got) == 1 && got[0].N == 0 {
			return err == nil, err
		}
		if time.Now().After(limit) {
			db.logger.WarnContext(ctx, "store: ClickHouse does not delete rows of bookkeeping: the next batch asks again", "table", table, "waited", db.patience, "failure", got[0].Reason)
			break
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(pause):
		}
	}
	if err := db.exec(ctx, "KILL MUTATION WHERE "+of+" ASYNC"); err != nil {
		return false, err
	}
	_, err := rows[struct {
		N uint64 `ch:"n"`
	}](ctx, db.client, fmt.Sprintf("SELECT count() AS n FROM %s WHERE NOT ignore(*)", db.name(table)))
	return false, err
}

// forgetMarks deletes positions and beginnings of plans whose tables are gone, by the first digits of
// their hashes. A plan that is defined again begins like a new one.
func (db *DB) forgetMarks(ctx context.Context, plans []string) error {
	if len(plans) == 0 {
		return nil
	}
	names := make([]string, len(plans))
	for i, p := range plans {
		names[i] = literal(p)
	}
	where := "substring(plan, 1, 8) IN (" + strings.Join(names, ", ") + ")"
	for _, table := range []string{"positions", "begins"} {
		if _, err := db.delete(ctx, table, where); err != nil {
			return err
		}
	}
	return nil
}

// ActiveParts returns how many parts the partition of a plan's speed table has that has most, and
// from how many on ClickHouse delays inserts. Merges that keep up leave it far below.
func (db *DB) ActiveParts(ctx context.Context) (most, delay uint64, err error) {
	got, err := rows[struct {
		Most  uint64 `ch:"most"`
		Delay uint64 `ch:"delay"`
	}](ctx, db.client, "SELECT (SELECT max(n) FROM (SELECT count() AS n FROM system.parts WHERE active AND database = "+literal(db.database)+
		" AND endsWith(table, '__speed') GROUP BY table, partition)) AS most, (SELECT toUInt64(value) FROM system.merge_tree_settings WHERE name = 'parts_to_delay_insert') AS delay")
	if err != nil || len(got) != 1 {
		return 0, 0, wrapf(err, "count parts")
	}
	return got[0].Most, got[0].Delay, nil
}
