package store

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"watershed/internal/crash"
	"watershed/schemas/view"
)

// planTable is the name of a table of a plan: view, first digits of the hash, what it is.
var planTable = regexp.MustCompile(`^(.+)__([0-9a-f]{8})__(batch|speed)(_in|_fence|_into|_into_fence)?$`)

// Forget drops the merged views of views that are no longer shown, and the tables of plans
// that are neither shown, nor folded still, nor in a kept build. Only the holder of the newest
// batch term may call it, after a flip to a build of the shown plans. It returns how many it
// dropped.
//
// Each drop is whole by itself; what a stop leaves, the next call drops. A drop cannot be
// fenced, so the term is looked at right before each: a newer run may define the plan again.
func (db *DB) Forget(ctx context.Context, term uint64, shown, folded []*view.Plan) (int, error) {
	dropped, err := db.forget(ctx, term, shown, folded)
	return dropped, wrapf(err, "drop what is no longer defined")
}

func (db *DB) forget(ctx context.Context, term uint64, shown, folded []*view.Plan) (int, error) {
	views, plans := make(map[string]bool), make(map[string]bool)
	for _, p := range shown {
		l := layoutOf(p)
		views[l.view], views[l.view+"_states"] = true, true
	}
	for _, p := range slices.Concat(shown, folded) {
		plans[p.Hash[:8]] = true
	}
	built, err := rows[struct {
		Digits string `ch:"digits"`
	}](ctx, db.client, "SELECT DISTINCT substring(plan, 1, 8) AS digits FROM "+db.name("builds")+" WHERE plan != ''")
	if err != nil {
		return 0, err
	}
	for _, b := range built {
		plans[b.Digits] = true
	}
	got, err := rows[struct {
		Name    string `ch:"name"`
		Engine  string `ch:"engine"`
		Comment string `ch:"comment"`
	}](ctx, db.client, "SELECT name, engine, comment FROM system.tables WHERE database = "+literal(db.database)+
		// A fence goes before the tables that it stands between.
		" ORDER BY endsWith(name, '_fence') DESC, name")
	if err != nil {
		return 0, err
	}
	dropped := 0
	gone := make(map[string]bool)
	for _, t := range got {
		kind, keep := "TABLE", true
		if part := planTable.FindStringSubmatch(t.Name); part != nil {
			keep = plans[part[2]]
			if !keep {
				gone[part[2]] = true
			}
		} else if isMerged(t.Comment) { // views that others made stay
			keep = views[t.Name]
		}
		if keep {
			continue
		}
		if newest, err := db.Term(ctx, RoleBatch); err != nil || newest != term {
			if err == nil {
				err = fmt.Errorf("term %d is over, a newer run has term %d", term, newest)
			}
			return dropped, err
		}
		if strings.HasSuffix(t.Engine, "View") {
			kind = "VIEW"
		}
		if err := db.exec(ctx, fmt.Sprintf("DROP %s IF EXISTS %s", kind, db.name(t.Name))); err != nil {
			return dropped, err
		}
		crash.At("store.table-forgotten")
		dropped++
	}
	// If we stop here, a plan that is defined again goes on from an old position, and its view throws
	// until a build has it: its table was made anew.
	return dropped, db.forgetMarks(ctx, slices.Sorted(maps.Keys(gone)))
}
