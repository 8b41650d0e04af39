package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"watershed/internal/crash"
)

// A systemTable is a table of the database that belongs to no plan.
type systemTable struct {
	name    string
	columns string // without the term and time that every one has
	engine  string
	durable bool   // fsynced on insert when Config.Fsync says so
	role    string // whose newest term a write must carry; empty: written directly
}

func (t systemTable) allColumns() string {
	return t.columns + ", term UInt64, at DateTime64(6, 'UTC') DEFAULT now64(6)"
}
func (t systemTable) staging() string { return t.name + "_in" }
func (t systemTable) fence() string   { return t.name + "_fence" }

// systemTables are described in doc.go. A fenced one comes after terms, which fences read.
var systemTables = [...]systemTable{
	{"terms", "role LowCardinality(String), shard UInt32", "MergeTree ORDER BY (role, shard, term)", true, ""},
	{"positions", "plan String, shard UInt32, epoch UInt64, seq UInt64, hash UInt64", "ReplacingMergeTree(seq) ORDER BY (plan, shard)", true, RoleSpeed},
	{"begins", "plan String, shard UInt32, epoch UInt64, seq UInt64, hash UInt64", "ReplacingMergeTree(epoch) ORDER BY (plan, shard)", true, RoleSpeed},
	{"slices", "plan String, key String, date Date32, slice UInt64, groups UInt64, events UInt64, duplicates UInt64", "MergeTree ORDER BY (plan, slice)", true, RoleBatch},
	{"condemned", "plan String, slice UInt64", "MergeTree ORDER BY (plan, slice)", false, RoleBatch},
	{"builds", "build UInt64, cut UInt64, plan String, date Date32, slice UInt64, at_cut UInt64, seq UInt64, hash UInt64, definitions String", "MergeTree PARTITION BY build ORDER BY (plan, date, slice)", true, RoleBatch},
	{"live", "flip UInt64, build UInt64, cut UInt64, pinned Bool", "MergeTree ORDER BY flip", true, RoleBatch},
	{"audits", "build UInt64, baseline UInt64, plan String, view String, groups UInt64, equal UInt64, explained UInt64, drifted UInt64, late_duplicates UInt64, import_duplicates UInt64, imports UInt64, conflicts UInt64, largest Float64, largest_share Float64, gated Bool, skipped String, result String", "MergeTree ORDER BY (build, plan)", false, RoleBatch},
}

const (
	// RoleSpeed is the role under whose terms speed states and positions are written.
	RoleSpeed = "speed"
	// RoleBatch is the role under whose terms slices, builds and flips are written.
	RoleBatch = "batch"
)

// durability is the MergeTree settings that make an acknowledged insert survive a power cut.
func (db *DB) durability(durable bool) string {
	if !durable || !db.fsync {
		return ""
	}
	return "fsync_after_insert = 1, fsync_part_directory = 1"
}

func settingsClause(settings ...string) string {
	var out []string
	for _, s := range settings {
		if s != "" {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return " SETTINGS " + strings.Join(out, ", ")
}

// systemSQL makes a system table, under its own name or another.
func (db *DB) systemSQL(t systemTable, name string) string {
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (%s) ENGINE = %s%s",
		db.name(name), t.allColumns(), t.engine, settingsClause(db.durability(t.durable)))
}

// createSystem makes the tables that are missing. Every statement changes nothing the second
// time, so that stopping between two of them is healed by the next start.
func (db *DB) createSystem(ctx context.Context) error {
	have, err := db.checkSystem(ctx)
	if err != nil {
		return err
	}
	for _, t := range systemTables {
		if have[t.name] && (t.role == "" || have[t.staging()] && have[t.fence()]) {
			continue // as it is at every start but the first
		}
		columns := t.allColumns()
		statements := []string{db.systemSQL(t, t.name)}
		if t.role != "" {
			statements = append(statements, db.fenceSQL(t.name, t.staging(), t.fence(), columns, t.role, "term", "*")...)
		}
		for _, sql := range statements {
			if err := db.exec(ctx, sql); err != nil {
				return fmt.Errorf("create table %s: %w", t.name, err)
			}
			crash.At("store.system-table-made")
		}
	}
	// The views' first answer: the empty build at the beginning of the log. Two processes that
	// both write it write the same. Where a batch has ever run, the row was lost: then the views
	// throw until the next one, since the beginning of the log may be gone.
	first := fmt.Sprintf("INSERT INTO %[1]s (flip, build, cut, pinned, term) SELECT 0, 0, 0, false, 0 FROM system.one WHERE (SELECT count() FROM %[1]s) = 0 AND (SELECT count() FROM %[2]s WHERE role = %[3]s) = 0 AND (SELECT count() FROM %[4]s WHERE build > 0) = 0",
		db.name("live"), db.name("terms"), literal(RoleBatch), db.name("builds"))
	// A table that cannot be read was written once, so there is nothing to begin.
	if err := db.exec(ctx, first); err != nil && !isDamaged(err) {
		return fmt.Errorf("begin table live: %w", err)
	}
	return nil
}

// An OutdatedError says that the database was made by a version of Watershed whose system tables
// differ. Nothing was changed in it.
type OutdatedError struct {
	Database, Table, Column string // what is missing
}

func (e *OutdatedError) Error() string {
	return fmt.Sprintf("database %[1]s was made by another version of Watershed: table %[2]s has no column %[3]s."+
		" It only caches history and log: drop or rename it (DROP DATABASE %[1]s; for `watershed up` stop it and remove the directory clickhouse below --dir), and it is rebuilt",
		e.Database, e.Table, e.Column)
}

// checkSystem refuses a database of another version before anything is written to it, and returns the
// names of the tables and views that are there.
func (db *DB) checkSystem(ctx context.Context) (have map[string]bool, err error) {
	got, err := rows[struct {
		Table   string   `ch:"table"`
		Columns []string `ch:"columns"`
	}](ctx, db.client, "SELECT table, groupArray(name) AS columns FROM system.columns WHERE database = "+literal(db.database)+" GROUP BY table")
	if err != nil {
		return nil, fmt.Errorf("look at the tables of database %s: %w", db.database, err)
	}
	there := make(map[string][]string, len(got))
	have = make(map[string]bool, len(got))
	for _, g := range got {
		there[g.Table], have[g.Table] = g.Columns, true
	}
	for _, t := range systemTables {
		columns, exists := there[t.name]
		for column := range strings.SplitSeq(t.columns, ", ") {
			name, _, _ := strings.Cut(column, " ")
			if exists && !slices.Contains(columns, name) {
				return nil, &OutdatedError{Database: db.database, Table: t.name, Column: name}
			}
		}
	}
	return have, nil
}

// fenceSQL makes the way into a table: a staging table that keeps nothing, and the
// materialized view that moves a block on from there only if its term is the newest of its
// role. The newest term is looked up when the block arrives.
func (db *DB) fenceSQL(table, staging, fence, columns, role, term, output string) []string {
	return []string{
		fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (%s) ENGINE = Null", db.name(staging), columns),
		fmt.Sprintf("CREATE MATERIALIZED VIEW IF NOT EXISTS %s TO %s AS SELECT %s FROM %s WHERE NOT throwIf(%s < (SELECT max(term) FROM %s WHERE role = %s), %s)",
			db.name(fence), db.name(table), output, db.name(staging), term, db.name("terms"), literal(role),
			literal(fenceMark+"a newer "+role+" term took over")),
	}
}
