package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"watershed/internal/crash"
	"watershed/schemas"
)

// NotFoundError says that there is no build of that number.
type NotFoundError struct{ Build uint64 }

func (e *NotFoundError) Error() string { return fmt.Sprintf("there is no build %d", e.Build) }

// Live says which build the merged views show; a *NoLiveError if nothing does.
func (db *DB) Live(ctx context.Context) (schemas.Live, error) { return readLive(ctx, db.client) }

func readLive(ctx context.Context, c *client) (schemas.Live, error) {
	got, err := rows[struct {
		Flip   uint64 `ch:"flip"`
		Build  uint64 `ch:"build"`
		Cut    uint64 `ch:"cut"`
		Pinned bool   `ch:"pinned"`
		Micros int64  `ch:"micros"`
	}](ctx, c, "SELECT flip, build, cut, pinned, toUnixTimestamp64Micro(at) AS micros FROM "+c.name("live")+" ORDER BY flip DESC LIMIT 1")
	if err != nil {
		return schemas.Live{}, fmt.Errorf("read the live build: %w", err)
	}
	if len(got) != 1 {
		return schemas.Live{}, fmt.Errorf("read the live build: %w", &NoLiveError{c.database})
	}
	l := got[0]
	return schemas.Live{Flip: l.Flip, Build: l.Build, Cut: l.Cut, Pinned: l.Pinned, At: time.UnixMicro(l.Micros).UTC()}, nil
}

// Flip makes a build live. The row that it inserts is what all merged views read, so that
// they change at once. to.Flip must be a number that was never used before; to.At is ignored.
// It is refused for a build that is not there.
func (db *DB) Flip(ctx context.Context, term uint64, to schemas.Live) error {
	if to.Build != 0 {
		got, err := rows[struct {
			Cut  uint64 `ch:"cut"`
			Gone uint64 `ch:"gone"`
		}](ctx, db.client, fmt.Sprintf("SELECT any(builds.cut) AS cut, countIf(slice != 0 AND (plan, slice) IN (SELECT plan, slice FROM %[3]s) OR ('', build) IN (SELECT plan, slice FROM %[3]s)) AS gone FROM %[1]s AS builds WHERE build = %[2]d GROUP BY build",
			db.name("builds"), to.Build, db.name("condemned")))
		if err == nil && len(got) == 0 {
			err = &NotFoundError{to.Build}
		}
		if err != nil {
			return fmt.Errorf("flip to build %d: %w", to.Build, err)
		}
		if got[0].Cut != to.Cut {
			return fmt.Errorf("flip to build %d: it stands at cut %d, not %d", to.Build, got[0].Cut, to.Cut)
		}
		if got[0].Gone > 0 {
			return fmt.Errorf("flip to build %d: it is being dropped: choose a newer build", to.Build)
		}
	}
	b := &block{rows: 1}
	b.constant("flip", to.Flip)
	b.constant("build", to.Build)
	b.constant("cut", to.Cut)
	b.add("pinned", []bool{to.Pinned})
	b.constant("term", term)
	// If we stop here the old build stays live; the flip's number is lost and the next is higher.
	if err := db.insert(ctx, "live_in", RoleBatch, term, b); err != nil {
		return wrapf(err, "flip to build %d", to.Build)
	}
	crash.At("store.flipped")
	return nil
}

// SaveBuild stores a build, in one insert of one block. A build that is stored already is left
// alone if it is equal, replaced if it was never live, and otherwise an error.
func (db *DB) SaveBuild(ctx context.Context, term uint64, build schemas.Build) error {
	if build.Number == 0 {
		return fmt.Errorf("save build: build 0 is the empty build")
	}
	b, err := buildBlock(term, build)
	if err != nil {
		return fmt.Errorf("save build %d: %w", build.Number, err)
	}
	done, err := db.replaceable(ctx, build)
	if err != nil || done {
		return wrapf(err, "save build %d", build.Number)
	}
	// If we stop here there is no such build. Nothing shows it before it is flipped to, and
	// that comes after.
	if err := db.insert(ctx, "builds_in", RoleBatch, term, b); err != nil {
		return wrapf(err, "save build %d", build.Number)
	}
	crash.At("store.build-saved")
	return nil
}

