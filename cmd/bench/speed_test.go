package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"watershed/schemas/view"
)

func smallSpeed(t *testing.T, args ...string) *speedBench {
	t.Helper()
	b, err := parseSpeed(append([]string{"--events", "6000", "--peer-events", "2000", "--singles", "500", "--live", "2000", "--rates", "1000",
		"--seconds", "1", "--idle", "1", "--runs", "1", "--dir", t.TempDir()}, args...), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SchedGetaffinity(0, &b.all); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSpeed measures full speed, latencies and the peer, small, and reads what is written.
func TestSpeed(t *testing.T) {
	b := smallSpeed(t, "--rates", "50000", "--only", "one,latency,singles")
	r, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file, drawing := filepath.Join(t.TempDir(), "speed.json"), filepath.Join(t.TempDir(), "speed.svg")
	if err := errors.Join(writeJSON(file, r), r.writeChart(drawing)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one_view_events_per_second", "single_message_ratio_to_bare_consumer", "visible_p50_ms_at_50k", "visible_p99_ms_at_50k", "peak_mb"} {
		if v, ok := got[name].(float64); !ok || v <= 0 {
			t.Errorf("the result has %s = %v", name, got[name])
		}
	}
	for _, name := range []string{"six_views_events_per_second", "peer_events_per_second", "ratio_to_peer"} {
		if v, ok := got[name].(float64); !ok || v != 0 {
			t.Errorf("the result has %s = %v, which was not measured", name, got[name])
		}
	}
	drawn, err := os.ReadFile(drawing)
	if err != nil || !strings.Contains(string(drawn), "50000 events/s") {
		t.Errorf("the chart has no latencies (%v)", err)
	}
	var table strings.Builder
	r.print(&table)
	if !strings.Contains(table.String(), "one view") {
		t.Errorf("got the table\n%s", table.String())
	}
}

// TestSpeedCheck lets both fold the same events, changes what views show, each in another way, and expects that it
// is found.
func TestSpeedCheck(t *testing.T) {
	ctx := t.Context()
	b := smallSpeed(t)
	if err := b.prepare(); err != nil {
		t.Fatal(err)
	}
	p, err := b.checked(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := checkClickHouse(ctx, p.server, p.plans); err != nil {
		t.Fatal(err)
	}
	const changed = "day_device_status"
	i := slices.IndexFunc(p.plans, func(v *view.Plan) bool { return v.Name() == changed })
	table := p.database + "." + view.Quote(p.plans[i].ID()+"__speed")
	change := func(sql string) {
		t.Helper()
		if _, err := p.server.query(ctx, sql, nil); err != nil {
			t.Fatal(err)
		}
	}
	differs := func() {
		t.Helper()
		var diff *difference
		if err := checkClickHouse(ctx, p.server, p.plans); !errors.As(err, &diff) || diff.view != changed {
			t.Errorf("view %s was changed: got %v; want a difference there", changed, err)
		}
	}
	// An event that counts twice, in one view, is found by its count.
	change("INSERT INTO " + table + " SELECT * FROM " + table + " LIMIT 1")
	var count *countError
	if err := p.visible(ctx, b.events.len()); !errors.As(err, &count) || count.view != changed || count.shows <= count.want {
		t.Errorf("got %v; want that %s shows too many events", err, changed)
	}
	differs()
	change("TRUNCATE TABLE " + table)
	differs()
	// Views that do not show what was stored are found by the control of latencies.
	var stored atomic.Int64
	all := make(chan struct{})
	close(all)
	if _, err := p.control(ctx, &stored, all); err != nil {
		t.Errorf("nothing was stored: got %v", err)
	}
	stored.Store(1)
	if _, err := p.control(ctx, &stored, all); err == nil {
		t.Error("views without a marker passed when one was stored")
	}
}

// TestHalfOf: views are asked less often as long as most is still to come.
func TestHalfOf(t *testing.T) {
	for _, test := range []struct {
		took   time.Duration
		shown  int
		events int
		want   time.Duration
	}{
		{time.Second, 0, 100, rarely}, {time.Second, 10, 100, rarely}, {time.Second, 90, 100, time.Second / 18}, {time.Second, 99, 100, seldom},
	} {
		if got := halfOf(test.took, test.shown, test.events); (got - test.want).Abs() > time.Microsecond {
			t.Errorf("%d of %d after %s: got %s, want %s", test.shown, test.events, test.took, got, test.want)
		}
	}
}

// Latencies count from when an event was to be sent, and until the answer in which its message's marker is.
func TestLatencyOf(t *testing.T) {
	const rate = 1000 // five events to a message
	looks := []look{{4 * time.Millisecond, 0}, {20 * time.Millisecond, 1}, {30 * time.Millisecond, 2}}
	got := latencyOf(looks, 10, rate)
	want := []float64{16, 17, 18, 19, 20, 21, 22, 23, 24, 25} // 20-4 … 20-0, 30-9 … 30-5
	for i := range want {
		if diff := got[i] - want[i]; diff < -0.01 || diff > 0.01 {
			t.Fatalf("got %v; want %v", got, want)
		}
	}
	if p := percentile(got, 0.5); p < 20.9 || p > 21.1 {
		t.Errorf("got a median of %v", p)
	}
}
