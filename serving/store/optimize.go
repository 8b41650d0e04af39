package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// condenseTimeout bounds the wait for merges that were under way when a slice was to be condensed.
const condenseTimeout = 10 * time.Minute

// CondenseSlice merges the states of a slice that was inserted in parts, and that is alone in its
// parcel, into one row for each group, all in one part: merges change nothing from then on. Nothing may be
// inserted into the parcel any more. It returns the number of groups, and the sum of a state column of
// UInt64 over them; 0 if none is named.
func (db *DB) CondenseSlice(ctx context.Context, p *view.Plan, id uint64, column string) (groups, sum uint64, err error) {
	l := layoutOf(p)
	if err := db.condense(ctx, l.batch(), id>>schemas.ParcelBits); err != nil {
		return 0, 0, wrapf(err, "condense a slice of view %s", l.view)
	}
	crash.At("store.slice-condensed")
	total := "toUInt64(0)"
	if column != "" {
		total = "sum(" + quote(column) + ")"
	}
	got, err := rows[struct {
		Groups uint64 `ch:"groups"`
		Sum    uint64 `ch:"total"`
	}](ctx, db.client, fmt.Sprintf("SELECT count() AS groups, %s AS total FROM %s WHERE _slice = %d", total, db.name(l.batch()), id))
	if err != nil || len(got) != 1 {
		return 0, 0, wrapf(err, "count a slice of view %s", l.view)
	}
	return got[0].Groups, got[0].Sum, nil
}

// condense leaves one part of a partition. ClickHouse may be merging some of its parts when it is asked,
// and then does not merge all: so it is asked until there is one. That part alone may still be as it was
// inserted, so it is asked once in any case.
func (db *DB) condense(ctx context.Context, table string, partition uint64) error {
	ctx, cancel := context.WithTimeout(ctx, condenseTimeout)
	defer cancel()
	settings := own()
	settings["optimize_throw_if_noop"] = 0
	sql := fmt.Sprintf("OPTIMIZE TABLE %s PARTITION %d FINAL", db.name(table), partition)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if err := db.exec(clickhouse.Context(ctx, clickhouse.WithSettings(settings)), sql); err != nil {
			return err
		}
		// A part of level 0 is as it was inserted.
		got, err := rows[struct {
			Parts uint64 `ch:"parts"`
			Raw   uint64 `ch:"raw"`
		}](ctx, db.client, fmt.Sprintf("SELECT count() AS parts, countIf(level = 0) AS raw FROM system.parts WHERE active AND database = %s AND table = %s AND partition = '%d'",
			literal(db.database), literal(table), partition))
		if err != nil {
			return err
		}
		if len(got) == 1 && got[0].Parts <= 1 && got[0].Raw == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d parts are left of partition %d of %s: %w", got[0].Parts, partition, table, ctx.Err())
		case <-time.After(pause):
		}
	}
}
