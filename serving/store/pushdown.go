package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// A Pushdown lets ClickHouse compute slices itself, from history's Delta tables: the plan's SQL over
// the very version of the table that the slices' keys name, into the same tables and through the same fence as
// states that are sent.
type Pushdown struct {
	db *DB
	at HistoryAt
}

// HistoryAt says where ClickHouse finds history: the directory that has a Delta table for each event type.
type HistoryAt struct {
	// Root is a path on ClickHouse's machine, below its user_files_path, or the URL of a place in object
	// storage that speaks S3. Credentials for a URL are ClickHouse's own.
	Root string
	// Cluster is the name of a cluster, as ClickHouse's configuration has it, all of whose machines read;
	// empty: the one alone that we are connected to. It goes with a URL.
	Cluster string
}

func (h HistoryAt) remote() bool { return strings.Contains(h.Root, "://") }

// Validate says what is wrong with it.
func (h HistoryAt) Validate() error {
	if h.Cluster != "" && !h.remote() {
		return fmt.Errorf("the cluster %s reads history from object storage, and %s is no URL", h.Cluster, h.Root)
	}
	return nil
}

// table is a table expression of an event type. A cluster does not help where chosen rows are read: they are sent
// with the query, to the machine that we are connected to.
func (h HistoryAt) table(event string, chosen bool) string {
	at := literal(strings.TrimSuffix(h.Root, "/") + "/" + event + "/")
	switch {
	case h.Cluster != "" && !chosen:
		return "deltaLakeS3Cluster(" + literal(h.Cluster) + ", " + at + ")"
	case h.remote():
		return "deltaLakeS3(" + at + ")"
	}
	return "deltaLakeLocal(" + at + ")"
}

// Pushdown lets slices be computed from history there.
func (db *DB) Pushdown(at HistoryAt) (*Pushdown, error) {
	if err := at.Validate(); err != nil {
		return nil, err
	}
	return &Pushdown{db, at}, nil
}

const (
	pushedSlice = "_slice"
	pushedRows  = "_rows" // an external table: it comes with the query and goes with it
	// pushedQuery is how long a statement may be, in bytes: it names dates, and files at times.
	pushedQuery = 64 << 20
)

// Push computes slices of a plan and inserts their states, in one statement of a term. It is not atomic: when
// it fails, each slice may be there, or not, or in part, or may yet be (while its query runs, until somebody
// takes over), and its id must not be used again.
//
//  1. Rows and events are counted. If there are not as many rows as we know the files to have, ClickHouse does
//     not read what we do, and nothing is written.
//  2. The slices are inserted. If we stop here, they are garbage that nothing names.
//  3. What the table has of them is held against what was written, and a state column that counts events
//     against step 1.
//
// An *UnreadableError says that ClickHouse cannot read history.
func (d *Pushdown) Push(ctx context.Context, p *view.Plan, term uint64, push schemas.Push) (map[uint64]schemas.Pushed, error) {
	l := layoutOf(p)
	out, err := d.count(ctx, p, push)
	if err != nil {
		return nil, wrapf(err, "count events of view %s", l.view)
	}
	written, err := d.insert(ctx, l, term, push)
	if err != nil {
		return nil, wrapf(err, "push slices of view %s down", l.view)
	}
	crash.At("store.slices-pushed")
	return out, wrapf(d.check(ctx, l, push, out, written), "count slices of view %s", l.view)
}

// from is the rows of a push as a table expression, with each row's slice.
func (d *Pushdown) from(p *view.Plan, push schemas.Push) string {
	dates, days, ids := make([]string, len(push.Slices)), make([]string, len(push.Slices)), make([]uint64, len(push.Slices))
	for i, s := range push.Slices {
		dates[i] = "toDate32('" + time.Unix(int64(s.Date)*86400, 0).UTC().Format(time.DateOnly) + "')"
		days[i], ids[i] = fmt.Sprint(s.Date), s.ID
	}
	where := "_date IN (" + strings.Join(dates, ", ") + ")"
	if push.Files != nil {
		files := make([]string, len(push.Files))
		for i, f := range push.Files {
			files[i] = literal(f)
		}
		where += " AND _file IN (" + strings.Join(files, ", ") + ")"
	}
	chosen := len(push.Rows) > 0 || push.Only
	if chosen {
		in := " NOT IN "
		if push.Only {
			in = " IN "
		}
		where += " AND (_file, _row_number)" + in + "(SELECT file, row FROM " + pushedRows + ")"
	}
	return fmt.Sprintf("(SELECT *, transform(toInt32(_date), [%s], [%s], toUInt64(0)) AS %s FROM %s WHERE %s)",
		strings.Join(days, ", "), "toUInt64("+strings.ReplaceAll(list(ids), ", ", "), toUInt64(")+")", pushedSlice, d.at.table(p.Event.Name, chosen), where)
}

