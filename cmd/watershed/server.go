package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"watershed/internal/eventlog"
	"watershed/internal/ingest"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/api"
	"watershed/serving/store"
)

// serve is the serve role: the endpoint, until ctx ends.
//
//	client ─▶ endpoint ─▶ ClickHouse, as the read-only user
//	             └──────▶ log (where it ends, which definitions hold; events that are published here)
func (a *app) serve(ctx context.Context, e *engines, loops *loops, listening func(addr string) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reader, err := a.openReader(ctx)
	if err != nil {
		return err
	}
	defer reader.Close()
	cfg := api.Config{Addr: a.cfg.Listen}
	if a.cfg.Token != "" {
		cfg.Tokens = []string{a.cfg.Token}
	}
	cfg.IngestTokens = strings.Fields(a.cfg.IngestTokens)
	if err := cfg.Validate(); err != nil {
		return usageError{err}
	}
	deps := a.deps(e, loops)
	deps.Reader, deps.Tracer, deps.TraceOf = readerSide{reader}, a.tracer(), e.log.TraceOf
	if a.cfg.Ingest {
		if deps.Ingest, err = ingest.New(ingest.Config{Log: e.log}); err != nil {
			return err
		}
		defer deps.Ingest.Close() // the endpoint has answered all by then
	}
	deps.Listening = func(addr string) {
		if err := listening(addr); err != nil {
			cancel(err)
		}
	}
	err = api.Serve(ctx, cfg, deps)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(err, cause)
	}
	return err
}

// countIngest has the endpoint and the admin port of this process show the same counts of events taken in.
func (a *app) countIngest() {
	if a.cfg.Ingest {
		a.ingested = api.NewIngestMetrics()
	}
}

func (a *app) openReader(ctx context.Context) (*store.Reader, error) {
	cfg := store.Config{Addr: a.cfg.ClickHouse, Database: a.cfg.Database, User: a.cfg.ReaderUser, Password: a.cfg.ReaderPassword}
	if cfg.User == "" {
		return nil, usage("no read-only ClickHouse user for queries: set --reader-user and %s", envName("reader-password"))
	}
	return store.OpenReader(ctx, cfg)
}

// deps are what the endpoint and `watershed status` know, but for the reader. loops may be nil.
func (a *app) deps(e *engines, loops *loops) api.Deps {
	d := api.Deps{
		Catalog: &catalog{e: e}, Log: logState{e.log}, Version: version, Logger: a.log, Level: a.level, Ingested: a.ingested,
		Audits: func(ctx context.Context) ([]schemas.Audit, error) { return e.db.Audits(ctx, 1) },
	}
	d.DeadLetters, d.Stored, d.Wanted = newDeadLetters(e.log), e.log.OnStored, e.log.Wanted
	tables := &archive{a: a}
	d.History = func(ctx context.Context) ([]api.TypeStatus, error) {
		cut, ok, err := e.log.LastCut(ctx)
		if err != nil || !ok {
			return nil, err
		}
		return tables.status(ctx, &cut, loops.failing())
	}
	if loops != nil {
		d.Workers, d.Collectors, d.Lagging = loops.stats, loops.collectors(), loops.lagging
	}
	return d
}

// readerSide is the store's reader as the endpoint wants it.
type readerSide struct{ *store.Reader }

func (r readerSide) Query(ctx context.Context, q api.Query) (api.Rows, error) {
	rows, err := r.Reader.Query(ctx, store.Query{SQL: q.SQL, Params: q.Parameters, MaxTime: q.Timeout, MaxRows: q.Rows, ID: q.ID})
	if err != nil {
		return nil, err
	}
	return readerRows{rows}, nil
}

// readerRows is a result as the endpoint wants it.
type readerRows struct{ *store.Rows }

func (r readerRows) Columns() []api.Column {
	out := make([]api.Column, len(r.Rows.Columns))
	for i, c := range r.Rows.Columns {
		out[i] = api.Column(c)
	}
	return out
}

