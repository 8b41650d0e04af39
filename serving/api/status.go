package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/schemas"
)

// checkTimeout bounds what status and readiness wait for an engine.
const checkTimeout = 5 * time.Second

type liveInfo struct {
	Flip   uint64    `json:"flip" doc:"Number of the flip that made it so"`
	Build  uint64    `json:"build"`
	Cut    uint64    `json:"cut" doc:"Speed states of epochs from this on are added"`
	Pinned bool      `json:"pinned" doc:"By a rollback: no automatic flip until it is released"`
	At     time.Time `json:"at"`
}

func newLiveInfo(l schemas.Live) liveInfo {
	return liveInfo{Flip: l.Flip, Build: l.Build, Cut: l.Cut, Pinned: l.Pinned, At: l.At.UTC()}
}

type buildsOutput struct {
	Body struct {
		Live   liveInfo    `json:"live"`
		Builds []BuildInfo `json:"builds" doc:"Newest first"`
	}
}

func (a *api) listBuilds(ctx context.Context, in *struct{ request }) (*buildsOutput, error) {
	if err := only(in.query); err != nil {
		return nil, err
	}
	out := &buildsOutput{}
	live, builds, err := a.builds(ctx)
	if err != nil {
		return nil, problemOf(ctx, err)
	}
	out.Body.Live, out.Body.Builds = newLiveInfo(live), builds
	return out, nil
}

func (a *api) builds(ctx context.Context) (schemas.Live, []BuildInfo, error) {
	live, err := a.catalog.Live(ctx)
	if err != nil {
		return live, nil, err
	}
	builds, err := a.catalog.Builds(ctx)
	if err != nil {
		return live, nil, err
	}
	slices.SortFunc(builds, func(x, y BuildInfo) int { return cmp.Compare(y.Number, x.Number) })
	for i := range builds {
		builds[i].Live = builds[i].Number == live.Build
	}
	return live, builds, nil
}

// planStatus is how far one view's states reach.
type planStatus struct {
	View     string  `json:"view"`
	Plan     string  `json:"plan"`
	Epoch    uint64  `json:"epoch"`
	Position uint64  `json:"position" doc:"Last sequence of the log that is in its states"`
	Lag      *uint64 `json:"lag,omitempty" doc:"Sequences of the log that are not in its states yet; absent when the log does not answer"`
}

type statusOutput struct {
	Body struct {
		Live    liveInfo       `json:"live"`
		Builds  []BuildInfo    `json:"builds" doc:"Newest first"`
		Plans   []planStatus   `json:"plans"`
		Log     *LogInfo       `json:"log,omitempty" doc:"Absent when the log does not answer: see errors"`
		Workers map[string]any `json:"workers,omitempty" doc:"What the loops of this process say of themselves"`
		Errors  []string       `json:"errors,omitempty" doc:"What did not answer"`
	}
}

// status says as much as can be known: an engine that does not answer is an error in the answer, not of it.
func (a *api) status(ctx context.Context, in *struct{ request }) (*statusOutput, error) {
	if err := only(in.query); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var (
		out            = &statusOutput{}
		body           = &out.Body
		live           schemas.Live
		views          []View
		marks          map[string]schemas.Mark
		info           LogInfo
		logErr, catErr error
		posErr         error
		g              errgroup.Group
	)
	g.Go(func() error { info, logErr = a.log.Info(ctx); return nil })
	g.Go(func() error { live, body.Builds, catErr = a.builds(ctx); return nil })
	g.Go(func() error {
		if views, posErr = a.catalog.Views(ctx); posErr == nil {
			marks, posErr = a.catalog.Positions(ctx, views)
		}
		return nil
	})
	_ = g.Wait() // each keeps its own error
	body.Live = newLiveInfo(live)
	for name, err := range map[string]error{"log": logErr, "builds": catErr, "positions": posErr} {
		if err != nil {
			body.Errors = append(body.Errors, fmt.Sprintf("%s: %v", name, err))
		}
	}
	slices.Sort(body.Errors)
	if logErr == nil {
		body.Log = &info
	}
	body.Plans = make([]planStatus, 0, len(views))
	for _, v := range views {
		mark := marks[v.Plan]
		p := planStatus{View: v.Name(), Plan: v.Plan, Epoch: mark.Epoch, Position: mark.Position.Seq}
		if logErr == nil && posErr == nil {
			// The log was read at the same time as the positions: they may be ahead of it.
			lag := info.Last - min(mark.Position.Seq, info.Last)
			p.Lag = &lag
		}
		body.Plans = append(body.Plans, p)
	}
	if a.workers != nil {
		body.Workers = a.workers()
	}
	return out, nil
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
		"live":       func(ctx context.Context) error { _, err := a.catalog.Live(ctx); return err },
		"log":        func(ctx context.Context) error { _, err := a.log.Info(ctx); return err },
		"serving": func(context.Context) error {
			if a.stopping.Load() {
				return errors.New("shutting down")
			}
			return nil
		},
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
	rows, err := a.reader.Query(ctx, Query{SQL: "SELECT 1", Timeout: checkTimeout, Rows: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
	}
	return rows.Err()
}
