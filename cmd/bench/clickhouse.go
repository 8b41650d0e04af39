package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/schemas"
	"watershed/schemas/view"
)

// A timing is one computation of all views.
type timing struct {
	cost
	Seconds float64            `json:"seconds"`
	Views   map[string]float64 `json:"views,omitempty"`      // of peers: seconds by view; "duplicates" is what comes before them
	Server  *cost              `json:"clickhouse,omitempty"` // of ours: of ClickHouse, which is another process
	Report  *report            `json:"report,omitempty"`     // of ours
}

// where says where the time went, in words: by view, or of ours by phase and step.
func (t timing) where() string {
	if t.Report == nil {
		return inWords(t.Views)
	}
	out := "steps: " + inWords(t.Report.Seconds)
	if len(t.Report.Phases) > 0 {
		out = "phases: " + inWords(t.Report.Phases) + "; " + out
	}
	return out
}

func inWords(seconds map[string]float64) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(seconds)) {
		words = append(words, fmt.Sprintf("%s %.2f", name, seconds[name]))
	}
	return strings.Join(words, ", ")
}

// peerDatabase has the tables of ClickHouse's own computation.
const peerDatabase = "peer"

// query runs SQL over HTTP and returns the lines of its result.
func (s *server) query(ctx context.Context, sql string, settings url.Values) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.HTTPAddr()+"/?wait_end_of_query=1&"+settings.Encode(), strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(s.Admin())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ClickHouse: %s\n%s", strings.TrimSpace(string(body)), sql)
	}
	return strings.FieldsFunc(string(body), func(r rune) bool { return r == '\n' }), nil
}

// row runs SQL that gives one row, and reads it into values.
func (s *server) row(ctx context.Context, sql string, into ...any) error {
	lines, err := s.query(ctx, sql, url.Values{"default_format": {"JSONCompactEachRow"}, "output_format_json_quote_64bit_integers": {"0"}})
	if err != nil {
		return err
	}
	if len(lines) != 1 {
		return fmt.Errorf("%d rows, not one: %s", len(lines), sql)
	}
	return json.Unmarshal([]byte(lines[0]), &into)
}

// clickhouse computes the views as ClickHouse alone would: one INSERT … SELECT of states per view, with
// its own functions that ours are equal to.
func (b *bench) clickhouse(ctx context.Context, s *server, plans []*view.Plan, files string, duplicates bool) (t timing, err error) {
	before, err := costOf(s.Pid())
	if err != nil {
		return t, err
	}
	settings := url.Values{
		"max_threads": {fmt.Sprint(b.cores)},
		// Groups come out of the aggregation once, so there is nothing to merge in the block.
		"optimize_on_insert": {"0"},
		// Fewer and larger parts, which are sorted and written side by side.
		"max_insert_threads":         {fmt.Sprint(b.cores)},
		"min_insert_block_size_rows": {"1048449"},
	}
	t.Views = map[string]float64{}
	began := time.Now()
	run := func(name string, statements ...string) error {
		at := time.Now()
		for _, sql := range statements {
			if _, err := s.query(ctx, sql, settings); err != nil {
				return err
			}
		}
		t.Views[name] += time.Since(at).Seconds()
		return nil
	}
	if err := run("database", "CREATE DATABASE "+peerDatabase); err != nil {
		return t, err
	}
	from := fmt.Sprintf("file('%s', Parquet)", files)
	if duplicates {
		at := time.Now()
		if err := b.clickhouseDistinct(ctx, s, plans, files); err != nil {
			return t, err
		}
		from, t.Views["duplicates"] = distinctTable, time.Since(at).Seconds()
	}
	for _, p := range plans {
		if err := run(p.Name(), clickhouseTable(p), "INSERT INTO "+peerTable(p)+" "+peerPlan(p).SelectStates(from)); err != nil {
			return t, err
		}
	}
	t.Seconds = time.Since(began).Seconds()
	after, err := costOf(s.Pid())
	t.cost = cost{CPU: after.CPU - before.CPU, PeakMB: after.PeakMB}
	return t, err
}

func peerTable(p *view.Plan) string { return peerDatabase + "." + view.Quote(p.Name()) }

func clickhouseTable(p *view.Plan) string {
	var columns, keys []string
	for _, c := range peerPlan(p).Columns() {
		columns = append(columns, view.Quote(c.Name)+" "+c.ClickHouse)
		if c.Key {
			keys = append(keys, view.Quote(c.Name))
		}
	}
	return fmt.Sprintf("CREATE TABLE %s (%s) ENGINE = AggregatingMergeTree ORDER BY (%s) SETTINGS allow_nullable_key = 1",
		peerTable(p), strings.Join(columns, ", "), strings.Join(keys, ", "))
}

const distinctTable = peerDatabase + "._distinct"

// clickhouseDistinct removes duplicates once, for all views, date by date and as many dates at a time as
// there are cores: LIMIT 1 BY runs on one thread, so that this took half the time of one statement for
// all dates, and a quarter of GROUP BY with any(). All copies of an event are equal in these data, so
// any one may be taken.
func (b *bench) clickhouseDistinct(ctx context.Context, s *server, plans []*view.Plan, files string) error {
	ev := plans[0].Event
	var columns, types []string
	for _, in := range inputs(plans) {
		columns = append(columns, view.Quote(in))
		types = append(types, view.Quote(in)+" "+nullable(ev.Field(in)))
	}
	if _, err := s.query(ctx, fmt.Sprintf("CREATE TABLE %s (%s) ENGINE = MergeTree ORDER BY tuple()", distinctTable, strings.Join(types, ", ")), nil); err != nil {
		return err
	}
	dates, err := filepath.Glob(filepath.Dir(files))
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(b.cores)
	for _, dir := range dates {
		group.Go(func() error {
			_, err := s.query(ctx, fmt.Sprintf("INSERT INTO %s SELECT %s FROM (SELECT %[2]s, %[4]s FROM file('%[3]s', Parquet) LIMIT 1 BY %[4]s)",
				distinctTable, strings.Join(columns, ", "), filepath.Join(dir, filepath.Base(files)), view.Quote(ev.ID)), url.Values{"max_threads": {"1"}})
			return err
		})
	}
	return group.Wait()
}

func nullable(f *schemas.Field) string {
	if f.Optional {
		return "Nullable(" + f.Type.ClickHouse() + ")"
	}
	return f.Type.ClickHouse()
}
