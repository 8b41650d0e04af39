package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// maxFlush is the most rows of one speed insert. ClickHouse cuts blocks over 1,048,449 rows,
// and only a block is atomic.
const maxFlush = 1_000_000

// InsertSpeed adds states to an epoch, together with the position that they reach. It is one
// block into one partition: all of it is there afterwards, or nothing. States over 1,000,000
// rows are refused. On an Unknown error the writer must take a new term and read Positions.
func (db *DB) InsertSpeed(ctx context.Context, p *view.Plan, term uint64, mark schemas.Mark, states arrow.Record) error {
	l := layoutOf(p)
	b, err := speedBlock(l, term, mark, states)
	if err != nil || b == nil {
		return wrapf(err, "insert speed states of view %s", l.view)
	}
	// If we stop here nothing was sent. If we stop after sending, the block is taken whole or
	// refused whole, and Positions of the next term says which.
	if err := db.insert(ctx, into(l.speed()), RoleSpeed, term, b); err != nil {
		return wrapf(err, "insert speed states of view %s", l.view)
	}
	crash.At("store.speed-inserted")
	return nil
}

func speedBlock(l *layout, term uint64, mark schemas.Mark, states arrow.Record) (*block, error) {
	if states == nil || states.NumRows() == 0 {
		return nil, nil
	}
	if states.NumRows() > maxFlush {
		return nil, unfit(fmt.Errorf("%d rows in one flush, want %d or fewer", states.NumRows(), maxFlush))
	}
	b := &block{rows: int(states.NumRows())}
	b.constant("_term", term)
	b.constant("_epoch", mark.Epoch)
	b.constant("_seq", mark.Position.Seq)
	b.constant("_hash", mark.Position.Hash)
	return b, unfit(b.records(l, []arrow.Record{states}))
}

// SavePositions advances plans, by their hashes, that have nothing unflushed at or below the
// mark: in one insert.
func (db *DB) SavePositions(ctx context.Context, term uint64, marks map[string]schemas.Mark) error {
	if len(marks) == 0 {
		return nil
	}
	if err := db.insert(ctx, "positions_in", RoleSpeed, term, marksBlock(term, marks)); err != nil {
		return wrapf(err, "save positions")
	}
	crash.At("store.positions-stored")
	return nil
}

// Positions says how far the stored states of plans reach, by plan hash: the further of what
// the plan's table and what SavePositions says. A plan without either is absent.
func (db *DB) Positions(ctx context.Context, plans []*view.Plan) (map[string]schemas.Mark, error) {
	return readPositions(ctx, db.client, plans)
}

// A partition's bounds tell the newest epoch without reading rows; its rows hold the position.
func readPositions(ctx context.Context, c *client, plans []*view.Plan) (map[string]schemas.Mark, error) {
	var hashes, parts []string
	for _, p := range plans {
		l := layoutOf(p)
		hashes = append(hashes, literal(l.hash))
		parts = append(parts, fmt.Sprintf("SELECT %[1]s AS plan, (max(_epoch), max(_pos).1, max(_pos).2) AS mark FROM %[2]s WHERE _epoch = (SELECT max(_epoch) FROM %[2]s) HAVING count() > 0",
			literal(l.hash), c.name(l.speed())))
	}
	if len(plans) == 0 {
		return nil, nil
	}
	parts = append(parts, fmt.Sprintf("SELECT plan, argMax((epoch, seq, hash), seq) AS mark FROM %s WHERE plan IN (%s) GROUP BY plan",
		c.name("positions"), strings.Join(hashes, ", ")))
	got, err := rows[markRow](ctx, c, "SELECT plan, mark.1 AS epoch, mark.2 AS seq, mark.3 AS hash FROM ("+strings.Join(parts, " UNION ALL ")+")")
	if err != nil {
		return nil, fmt.Errorf("read positions: %w", err)
	}
	marks := make(map[string]schemas.Mark, len(plans))
	for _, r := range got {
		if m, ok := marks[r.Plan]; !ok || r.Seq > m.Position.Seq || (r.Seq == m.Position.Seq && r.Epoch > m.Epoch) {
			marks[r.Plan] = r.mark()
		}
	}
	return marks, nil
}
