package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"watershed/internal/crash"
	"watershed/schemas"
)

// A NoLiveError says that no row says which build is live. Views answer with an error until the
// next flip.
type NoLiveError struct{ database string }

func (e *NoLiveError) Error() string {
	return fmt.Sprintf("table live of database %s is empty: run a batch", e.database)
}

// NoLive reports true.
func (e *NoLiveError) NoLive() bool { return true }

// Check holds what the views rest on against what there is: the row that says which build is live,
// the build's rows, for each plan its tables, its slices with the number of groups that each was
// registered with, and the speed states. It reads a column of each batch table, and changes nothing.
//
// Of the speed states it finds a table that is gone or was made anew, parts that ClickHouse put
// aside as broken, positions without a beginning, and beginnings of which only the copy is left. Rows of
// states that somebody deleted it does not find; the next audit does.
func (db *DB) Check(ctx context.Context) (schemas.Damage, error) {
	d, err := db.check(ctx)
	return d, wrapf(err, "check the live build")
}

func (db *DB) check(ctx context.Context) (schemas.Damage, error) {
	live, err := db.Live(ctx)
	var none *NoLiveError
	if errors.As(err, &none) {
		return schemas.Damage{All: "no row says which build is live"}, nil
	}
	if err != nil {
		return schemas.Damage{}, err
	}
	d, err := db.checkBuild(ctx, live.Build)
	var absent *NotFoundError
	if errors.As(err, &absent) {
		d.All = fmt.Sprintf("the rows of build %d, which is live, are gone", live.Build)
		return d, nil
	}
	return d, err
}

// CheckBuild is Check for a build that is not live: what would be missing if it were. It fails with a
// *NotFoundError if there is no such build.
func (db *DB) CheckBuild(ctx context.Context, number uint64) (schemas.Damage, error) {
	d, err := db.checkBuild(ctx, number)
	return d, wrapf(err, "check build %d", number)
}

func (db *DB) checkBuild(ctx context.Context, number uint64) (schemas.Damage, error) {
	d := schemas.Damage{Build: number}
	build, err := db.Build(ctx, number)
	if err != nil {
		return d, err
	}
	tables, err := db.planTables(ctx)
	if err != nil {
		return d, err
	}
	reached, err := db.reached(ctx)
	if err != nil {
		return d, err
	}
	broken, err := db.brokenEpochs(ctx)
	if err != nil {
		return d, err
	}
	ids := make(map[string][]uint64)
	for plan, of := range build.Plans {
		if t := tables[plan[:min(8, len(plan))]]; t.batch != "" {
			for _, s := range of.Slices {
				ids[t.batch] = append(ids[t.batch], s.ID)
			}
		}
	}
	counts, err := db.countSlices(ctx, ids)
	if err != nil {
		return d, err
	}
	for plan, of := range build.Plans {
		t := tables[plan[:min(8, len(plan))]]
		missing, until := missingSpeed(of, t, reached[plan], broken[t.speed])
		if slices := missingSlices(of, t, counts); len(slices) > 0 {
			missing, until = append(missing, slices...), max(until, of.Cut+1)
		}
		if len(missing) > 0 {
			d.Plans = append(d.Plans, schemas.PlanDamage{Plan: plan, View: t.view, Missing: missing, Until: until})
		}
	}
	slices.SortFunc(d.Plans, func(a, b schemas.PlanDamage) int { return strings.Compare(a.View+a.Plan, b.View+b.Plan) })
	return d, nil
}

// missingSpeed says what a plan lacks of its speed states, and at which cut a build must stand to do
// without: all that is stored of them may have a gap.
func missingSpeed(of schemas.Covered, t planTables, at reach, broken []uint64) (out []string, until uint64) {
	if t.speed == "" {
		out = append(out, "the table of its speed states is gone")
	}
	if slices.ContainsFunc(broken, func(epoch uint64) bool { return epoch >= of.Cut }) {
		out = append(out, "ClickHouse has put a broken part of its speed states aside")
	}
	if at.folded && !at.begun {
		out = append(out, "nothing says where its speed states begin")
	}
	if len(out) > 0 {
		return out, max(of.Cut, at.epoch) + 1
	}
	if at.copied > at.begins { // what is stored again may be more than the build needs; it is whole then
		return []string{fmt.Sprintf("that its speed states begin at cut %d is not where it was stored", at.copied)}, at.copied
	}
	if at.begins > of.Cut {
		return []string{fmt.Sprintf("its speed states begin at cut %d, and the build stands at cut %d", at.begins, of.Cut)}, at.begins
	}
	return nil, 0
}

// missingSlices says what a plan lacks of its slices, by the rows that slices have.
func missingSlices(of schemas.Covered, t planTables, counts map[uint64]uint64) (out []string) {
	if len(of.Slices) == 0 {
		return nil
	}
	if t.batch == "" {
		return append(out, "the table of its slices is gone")
	}
	unregistered, short, groups, found := 0, 0, uint64(0), uint64(0)
	for _, s := range of.Slices {
		if s.Key == "" {
			unregistered++
		} else if counts[s.ID] != s.Groups {
			short, groups, found = short+1, groups+s.Groups, found+counts[s.ID]
		}
	}
	if unregistered > 0 {
		out = append(out, fmt.Sprintf("%d of %d slices are not registered", unregistered, len(of.Slices)))
	}
	if short > 0 {
		out = append(out, fmt.Sprintf("%d of %d slices have %d groups instead of %d", short, len(of.Slices), found, groups))
	}
	return out
}

