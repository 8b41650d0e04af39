package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"watershed/internal/crash"
	"watershed/schemas"
)

// An Unreadable is a table of ours that ClickHouse has, and that it cannot read, or has read without a part
// that it has put aside.
type Unreadable struct {
	Table string
	Why   string // in ClickHouse's words
}

// MetDamage reports that a statement of this DB has failed with a Damaged error, and that Unreadable has
// not been asked since, or found it.
func (db *DB) MetDamage() bool { return db.damage.Load() }

// Suspect reports that a table may be damaged: by MetDamage, or because ClickHouse has put a part of a system
// table aside when it loaded it. It reads no table.
func (db *DB) Suspect(ctx context.Context) (bool, error) {
	if db.MetDamage() {
		return true, nil
	}
	aside, err := db.putAside(ctx)
	return len(aside) > 0, wrapf(err, "look for broken parts")
}

// Unreadable reads all tables of the database, system tables and plans' tables, and lists those that are
// damaged. What plans' tables miss without being damaged, Check finds. It changes nothing.
func (db *DB) Unreadable(ctx context.Context) ([]Unreadable, error) {
	out, err := db.unreadable(ctx)
	return out, wrapf(err, "look for damaged tables")
}

func (db *DB) unreadable(ctx context.Context) (out []Unreadable, err error) {
	aside, err := db.putAside(ctx)
	if err != nil {
		return nil, err
	}
	have, err := db.tables(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(have))
	for name := range have {
		part := planTable.FindStringSubmatch(name)
		if part != nil && part[4] == "" || isSystem(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		why := aside[name]
		if why == "" {
			if why, err = db.cannotRead(ctx, name); err != nil {
				return nil, err
			}
		}
		if why != "" {
			out = append(out, Unreadable{name, why})
		}
	}
	db.damage.Store(len(out) > 0)
	return out, nil
}

func isSystem(name string) bool {
	return slices.ContainsFunc(systemTables[:], func(t systemTable) bool { return t.name == name })
}

// putAside lists the system tables of which ClickHouse has put broken parts aside, when it loaded them: they
// can be read, and lack rows. Of plans' tables, Check looks at that.
func (db *DB) putAside(ctx context.Context) (map[string]string, error) {
	names := make([]string, len(systemTables))
	for i, t := range systemTables {
		names[i] = literal(t.name)
	}
	got, err := rows[struct {
		Table string   `ch:"table"`
		Parts []string `ch:"parts"`
	}](ctx, db.client, fmt.Sprintf("SELECT table, groupArray(name) AS parts FROM system.detached_parts WHERE database = %s AND startsWith(reason, 'broken') AND table IN (%s) GROUP BY table",
		literal(db.database), strings.Join(names, ", ")))
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(got))
	for _, r := range got {
		out[r.Table] = "ClickHouse has put broken parts aside: " + strings.Join(r.Parts, ", ")
	}
	return out, nil
}

// cannotRead says why a table cannot be read; empty: it can. All columns are read, as queries do, and then
// the files are held against their checksums: some are looked at only when ClickHouse starts.
func (db *DB) cannotRead(ctx context.Context, table string) (string, error) {
	why := func(err error) (string, error) {
		if isDamaged(err) {
			return err.Error(), nil
		}
		return "", err
	}
	_, err := rows[struct {
		N uint64 `ch:"n"`
	}](ctx, db.client, fmt.Sprintf("SELECT count() AS n FROM %s WHERE NOT ignore(*)", db.name(table)))
	if err != nil {
		return why(err)
	}
	parts, err := rows[struct {
		Part    string `ch:"part_path"`
		Passed  bool   `ch:"is_passed"`
		Message string `ch:"message"`
	}](ctx, db.client, fmt.Sprintf("CHECK TABLE %s SETTINGS check_query_single_value_result = 0", db.name(table)))
	if err != nil {
		return why(err)
	}
	for _, p := range parts {
		if !p.Passed {
			return fmt.Sprintf("part %s: %s", p.Part, p.Message), nil
		}
	}
	return "", nil
}

// Renew drops damaged tables, and makes system tables again, so that a damaged table is one that is lost:
// Check finds what views lack by that, and a batch computes it. Those of plans are made again
// by who writes them. Newest says which term of a role is the newest that was ever given out.
//
// A table is looked at again right before it is dropped. Two that renew the same at once do no harm: what
// was written to the new table in between is lost too, and found like the rest.
//
// If we stop anywhere, what is done is done: a table that is gone is made again by Open, the two that
// are exchanged are as they were or renewed, and the others are still damaged.
func (db *DB) Renew(ctx context.Context, damaged []Unreadable, newest func(ctx context.Context, role string) (uint64, error)) error {
	return wrapf(db.renew(ctx, damaged, newest), "renew damaged tables")
}