func (r readerRows) Stats() api.Stats { return api.Stats(r.Rows.Stats()) }

// logState is the log's state as the endpoint shows it.
type logState struct{ *eventlog.Log }

func (l logState) Info(ctx context.Context) (api.LogInfo, error) {
	i, err := l.Log.Info(ctx)
	if err != nil {
		return api.LogInfo{}, err
	}
	cut, _, err := l.LastCut(ctx)
	return api.LogInfo{
		First: i.First, Last: i.Last, FirstTime: i.FirstTime, Messages: i.Messages, Bytes: i.Bytes, MaxBytes: i.MaxBytes,
		Fill: float64(i.Bytes) / float64(max(i.MaxBytes, 1)), DeadLetters: i.DeadLetters, Created: i.Created,
		Cut: cut.Number, CutTime: cut.At,
	}, err
}

// A catalog knows the views that the log's last cut defines.
type catalog struct {
	e *engines

	mu    sync.Mutex // guards what follows
	cut   uint64     // that views and plans were compiled from
	views []api.View
	plans []*view.Plan

	reach    sync.Mutex   // guards what follows
	shown    []*view.Plan // of the live build
	nameless int          // plans of it that nothing defines any more
}

func (c *catalog) Live(ctx context.Context) (schemas.Live, error) { return c.e.db.Live(ctx) }

func (c *catalog) Build(ctx context.Context, number uint64) (schemas.Build, error) {
	return c.e.db.Build(ctx, number)
}

func (c *catalog) Builds(ctx context.Context) ([]api.BuildInfo, error) {
	builds, err := c.e.db.Builds(ctx)
	out := make([]api.BuildInfo, len(builds))
	for i, b := range builds {
		out[i] = api.BuildInfo{Number: b.Number, Cut: b.Cut, At: b.At, Live: b.Live, Plans: b.Plans, Slices: b.Slices}
	}
	return out, err
}

func (c *catalog) Views(ctx context.Context) ([]api.View, error) {
	views, _, err := c.compiled(ctx)
	return views, err
}

func (c *catalog) Positions(ctx context.Context, views []api.View) (map[string]schemas.Mark, error) {
	_, all, err := c.compiled(ctx)
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool)
	for _, v := range views {
		wanted[v.Plan] = true
	}
	var plans []*view.Plan
	for _, p := range all {
		if wanted[p.Hash] {
			plans = append(plans, p)
		}
	}
	return positions(ctx, c.e.db, plans)
}

// compiled returns the views of the last cut, compiled when the cut is new.
func (c *catalog) compiled(ctx context.Context) ([]api.View, []*view.Plan, error) {
	cut, ok, err := c.e.log.LastCut(ctx)
	if err != nil || !ok {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut == cut.Number {
		return c.views, c.plans, nil
	}
	plans, err := view.CompileSet(&cut.Definitions)
	if err != nil {
		return nil, nil, fmt.Errorf("definitions of cut %d: %w", cut.Number, err)
	}
	views := make([]api.View, len(plans))
	for i, p := range plans {
		views[i] = viewOf(p)
	}
	c.cut, c.views, c.plans = cut.Number, views, plans
	return views, plans, nil
}

func viewOf(p *view.Plan) api.View {
	v := api.View{Definition: p.View, Plan: p.Hash}
	for _, d := range p.Dimensions {
		v.Dimensions = append(v.Dimensions, api.Dimension{Name: d.Name, Type: d.Type, Nullable: d.Nullable, Bucket: d.Bucket})
	}
	for _, m := range p.Measures {
		names := make([]string, len(m.Columns))
		for i, col := range m.Columns {
			names[i] = col.Name
		}
		v.Measures = append(v.Measures, api.Measure{Name: m.Name, Columns: names, Func: m.Func})
	}
	return v
}