// context prepares a statement over the rows of a push.
func (d *Pushdown) context(ctx context.Context, push schemas.Push, options ...clickhouse.QueryOption) (context.Context, error) {
	settings := own()
	settings["delta_lake_snapshot_version"] = push.Version
	settings["session_timezone"] = "UTC"
	settings["max_query_size"] = pushedQuery
	settings["max_insert_threads"] = 1
	options = append(options, clickhouse.WithSettings(settings))
	if len(push.Rows) > 0 || push.Only {
		table, err := ext.NewTable(pushedRows, ext.Column("file", "String"), ext.Column("row", "UInt64"))
		if err != nil {
			return nil, err
		}
		for _, r := range push.Rows {
			if err := table.Append(r.File, r.Row); err != nil {
				return nil, err
			}
		}
		options = append(options, clickhouse.WithExternalTable(table))
	}
	return clickhouse.Context(ctx, options...), nil
}

// count counts the events of the slices.
func (d *Pushdown) count(ctx context.Context, p *view.Plan, push schemas.Push) (map[uint64]schemas.Pushed, error) {
	ctx, err := d.context(ctx, push)
	if err != nil {
		return nil, err
	}
	got, err := rows[struct {
		Slice  uint64 `ch:"slice"`
		Rows   uint64 `ch:"rows"`
		Events uint64 `ch:"events"`
	}](ctx, d.db.client, p.CountSlices(d.from(p, push), pushedSlice))
	if err != nil {
		return nil, d.unreadable(p, err)
	}
	out, found := make(map[uint64]schemas.Pushed, len(push.Slices)), make(map[uint64]uint64, len(got))
	for _, g := range got {
		out[g.Slice], found[g.Slice] = schemas.Pushed{Events: g.Events}, g.Rows
	}
	for _, s := range push.Slices {
		if found[s.ID] != s.Rows {
			day := time.Unix(int64(s.Date)*86400, 0).UTC().Format(time.DateOnly)
			return nil, &UnreadableError{d.at, p.Event.Name, fmt.Errorf("of %s it finds %d rows in version %d of the table, and there are %d", day, found[s.ID], push.Version, s.Rows)}
		}
	}
	return out, nil
}

// insert carries out the push, and returns how many rows were written. Each counts twice: in the staging table, and
// in that behind it.
func (d *Pushdown) insert(ctx context.Context, l *layout, term uint64, push schemas.Push) (written uint64, err error) {
	ctx, err = d.context(ctx, push, clickhouse.WithQueryID(d.db.queryID(RoleBatch, term)),
		clickhouse.WithProgress(func(p *clickhouse.Progress) { written += p.WroteRows }))
	if err != nil {
		return 0, err
	}
	columns := names("", l.columns())
	err = d.db.exec(ctx, fmt.Sprintf("INSERT INTO %s (_term, %s, %s) SELECT toUInt64(%d), * FROM (%s)",
		d.db.name(into(l.batch())), pushedSlice, columns, term, l.plan.SelectSlices(d.from(l.plan, push), pushedSlice)))
	return written, err
}

// check counts the groups that the table has, and holds them against what was sent.
func (d *Pushdown) check(ctx context.Context, l *layout, push schemas.Push, out map[uint64]schemas.Pushed, written uint64) error {
	ids := make([]uint64, len(push.Slices))
	for i, s := range push.Slices {
		ids[i] = s.ID
	}
	sum, all := "toUInt64(0)", counter(l.plan)
	if all != nil {
		sum = "sum(" + quote(all.Columns[0].Name) + ")"
	}
	got, err := rows[struct {
		Slice  uint64 `ch:"slice"`
		Groups uint64 `ch:"groups"`
		Events uint64 `ch:"events"`
	}](ctx, d.db.client, fmt.Sprintf("SELECT _slice AS slice, count() AS groups, %s AS events FROM %s WHERE _slice IN (%s) GROUP BY slice", sum, d.db.name(l.batch()), list(ids)))
	if err != nil {
		return err
	}
	groups := uint64(0)
	for _, g := range got {
		s := out[g.Slice]
		if all != nil && g.Events != s.Events {
			return fmt.Errorf("slice %d has %d events after its insert, not %d: run the batch again", g.Slice, g.Events, s.Events)
		}
		s.Groups = g.Groups
		groups, out[g.Slice] = groups+g.Groups, s
	}
	for _, id := range ids {
		if s := out[id]; s.Events > 0 && s.Groups == 0 {
			return fmt.Errorf("slice %d is not there after its insert: run the batch again", id)
		}
	}
	if 2*groups != written {
		return fmt.Errorf("%d slices hold %d groups after their insert, not %d: run the batch again", len(ids), groups, written/2)
	}
	return nil
}

// An UnreadableError says that ClickHouse cannot read history, or finds something else there.
type UnreadableError struct {
	At    HistoryAt
	Event string
	Err   error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("ClickHouse cannot read the history of %s at %s: %v. It has to find there what --history has for us: "+
		"set --clickhouse-history to the path that history has on its machine, which must lie below its user_files_path, or to its URL in object storage",
		e.Event, e.At.Root, e.Err)
}
func (e *UnreadableError) Unwrap() error { return e.Err }

// unreadable makes an *UnreadableError of what ClickHouse said when it should read history, unless it did not
// say anything.
func (d *Pushdown) unreadable(p *view.Plan, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Code() == 0 {
		return err
	}
	return &UnreadableError{d.at, p.Event.Name, err}
}
