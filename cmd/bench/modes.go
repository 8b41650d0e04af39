package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"watershed/batch/history"
)

// A point is a time of ours by something.
type point struct {
	At      int     `json:"at"` // millions of events, views, or cores
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
	PeakMB  float64 `json:"peak_mb"`
	Groups  uint64  `json:"groups"`
}

func pointOf(at int, t timing) point {
	return point{At: at, Seconds: t.Seconds, CPU: t.CPU, PeakMB: t.PeakMB, Groups: t.Report.Groups}
}

// scales measures the time by the number of events, a million of them a day.
func (b *bench) scales(ctx context.Context, _ *dataset, r *result) error {
	for _, millions := range b.cfg.Scale {
		traffic := b.cfg.Traffic
		traffic.Events, traffic.Days = millions*1_000_000, max(1, millions*1_000_000/eventsPerDay)
		d, err := b.dataset(ctx, traffic)
		if err != nil {
			return err
		}
		t, err := b.ours(ctx, d, compacted, r.Views)
		if err != nil {
			return err
		}
		r.Scale = append(r.Scale, pointOf(millions, t))
	}
	return nil
}

// byViews measures the time by the number of views of one scan.
func (b *bench) byViews(ctx context.Context, d *dataset, r *result) error {
	if len(b.cfg.Views) < 2 {
		return nil
	}
	for _, n := range b.cfg.Views {
		t, err := b.ours(ctx, d, compacted, d.first(n))
		if err != nil {
			return err
		}
		r.ByViews = append(r.ByViews, pointOf(n, t))
	}
	return nil
}

// speedUp measures the time by cores.
func (b *bench) speedUp(ctx context.Context, d *dataset, r *result) (err error) {
	if len(b.cfg.Cores) < 2 {
		return nil
	}
	defer func() { err = errors.Join(err, pin(b.cores, b.all)) }()
	for _, n := range b.cfg.Cores {
		if err := pin(n, b.all); err != nil {
			return err
		}
		t, err := b.ours(ctx, d, compacted, r.Views)
		if err != nil {
			return err
		}
		r.ByCores = append(r.ByCores, pointOf(n, t))
	}
	return nil
}

// A night is what a run costs by what has changed since the last one.
type night struct {
	Days     int     `json:"days"`
	Cold     float64 `json:"cold_seconds"`
	Nightly  float64 `json:"nightly_seconds"` // with one changed date
	Ratio    float64 `json:"ratio"`
	Computed int     `json:"slices_computed"`
	Reused   int     `json:"slices_reused"`
	Rebuild  float64 `json:"rebuild_seconds"` // all computed anew, and found equal
}

// year is how many dates a night's history has.
const year = 365

// changed measures a night on which one date of a year has changed, and has all slices computed anew:
// a reused slice that is not equal fails.
func (b *bench) changed(ctx context.Context, _ *dataset, r *result) (err error) {
	if !b.cfg.Changed || b.cfg.Data != "pageview" {
		return nil
	}
	traffic := b.cfg.Traffic
	traffic.Days = year
	d, err := b.dataset(ctx, traffic)
	if err != nil {
		return err
	}
	r.Changed = &night{Days: year}
	s, err := b.openStage(ctx, d, d.history(compacted), r.Views)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	cold, err := b.batch(ctx, s, r.Views, false)
	if err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	if err := s.changeDate(ctx, traffic); err != nil {
		return err
	}
	nightly, err := b.batch(ctx, s, r.Views, false)
	if err != nil {
		return fmt.Errorf("nightly: %w", err)
	}
	rebuilt, err := b.batch(ctx, s, r.Views, true)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	r.Changed.Cold, r.Changed.Nightly, r.Changed.Rebuild = cold.Seconds, nightly.Seconds, rebuilt.Seconds
	r.Changed.Ratio = cold.Seconds / nightly.Seconds
	r.Changed.Computed, r.Changed.Reused = nightly.Report.Slices.Computed, nightly.Report.Slices.Reused
	b.say("one changed date of %d: cold %.2f s, nightly %.2f s, rebuild %.2f s", year, cold.Seconds, nightly.Seconds, rebuilt.Seconds)
	return nil
}

// changeDate imports a date's events of another seed beside those that the date in the middle has.
func (s *stage) changeDate(ctx context.Context, t Traffic) error {
	table, _, err := s.data.open(ctx, s.history())
	if err != nil {
		return err
	}
	date := firstDate + int32(t.Days/2)
	t.Seed++
	t.Events = max(t.Events/100, t.Days)
	return history.Load(ctx, table, "changed", []int32{date}, func(_ context.Context, date int32, write func(history.LoadFile) error) error {
		return write(history.LoadFile{Record: t.generate(table.Event(), date).record})
	})
}

// revision is the version of this program's sources, where the build noted it.
func revision() string {
	if v := os.Getenv("WATERSHED_VERSION"); v != "" {
		return v
	}
	return "unknown"
}
