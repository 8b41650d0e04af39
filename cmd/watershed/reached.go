package main

import (
	"context"
	"fmt"

	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/api"
	"watershed/serving/store"
)

// Reached asks ClickHouse, for the plans of the build that was live the last time. If another is, or the tables of one
// are gone, it finds out which plans that has, and asks again.
func (c *catalog) Reached(ctx context.Context) (api.Reached, error) {
	c.reach.Lock()
	defer c.reach.Unlock()
	for range 2 {
		r, err := c.e.db.Reached(ctx, c.shown)
		if err == nil && c.knows(r) {
			return c.reached(r), nil
		}
		if ctx.Err() != nil {
			return api.Reached{}, ctx.Err()
		}
		if err := c.resolve(ctx); err != nil {
			return api.Reached{}, err
		}
	}
	r, err := c.e.db.Reached(ctx, c.shown)
	return c.reached(r), err
}

// knows reports whether what was asked for is what the live build covers.
func (c *catalog) knows(r store.Reached) bool {
	for _, p := range c.shown {
		if _, covered := r.Plans[p.Hash]; !covered {
			return false
		}
	}
	return len(r.Plans) == len(c.shown)+c.nameless
}

// resolve finds the plans that the live build covers: among those that the log's last cut defines, those
// that it retires, and those of the build itself. The empty build has no definitions of its own.
func (c *catalog) resolve(ctx context.Context) error {
	r, err := c.e.db.Reached(ctx, nil)
	if err != nil {
		return err
	}
	build, err := c.e.db.Build(ctx, r.Live.Build)
	if err != nil {
		return err
	}
	cut, _, err := c.e.log.LastCut(ctx)
	if err != nil {
		return err
	}
	c.shown, c.nameless = nil, len(r.Plans)
	seen := make(map[string]bool)
	for _, set := range []*schemas.Set{&build.Definitions, &cut.Definitions, &cut.Retiring} {
		plans, err := view.CompileSet(set)
		if err != nil {
			return fmt.Errorf("definitions of build %d and cut %d: %w", build.Number, cut.Number, err)
		}
		for _, p := range plans {
			if _, covered := r.Plans[p.Hash]; covered && !seen[p.Hash] {
				seen[p.Hash] = true
				c.shown, c.nameless = append(c.shown, p), c.nameless-1
			}
		}
	}
	return nil
}

func (c *catalog) reached(r store.Reached) api.Reached {
	out := api.Reached{Live: r.Live}
	for _, p := range c.shown {
		if reach, covered := r.Plans[p.Hash]; covered {
			delete(r.Plans, p.Hash)
			out.Plans = append(out.Plans, api.Reach{View: viewOf(p), Position: reach.Position(), States: reach.States, SpeedTable: store.SpeedTable(p)})
		}
	}
	for hash, reach := range r.Plans { // that nothing defines any more
		out.Plans = append(out.Plans, api.Reach{View: api.View{Plan: hash}, Position: reach.Position()})
	}
	return out
}

// lagging is what the worker knows of why a plan is behind.
func (l *loops) lagging(plan string) string {
	for _, p := range l.worker.Stats().Plans {
		switch {
		case p.Plan != plan:
		case p.Stranded:
			return "the log was trimmed past it: run a batch"
		case p.Apart:
			return "ClickHouse refused its states, or it was far behind: it catches up by itself"
		}
	}
	return ""
}
