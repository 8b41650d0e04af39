package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"watershed/schemas/view"
)

// A bench is a benchmark under way.
type bench struct {
	cfg     Config
	stderr  io.Writer
	cores   int // that everybody is bound to now
	all     unix.CPUSet
	profile string // file for a CPU profile of the next batches; empty: none
	duck    string // DuckDB's version
	server  string // ClickHouse's
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.stderr, time.Now().Format("15:04:05")+"  "+format+"\n", args...)
}

func (b *bench) run(ctx context.Context) (*result, error) {
	if err := pin(b.cores, b.all); err != nil {
		return nil, err
	}
	d, err := b.dataset(ctx, b.cfg.Traffic)
	if err != nil {
		return nil, err
	}
	n := headline
	if len(b.cfg.Views) == 1 {
		n = b.cfg.Views[0]
	}
	r := &result{
		Data: b.cfg.Data, Events: b.cfg.Events, Days: b.cfg.Days, Seed: b.cfg.Seed, Views: d.first(n), Runs: b.cfg.Runs, Cores: b.cores,
		MemoryMB: b.cfg.Memory >> 20, Machine: thisMachine(), Date: time.Now().UTC().Format(time.DateOnly), Command: b.cfg.Command,
	}
	if b.cfg.Data != "pageview" {
		_, snap, err := d.open(ctx, d.history(compacted))
		if err != nil {
			return nil, err
		}
		r.Events, r.Days, r.Seed = int(snap.Rows()), len(snap.Files), 0
	}
	for _, kind := range d.kinds {
		s, err := b.setting(ctx, d, kind, r.Views)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		r.put(kind, s)
	}
	if err := b.sketchFree(ctx, d, r); err != nil {
		return nil, err
	}
	for _, mode := range []func(context.Context, *dataset, *result) error{b.scales, b.byViews, b.changed, b.speedUp} {
		if err := mode(ctx, d, r); err != nil {
			return nil, err
		}
	}
	r.Versions = versions{Watershed: revision(), ClickHouse: b.server, DuckDB: b.duck}
	return r, nil
}

func (b *bench) dataset(ctx context.Context, t Traffic) (*dataset, error) {
	if b.cfg.Data == "pageview" {
		return pageviewsIn(ctx, b.cfg.Dir, t, b.say)
	}
	return flightsIn(ctx, b.cfg.Dir, b.say)
}

// setting measures everybody on one history: one run that warms up and is checked, then those that count.
func (b *bench) setting(ctx context.Context, d *dataset, kind string, views []string) (*setting, error) {
	plans, err := d.plans(views)
	if err != nil {
		return nil, err
	}
	if err := b.check(ctx, d, kind, plans); err != nil {
		return nil, err
	}
	out := &setting{}
	if kind == compacted {
		b.profile = b.cfg.Profile
	}
	out.Ours, err = b.ours(ctx, d, kind, views)
	b.profile = ""
	if err != nil {
		return nil, err
	}
	if out.Floor, err = b.floor(ctx, d, kind, views); err != nil || !b.cfg.Peers {
		return out, err
	}
	out.ClickHouse, err = b.median("ClickHouse", func() (t timing, err error) {
		s, err := b.startServer(ctx, d.dir)
		if err != nil {
			return t, err
		}
		defer func() { err = errors.Join(err, s.close()) }()
		return b.clickhouse(ctx, s, plans, d.files(d.history(kind)), kind == raw)
	})
	if err != nil {
		return nil, err
	}
	out.DuckDB, err = b.median("DuckDB", func() (t timing, err error) {
		t, b.duck, err = b.duckdb(ctx, d, plans, d.files(d.history(kind)), kind == raw, "")
		return t, err
	})
	return out, err
}

// sortedLimit is up to how many events all values of each group are exported to check quantiles with.
const sortedLimit = 20_000_000

// check computes the views with everybody, and holds the results against each other.
func (b *bench) check(ctx context.Context, d *dataset, kind string, plans []*view.Plan) (err error) {
	s, err := b.everybody(ctx, d, kind, plans)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if !b.cfg.Peers {
		return nil
	}
	if err := checkClickHouse(ctx, s.server, plans); err != nil {
		return err
	}
	if err := checkDuckDB(ctx, s.server, plans, s.exported(), b.cfg.Events <= sortedLimit); err != nil {
		return err
	}
	b.say("%s: all results agree", kind)
	return nil
}

