package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	chcolumn "github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"watershed/internal/traces"
	"watershed/schemas"
	"watershed/schemas/view"
)

// A Reader runs queries of others as the read-only user. What a query may do is ClickHouse's
// to say: nothing here looks into SQL. Its methods may be called from any goroutine.
type Reader struct {
	c *client
}

// OpenReader connects as the read-only user. It refuses a user that may write.
func OpenReader(ctx context.Context, cfg Config) (*Reader, error) {
	if cfg.Database == "" {
		cfg.Database = "watershed"
	}
	c, err := connect(cfg.Addr, cfg.Database, cfg.User, cfg.Password, nil)
	if err != nil {
		return nil, fmt.Errorf("open reader: %w", err)
	}
	got, err := rows[struct {
		Readonly uint64 `ch:"readonly"`
	}](ctx, c, "SELECT toUInt64(getSetting('readonly')) AS readonly")
	if err == nil && (len(got) != 1 || got[0].Readonly != 1) {
		err = fmt.Errorf("user %s needs a profile with readonly = 1", cfg.User)
	}
	if err != nil {
		return nil, fmt.Errorf("open reader at %s: %w", cfg.Addr, errors.Join(err, c.conn.Close()))
	}
	return &Reader{c}, nil
}

// Close gives up the connections.
func (r *Reader) Close() error { return r.c.conn.Close() }

// Seen is what an answer rests on.
type Seen struct {
	Live      schemas.Live
	Positions map[string]schemas.Mark // by plan hash: at least up to there
}

// Seen reads the live build and how far the plans' states reach. Read before a query, it says
// what the query sees at least.
func (r *Reader) Seen(ctx context.Context, plans []*view.Plan) (Seen, error) {
	live, err := readLive(ctx, r.c)
	if err != nil {
		return Seen{}, err
	}
	marks, err := readPositions(ctx, r.c, plans)
	return Seen{live, marks}, err
}

// Audits is DB.Audits for the reader.
func (r *Reader) Audits(ctx context.Context, builds int) ([]schemas.Audit, error) {
	return readAudits(ctx, r.c, builds)
}

// A Query is a statement and its limits.
type Query struct {
	SQL     string
	Params  map[string]string // values of {name:Type} in SQL, as ClickHouse's text format has them
	MaxTime time.Duration     // in whole seconds; 0: the user's own limit
	MaxRows uint64            // of the result, beyond which the query fails; 0: the user's own limit
	ID      string            // query id; empty: ClickHouse draws one
}

// A Column is a column of a result.
type Column struct {
	Name string
	Type string // in ClickHouse, such as Nullable(Int128)
}

// Stats is what a query cost.
type Stats struct {
	Elapsed   time.Duration
	RowsRead  uint64
	BytesRead uint64
}

// Rows are a query's result, row by row. They are not for two goroutines at once.
type Rows struct {
	Columns []Column

	rows   driver.Rows
	types  []*typ
	dest   []any
	cancel context.CancelFunc
	began  time.Time
	read   *progress
	err    error
}

type progress struct{ rows, bytes atomic.Uint64 }

