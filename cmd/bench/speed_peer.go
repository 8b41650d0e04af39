package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/schemas/view"
)

// A peerWay is how a client of the peer inserts.
type peerWay struct {
	Rows    int  `json:"rows_per_insert"`
	Clients int  `json:"clients"`
	Async   bool `json:"async_insert"` // ClickHouse gathers inserts of many clients, who wait until theirs is in
}

func (w peerWay) String() string {
	s := fmt.Sprintf("%d rows an insert, %d clients", w.Rows, w.Clients)
	if w.Async {
		s += ", async_insert"
	}
	return s
}

// peerWays are tried, and the fastest is measured.
var peerWays = []peerWay{{10_000, 2, false}, {100_000, 1, false}, {100_000, 2, false}, {10_000, 16, true}}

// A peerLoad is what the pipeline that ours is held against gets through: inserts of JSONEachRow into one
// raw MergeTree, which incremental materialized views fold into AggregatingMergeTree tables.
type peerLoad struct {
	Way        peerWay `json:"way"`
	Events     int     `json:"events"`
	Seconds    float64 `json:"seconds"` // from the first insert to the last answer: all is visible then
	Rate       float64 `json:"events_per_second"`
	ClickHouse float64 `json:"clickhouse_cpu_microseconds_per_event"`
	PeakMB     float64 `json:"clickhouse_peak_mb"`
	Parts      float64 `json:"parts_per_second"`
}

func (l peerLoad) seconds() float64 { return l.Seconds }

// peer tries the ways, and measures the fastest.
func (b *speedBench) peer(ctx context.Context) (best peerLoad, tried []peerLoad, err error) {
	events := min(b.speed.PeerEvents, b.events.len())
	var way peerWay
	for i, w := range peerWays {
		l, err := b.peerOnce(ctx, w, max(events/4, min(events, 200_000)))
		if err != nil {
			return best, nil, fmt.Errorf("peer, %s: %w", w, err)
		}
		b.say("peer, %s: %.0f events/s", w, l.Rate)
		tried = append(tried, l)
		if i == 0 || l.Rate > best.Rate {
			best, way = l, w
		}
	}
	best, err = median(b, "peer, "+way.String(), func() (peerLoad, error) { return b.peerOnce(ctx, way, events) })
	return best, tried, err
}

// peerOnce measures one way on a ClickHouse of its own.
func (b *speedBench) peerOnce(ctx context.Context, way peerWay, events int) (l peerLoad, err error) {
	s, err := b.startServer(ctx, b.cfg.Dir)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	plans, err := b.data.plans(b.six())
	if err != nil {
		return l, err
	}
	if err := b.makePeer(ctx, s, plans); err != nil {
		return l, err
	}
	before, err := costOf(s.Pid())
	if err != nil {
		return l, err
	}
	parts, err := s.partsMade(ctx)
	if err != nil {
		return l, err
	}
	began := time.Now()
	if err := s.insertJSON(ctx, b.events, events, way); err != nil {
		return l, err
	}
	l = peerLoad{Way: way, Events: events, Seconds: time.Since(began).Seconds()}
	l.Rate = float64(events) / l.Seconds
	after, err := costOf(s.Pid())
	if err != nil {
		return l, err
	}
	made, err := s.partsMade(ctx)
	if err != nil {
		return l, err
	}
	l.ClickHouse, l.PeakMB, l.Parts = 1e6*(after.CPU-before.CPU)/float64(events), after.PeakMB, float64(made-parts)/l.Seconds
	for _, p := range plans {
		counting, n := countOf(p), 0
		if counting == "" {
			continue
		}
		if err := s.row(ctx, fmt.Sprintf("SELECT sum(%s) FROM (%s)", counting, peerPlan(p).SelectFinished(peerTable(p))), &n); err != nil {
			return l, err
		}
		if n != events {
			return l, &countError{"peer." + p.Name(), n, events}
		}
	}
	return l, nil
}

// rawTable is the peer's table of events.
const rawTable = peerDatabase + ".events"

// makePeer makes the raw table, and behind it a materialized view for each plan into a table like ours.
func (b *speedBench) makePeer(ctx context.Context, s *server, plans []*view.Plan) error {
	var columns []string
	for _, f := range b.data.event.Fields {
		columns = append(columns, view.Quote(f.Name)+" "+nullable(&f))
	}
	fsync := ""
	if b.speed.Fsync {
		fsync = " SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
	}
	statements := []string{
		"CREATE DATABASE " + peerDatabase,
		fmt.Sprintf("CREATE TABLE %s (%s) ENGINE = MergeTree ORDER BY %s%s", rawTable, strings.Join(columns, ", "), view.Quote(b.data.event.Time), fsync),
	}
	for _, p := range plans {
		table := clickhouseTable(p)
		if b.speed.Fsync {
			table += ", " + strings.TrimPrefix(fsync, " SETTINGS ")
		}
		statements = append(statements, table,
			fmt.Sprintf("CREATE MATERIALIZED VIEW %s.%s TO %s AS %s", peerDatabase, view.Quote(p.Name()+"_fold"), peerTable(p), peerPlan(p).SelectStates(rawTable)))
	}
	for _, sql := range statements {
		if _, err := s.query(ctx, sql, nil); err != nil {
			return err
		}
	}
	return nil
}

// insertJSON inserts the first events of a stream as a way says.
func (s *server) insertJSON(ctx context.Context, events *stream, n int, way peerWay) error {
	settings := url.Values{
		"query": {"INSERT INTO " + rawTable + " FORMAT JSONEachRow"}, "async_insert": {"0"},
		// Views are computed side by side, and the events are one block: one part for each table.
		"parallel_view_processing": {"1"}, "min_insert_block_size_rows": {fmt.Sprint(way.Rows)}, "max_insert_block_size": {fmt.Sprint(max(way.Rows, 65_536))},
		"input_format_parallel_parsing": {"0"}, // that is for bodies of many MB; clients are side by side here
	}
	if way.Clients == 1 {
		settings.Set("input_format_parallel_parsing", "1")
	}
	if way.Async {
		settings.Set("async_insert", "1")
		settings.Set("wait_for_async_insert", "1")
		settings.Set("async_insert_max_data_size", fmt.Sprint(64<<20))
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: way.Clients}}
	defer client.CloseIdleConnections()
	user, password := s.Admin()
	insert := func(ctx context.Context, body []byte) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.HTTPAddr()+"/?"+settings.Encode(), bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.SetBasicAuth(user, password)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("ClickHouse: %s", text)
		}
		return nil
	}
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range way.Clients {
		g.Go(func() error {
			for {
				to := int(next.Add(int64(way.Rows)))
				if to-way.Rows >= n {
					return nil
				}
				if err := insert(ctx, events.lines(to-way.Rows, min(to, n))); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}