// everybody computes the views with everybody: ours and ClickHouse's tables are on the stage's server
// then, DuckDB's are exported beside them.
func (b *bench) everybody(ctx context.Context, d *dataset, kind string, plans []*view.Plan) (_ *stage, err error) {
	var views []string
	for _, p := range plans {
		views = append(views, p.Name())
	}
	s, err := b.openStage(ctx, d, d.history(kind), views)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.server.row(ctx, "SELECT version()", &b.server); err != nil {
		return nil, err
	}
	out, err := measure(ctx, s.task(views))
	if err != nil {
		return nil, err
	}
	b.say("%s: warm-up of ours %.2f s, %d rows", kind, out.Seconds, out.Rows)
	if !b.cfg.Peers {
		return s, nil
	}
	files := d.files(s.history())
	t, err := b.clickhouse(ctx, s.server, plans, files, kind == raw)
	if err != nil {
		return nil, err
	}
	b.say("%s: warm-up of ClickHouse %.2f s %s", kind, t.Seconds, t.where())
	if err := os.Mkdir(s.exported(), 0o700); err != nil {
		return nil, err
	}
	if t, b.duck, err = b.duckdb(ctx, d, plans, files, kind == raw, s.exported()); err != nil {
		return nil, err
	}
	b.say("%s: warm-up of DuckDB %.2f s %s", kind, t.Seconds, t.where())
	return s, nil
}

// exported is where DuckDB's tables go that are checked.
func (s *stage) exported() string { return filepath.Join(s.dir, "duckdb") }

// task is a batch on a stage.
func (s *stage) task(views []string) task {
	user, password := s.server.Admin()
	return task{Data: s.data.name, Views: views, History: s.history(), NATS: s.nats.URL(), ClickHouse: s.server.Addr(), User: user, Password: password}
}

// ours measures cold runs of the batch, each on engines of its own.
func (b *bench) ours(ctx context.Context, d *dataset, kind string, views []string) (timing, error) {
	return b.median("ours, "+kind, func() (t timing, err error) {
		s, err := b.openStage(ctx, d, d.history(kind), views)
		if err != nil {
			return t, err
		}
		defer func() { err = errors.Join(err, s.close()) }()
		return b.batch(ctx, s, views, false)
	})
}

// batch measures one batch on a stage.
func (b *bench) batch(ctx context.Context, s *stage, views []string, rebuild bool) (t timing, err error) {
	before, err := costOf(s.server.Pid())
	if err != nil {
		return t, err
	}
	job := s.task(views)
	job.Profile, job.Rebuild = b.profile, rebuild
	out, err := measure(ctx, job)
	if err != nil {
		return t, err
	}
	after, err := costOf(s.server.Pid())
	t = timing{cost: out.cost, Seconds: out.Seconds, Server: &cost{CPU: after.CPU - before.CPU, PeakMB: after.PeakMB}, Report: out.Report}
	return t, err
}

// floor measures the reading of the columns that the views need.
func (b *bench) floor(ctx context.Context, d *dataset, kind string, views []string) (timing, error) {
	return b.median("floor, "+kind, func() (timing, error) {
		out, err := measure(ctx, task{Floor: true, Data: d.name, Views: views, History: d.history(kind)})
		return timing{cost: out.cost, Seconds: out.Seconds}, err
	})
}

// sketchFree measures ours and the floor for the views without sketches.
func (b *bench) sketchFree(ctx context.Context, d *dataset, r *result) (err error) {
	views, err := d.sketchFree(r.Views)
	if err != nil || len(views) == 0 {
		return err
	}
	s := &setting{}
	if s.Ours, err = b.ours(ctx, d, compacted, views); err != nil {
		return err
	}
	s.Floor, err = b.floor(ctx, d, compacted, views)
	r.putSketchFree(views, s)
	return err
}

// median does it Runs times, and takes the run with the median time and the highest peaks of all runs.
func (b *bench) median(what string, once func() (timing, error)) (timing, error) {
	var all []timing
	var peak, server float64
	for range b.cfg.Runs {
		t, err := once()
		if err != nil {
			return t, fmt.Errorf("%s: %w", what, err)
		}
		peak = max(peak, t.PeakMB)
		if t.Server != nil {
			server = max(server, t.Server.PeakMB)
		}
		all = append(all, t)
		b.say("%s: %.2f s, %.1f s of CPU, %.0f MB %s", what, t.Seconds, t.CPU, t.PeakMB, t.where())
	}
	slices.SortFunc(all, func(x, y timing) int {
		switch {
		case x.Seconds < y.Seconds:
			return -1
		case x.Seconds > y.Seconds:
			return 1
		}
		return 0
	})
	t := all[(len(all)-1)/2]
	t.PeakMB = peak
	if t.Server != nil {
		t.Server.PeakMB = server
	}
	return t, nil
}
