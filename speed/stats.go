package speed

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"watershed/schemas"
	"watershed/schemas/view"
)

// Stats is what a worker has done since it started, and where it is.
type Stats struct {
	Term       uint64        `json:"term"`
	Epoch      uint64        `json:"epoch"`
	Read       uint64        `json:"read"`       // stream sequence: folded up to here
	Flushed    uint64        `json:"flushed"`    // stream sequence: in ClickHouse up to here
	End        uint64        `json:"end"`        // stream sequence of the log's last message, as of a second ago
	Events     uint64        `json:"events"`     // folded or found to be duplicates
	Duplicates uint64        `json:"duplicates"` // dropped
	Rejects    uint64        `json:"rejects"`    // skipped: they do not fit their schema
	States     uint64        `json:"states"`     // rows inserted
	Flushes    uint64        `json:"flushes"`
	LastFlush  time.Duration `json:"last_flush"`  // how long the last insert took, in nanoseconds
	Refused    uint64        `json:"refused"`     // times that ClickHouse refused a plan's states
	Retries    uint64        `json:"retries"`     // inserts of states that failed, and are made again from the stored position
	FlushEvery time.Duration `json:"flush_every"` // the interval that parts in ClickHouse have led to, in nanoseconds
	Parts      uint64        `json:"parts"`       // unmerged, in the epoch of a plan that has most
	Restarts   uint64        `json:"restarts"`    // times that the worker started over after an error
	Lag        time.Duration `json:"lag"`         // of the plan that is furthest behind, in nanoseconds
	Stranded   int           `json:"stranded"`    // plans that wait for a build
	Plans      []PlanStats   `json:"plans"`       // by view and hash
}

// PlanStats is where one plan is.
type PlanStats struct {
	View     string        `json:"view"`
	Plan     string        `json:"plan"`     // its hash
	Epoch    uint64        `json:"epoch"`    // of Position
	Position uint64        `json:"position"` // stream sequence: in ClickHouse up to here
	Lag      time.Duration `json:"lag"`      // log time from Position to the log's end, in nanoseconds
	Apart    bool          `json:"apart"`    // it was refused or is far behind, and catches up by itself
	Stranded bool          `json:"stranded"` // the log was trimmed past it: it waits for a build
}

type counters struct {
	term, epoch, read, flush    atomic.Uint64
	events, duplicates, rejects atomic.Uint64
	states, flushes, took       atomic.Uint64
	rejected, restarts, parts   atomic.Uint64
	retries                     atomic.Uint64
	interval                    atomic.Int64

	mu    sync.Mutex // guards what follows
	all   map[string]*planStats
	end   uint64    // sequence of the log's last message
	endAt time.Time // its log timestamp
}

type planStats struct {
	PlanStats
	at time.Time // log timestamp of Position
}

func (c *counters) chunk(chunk *schemas.Chunk) {
	c.epoch.Store(chunk.Epoch)
	c.read.Store(chunk.Last.Seq)
	c.rejects.Add(uint64(len(chunk.Rejects)))
	for _, rec := range chunk.Records {
		c.events.Add(uint64(rec.NumRows()))
	}
}

// A Flush is what Config.Flushed is told.
type Flush struct {
	Rows  int64         // states
	Took  time.Duration // the inserts alone
	Age   time.Duration // from the log's timestamp of the first chunk read for it to the end of the inserts; at least 0
	Views []string      // whose states were taken; none when only positions were stored
}

func (f *flush) told() Flush {
	told := Flush{Took: f.took}
	if !f.since.IsZero() {
		told.Age = max(0, f.inAt.Sub(f.since)) // the log has a clock of its own
	}
	for _, part := range f.parts {
		if part.refused == nil {
			told.Rows += part.rows
			told.Views = append(told.Views, part.plan.plan.Name())
		}
	}
	return told
}

func (c *counters) flushed(f *flush) {
	c.flush.Store(f.mark.Position.Seq)
	c.flushes.Add(1)
	c.took.Store(uint64(f.took))
}

// plans sets what is known at the beginning of a session.
func (c *counters) plans(plans []*view.Plan, marks map[string]schemas.Mark, at func(schemas.Mark) time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = make(map[string]*planStats)
	for _, p := range plans {
		s, m := c.plan(p), marks[p.Hash]
		s.Epoch, s.Position, s.at = m.Epoch, m.Position.Seq, at(m)
	}
}

func (c *counters) plan(p *view.Plan) *planStats {
	s := c.all[p.Hash]
	if s == nil {
		s = &planStats{PlanStats: PlanStats{View: p.Name(), Plan: p.Hash}}
		c.all[p.Hash] = s
	}
	return s
}

// stored notes a plan's position.
func (c *counters) stored(p *view.Plan, m schemas.Mark, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.plan(p)
	s.Epoch, s.Position, s.at = m.Epoch, m.Position.Seq, at
}

func (c *counters) apart(p *view.Plan, is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plan(p).Apart = is
}

func (c *counters) strand(p *view.Plan, is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plan(p).Stranded = is
}

// retain forgets plans that a cut does not define.
func (c *counters) retain(defined []*view.Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for hash := range c.all {
		if !slices.ContainsFunc(defined, func(p *view.Plan) bool { return p.Hash == hash }) {
			delete(c.all, hash)
		}
	}
}

// watch looks where the log ends, once a second, also while ClickHouse is away.
func (w *Worker) watch(ctx context.Context) {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		if seq, at, err := w.log.End(ctx); err == nil { // else the log is away, which reading it says
			w.stats.mu.Lock()
			w.stats.end, w.stats.endAt = seq, at
			w.stats.mu.Unlock()
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// Stats returns the worker's figures. It may be called at any time.
func (w *Worker) Stats() Stats {
	c := &w.stats
	s := Stats{
		Term: c.term.Load(), Epoch: c.epoch.Load(), Read: c.read.Load(), Flushed: c.flush.Load(),
		Events: c.events.Load(), Duplicates: c.duplicates.Load(), Rejects: c.rejects.Load(),
		States: c.states.Load(), Flushes: c.flushes.Load(), LastFlush: time.Duration(c.took.Load()),
		Refused: c.rejected.Load(), Restarts: c.restarts.Load(), Parts: c.parts.Load(), Retries: c.retries.Load(),
		FlushEvery: max(w.cfg.FlushEvery, time.Duration(c.interval.Load())),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.End = c.end
	for _, p := range c.all {
		if p.Position < c.end {
			p.Lag = max(0, c.endAt.Sub(p.at))
		} else {
			p.Lag = 0
		}
		s.Lag = max(s.Lag, p.Lag)
		if p.Stranded {
			s.Stranded++
		}
		s.Plans = append(s.Plans, p.PlanStats)
	}
	slices.SortFunc(s.Plans, func(a, b PlanStats) int { return strings.Compare(a.View+" "+a.Plan, b.View+" "+b.Plan) })
	return s
}