// Seal makes the views that a damage is about answer with an error, until a build is live that has
// everything again. It may be called at any time and by anyone: what is stored only ends answers,
// and only those that rest on builds up to the damaged one.
func (db *DB) Seal(ctx context.Context, d schemas.Damage) error {
	// What All is about throws by itself: no build is live that covers a plan.
	if len(d.Plans) == 0 {
		return nil
	}
	reached, err := db.reached(ctx)
	if err != nil {
		return fmt.Errorf("end the answers of damaged views: %w", err)
	}
	marks := make(map[string]schemas.Mark, len(d.Plans))
	for _, p := range d.Plans {
		if reached[p.Plan].begins < p.Until {
			marks[p.Plan] = schemas.Mark{Epoch: p.Until}
		}
	}
	if len(marks) == 0 {
		return nil
	}
	// If we stop here, the next check finds the same. If we stop after it, the views throw.
	if err := db.insertUnfenced(ctx, "begins", marksBlock(0, marks)); err != nil {
		return wrapf(err, "end the answers of damaged views")
	}
	crash.At("store.sealed")
	return wrapf(db.insertUnfenced(ctx, "positions", marksBlock(0, beginCopies(marks))), "end the answers of damaged views")
}

// planTables are the names of a plan's tables; empty where one is not there.
type planTables struct {
	view, batch, speed string
}

// planTables finds the plans' tables, by the first digits of the plans' hashes.
func (db *DB) planTables(ctx context.Context) (map[string]planTables, error) {
	have, err := db.tables(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]planTables)
	for name := range have {
		part := planTable.FindStringSubmatch(name)
		if part == nil {
			continue
		}
		t := out[part[2]]
		t.view = part[1]
		switch part[3] + part[4] {
		case "batch":
			t.batch = name
		case "speed":
			t.speed = name
		}
		out[part[2]] = t
	}
	return out, nil
}

// reach is what the tables of positions and beginnings say of a plan.
type reach struct {
	epoch  uint64 // the newest that either names
	begins uint64
	copied uint64 // begins, as the copy beside the positions has it
	folded bool   // it has a position
	begun  bool   // it has a beginning
}

// begunEpoch is an epoch in which the plan of a beginning has had states. A seal, which has no
// position, names the next.
const begunEpoch = "if(epoch > 0 AND seq = 0 AND hash = 0, toUInt64(epoch - 1), epoch)"

// reached reads positions and beginnings of all plans.
func (db *DB) reached(ctx context.Context) (map[string]reach, error) {
	got, err := rows[struct {
		Plan   string `ch:"plan"`
		Epoch  uint64 `ch:"epoch"`
		Begins uint64 `ch:"begins"`
		Copied uint64 `ch:"copied"`
		Folded bool   `ch:"folded"`
		Begun  bool   `ch:"begun"`
	}](ctx, db.client, fmt.Sprintf(`SELECT plan, max(_s.reached) AS epoch, max(_s.begins) AS begins, max(_s.copied) AS copied, toBool(countIf(_s.kind = 'position') > 0) AS folded, toBool(countIf(_s.kind = 'begin') > 0) AS begun
		FROM (SELECT plan, epoch AS reached, 0 AS begins, 0 AS copied, 'position' AS kind FROM %[1]s WHERE NOT endsWith(plan, %[2]s)
		UNION ALL SELECT substring(plan, 1, length(plan) - %[3]d), 0, 0, epoch, 'copy' FROM %[1]s WHERE endsWith(plan, %[2]s)
		UNION ALL SELECT plan, %[4]s, epoch, 0, 'begin' FROM %[5]s) AS _s GROUP BY plan`,
		db.name("positions"), literal(beginCopy), len(beginCopy), begunEpoch, db.name("begins")))
	if err != nil {
		return nil, err
	}
	out := make(map[string]reach, len(got))
	for _, r := range got {
		out[r.Plan] = reach{epoch: r.Epoch, begins: r.Begins, copied: r.Copied, folded: r.Folded, begun: r.Begun}
	}
	return out, nil
}

// brokenEpochs lists, by speed table, the epochs of which ClickHouse has put parts aside.
func (db *DB) brokenEpochs(ctx context.Context) (map[string][]uint64, error) {
	got, err := rows[struct {
		Table  string   `ch:"table"`
		Epochs []uint64 `ch:"epochs"`
	}](ctx, db.client, "SELECT table, groupUniqArray(toUInt64OrZero(splitByChar('-', assumeNotNull(partition_id))[1])) AS epochs FROM system.detached_parts WHERE database = "+
		literal(db.database)+" AND startsWith(reason, 'broken') AND endsWith(table, '__speed') GROUP BY table")
	if err != nil {
		return nil, err
	}
	out := make(map[string][]uint64, len(got))
	for _, r := range got {
		out[r.Table] = r.Epochs
	}
	return out, nil
}
