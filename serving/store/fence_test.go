package store_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/schemas"
	"watershed/serving/store"
)

func TestOlderTermsAreRefused(t *testing.T) {
	db, conn := open(t), admin(t, devtest.SharedClickHouse(t))
	p := newPlan("sales", 1)
	ensure(t, db, true, p)
	ctx := t.Context()
	for _, role := range []string{store.RoleSpeed, store.RoleBatch} {
		check(t, db.TakeOver(ctx, role, 4))
		check(t, db.TakeOver(ctx, role, 7))
		if term, err := db.Term(ctx, role); err != nil || term != 7 {
			t.Errorf("term of %s is %d, %v; want 7", role, term, err)
		}
		if err := db.TakeOver(ctx, role, 5); !isFenced(err) {
			t.Errorf("take over %s by an older term: %v; want fenced", role, err)
		}
	}
	rec := states(t, p, some(1, 50))
	mark := schemas.Mark{Epoch: 1, Position: schemas.Position{Seq: 3, Hash: 4}}
	writes := map[string]func(term uint64) error{
		"speed":     func(term uint64) error { return db.InsertSpeed(ctx, p, term, mark, rec) },
		"positions": func(term uint64) error { return db.SavePositions(ctx, term, map[string]schemas.Mark{p.Hash: mark}) },
		"slices": func(term uint64) error {
			return db.InsertSlices(ctx, p, term, []schemas.SliceStates{{Slice: 9, States: rec}})
		},
		"register": func(term uint64) error { return db.RegisterSlices(ctx, term, []schemas.Slice{{Plan: p.Hash, ID: 9}}) },
		"audits":   func(term uint64) error { return db.SaveAudits(ctx, term, []schemas.Audit{{Plan: p.Hash}}) },
		"live":     func(term uint64) error { return db.Flip(ctx, term, schemas.Live{Flip: 1}) },
		"builds": func(term uint64) error {
			return db.SaveBuild(ctx, term, schemas.Build{Number: 3, Cut: 3, Plans: map[string]schemas.Covered{p.Hash: {Cut: 3}}})
		},
	}
	for name, write := range writes {
		if err := write(6); !isFenced(err) {
			t.Errorf("%s by an older term: %v; want fenced", name, err)
		}
	}
	empty := "SELECT (SELECT count() FROM %[1]s__batch) + (SELECT count() FROM %[1]s__speed) + (SELECT count() FROM positions) + (SELECT count() FROM slices) + (SELECT count() FROM audits) + (SELECT count() FROM builds WHERE build > 0) + (SELECT count() FROM live WHERE flip > 0)"
	if got := ask(t, conn, fmt.Sprintf(empty, p.ID())); !cmp.Equal(got, []string{"0"}) {
		t.Errorf("older terms wrote %v rows", got)
	}
	for name, write := range writes {
		if err := write(7); err != nil {
			t.Errorf("%s by the newest term: %v", name, err)
		}
	}
}

func TestTooLargeAFlushIsRefused(t *testing.T) {
	db := open(t)
	p := newPlan("sales", 1)
	p.Dimensions, p.Measures = nil, p.Measures[:1]
	ensure(t, db, true, p)
	err := db.InsertSpeed(t.Context(), p, 1, schemas.Mark{}, counts(p, make([]uint64, 1_000_001)))
	if err == nil {
		t.Error("1,000,001 rows were taken; want an error")
	}
}

// What was acknowledged is there after a crash, and positions survive merges.
func TestPositionsSurviveCrashAndMerge(t *testing.T) {
	cfg := devtest.Config(t.TempDir())
	c := devtest.StartClickHouse(t, cfg)
	db := openOn(t, c)
	p, q := newPlan("sales", 1), newPlan("quiet", 2)
	ensure(t, db, true, p, q)
	check(t, db.TakeOver(t.Context(), store.RoleSpeed, 1))
	var all []event
	last := schemas.Mark{}
	for i := range 5 {
		events := some(i, 100)
		all = append(all, events...)
		last = schemas.Mark{Epoch: 1 + uint64(i)/3, Position: schemas.Position{Seq: uint64(10 * (i + 1)), Hash: uint64(1000 - i)}}
		check(t, db.InsertSpeed(t.Context(), p, 1, last, states(t, p, events)))
	}
	// The quiet plan has only its saved position; the other's is behind its table.
	quiet := schemas.Mark{Epoch: 2, Position: schemas.Position{Seq: 60, Hash: 5}}
	check(t, db.SavePositions(t.Context(), 1, map[string]schemas.Mark{q.Hash: {Epoch: 2, Position: schemas.Position{Seq: 45, Hash: 9}}, p.Hash: {Epoch: 1, Position: schemas.Position{Seq: 20}}}))
	check(t, db.SavePositions(t.Context(), 1, map[string]schemas.Mark{q.Hash: quiet}))
	check(t, c.Kill())

	c, err := devserver.StartClickHouse(t.Context(), cfg)
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	db = openOn(t, c)
	conn := admin(t, c)
	want := map[string]schemas.Mark{p.Hash: last, q.Hash: quiet}
	for _, step := range []string{"SELECT 1", "OPTIMIZE TABLE " + p.ID() + "__speed FINAL", "OPTIMIZE TABLE positions FINAL"} {
		check(t, conn.Exec(t.Context(), step))
		marks, err := db.Positions(t.Context(), asPlans(p, q, newPlan("never", 3))[:2])
		check(t, err)
		if diff := cmp.Diff(want, marks); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", step, diff)
		}
	}
	if diff := cmp.Diff(oracle(t, conn, p, all), shown(t, conn, "sales")); diff != "" {
		t.Errorf("merged view (-want +got):\n%s", diff)
	}
}

