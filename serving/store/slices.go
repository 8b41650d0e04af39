package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"golang.org/x/sync/errgroup"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// Slices are the registered slices of plans, by their hashes, that are not condemned.
func (db *DB) Slices(ctx context.Context, plans ...string) ([]schemas.Slice, error) {
	if len(plans) == 0 {
		return nil, nil
	}
	in := make([]string, len(plans))
	for i, p := range plans {
		in[i] = literal(p)
	}
	sql := fmt.Sprintf("SELECT DISTINCT key, plan, toInt32(date) AS date, slice, groups, events, duplicates FROM %[1]s WHERE plan IN (%[3]s) AND (plan, slice) NOT IN (SELECT plan, slice FROM %[2]s WHERE plan IN (%[3]s)) ORDER BY plan, date, slice",
		db.name("slices"), db.name("condemned"), strings.Join(in, ", "))
	got, err := rows[sliceRow](ctx, db.client, sql)
	if err != nil {
		return nil, fmt.Errorf("list slices: %w", err)
	}
	out := make([]schemas.Slice, len(got))
	for i, r := range got {
		out[i] = r.slice()
	}
	return out, nil
}

type sliceRow struct {
	Key        string `ch:"key"`
	Plan       string `ch:"plan"`
	Date       int32  `ch:"date"`
	Slice      uint64 `ch:"slice"`
	Groups     uint64 `ch:"groups"`
	Events     uint64 `ch:"events"`
	Duplicates uint64 `ch:"duplicates"`
}

func (r sliceRow) slice() schemas.Slice {
	return schemas.Slice{Key: r.Key, Plan: r.Plan, Date: r.Date, ID: r.Slice, Groups: r.Groups, Events: r.Events, Duplicates: r.Duplicates}
}

// Slices of one insert are at most so many rows and, roughly, bytes; two inserts run at once.
const (
	sliceRows  = 500_000
	sliceBytes = 64 << 20
	inserts    = 2
)

// InsertSlices writes the states of slices. It is not atomic: when it fails, each slice may be
// there, or not, or in part, and its id must not be used again. A slice counts only once it
// was registered, and before that its rows are to be counted.
func (db *DB) InsertSlices(ctx context.Context, p *view.Plan, term uint64, parts []schemas.SliceStates) error {
	l := layoutOf(p)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inserts)
	for len(parts) > 0 {
		n := batchOf(parts)
		some := parts[:n]
		parts = parts[n:]
		g.Go(func() error { return db.insertSlices(ctx, l, term, some) })
	}
	return wrapf(g.Wait(), "insert slices of view %s", l.view)
}

// batchOf says how many of the parts go into one insert: at least one.
func batchOf(parts []schemas.SliceStates) int {
	rows, bytes := int64(0), int64(0)
	for i, p := range parts {
		rows, bytes = rows+p.States.NumRows(), bytes+recordBytes(p.States)
		if i > 0 && (rows > sliceRows || bytes > sliceBytes) {
			return i
		}
	}
	return len(parts)
}

// recordBytes is about how large a record is. Buffers that slices of one array share are
// counted for each of them.
func recordBytes(rec arrow.Record) (n int64) {
	for _, c := range rec.Columns() {
		n += dataBytes(c.Data())
	}
	return n
}

func dataBytes(d arrow.ArrayData) (n int64) {
	for _, b := range d.Buffers() {
		if b != nil {
			n += int64(b.Len())
		}
	}
	for _, child := range d.Children() {
		n += dataBytes(child)
	}
	return n
}

func (db *DB) insertSlices(ctx context.Context, l *layout, term uint64, parts []schemas.SliceStates) error {
	b := &block{}
	var records []arrow.Record
	for _, p := range parts {
		if n := int(p.States.NumRows()); n > 0 {
			b.rows += n
			records = append(records, p.States)
		}
	}
	if b.rows == 0 {
		return nil
	}
	b.constant("_term", term)
	ids := make([]uint64, 0, b.rows)
	for _, p := range parts {
		ids = append(ids, slices.Repeat([]uint64{p.Slice}, int(p.States.NumRows()))...)
	}
	b.add("_slice", ids)
	if err := b.records(l, records); err != nil {
		return err
	}
	if err := db.insert(ctx, into(l.batch()), RoleBatch, term, b); err != nil {
		return err
	}
	crash.At("store.slices-inserted")
	return nil
}

// CountSlices returns how many rows each slice has in its plan's batch table; a slice with none is absent.
// (An id is never used for two plans.)
func (db *DB) CountSlices(ctx context.Context, plans []*view.Plan, ids map[string][]uint64) (map[uint64]uint64, error) {
	tables := make(map[string][]uint64, len(plans))
	for _, p := range plans {
		tables[layoutOf(p).batch()] = ids[p.Hash]
	}
	counts, err := db.countSlices(ctx, tables)
	return counts, wrapf(err, "count slices")
}

// countIDs is how many slices one statement counts: ClickHouse takes statements of up to 256 KiB.
const countIDs = 8000

// countSlices counts slices by the tables that they are in, in as few statements as can be.
func (db *DB) countSlices(ctx context.Context, tables map[string][]uint64) (map[uint64]uint64, error) {
	out := make(map[uint64]uint64)
	var selects []string
	n := 0
	ask := func() error {
		if len(selects) == 0 {
			return nil
		}
		got, err := rows[struct {
			Slice uint64 `ch:"slice"`
			Rows  uint64 `ch:"rows"`
		}](ctx, db.client, strings.Join(selects, " UNION ALL "))
		for _, r := range got {
			out[r.Slice] += r.Rows
		}
		selects, n = nil, 0
		return err
	}
	for table, ids := range tables {
		for some := range slices.Chunk(ids, countIDs) {
			if n+len(some) > countIDs {
				if err := ask(); err != nil {
					return nil, err
				}
			}
			selects = append(selects, fmt.Sprintf("SELECT _slice AS slice, count() AS rows FROM %s WHERE _slice IN (%s) GROUP BY slice", db.name(table), list(some)))
			n += len(some)
		}
	}
	return out, ask()
}

// RegisterSlices makes slices known under their keys, in one insert. From then on a run that
// needs the same key takes the slice instead of computing it.
func (db *DB) RegisterSlices(ctx context.Context, term uint64, finished []schemas.Slice) error {
	if len(finished) == 0 {
		return nil
	}
	b := &block{rows: len(finished)}
	var plans, keys []string
	var dates []int32
	var ids, groups, events, duplicates []uint64
	for _, s := range finished {
		plans, keys, dates, ids = append(plans, s.Plan), append(keys, s.Key), append(dates, s.Date), append(ids, s.ID)
		groups, events, duplicates = append(groups, s.Groups), append(events, s.Events), append(duplicates, s.Duplicates)
	}
	b.add("plan", plans)
	b.add("key", keys)
	b.dates("date", dates)
	b.add("slice", ids)
	b.add("groups", groups)
	b.add("events", events)
	b.add("duplicates", duplicates)
	b.constant("term", term)
	if err := db.insert(ctx, "slices_in", RoleBatch, term, b); err != nil {
		return wrapf(err, "register slices")
	}
	crash.At("store.slices-registered")
	return nil
}
