package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/serving/store"
)

// A demoCheck holds one merged answer against the source file.
type demoCheck struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Got  string `json:"got"`  // from the merged view
	Want string `json:"want"` // from the source file, by ClickHouse alone
}

// A question is asked twice: of the merged views, and of the flights' file. The second form
// is written by hand, so that it shares nothing with how the views are computed.
type question struct {
	name string
	view string // SQL over merged views
	file string // SQL over flights, which are the columns of the file
}

// digest makes one line of a whole table: how many rows, and a hash of all their values.
func digest(columns, table string) string {
	return "SELECT concat(toString(count()), ' groups, hash ', hex(sum(cityHash64(" + columns + ")))) AS digest FROM " + table
}

var questions = []question{
	{
		name: "flights, late ones, miles",
		view: "SELECT sum(flights), sum(late), sum(miles) FROM days",
		file: "SELECT count(), countIf(delay > 15), sum(toInt128(distance)) FROM flights",
	},
	{
		name: "busiest day: flights, routes, delay quantiles",
		view: "SELECT toDate(day), flights, routes, delay FROM days ORDER BY flights DESC, day LIMIT 1",
		file: "SELECT toDate(date) AS day, count() AS n, uniq(concat(origin, '-', destination)), quantilesBFloat16(0.5, 0.9, 0.99)(delay) FROM flights GROUP BY day ORDER BY n DESC, day LIMIT 1",
	},
	{
		name: "days: every value",
		view: digest("toDate(day), flights, late, miles, worst, best, mean_delay, routes, delay", "days"),
		file: digest("*", `(SELECT toDate(date) AS day, count(), countIf(delay > 15), sum(toInt128(distance)), max(delay), min(delay), avg(delay),
			uniq(concat(origin, '-', destination)), quantilesBFloat16(0.5, 0.9, 0.99)(delay) FROM flights GROUP BY day)`),
	},
	{
		name: "departures_by_hour: every value",
		view: digest("toUnixTimestamp64Micro(hour), origin, flights, late, worst, mean_delay", "departures_by_hour"),
		file: digest("*", `(SELECT toUnixTimestamp64Micro(date) - toUnixTimestamp64Micro(date) % 3600000000 AS hour, origin, count(), countIf(delay > 15), max(delay), avg(delay)
			FROM flights GROUP BY hour, origin)`),
	},
	{
		name: "routes_by_day: every value",
		view: digest("toDate(day), origin, destination, flights, minutes, best", "routes_by_day"),
		file: digest("*", "(SELECT toDate(date) AS day, origin, destination, count(), sum(toInt128(delay)), min(delay) FROM flights GROUP BY day, origin, destination)"),
	},
	{
		name: "airports: every value",
		view: digest("origin, flights, destinations, delay", "airports"),
		file: digest("*", "(SELECT origin, count(), uniq(destination), quantilesBFloat16(0.5, 0.95)(delay) FROM flights GROUP BY origin)"),
	},
}

// check asks every question; `before` is up to which time the views have been given flights.
func (d *demo) check(ctx context.Context, stage string, before time.Time) error {
	reader, err := d.a.openReader(ctx)
	if err != nil {
		return err
	}
	defer reader.Close()
	from := d.flights()
	if !before.IsZero() {
		from = fmt.Sprintf("(SELECT * FROM %s WHERE date < toDateTime64(%d, 6, 'UTC'))", from, before.Unix())
	}
	for _, q := range questions {
		got, err := oneRow(ctx, reader, q.view)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", stage, q.name, err)
		}
		want, err := oneRow(ctx, d.e.db, "WITH flights AS (SELECT * FROM "+from+") "+q.file)
		if err != nil {
			return fmt.Errorf("%s, %s, of the source file: %w", stage, q.name, err)
		}
		c := demoCheck{Name: stage + ": " + q.name, OK: got == want, Got: got, Want: want}
		d.report.Checks = append(d.report.Checks, c)
		verdict := "equal"
		if !c.OK {
			verdict = "NOT EQUAL"
		}
		d.say("  %-9s  %s", verdict, c.Name)
		d.say("             views   %s", got)
		d.say("             source  %s", want)
	}
	return nil
}

// flights is the source file as a table. Its columns have no zone; they are taken as UTC.
func (d *demo) flights() string {
	return fmt.Sprintf("file(%s, Parquet, 'date DateTime64(6, \\'UTC\\'), delay Int64, distance Int64, origin String, destination String')", quoteSQL(d.source))
}

// oneRow asks for one row, as text.
func oneRow(ctx context.Context, db interface {
	Query(context.Context, store.Query) (*store.Rows, error)
}, sql string) (string, error) {
	rows, err := db.Query(ctx, store.Query{SQL: sql})
	if err != nil {
		return "", err
	}
	var out []byte
	for rows.Next() {
		for i := range rows.Columns {
			if len(out) > 0 {
				out = append(out, ", "...)
			}
			out = append(out, cell(rows.AppendJSON(nil, i))...)
		}
	}
	return string(out), errors.Join(rows.Err(), rows.Close())
}

func decodeCount(body io.Reader) (int64, error) {
	var row struct {
		N int64 `json:"n"`
	}
	if err := json.NewDecoder(body).Decode(&row); err != nil {
		return 0, fmt.Errorf("the answer broke off: %w", err)
	}
	return row.N, nil
}

// quoteSQL writes a string literal.
func quoteSQL(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

func baseName(path string) string { return filepath.Base(path) }

// startExample makes the loops for the shipped definitions.
func (a *app) startExample(ctx context.Context, e *engines) (*loops, error) {
	set, err := schemas.Load(schemas.Examples())
	if err != nil {
		return nil, err
	}
	if _, err := e.log.PublishCut(ctx, schemas.Cut{}, *set, schemas.Set{}); err != nil && !errors.Is(err, eventlog.ErrCutTaken) {
		return nil, err
	}
	return a.loopsOf(e)
}
