package store

import (
	"context"
)

// Parts is the number of parts that ClickHouse has not merged yet in that epoch of a plan's speed
// table that has most. Queries and merges take longer the more there are, and from 1,000 on
// ClickHouse delays inserts.
func (db *DB) Parts(ctx context.Context) (int, error) {
	got, err := rows[struct {
		Parts uint64 `ch:"parts"`
	}](ctx, db.client, "SELECT max(parts) AS parts FROM (SELECT count() AS parts FROM system.parts WHERE active AND database = "+literal(db.database)+
		" AND endsWith(table, '__speed') GROUP BY table, partition_id)")
	if err != nil || len(got) != 1 {
		return 0, wrapf(err, "count the parts of speed tables")
	}
	return int(got[0].Parts), nil
}
