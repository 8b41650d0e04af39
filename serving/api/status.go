package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"watershed/schemas"
)

// checkTimeout bounds what status and readiness wait for an engine.
const checkTimeout = 5 * time.Second

// LiveInfo says which build is shown.
type LiveInfo struct {
	Flip   uint64    `json:"flip" doc:"Number of the flip that made it so"`
	Build  uint64    `json:"build"`
	Cut    uint64    `json:"cut" doc:"Speed states of epochs from this on are added"`
	Pinned bool      `json:"pinned" doc:"By a rollback: no automatic flip until it is released"`
	At     time.Time `json:"at"`
}

func newLiveInfo(l schemas.Live) LiveInfo {
	return LiveInfo{Flip: l.Flip, Build: l.Build, Cut: l.Cut, Pinned: l.Pinned, At: l.At.UTC()}
}

type buildsOutput struct {
	Body struct {
		Live   LiveInfo    `json:"live"`
		Builds []BuildInfo `json:"builds" doc:"Newest first"`
	}
}

func (a *api) listBuilds(ctx context.Context, in *struct{ request }) (*buildsOutput, error) {
	if err := only(in.query); err != nil {
		return nil, err
	}
	out := &buildsOutput{}
	live, builds, err := builds(ctx, a.deps.Catalog)
	if err != nil {
		return nil, problemOf(ctx, err)
	}
	out.Body.Live, out.Body.Builds = newLiveInfo(live), builds
	return out, nil
}

func builds(ctx context.Context, c Catalog) (schemas.Live, []BuildInfo, error) {
	live, err := c.Live(ctx)
	if err != nil {
		return live, nil, err
	}
	builds, err := c.Builds(ctx)
	if err != nil {
		return live, nil, err
	}
	slices.SortFunc(builds, func(x, y BuildInfo) int { return cmp.Compare(y.Number, x.Number) })
	for i := range builds {
		builds[i].Live = builds[i].Number == live.Build
	}
	return live, builds, nil
}

type healthOutput struct {
	Status int
	Body   struct {
		OK     bool              `json:"ok"`
		Checks map[string]string `json:"checks,omitempty" doc:"ok, or what is wrong, by what was checked"`
	}
}

func (a *api) livez(context.Context, *struct{}) (*healthOutput, error) {
	out := &healthOutput{Status: http.StatusOK}
	out.Body.OK = true
	return out, nil
}

// readyz is not behind the tokens, so it names what is not ready and keeps the reason for the log.
func (a *api) readyz(ctx context.Context, _ *struct{}) (*healthOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	checks := map[string]func(context.Context) error{
		"clickhouse": a.checkClickHouse,
		"live":       func(ctx context.Context) error { _, err := a.deps.Catalog.Live(ctx); return err },
		"log":        func(ctx context.Context) error { _, err := a.deps.Log.Info(ctx); return err },
		"serving": func(context.Context) error {
			if a.stopping.Load() {
				return errors.New("shutting down")
			}
			return nil
		},
	}
	if a.config.Admin { // what says which build is live is ClickHouse
		delete(checks, "clickhouse")
	}
	type result struct {
		name string
		err  error
	}
	results := make(chan result, len(checks))
	for name, check := range checks {
		go func() { results <- result{name, check(ctx)} }()
	}
	out := &healthOutput{Status: http.StatusOK}
	out.Body.OK, out.Body.Checks = true, map[string]string{}
	for range checks {
		r := <-results // every check ends with its context
		out.Body.Checks[r.name] = "ok"
		if r.err != nil {
			a.logger.WarnContext(ctx, "not ready", "check", r.name, "error", r.err)
			out.Status, out.Body.OK, out.Body.Checks[r.name] = http.StatusServiceUnavailable, false, "not ready"
		}
	}
	return out, nil
}

func (a *api) checkClickHouse(ctx context.Context) (err error) {
	rows, err := a.deps.Reader.Query(ctx, Query{SQL: "SELECT 1", Timeout: checkTimeout, Rows: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
	}
	return rows.Err()
}