func (db *DB) renew(ctx context.Context, damaged []Unreadable, newest func(ctx context.Context, role string) (uint64, error)) error {
	still, err := db.unreadable(ctx)
	if err != nil {
		return err
	}
	is := make(map[string]bool)
	for _, u := range still {
		is[u.Table] = slices.ContainsFunc(damaged, func(d Unreadable) bool { return d.Table == u.Table })
	}
	for _, u := range still {
		if !is[u.Table] || u.Table == "terms" || u.Table == "begins" {
			continue
		}
		db.logger.Error("dropping a damaged table; what it held is computed again", "table", u.Table, "why", u.Why)
		if err := db.exec(ctx, "DROP TABLE IF EXISTS "+db.name(u.Table)+" SYNC"); err != nil {
			return err
		}
		crash.At("store.damaged-dropped")
	}
	if err := db.createSystem(ctx); err != nil {
		return err
	}
	// Without a beginning a view would show what is stored as if it were all; without terms, whoever was
	// overtaken could write. So these two are exchanged for tables that have what must not be missed.
	if is["begins"] {
		if err := db.renewBegins(ctx); err != nil {
			return err
		}
	}
	if is["terms"] {
		if err := db.renewTerms(ctx, newest); err != nil {
			return err
		}
	}
	db.damage.Store(false)
	return nil
}

// anew is the name of the table that is exchanged for a system table.
func anew(table string) string { return "_" + table + "_anew" }

// exchange puts a new table in the place of a system table, in one step, with what fill writes to it.
func (db *DB) exchange(ctx context.Context, table string, fill func(into string) error) error {
	db.logger.Error("exchanging a damaged table for a new one", "table", table)
	drop := "DROP TABLE IF EXISTS " + db.name(anew(table)) + " SYNC"
	if err := db.exec(ctx, drop); err != nil { // of an attempt that was interrupted
		return err
	}
	i := slices.IndexFunc(systemTables[:], func(t systemTable) bool { return t.name == table })
	if err := db.exec(ctx, db.systemSQL(systemTables[i], anew(table))); err != nil {
		return err
	}
	if err := fill(anew(table)); err != nil {
		return err
	}
	// If we stop here, the damaged table is still in use; if behind this, it is left over, and the next
	// call that exchanges it drops it.
	if err := db.exec(ctx, fmt.Sprintf("EXCHANGE TABLES %s AND %s", db.name(table), db.name(anew(table)))); err != nil {
		return err
	}
	crash.At("store.damaged-exchanged")
	return db.exec(ctx, drop)
}

// renewBegins makes a table of beginnings in which every plan begins behind all that it was folded for, so
// that no view answers before a build that needs none of the states there.
func (db *DB) renewBegins(ctx context.Context) error {
	got, err := rows[struct {
		Plan  string `ch:"plan"`
		Until uint64 `ch:"until"`
	}](ctx, db.client, fmt.Sprintf("SELECT plan, max(reached) + 1 AS until FROM (SELECT plan, epoch AS reached FROM %[1]s WHERE NOT endsWith(plan, %[3]s) UNION ALL SELECT plan, at_cut FROM %[2]s WHERE plan != '') GROUP BY plan",
		db.name("positions"), db.name("builds"), literal(beginCopy)))
	if err != nil {
		return err
	}
	marks := make(map[string]schemas.Mark, len(got))
	for _, r := range got {
		marks[r.Plan] = schemas.Mark{Epoch: r.Until}
	}
	err = db.exchange(ctx, "begins", func(into string) error {
		if len(marks) == 0 {
			return nil
		}
		return db.insertUnfenced(ctx, into, marksBlock(0, marks))
	})
	if err != nil || len(marks) == 0 {
		return err
	}
	// If we stop here, the copies are older than the marks, which harms nothing.
	return db.insertUnfenced(ctx, "positions", marksBlock(0, beginCopies(marks)))
}

// renewTerms makes a table of terms with the newest of each role: those that the log has counted, or that
// other tables know, if the log has lost its counters.
func (db *DB) renewTerms(ctx context.Context, newest func(ctx context.Context, role string) (uint64, error)) error {
	var roles []string
	var terms []uint64
	for _, role := range []string{RoleSpeed, RoleBatch} {
		term, err := newest(ctx, role)
		if err != nil {
			return err
		}
		var written []string
		for _, t := range systemTables {
			if t.role == role {
				written = append(written, "SELECT max(term) AS newest FROM "+db.name(t.name))
			}
		}
		got, err := rows[struct {
			Term uint64 `ch:"term"`
		}](ctx, db.client, "SELECT max(newest) AS term FROM ("+strings.Join(written, " UNION ALL ")+")")
		if err != nil {
			return err
		}
		for _, r := range got {
			term = max(term, r.Term)
		}
		if term > 0 { // else it has never had one
			roles, terms = append(roles, role), append(terms, term)
		}
	}
	return db.exchange(ctx, "terms", func(into string) error {
		if len(terms) == 0 {
			return nil
		}
		b := &block{rows: len(terms)}
		b.add("role", roles)
		b.add("term", terms)
		return db.insertUnfenced(ctx, into, b)
	})
}
