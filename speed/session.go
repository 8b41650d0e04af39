package speed

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"watershed/internal/crash"
	"watershed/schemas"
	"watershed/schemas/view"
)

// A session is the worker under one term.
type session struct {
	w     *Worker
	term  uint64
	start schemas.Position // where the log begins: zero, or its first message, a cut
	base  uint64           // the newest cut whose boundary was stored when the session began
	last  uint64           // the log's last cut when the session began
	main  *lane
	g     *errgroup.Group
	slot  chan struct{} // taken by the one lane apart that runs
	pace  pace

	mu       sync.Mutex            // guards what follows
	apart    map[string]*view.Plan // by hash: not in the main lane
	stranded map[string]*view.Plan // of those, the ones that wait for a build
}

// takeOver begins a term of our own.
//
//  1. A number above every term in the log's counter and in ClickHouse. If we stop here,
//     the number is never used.
//  2. The sink records it and ends older inserts. From here on no older term can commit; if
//     we stop here, nobody writes until the next start takes a newer one.
//  3. Only now are positions read back (resume): nothing can move them but us.
func (s *session) takeOver(ctx context.Context) error {
	floor, err := s.w.sink.Term(ctx, Role)
	if err != nil {
		return fmt.Errorf("read the newest term: %w", err)
	}
	// A session that lost its connection may have been killed by another worker's takeover. That one
	// stays: two that begin anew after each other's would never end.
	if s.w.term > 0 && floor > s.w.term {
		return &FencedError{Term: s.w.term}
	}
	if s.term, err = s.w.log.Next(ctx, "term."+Role, floor); err != nil {
		return fmt.Errorf("take a term: %w", err)
	}
	s.w.term = s.term
	crash.At("speed.term-taken")
	if err := s.w.sink.TakeOver(ctx, Role, s.term); err != nil {
		return s.failure(err)
	}
	crash.At("speed.taken-over")
	s.w.stats.term.Store(s.term)
	return nil
}

// run carries all plans on until an error, or until ctx ends.
func (s *session) run(ctx context.Context, behind []*planState) error {
	g, inner := errgroup.WithContext(ctx)
	s.g = g
	g.Go(func() error { return s.main.run(inner, ctx) })
	g.Go(func() error { return s.keepPace(inner) })
	for _, p := range behind {
		g.Go(func() error { return s.catchUp(inner, ctx, p, nil) })
	}
	if len(s.stranded) > 0 {
		g.Go(func() error { return s.rescue(inner, ctx) })
	}
	return g.Wait()
}

// setApart notes that a plan is not in the main lane.
func (s *session) setApart(p *view.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apart[p.Hash] = p
	s.w.stats.apart(p, true)
}

func (s *session) isApart(p *view.Plan) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apart[p.Hash] != nil
}

// together notes that a plan is in the main lane, or will be from the next cut on that defines it.
func (s *session) together(p *view.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.apart, p.Hash)
	s.w.stats.apart(p, false)
}

// failure makes the sink's "a newer term is there" an error of ours.
func (s *session) failure(err error) error {
	var f interface{ Fenced() bool }
	if errors.As(err, &f) && f.Fenced() {
		return &FencedError{Term: s.term}
	}
	return err
}

// plansOf compiles what holds from a cut on: its definitions, and the retiring ones that the
// live build still shows.
func plansOf(cut *schemas.Cut) ([]*view.Plan, error) {
	plans, err := view.CompileSet(&cut.Definitions)
	if err != nil {
		return nil, fmt.Errorf("cut %d: %w", cut.Number, err)
	}
	retiring, err := view.CompileSet(&cut.Retiring)
	if err != nil {
		return nil, fmt.Errorf("cut %d: %w", cut.Number, err)
	}
	have := make(map[string]bool, len(plans))
	for _, p := range plans {
		have[p.Hash] = true
	}
	for _, p := range retiring {
		if !have[p.Hash] {
			plans = append(plans, p)
		}
	}
	return plans, nil
}
