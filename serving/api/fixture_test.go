package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/serving/api"
)

// world is a database with events, a view of them in two builds, and an endpoint over it.
//
// Build n has the events of the first n days; build 1 is live at first. The view "uncovered" is in no build.
type world struct {
	*catalog
	reader  api.Reader
	log     logOf
	workers func() map[string]any
	url     string

	collectors []prometheus.Collector
}

var databases atomic.Uint64

// events are the raw rows. Origins hold what formats must escape and SQL must not see.
const events = `SELECT toDateTime64('2001-06-01 00:00:00', 6, 'UTC') + toIntervalSecond(number * 61) AS time,
	['JFK', 'LAX', 'a"b\'c\\d', 'x,y:z', 'tab\there', 'line\nhere', '', 'Zürich/ß'][number % 8 + 1] AS origin,
	if(number % 5 = 0, NULL, number % 7) AS gate,
	toDate32('2001-06-01') + toInt32(intDiv(number * 61, 86400)) AS day,
	toDecimal64(number % 3, 2) / 4 AS price,
	number % 2 = 0 AS even,
	cityHash64(number) % 1000 AS delay_,
	toInt64(delay_) - 300 AS delay
FROM numbers(5000)`

type field struct {
	name     string
	typ      schemas.Type
	nullable bool
	bucket   time.Duration
	sql      string // over events
}

func kind(k schemas.Kind) schemas.Type { return schemas.Type{Kind: k} }

func fields() []field {
	return []field{
		{"hour", kind(schemas.Timestamp), false, time.Hour, "toDateTime64(toStartOfHour(time), 6, 'UTC')"},
		{"origin", kind(schemas.String), false, 0, "origin"},
		{"gate", kind(schemas.Int64), true, 0, "toInt64(gate)"},
		{"day", kind(schemas.Date), false, 0, "day"},
		{"price", schemas.Type{Kind: schemas.Decimal, Precision: 18, Scale: 2}, false, 0, "CAST(price, 'Decimal(18, 2)')"},
		{"even", kind(schemas.Bool), false, 0, "even"},
	}
}

type measure struct {
	name, fn string
	levels   []float64
}

func measures() []measure {
	return []measure{{"flights", "count", nil}, {"total", "sum", nil}, {"least", "min", nil}, {"mean", "avg", nil},
		{"kinds", "uniq", nil}, {"delay", "quantiles", []float64{0.5, 0.95}}}
}

func (m measure) agg(t testing.TB) (agg.Func, string) {
	t.Helper()
	arg, argSQL := kind(schemas.Int64), "delay"
	if m.fn == "count" {
		arg, argSQL = schemas.Type{}, ""
	}
	f, err := agg.New(m.fn, arg, m.levels)
	if err != nil {
		t.Fatal(err)
	}
	return f, argSQL
}

// departures is the view, of all the fields and measures above or of those named.
func departures(t testing.TB, name, plan string) api.View {
	t.Helper()
	def := &schemas.View{Name: name, From: "departure", Where: schemas.Expression{Text: "delay > -1000"}}
	v := api.View{Definition: def, Plan: plan}
	for _, f := range fields() {
		def.Dimensions = append(def.Dimensions, schemas.Definition{Name: f.name, Expression: schemas.Expression{Text: "of(" + f.name + ")"}})
		v.Dimensions = append(v.Dimensions, api.Dimension{Name: f.name, Type: f.typ, Nullable: f.nullable, Bucket: f.bucket})
	}
	for _, m := range measures() {
		f, _ := m.agg(t)
		def.Measures = append(def.Measures, schemas.Definition{Name: m.name, Expression: schemas.Expression{Text: m.fn + "(delay)"}})
		var columns []string
		for _, c := range f.Columns(m.name) {
			columns = append(columns, c.Name)
		}
		v.Measures = append(v.Measures, api.Measure{Name: m.name, Columns: columns, Func: f})
	}
	return v
}

