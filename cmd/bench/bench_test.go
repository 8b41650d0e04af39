package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"watershed/internal/devserver"
	"watershed/schemas/view"
)

// TestMain makes the test binary what the program is: it runs its own children.
func TestMain(m *testing.M) {
	devserver.Child()
	if len(os.Args) == 2 && os.Args[1] == childCommand {
		if err := child(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestBench runs the whole, small, and reads what it writes.
func TestBench(t *testing.T) {
	dir := t.TempDir()
	file, chart := filepath.Join(dir, "bench.json"), filepath.Join(dir, "bench.svg")
	var stdout, stderr strings.Builder
	args := []string{"--events", "10000", "--days", "2", "--runs", "1", "--dir", dir, "--json", file, "--chart", chart}
	if err := run(t.Context(), args, nil, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ours_seconds", "floor_seconds", "peers", "ratio_to_best_peer", "peak_mb", "ours_cpu_seconds", "raw", "sketch_free", "versions", "machine", "date"} {
		if _, ok := got[name]; !ok {
			t.Errorf("the result has no %s", name)
		}
	}
	if got["events"] != 10000.0 || got["cores"] != 2.0 {
		t.Errorf("got %v events on %v cores; want what was asked for", got["events"], got["cores"])
	}
	drawn, err := os.ReadFile(chart)
	if err != nil || !strings.Contains(string(drawn), "--events 10000") {
		t.Errorf("the chart does not name its command (%v)", err)
	}
	if !strings.Contains(stdout.String(), "DuckDB") {
		t.Errorf("got the table\n%s", stdout.String())
	}
}

// TestCheck changes peers' results, each in another way, and expects that it is found.
func TestCheck(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	cfg, err := parse([]string{"--events", "5000", "--days", "2", "--dir", dir}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{cfg: cfg, stderr: t.Output(), cores: 2}
	d, err := b.dataset(ctx, cfg.Traffic)
	if err != nil {
		t.Fatal(err)
	}
	plans, err := d.plans([]string{"minute_country", "hour_page", "page_all", "day_user"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.everybody(ctx, d, raw, plans)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	checkAll := func(p *view.Plan) error {
		if err := checkClickHouse(ctx, s.server, []*view.Plan{p}); err != nil {
			return err
		}
		return checkDuckDB(ctx, s.server, []*view.Plan{p}, s.exported(), true)
	}
	sorted := filepath.Join(s.exported(), "minute_country"+sortedSuffix+".parquet")
	halved := sorted + ".halved"
	for i, c := range []struct{ sql, peer, want string }{
		// All values of each group, halved: the quantiles that views show are too high then.
		{fmt.Sprintf("INSERT INTO FUNCTION file('%s', Parquet) SELECT * REPLACE (arrayMap(x -> x / 2, latency) AS latency) FROM file('%s', Parquet)", halved, sorted), "DuckDB", "measure latency"},
		{"ALTER TABLE peer.hour_page UPDATE views = views + 1 WHERE hour = (SELECT min(hour) FROM peer.hour_page) SETTINGS mutations_sync = 2", "ClickHouse", "measure views"},
		{"INSERT INTO peer.page_all (page, `users`) SELECT page, uniqState(toInt64(-1)) FROM peer.page_all GROUP BY page", "ClickHouse", "measure users"},
		{"ALTER TABLE peer.day_user DELETE WHERE user = (SELECT max(user) FROM peer.day_user) SETTINGS mutations_sync = 2", "ClickHouse", "no such groups"},
	} {
		if err := checkAll(plans[i]); err != nil {
			t.Errorf("before it was changed: %v", err)
		}
		if _, err := s.server.query(ctx, c.sql, nil); err != nil {
			t.Error(err)
			continue
		}
		if err := os.Rename(halved, sorted); i == 0 && err != nil {
			t.Fatal(err)
		}
		err := checkAll(plans[i])
		var diff *difference
		if !errors.As(err, &diff) || diff.view != plans[i].Name() || diff.peer != c.peer || !strings.Contains(err.Error(), c.want) {
			t.Errorf("view %s: got %v; want a difference from %s: %s", plans[i].Name(), err, c.peer, c.want)
		}
	}
}