// replaceable drops another build of that number, or says that the same is there.
func (db *DB) replaceable(ctx context.Context, build schemas.Build) (same bool, err error) {
	listed, err := rows[struct {
		One uint8 `ch:"1"`
	}](ctx, db.client, fmt.Sprintf("SELECT 1 FROM %s WHERE build = %d LIMIT 1", db.name("builds"), build.Number))
	if err != nil || len(listed) == 0 { // as nearly always
		return false, err
	}
	old, err := db.Build(ctx, build.Number)
	if err != nil {
		return false, err
	}
	if sameBuild(old, build) {
		return true, nil
	}
	shown, err := rows[struct {
		One uint8 `ch:"1"`
	}](ctx, db.client, fmt.Sprintf("SELECT 1 FROM %s WHERE build = %d LIMIT 1", db.name("live"), build.Number))
	if err != nil {
		return false, err
	}
	if len(shown) > 0 {
		return false, fmt.Errorf("another build of that number was live already")
	}
	return false, db.exec(ctx, fmt.Sprintf("ALTER TABLE %s DROP PARTITION %d", db.name("builds"), build.Number))
}

func sameBuild(a, b schemas.Build) bool {
	if a.Cut != b.Cut || a.Position != b.Position || len(a.Plans) != len(b.Plans) || a.Definitions.Hash() != b.Definitions.Hash() {
		return false
	}
	for plan, s := range a.Plans {
		t, ok := b.Plans[plan]
		if !ok || s.Cut != t.Cut || s.Position != t.Position || !slices.Equal(keysOf(s.Slices), keysOf(t.Slices)) {
			return false
		}
	}
	return true
}

func keysOf(s []schemas.Slice) []string {
	out := make([]string, len(s))
	for i, x := range s {
		out[i] = fmt.Sprintf("%d/%d", x.Date, x.ID)
	}
	slices.Sort(out)
	return out
}

// buildBlock has one row for the build itself, under no plan; with slice 0 one per plan, which says
// that the plan is covered, even if it has no history; and one per slice.
func buildBlock(term uint64, build schemas.Build) (*block, error) {
	definitions, err := build.Definitions.MarshalJSON()
	if err != nil {
		return nil, err
	}
	plans, dates, ids := []string{""}, []int32{0}, []uint64{0}
	cuts, positions, texts := []uint64{build.Cut}, []schemas.Position{build.Position}, []string{string(definitions)}
	for plan, of := range build.Plans {
		if of.Cut > build.Cut {
			return nil, fmt.Errorf("plan %.8s stands at cut %d, which comes after the build's cut %d", plan, of.Cut, build.Cut)
		}
		for i, s := range append([]schemas.Slice{{}}, of.Slices...) {
			if i > 0 && (s.ID == 0 || s.Plan != "" && s.Plan != plan) {
				return nil, fmt.Errorf("slice %d of plan %.8s does not belong to plan %.8s", s.ID, s.Plan, plan)
			}
			plans, dates, ids = append(plans, plan), append(dates, s.Date), append(ids, s.ID)
			cuts, positions, texts = append(cuts, of.Cut), append(positions, of.Position), append(texts, "")
		}
	}
	if len(plans) > maxFlush {
		return nil, fmt.Errorf("%d slices, want %d or fewer", len(plans), maxFlush)
	}
	b := &block{rows: len(plans)}
	b.constant("build", build.Number)
	b.constant("cut", build.Cut)
	b.add("plan", plans)
	b.dates("date", dates)
	b.add("slice", ids)
	b.add("at_cut", cuts)
	b.positions(positions)
	b.add("definitions", texts)
	b.constant("term", term)
	return b, nil
}

