package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"watershed/internal/crash"
	"watershed/schemas"
)

// Garbage drops what an earlier call condemned, and condemns what is no longer kept: kept are
// the live build, the builds newer than it, and so many older ones that were live. It returns how many slices
// and epochs it dropped. Only the holder of the newest batch term may call it, after its flip.
//
// The order makes every stop harmless. Epochs go by the builds that were still listed when the
// call began, and slices go in the call after the one that condemned them, so that a query that
// read the live build long ago still finds what it names. A condemned slice is never reused,
// and a build that names one cannot be flipped to.
func (db *DB) Garbage(ctx context.Context, term, keep uint64) (int, error) {
	dropped, err := db.garbage(ctx, term, keep)
	return dropped, wrapf(err, "drop what is no longer kept")
}

func (db *DB) garbage(ctx context.Context, term, keep uint64) (int, error) {
	live, err := db.Live(ctx)
	if err != nil {
		return 0, err
	}
	b, err := db.books(ctx)
	if err != nil || len(b.builds) == 0 {
		return 0, err
	}
	dropped, gone, err := db.dropParts(ctx, term, b)
	if err != nil {
		return dropped, err
	}
	if err := db.tidy(ctx, live, b, gone); err != nil {
		return dropped, err
	}
	var old []uint64
	for _, n := range b.builds {
		switch {
		case n >= live.Build:
		case keep > 0 && b.wasLive[n]: // a query may still be looking at it, and a rollback go to it
			keep--
		default:
			old = append(old, n)
		}
	}
	if len(old) == 0 {
		return dropped, nil
	}
	// If we stop here, the next call finds the same builds and does this again.
	if err := db.condemn(ctx, term, old); err != nil {
		return dropped, err
	}
	// If we stop here, the old builds are listed still, but cannot be flipped to.
	drops := make([]string, len(old))
	for i, n := range old {
		drops[i] = fmt.Sprintf("DROP PARTITION %d", n)
	}
	if err := db.exec(ctx, "ALTER TABLE "+db.name("builds")+" "+strings.Join(drops, ", ")); err != nil {
		return dropped, err
	}
	crash.At("store.builds-dropped")
	return dropped, nil
}

// condemn condemns old builds, the slices that they name and no other does, and those that no
// build ever named: of runs that were given up.
func (db *DB) condemn(ctx context.Context, term uint64, old []uint64) error {
	got, err := rows[struct {
		Plan  string `ch:"plan"`
		Slice uint64 `ch:"slice"`
	}](ctx, db.client, fmt.Sprintf(`SELECT DISTINCT plan, slice FROM (SELECT plan, slice FROM %[1]s UNION ALL SELECT plan, slice FROM %[2]s WHERE build IN (%[4]s) AND slice != 0)
		WHERE (plan, slice) NOT IN (SELECT plan, slice FROM %[2]s WHERE build NOT IN (%[4]s)) AND (plan, slice) NOT IN (SELECT plan, slice FROM %[3]s)`,
		db.name("slices"), db.name("builds"), db.name("condemned"), list(old)))
	if err != nil {
		return err
	}
	// The builds themselves, under no plan: a flip to one of them that came after live was read
	// finds it, or has taken a newer term, and this insert fails.
	plans, ids := make([]string, len(old)), slices.Clone(old)
	for _, r := range got {
		plans, ids = append(plans, r.Plan), append(ids, r.Slice)
	}
	b := &block{rows: len(ids)}
	b.add("plan", plans)
	b.add("slice", ids)
	b.constant("term", term)
	if err := db.insert(ctx, "condemned_in", RoleBatch, term, b); err != nil {
		return err
	}
	crash.At("store.condemned")
	return nil
}

// part is a partition of a plan's table.
type part struct {
	Table string `ch:"table"`
	Value string `ch:"partition"`
}

// books are what the tables of builds and flips, of terms and audits say of what is kept.
type books struct {
	builds  []uint64 // that are listed, newest first
	wasLive map[uint64]bool
	cut     uint64            // of the oldest build
	oldest  map[string]uint64 // by the first digits of plans' hashes: the oldest cut at which a listed build has the plan
	idle    map[string]uint64 // about how many rows of a table, of terms by their role, no decision rests on
}