// Query runs a query. The caller closes the rows; that, and the end of ctx, end the query on
// the server too. A ctx's deadline is not made a limit of the query: MaxTime is.
func (r *Reader) Query(ctx context.Context, q Query) (*Rows, error) {
	settings := clickhouse.Settings{}
	if q.MaxTime > 0 {
		settings["max_execution_time"] = int(math.Ceil(q.MaxTime.Seconds()))
	}
	if q.MaxRows > 0 {
		settings["max_result_rows"] = q.MaxRows
	}
	read := &progress{}
	options := []clickhouse.QueryOption{
		clickhouse.WithSettings(settings),
		clickhouse.WithProgress(func(p *clickhouse.Progress) {
			read.rows.Add(p.Rows)
			read.bytes.Add(p.Bytes)
		}),
	}
	if len(q.Params) > 0 {
		options = append(options, clickhouse.WithParameters(clickhouse.Parameters(q.Params)))
	}
	if from := traces.Sampled(ctx); from.IsValid() {
		options = append(options, clickhouse.WithSpan(from)) // its own spans, if it has any, go on from ours
	}
	if q.ID != "" {
		options = append(options, clickhouse.WithQueryID(q.ID))
	}
	// The driver would make a deadline a setting, which a reader may not raise at will.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	end := func() { stop(); cancel() }
	began := time.Now()
	rows, err := r.c.conn.Query(clickhouse.Context(running, options...), q.SQL)
	if err != nil {
		end()
		return nil, readError(ctx, err)
	}
	out := &Rows{rows: rows, cancel: end, began: began, read: read}
	for _, c := range rows.ColumnTypes() {
		t, err := parseType(c.DatabaseTypeName())
		if err != nil {
			return nil, errors.Join(&unsupportedError{err}, out.Close())
		}
		out.Columns = append(out.Columns, Column{c.Name(), c.DatabaseTypeName()})
		out.types = append(out.types, t)
		out.dest = append(out.dest, destination(t, c.ScanType()))
	}
	return out, nil
}

// readError says what a query failed with.
func readError(ctx context.Context, err error) error {
	var unsupported *chcolumn.UnsupportedColumnTypeError
	if errors.As(err, &unsupported) {
		return &unsupportedError{err}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return wrong(err, true)
}

// destination is what a column's values are scanned into.
func destination(t *typ, scan reflect.Type) any {
	if t.plain().name == "Map" && t.name == "Map" {
		return &orderedMap{}
	}
	return reflect.New(scan).Interface()
}

// Next goes to the next row. It returns false at the end and on failure; Err tells which.
func (r *Rows) Next() bool {
	if r.err != nil || !r.rows.Next() {
		return false
	}
	for _, d := range r.dest {
		if m, ok := d.(*orderedMap); ok {
			*m = orderedMap{}
			continue
		}
		v := reflect.ValueOf(d).Elem()
		v.SetZero()
	}
	r.err = r.rows.Scan(r.dest...)
	return r.err == nil
}

// AppendJSON appends the value of a column of the current row, as ClickHouse's JSON formats
// write it by default: 64-bit and wider integers are plain numbers, decimals have no trailing
// zeros, NaN and infinities are null.
func (r *Rows) AppendJSON(b []byte, column int) []byte {
	return appendJSON(b, r.types[column], reflect.ValueOf(r.dest[column]))
}

// AppendCSV appends the value of a column of the current row as ClickHouse's CSV format writes
// it. A tuple is as many fields as it has elements.
func (r *Rows) AppendCSV(b []byte, column int) []byte {
	return appendCSV(b, r.types[column], reflect.ValueOf(r.dest[column]))
}

// Err is why Next stopped before the end, nil if it did not.
func (r *Rows) Err() error {
	if r.err == nil && r.rows.Err() == nil {
		return nil
	}
	return readError(context.Background(), errors.Join(r.err, r.rows.Err()))
}

// Stats is what the query has cost so far.
func (r *Rows) Stats() Stats {
	return Stats{time.Since(r.began), r.read.rows.Load(), r.read.bytes.Load()}
}

// Close ends the query, if it is still running.
func (r *Rows) Close() error {
	r.cancel()
	// The driver says again what Err says, or that the query was ended here.
	if err := r.rows.Close(); err != nil && r.rows.Err() == nil && !errors.Is(err, context.Canceled) {
		return wrong(err, true)
	}
	return nil
}

// An orderedMap keeps a map's entries as ClickHouse sent them: in order, and all of them.
type orderedMap struct {
	keys, values []any
}

// Put is how the driver hands over an entry.
func (m *orderedMap) Put(key, value any) {
	m.keys, m.values = append(m.keys, key), append(m.values, value)
}

// Get and Keys complete the driver's interface; it does not call them when reading.
func (m *orderedMap) Get(any) (any, bool) { return nil, false }

// Keys lists nothing; see Get.
func (m *orderedMap) Keys() <-chan any { return nil }
