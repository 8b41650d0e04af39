package store

import (
	"context"
	"fmt"
	"strings"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// Begin says, for plans by their hashes, that their speed states are complete from a mark on: the
// writer goes on from its position, in its epoch. It comes before the first states of a run that
// does not go on where the stored ones end. From then on the merged view of such a plan throws as
// long as the live build has it only up to an older cut: states between the two are missing. All
// are stored in one insert.
func (db *DB) Begin(ctx context.Context, term uint64, marks map[string]schemas.Mark) error {
	if len(marks) == 0 {
		return nil
	}
	// If we stop here, the plans stand as before. If we stop after it, nothing of what was stored
	// is shown without a build that reaches as far, and the next writer finds the mark.
	if err := db.insert(ctx, "begins_in", RoleSpeed, term, marksBlock(term, marks)); err != nil {
		return wrapf(err, "begin speed states")
	}
	crash.At("store.begin-stored")
	// If we stop here, the copies are older than the marks, which harms nothing.
	return wrapf(db.insert(ctx, "positions_in", RoleSpeed, term, marksBlock(term, beginCopies(marks))), "begin speed states")
}

// beginCopy is what follows a plan's hash where table positions holds the epoch in which its states begin
// once more: so a row that table begins has lost is missed (Check), and the mark is known still.
const beginCopy = "/begins"

// beginCopies are the copies of marks. Of two rows for a plan the table keeps that of the higher sequence,
// so the epoch stands there too.
func beginCopies(marks map[string]schemas.Mark) map[string]schemas.Mark {
	out := make(map[string]schemas.Mark, len(marks))
	for plan, m := range marks {
		out[plan+beginCopy] = schemas.Mark{Epoch: m.Epoch, Position: schemas.Position{Seq: m.Epoch}}
	}
	return out
}

// marksBlock has a row per plan.
func marksBlock(term uint64, marks map[string]schemas.Mark) *block {
	b := &block{rows: len(marks)}
	var plans []string
	var epochs []uint64
	var positions []schemas.Position
	for plan, m := range marks {
		plans, epochs, positions = append(plans, plan), append(epochs, m.Epoch), append(positions, m.Position)
	}
	b.add("plan", plans)
	b.add("epoch", epochs)
	b.positions(positions)
	b.constant("term", term)
	return b
}

// Begins says from where on the speed states of plans are complete, by plan hash: the mark of the
// highest epoch. A plan of which nothing was ever folded is absent.
func (db *DB) Begins(ctx context.Context, plans []*view.Plan) (map[string]schemas.Mark, error) {
	if len(plans) == 0 {
		return nil, nil
	}
	hashes := make([]string, len(plans))
	for i, p := range plans {
		hashes[i] = literal(p.Hash)
	}
	got, err := rows[markRow](ctx, db.client, fmt.Sprintf("SELECT plan, mark.1 AS epoch, mark.2 AS seq, mark.3 AS hash FROM (SELECT plan, max((epoch, seq, hash)) AS mark FROM %s WHERE plan IN (%s) GROUP BY plan)",
		db.name("begins"), strings.Join(hashes, ", ")))
	if err != nil {
		return nil, fmt.Errorf("read where speed states begin: %w", err)
	}
	marks := make(map[string]schemas.Mark, len(got))
	for _, r := range got {
		marks[r.Plan] = r.mark()
	}
	return marks, nil
}

type markRow struct {
	Plan  string `ch:"plan"`
	Epoch uint64 `ch:"epoch"`
	Seq   uint64 `ch:"seq"`
	Hash  uint64 `ch:"hash"`
}

func (r markRow) mark() schemas.Mark {
	return schemas.Mark{Epoch: r.Epoch, Position: schemas.Position{Seq: r.Seq, Hash: r.Hash}}
}
