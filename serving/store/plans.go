package store

import (
	"context"
	"fmt"
	"strings"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// EnsurePlans makes the tables of plans that are missing, and the ways into them. Plans that
// are fresh begin with the log: the empty build covers them. It changes nothing the second
// time, so that stopping halfway is healed by the next call.
func (db *DB) EnsurePlans(ctx context.Context, plans []*view.Plan, fresh bool) error {
	layouts := make([]*layout, len(plans))
	for i, p := range plans {
		layouts[i] = layoutOf(p)
	}
	if err := checkNames(layouts); err != nil {
		return err
	}
	var have map[string]bool
	if len(layouts) > 0 {
		var err error
		if have, err = db.tables(ctx); err != nil {
			return fmt.Errorf("list tables: %w", err)
		}
	}
	for _, l := range layouts {
		if !l.complete(have) {
			// A table that was there before and is gone took states with it. If we stop after this,
			// the plan's view throws until the next build; if before, the table is missing still.
			if err := db.sealLost(ctx, l, have); err != nil {
				return fmt.Errorf("view %s lacks a table: %w", l.view, err)
			}
			for _, sql := range db.planSQL(l) {
				if err := db.exec(ctx, sql); err != nil {
					return fmt.Errorf("create the tables of view %s: %w", l.view, err)
				}
				crash.At("store.plan-table-made")
			}
		}
		if err := db.dropFormer(ctx, l, have); err != nil {
			return fmt.Errorf("drop former tables of view %s: %w", l.view, err)
		}
		if fresh {
			if err := db.coverEmpty(ctx, l); err != nil {
				return fmt.Errorf("cover view %s by the empty build: %w", l.view, err)
			}
		}
	}
	return nil
}

// complete reports whether all tables of the plan are there.
func (l *layout) complete(have map[string]bool) bool {
	for _, table := range []string{l.batch(), l.speed()} {
		if !have[table] || !have[into(table)] || !have[fence(table)] {
			return false
		}
	}
	return true
}

// dropFormer drops the ways into a plan's tables that another version made. The staging table goes
// first: an insert of that version fails from then on, and never finds it without its fence. If we
// stop in between, the next call drops the rest.
func (db *DB) dropFormer(ctx context.Context, l *layout, have map[string]bool) error {
	for _, table := range []string{l.batch(), l.speed()} {
		for _, name := range former(table) {
			if !have[name] {
				continue
			}
			if err := db.exec(ctx, "DROP TABLE IF EXISTS "+db.name(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// sealLost ends the answers of a plan that has been in use and of which a table with states is gone.
func (db *DB) sealLost(ctx context.Context, l *layout, have map[string]bool) error {
	if have[l.batch()] && have[l.speed()] {
		return nil
	}
	got, err := rows[struct {
		Used  uint64 `ch:"used"`
		Until uint64 `ch:"until"`
	}](ctx, db.client, fmt.Sprintf("SELECT count() AS used, max(reached) + 1 AS until FROM (SELECT epoch AS reached FROM %[1]s WHERE plan = %[4]s UNION ALL SELECT %[5]s FROM %[2]s WHERE plan = %[4]s UNION ALL SELECT at_cut FROM %[3]s WHERE plan = %[4]s)",
		db.name("positions"), db.name("begins"), db.name("builds"), literal(l.hash), begunEpoch))
	if err != nil || len(got) != 1 || got[0].Used == 0 {
		return err
	}
	return db.Seal(ctx, schemas.Damage{Plans: []schemas.PlanDamage{{Plan: l.hash, View: l.view, Until: got[0].Until}}})
}

// planSQL makes a plan's tables.
//
// A batch table has a partition for every parcel of slices that were inserted together: parts
// are few, and a partition's bounds tell whether a build names any slice of it. The slice ends
// the key, so that merges keep slices apart. Its block is one part from the beginning, so nothing merges it while a
// batch runs. What ClickHouse takes for it is nearly all reading, compressing and writing the columns: without the fence,
// fsync, statistics or sparse columns, or with other granules, it takes as much of a processor, and without
// compression more, for the bytes that are written then.
//
// A speed table has a partition for every epoch. Each row carries the log position that its
// flush reached, and the maximum survives merges: data and position are one commit.
//
// Merging states was two fifths of ClickHouse's work at full speed, and what it merges is dropped at
// night. So a speed table is merged a third as often: while few parts lie there that are younger than
// ten seconds, only where there are sixteen times as many bytes as in the largest of them, instead of
// five. Older and smaller ones are merged as ever. make bench-speed: six views took 677,000 to 697,000
// events a second before, and 758,000 to 840,000 with this.
func (db *DB) planSQL(l *layout) []string {
	var defs []string
	nullableKey := ""
	for _, c := range l.columns() {
		defs = append(defs, c.define())
	}
	for _, d := range l.dims {
		if d.nullable {
			nullableKey = "allow_nullable_key = 1"
		}
	}
	columns := strings.Join(defs, ", ")
	arriving, output := columns+", _term UInt64", names("", l.columns())
	create := func(table, own, partition, order, merges string) string {
		return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (%s, %s) ENGINE = AggregatingMergeTree PARTITION BY %s PRIMARY KEY %s ORDER BY %s%s",
			db.name(table), own, columns, partition, l.key(), order, settingsClause(nullableKey, merges, db.durability(true)))
	}
	const (
		batchColumns = "_slice UInt64"
		speedColumns = "_epoch UInt64, _shard UInt32, _pos SimpleAggregateFunction(max, Tuple(UInt64, UInt64))"
	)
	out := []string{
		create(l.batch(), batchColumns, fmt.Sprintf("bitShiftRight(_slice, %d)", schemas.ParcelBits), l.key("_slice"), ""),
		create(l.speed(), speedColumns, "(_epoch, _shard)", l.key(), "merge_selector_base = 16"),
	}
	out = append(out, db.fenceSQL(l.batch(), into(l.batch()), fence(l.batch()),
		batchColumns+", "+arriving, RoleBatch, "_term", "_slice, "+output)...)
	return append(out, db.fenceSQL(l.speed(), into(l.speed()), fence(l.speed()),
		"_epoch UInt64, _shard UInt32, _seq UInt64, _hash UInt64, "+arriving, RoleSpeed, "_term", "_epoch, _shard, (_seq, _hash) AS _pos, "+output)...)
}

// coverEmpty makes build 0 cover a plan, as long as it is the live one: afterwards it is only
// kept to roll back to.
func (db *DB) coverEmpty(ctx context.Context, l *layout) error {
	sql := fmt.Sprintf("INSERT INTO %[1]s (build, cut, plan, date, slice, term) SELECT 0, 0, %[3]s, 0, 0, 0 FROM system.one WHERE (SELECT count() FROM %[1]s WHERE build = 0 AND plan = %[3]s) = 0 AND (SELECT count() > 0 AND argMax(build, flip) = 0 FROM %[2]s)", db.name("builds"), db.name("live"), literal(l.hash))
	return db.exec(ctx, sql)
}

// tables are the names of all tables and views of the database.
func (db *DB) tables(ctx context.Context) (map[string]bool, error) {
	got, err := rows[struct {
		Name string `ch:"name"`
	}](ctx, db.client, "SELECT name FROM system.tables WHERE database = "+literal(db.database))
	if err != nil {
		return nil, err
	}
	have := make(map[string]bool, len(got))
	for _, t := range got {
		have[t.Name] = true
	}
	return have, nil
}