// newWorld makes the database. Merged views have the form that package store gives them.
func newWorld(t testing.TB) *world {
	t.Helper()
	c := devtest.SharedClickHouse(t)
	database := fmt.Sprintf("watershed_api_%d", databases.Add(1))
	user, password := c.Admin()
	admin := clickhouse{c.HTTPAddr(), "default", user, password}
	admin.must(t, "CREATE DATABASE "+database)
	admin.database = database
	t.Cleanup(func() {
		if _, err := admin.text(context.Background(), "DROP DATABASE "+database, url.Values{"database": {"default"}}); err != nil {
			t.Error(err)
		}
	})
	w := &world{catalog: &catalog{admin: admin, views: []api.View{departures(t, "departures", "plan-a"), departures(t, "uncovered", "plan-b")}}, reader: openReader(t, c, database)}
	var keys, dims, group, states, columns, merges, finishes []string
	for _, f := range fields() {
		keys = append(keys, f.sql+" AS k_"+f.name)
		dims, group = append(dims, f.name), append(group, "k_"+f.name)
		typ := f.typ.ClickHouse()
		if f.nullable {
			typ = "Nullable(" + typ + ")"
		}
		columns = append(columns, f.name+" "+typ)
	}
	for _, m := range measures() {
		f, arg := m.agg(t)
		var names []string
		for i, c := range f.Columns(m.name) {
			states = append(states, f.StateSQL(arg, false)[i]+" AS s_"+c.Name)
			names = append(names, "s."+c.Name)
			columns = append(columns, c.Name+" "+c.ClickHouse)
		}
		for i, sql := range f.MergeSQL(names) {
			merges = append(merges, sql+" AS "+f.Columns(m.name)[i].Name)
		}
		finishes = append(finishes, f.FinishSQL(names)+" AS "+m.name)
	}
	admin.must(t, "CREATE TABLE live (flip UInt64, build UInt64, cut UInt64) ENGINE MergeTree ORDER BY flip")
	admin.must(t, "CREATE TABLE builds (build UInt64, plan String, slice UInt64) ENGINE MergeTree ORDER BY build")
	admin.must(t, "CREATE TABLE events ENGINE MergeTree ORDER BY time AS "+events)
	admin.must(t, fmt.Sprintf("CREATE TABLE batch (slice UInt64, %s) ENGINE AggregatingMergeTree PARTITION BY slice ORDER BY (slice, %s) SETTINGS allow_nullable_key = 1",
		strings.Join(columns, ", "), strings.Join(dims, ", ")))
	for n := 1; n <= 2; n++ {
		q := fmt.Sprintf("SELECT %d AS slice, %s, %s FROM events WHERE time < toDateTime64('2001-06-01', 6, 'UTC') + toIntervalDay(%d) GROUP BY %s",
			n, strings.Join(keys, ", "), strings.Join(states, ", "), n, strings.Join(group, ", "))
		admin.must(t, "INSERT INTO batch "+q)
		admin.must(t, fmt.Sprintf("INSERT INTO builds VALUES (%d, 'plan-a', %d)", n, n))
	}
	for _, v := range w.views {
		for name, outputs := range map[string][]string{v.Name(): finishes, v.Name() + "_states": merges} {
			qualified := "s." + strings.Join(dims, ", s.")
			admin.must(t, fmt.Sprintf(`CREATE VIEW %s SQL SECURITY INVOKER AS WITH (SELECT argMax((build, cut), flip) FROM live) AS l,
				(SELECT throwIf(count() = 0, 'view %s: its definition is newer than the live build') FROM builds WHERE build = l.1 AND plan = '%s') AS u
				SELECT %s, %s FROM (SELECT * FROM batch WHERE slice IN (SELECT slice FROM builds WHERE build = l.1) AND u = 0) AS s GROUP BY %s`,
				name, v.Name(), v.Plan, qualified, strings.Join(outputs, ", "), qualified))
		}
	}
	w.flip(t, 1)
	w.log = logOf{openLog(t)}
	return w
}