// Build reads a build; a *NotFoundError if there is none of that number. Its slices have all
// that was registered of them.
func (db *DB) Build(ctx context.Context, number uint64) (schemas.Build, error) {
	got, err := rows[struct {
		sliceRow
		Cut         uint64 `ch:"cut"`
		AtCut       uint64 `ch:"at_cut"`
		Seq         uint64 `ch:"seq"`
		Hash        uint64 `ch:"hash"`
		Definitions string `ch:"definitions"`
		Micros      int64  `ch:"micros"`
	}](ctx, db.client, fmt.Sprintf(`SELECT b.cut AS cut, b.plan AS plan, toInt32(b.date) AS date, b.slice AS slice, any(b.at_cut) AS at_cut, any(b.seq) AS seq, any(b.hash) AS hash,
		any(b.definitions) AS definitions, any(toUnixTimestamp64Micro(b.at)) AS micros, any(s.key) AS key, any(s.groups) AS groups, any(s.events) AS events, any(s.duplicates) AS duplicates
		FROM %s AS b LEFT JOIN %s AS s ON s.plan = b.plan AND s.slice = b.slice WHERE b.build = %d
		GROUP BY cut, plan, date, slice ORDER BY plan, slice != 0, date, slice`, db.name("builds"), db.name("slices"), number))
	if err != nil {
		return schemas.Build{}, fmt.Errorf("read build %d: %w", number, err)
	}
	b := schemas.Build{Number: number, Plans: make(map[string]schemas.Covered)}
	if len(got) == 0 {
		if number == 0 {
			return b, nil
		}
		return schemas.Build{}, &NotFoundError{number}
	}
	b.Cut, b.At = got[0].Cut, time.UnixMicro(got[0].Micros).UTC()
	for _, r := range got {
		at := schemas.Position{Seq: r.Seq, Hash: r.Hash}
		switch {
		case r.Plan == "":
			definitions, err := schemas.ParseSet([]byte(r.Definitions))
			if err != nil {
				return schemas.Build{}, fmt.Errorf("read build %d: %w", number, err)
			}
			b.Position, b.Definitions = at, *definitions
		case r.Slice == 0:
			b.Plans[r.Plan] = schemas.Covered{Cut: r.AtCut, Position: at}
		default:
			of := b.Plans[r.Plan]
			of.Slices = append(of.Slices, r.slice())
			b.Plans[r.Plan] = of
		}
	}
	return b, nil
}

// A BuildInfo is a line of the list of builds.
type BuildInfo struct {
	Number uint64
	Cut    uint64
	Plans  []string // hashes of the plans that it covers, sorted
	Slices uint64
	Live   bool
	At     time.Time
}

// Builds lists the stored builds, newest first. That nothing says which is live is no error: none is.
func (db *DB) Builds(ctx context.Context) ([]BuildInfo, error) {
	live, err := db.Live(ctx)
	var none *NoLiveError
	unknown := errors.As(err, &none)
	if err != nil && !unknown {
		return nil, err
	}
	got, err := rows[struct {
		Build  uint64   `ch:"build"`
		Cut    uint64   `ch:"cut"`
		Plans  []string `ch:"plans"`
		Slices uint64   `ch:"slices"`
		Micros int64    `ch:"micros"`
	}](ctx, db.client, "SELECT build, any(cut) AS cut, arraySort(groupUniqArrayIf(plan, plan != '')) AS plans, uniqExactIf((plan, slice), slice != 0) AS slices, toUnixTimestamp64Micro(max(at)) AS micros FROM "+
		db.name("builds")+" GROUP BY build ORDER BY build DESC")
	if err != nil {
		return nil, fmt.Errorf("list builds: %w", err)
	}
	out := make([]BuildInfo, len(got))
	for i, r := range got {
		out[i] = BuildInfo{Number: r.Build, Cut: r.Cut, Plans: r.Plans, Slices: r.Slices, Live: !unknown && r.Build == live.Build, At: time.UnixMicro(r.Micros).UTC()}
	}
	return out, nil
}

// list writes numbers for an IN.
func list(ids []uint64) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = strconv.FormatUint(id, 10)
	}
	return strings.Join(out, ", ")
}
