package store

import (
	"context"
	"fmt"
	"strings"

	"watershed/schemas"
	"watershed/schemas/view"
)

// Reached is which build is live, and how far the merged views of its plans reach.
type Reached struct {
	Live  schemas.Live     // without the time of its flip
	Plans map[string]Reach // by hash: every plan that the build covers
}

// A Reach is how far a plan's merged view reaches: all of the plan's events up to the greatest of the three
// are in its answers, as long as the build is live.
type Reach struct {
	Slices uint64 // sequence of the cut at which the build's slices stand
	States uint64 // sequence that the last flush with states of the plan reached; 0: unknown, or there was none
	Saved  uint64 // sequence that SavePositions stored last; 0: likewise
}

// Position is the sequence up to which the merged view has the log.
func (r Reach) Position() uint64 { return max(r.Slices, r.States, r.Saved) }

// Reached reads it in one query. Of plans that are not given, only Slices are known. It fails if a given
// plan has no tables.
//
// As long as the live row is the same, no position ever goes back: a build's rows do not change once it was
// live, and each flush of a plan carries a higher position than the one before.
func (db *DB) Reached(ctx context.Context, plans []*view.Plan) (Reached, error) {
	parts := []string{
		"SELECT 'live' AS what, '' AS plan, [assumeNotNull(l.2), assumeNotNull(l.3), assumeNotNull(l.4)] AS numbers FROM system.one WHERE l.1 > 0",
		fmt.Sprintf("SELECT 'slices', plan, [seq] FROM %s WHERE build = assumeNotNull(l.3) AND slice = 0 AND plan != ''", db.name("builds")),
	}
	var hashes []string
	for _, p := range plans {
		l := layoutOf(p)
		hashes = append(hashes, literal(l.hash))
		parts = append(parts, fmt.Sprintf("SELECT 'states', %[1]s, [max(_pos).1] FROM %[2]s WHERE _epoch = (SELECT max(_epoch) FROM %[2]s) HAVING count() > 0",
			literal(l.hash), db.name(l.speed())))
	}
	if len(hashes) > 0 {
		parts = append(parts, fmt.Sprintf("SELECT 'saved', plan, [max(seq)] FROM %s WHERE plan IN (%s) GROUP BY plan", db.name("positions"), strings.Join(hashes, ", ")))
	}
	got, err := rows[struct {
		What    string   `ch:"what"`
		Plan    string   `ch:"plan"`
		Numbers []uint64 `ch:"numbers"`
	}](ctx, db.client, fmt.Sprintf("WITH (SELECT (count(), max(flip), argMax(build, flip), argMax(cut, flip)) FROM %s) AS l SELECT what, plan, numbers FROM (%s)",
		db.name("live"), strings.Join(parts, " UNION ALL ")))
	if err != nil {
		return Reached{}, fmt.Errorf("read how far views reach: %w", err)
	}
	r := Reached{Plans: make(map[string]Reach)}
	live := false
	more := make(map[string]Reach) // by hash: what speed states and positions say
	for _, row := range got {
		of := more[row.Plan]
		switch row.What {
		case "live":
			live, r.Live = true, schemas.Live{Flip: row.Numbers[0], Build: row.Numbers[1], Cut: row.Numbers[2]}
			continue
		case "slices":
			r.Plans[row.Plan] = Reach{Slices: row.Numbers[0]}
			continue
		case "states":
			of.States = row.Numbers[0]
		case "saved":
			of.Saved = row.Numbers[0]
		}
		more[row.Plan] = of
	}
	if !live {
		return Reached{}, fmt.Errorf("read how far views reach: %w", &NoLiveError{db.database})
	}
	for hash, reach := range r.Plans {
		reach.States, reach.Saved = more[hash].States, more[hash].Saved
		r.Plans[hash] = reach
	}
	return r, nil
}

// SpeedTable is the name of a plan's table of speed states.
func SpeedTable(p *view.Plan) string { return layoutOf(p).speed() }