func openLog(t testing.TB) *eventlog.Log {
	t.Helper()
	n := devtest.NATS(t)
	log, err := eventlog.Open(t.Context(), eventlog.Config{URL: n.URL(), MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	return log
}

type logOf struct{ *eventlog.Log }

func (l logOf) Info(ctx context.Context) (api.LogInfo, error) {
	i, err := l.Log.Info(ctx)
	return api.LogInfo{First: i.First, Last: i.Last, Messages: i.Messages, Bytes: i.Bytes, MaxBytes: i.MaxBytes, DeadLetters: i.DeadLetters, Created: i.Created}, err
}

// serve starts an endpoint over the world on a server of its own.
func (w *world) serve(t testing.TB, cfg api.Config) *world {
	t.Helper()
	h, err := api.Handler(cfg, api.Deps{Reader: w.reader, Catalog: w.catalog, Log: w.log, Workers: w.workers, Collectors: w.collectors, Version: "test",
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	return w.listen(t, h)
}

func (w *world) listen(t testing.TB, h http.Handler) *world {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

// catalog reads what is live out of the database.
type catalog struct {
	admin clickhouse
	views []api.View
}

func (c *catalog) flip(t testing.TB, build int) {
	t.Helper()
	c.admin.must(t, fmt.Sprintf("INSERT INTO live SELECT max(flip) + 1, %d, %d FROM live", build, build))
}

func (c *catalog) Live(ctx context.Context) (schemas.Live, error) {
	text, err := c.admin.text(ctx, "SELECT flip, build, cut FROM live ORDER BY flip DESC LIMIT 1 FORMAT JSONEachRow", nil)
	if err != nil {
		return schemas.Live{}, err
	}
	var live schemas.Live
	return live, json.Unmarshal([]byte(text), &live)
}

func (c *catalog) Build(ctx context.Context, number uint64) (schemas.Build, error) {
	all, err := c.Builds(ctx)
	b := schemas.Build{Number: number, Cut: number, Plans: map[string]schemas.Covered{}}
	for _, info := range all {
		for _, p := range info.Plans {
			if info.Number == number {
				b.Plans[p] = schemas.Covered{Cut: number}
			}
		}
	}
	return b, err
}

func (c *catalog) Builds(ctx context.Context) ([]api.BuildInfo, error) {
	text, err := c.admin.text(ctx, "SELECT build AS number, build AS cut, groupUniqArray(plan) AS plans, count() AS slices FROM builds GROUP BY build FORMAT JSONEachRow", nil)
	if err != nil {
		return nil, err
	}
	var out []api.BuildInfo
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var b api.BuildInfo
		if err := d.Decode(&b); err == io.EOF {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
}

func (c *catalog) Views(context.Context) ([]api.View, error) { return c.views, nil }

// Positions: plan-a stands at sequence 42, plan-b at 17.
func (c *catalog) Positions(_ context.Context, views []api.View) (map[string]schemas.Mark, error) {
	all := map[string]schemas.Mark{"plan-a": {Epoch: 1, Position: schemas.Position{Seq: 42}}, "plan-b": {Epoch: 1, Position: schemas.Position{Seq: 17}}}
	return all, nil
}

// Reached: the live build covers plan-a.
func (c *catalog) Reached(ctx context.Context) (api.Reached, error) {
	live, err := c.Live(ctx)
	return api.Reached{Live: live, Plans: []api.Reach{{View: c.views[0], Position: 42}}}, err
}

// response is what came back.
type response struct {
	status int
	header http.Header
	body   string
}

func (w *world) do(t testing.TB, r *http.Request) response {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return response{resp.StatusCode, resp.Header, string(b)}
}

func (w *world) request(t testing.TB, method, path, contentType, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

func (w *world) get(t testing.TB, path string) response {
	t.Helper()
	return w.do(t, w.request(t, http.MethodGet, path, "", ""))
}

func (w *world) sql(t testing.TB, sql, query string) response {
	t.Helper()
	return w.do(t, w.request(t, http.MethodPost, "/v1/sql?"+query, "text/plain", sql))
}

// publish brings the log so many messages and returns the last sequence.
func (w *world) publish(t testing.TB, n int) (last uint64) {
	t.Helper()
	for i := range n {
		var err error
		if last, err = w.log.Publish(t.Context(), "departure", []byte(`{}`), fmt.Sprint("m", i)); err != nil {
			t.Fatal(err)
		}
	}
	return last
}