// books reads all of it at once: so a call that has nothing to do asks little.
func (db *DB) books(ctx context.Context) (*books, error) {
	got, err := rows[struct {
		What   string `ch:"what"`
		Name   string `ch:"name"`
		Number uint64 `ch:"number"`
		Cut    uint64 `ch:"at"`
	}](ctx, db.client, fmt.Sprintf(`SELECT 'build' AS what, '' AS name, build AS number, any(cut) AS at FROM %[1]s GROUP BY build
		UNION ALL SELECT 'plan', substring(plan, 1, 8) AS digits, toUInt64(0), min(at_cut) FROM %[1]s WHERE plan != '' GROUP BY digits
		UNION ALL SELECT 'live', '', build, toUInt64(0) FROM %[2]s GROUP BY build
		UNION ALL SELECT 'idle', 'live', count(), toUInt64(0) FROM %[2]s WHERE build NOT IN (SELECT build FROM %[1]s)
		UNION ALL SELECT 'idle', 'condemned', count(), toUInt64(0) FROM %[3]s WHERE plan = '' AND slice NOT IN (SELECT build FROM %[1]s)
		UNION ALL SELECT 'idle', toString(role) AS of, toUInt64(count() - 1), toUInt64(0) FROM %[4]s GROUP BY of
		UNION ALL SELECT 'idle', 'audits', uniqExact(build), toUInt64(0) FROM %[5]s`,
		db.name("builds"), db.name("live"), db.name("condemned"), db.name("terms"), db.name("audits")))
	if err != nil {
		return nil, err
	}
	b := &books{wasLive: make(map[uint64]bool), oldest: make(map[string]uint64), idle: make(map[string]uint64)}
	cuts := make(map[uint64]uint64)
	for _, r := range got {
		switch r.What {
		case "build":
			b.builds, cuts[r.Number] = append(b.builds, r.Number), r.Cut
		case "plan":
			b.oldest[r.Name] = r.Cut
		case "live":
			b.wasLive[r.Number] = true
		case "idle":
			b.idle[r.Name] = r.Number
		}
	}
	slices.Sort(b.builds)
	slices.Reverse(b.builds)
	if n := len(b.builds); n > 0 {
		b.cut = cuts[b.builds[n-1]]
	}
	return b, nil
}

// partitions lists the partitions of plans' tables.
func (db *DB) partitions(ctx context.Context) ([]part, error) {
	return rows[part](ctx, db.client, "SELECT DISTINCT table, partition FROM system.parts WHERE active AND database = "+literal(db.database)+" AND (endsWith(table, '__batch') OR endsWith(table, '__speed')) ORDER BY table, partition")
}

// number is the partition's parcel or epoch.
func (p part) number() (uint64, error) {
	n, err := strconv.ParseUint(strings.Split(strings.Trim(p.Value, "()"), ",")[0], 10, 64)
	return n, wrapf(err, "partition %s of %s", p.Value, p.Table)
}

// dropParts drops parcels all of whose slices are condemned, those of older terms that were
// never registered, and epochs before the oldest that a build needs of the plan. Of a plan that no
// build has, the next one to have it stands at a newer cut than any: there the oldest build decides.
// It returns how many it dropped, and the condemned slices whose parcels are not there any more.
func (db *DB) dropParts(ctx context.Context, term uint64, b *books) (count int, gone []uint64, err error) {
	parts, err := db.partitions(ctx)
	if err != nil {
		return 0, nil, err
	}
	// A slice id is never used for two plans, so that plans need not be told apart.
	known, err := rows[struct {
		Slice     uint64 `ch:"slice"`
		Condemned uint8  `ch:"condemned"`
	}](ctx, db.client, fmt.Sprintf("SELECT slice, max(gone) AS condemned FROM (SELECT slice, 0 AS gone FROM %s UNION ALL SELECT slice, 1 AS gone FROM %s WHERE plan != '') GROUP BY slice", db.name("slices"), db.name("condemned")))
	if err != nil {
		return 0, nil, err
	}
	registered, kept := make(map[uint64]bool), make(map[uint64]bool) // parcels
	for _, k := range known {
		parcel := k.Slice >> schemas.ParcelBits
		registered[parcel] = true
		kept[parcel] = kept[parcel] || k.Condemned == 0
	}
	drops, stay := make(map[string][]string), make(map[uint64]bool)
	for _, p := range parts {
		number, err := p.number()
		if err != nil {
			return 0, nil, err
		}
		// What this term inserted and did not register may still be looked at by its holder.
		drop := number < schemas.SliceID(term, 0, 0)>>schemas.ParcelBits
		if registered[number] {
			drop = !kept[number]
		}
		if of := planTable.FindStringSubmatch(p.Table); of != nil && of[3] == "speed" {
			from, covered := b.oldest[of[2]]
			if !covered {
				from = b.cut
			}
			drop = number < from
		} else if !drop {
			stay[number] = true
		}
		if drop {
			drops[p.Table] = append(drops[p.Table], "DROP PARTITION "+p.Value)
			count++
		}
	}
	for table, of := range drops {
		for some := range slices.Chunk(of, 500) {
			if err := db.exec(ctx, "ALTER TABLE "+db.name(table)+" "+strings.Join(some, ", ")); err != nil {
				return 0, nil, err
			}
			crash.At("store.partitions-dropped")
		}
	}
	for _, k := range known {
		if k.Condemned != 0 && !stay[k.Slice>>schemas.ParcelBits] {
			gone = append(gone, k.Slice)
		}
	}
	return count, gone, nil
}