// Build n holds n events on each of 20 dates, in every view. A reader during flips must always
// see one build, in all views of its query.
func TestFlipsAreAtomicForReaders(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	db, conn := open(t), admin(t, c)
	p, q := newPlan("sales", 1), newPlan("other", 2)
	ensure(t, db, true, p, q)
	ctx := t.Context()
	check(t, db.TakeOver(ctx, store.RoleBatch, 1))
	const dates, builds = 20, 3
	for n := uint64(1); n <= builds; n++ {
		build := schemas.Build{Number: n, Cut: n, Plans: make(map[string]schemas.Covered)}
		for k, plan := range asPlans(p, q) {
			var parts []schemas.SliceStates
			covered := schemas.Covered{Cut: n}
			for d := range dates {
				id := 1<<32 | n<<10 | uint64(k)<<8 | uint64(d)
				parts = append(parts, schemas.SliceStates{Slice: id, States: states(t, plan, some(d, int(n)))})
				covered.Slices = append(covered.Slices, schemas.Slice{Key: fmt.Sprint(id), Plan: plan.Hash, Date: int32(d), ID: id})
			}
			check(t, db.InsertSlices(ctx, plan, 1, parts))
			check(t, db.RegisterSlices(ctx, 1, covered.Slices))
			build.Plans[plan.Hash] = covered
		}
		check(t, db.SaveBuild(ctx, 1, build))
		check(t, db.SaveBuild(ctx, 1, build)) // the second time changes nothing
	}
	allowed := map[string]bool{"0\t0": true}
	for n := 1; n <= builds; n++ {
		allowed[fmt.Sprintf("%d\t%d", n*dates, n*dates)] = true
	}
	var done atomic.Bool
	seen := make(map[string]bool)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for !done.Load() {
			got, err := tryAsk(gctx, conn, "SELECT (SELECT sum(flights) FROM sales) AS a, (SELECT sum(flights) FROM other) AS b")
			if err != nil {
				return err
			}
			if len(got) != 1 || !allowed[got[0]] {
				return fmt.Errorf("a reader saw %v", got)
			}
			seen[got[0]] = true
		}
		return nil
	})
	for flip := uint64(1); flip <= 60; flip++ {
		n := 1 + flip%builds // forward, and back again
		check(t, db.Flip(ctx, 1, schemas.Live{Flip: flip, Build: n, Cut: n, Pinned: n < builds}))
	}
	done.Store(true)
	check(t, g.Wait())
	if len(seen) == 0 {
		t.Error("the reader never read")
	}
	live, err := db.Live(ctx)
	check(t, err)
	if live.Flip != 60 || live.Build != 1 || !live.Pinned {
		t.Errorf("live is %+v; want flip 60, build 1, pinned", live)
	}
	infos, err := db.Builds(ctx)
	check(t, err)
	if len(infos) != builds+1 || infos[0].Number != builds || infos[0].Slices != 2*dates || infos[0].Live || !infos[2].Live {
		t.Errorf("builds are %+v", infos)
	}
	if err := db.Flip(ctx, 1, schemas.Live{Flip: 61, Build: 9, Cut: 9}); err == nil {
		t.Error("flipped to a build that is not there")
	}
	// A repair has to know what there is when the row that says what is live was lost.
	check(t, conn.Exec(ctx, "TRUNCATE TABLE live"))
	left, err := db.Builds(ctx)
	check(t, err)
	if len(left) != len(infos) || slices.ContainsFunc(left, func(b store.BuildInfo) bool { return b.Live }) {
		t.Errorf("without a live build: builds are %+v; want the same, and none of them live", left)
	}
}

func TestUncoveredPlanThrows(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	db, conn := open(t), admin(t, c)
	late := newPlan("late", 3)
	ensure(t, db, false, late)
	for _, query := range []string{"SELECT * FROM late", "SELECT count() FROM late_states"} {
		_, err := tryAsk(t.Context(), conn, query)
		if err == nil {
			t.Errorf("%s answered; want an error", query)
		}
	}
	rows, err := reader(t, c).Query(t.Context(), store.Query{SQL: "SELECT * FROM late"})
	if err == nil {
		err = rows.Err()
		check(t, rows.Close())
	}
	if want := "ClickHouse: view late: its definition is newer than the live build; run a batch (code 395)"; err == nil || err.Error() != want {
		t.Errorf("got %v; want %s", err, want)
	}
}

// What an older term has running is ended before the takeover returns; other roles' is not.
func TestTakeOverEndsOlderWrites(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	db, conn := open(t), admin(t, c)
	ctx := t.Context()
	var running errgroup.Group
	prefix := "watershed/" + database(t) + "/"
	for _, id := range []string{prefix + "speed/3/old", prefix + "speed/12/own", prefix + "batch/3/other"} {
		running.Go(func() error {
			err := conn.Exec(clickhouse.Context(ctx, clickhouse.WithQueryID(id)), "SELECT count() FROM numbers(10000000000000) WHERE sipHash64(number) = 1")
			if err == nil {
				return fmt.Errorf("query %s ended by itself", id)
			}
			return nil
		})
	}
	list := func() []string {
		return ask(t, conn, "SELECT query_id FROM system.processes WHERE startsWith(query_id, '"+prefix+"') ORDER BY query_id")
	}
	for len(list()) < 3 { // until all three run
	}
	check(t, db.TakeOver(ctx, store.RoleSpeed, 12))
	if got, want := list(), []string{prefix + "batch/3/other", prefix + "speed/12/own"}; !cmp.Equal(got, want) {
		t.Errorf("running afterwards: %v; want %v", got, want)
	}
	check(t, conn.Exec(ctx, "KILL QUERY WHERE startsWith(query_id, '"+prefix+"') SYNC"))
	check(t, running.Wait())
}
