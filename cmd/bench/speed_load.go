package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// A load is one measurement of how much gets through.
type load struct {
	Events     int     `json:"events"`
	Seconds    float64 `json:"seconds"` // from the first publish until views show all
	Rate       float64 `json:"events_per_second"`
	CPU        spent   `json:"cpu_microseconds_per_event"`
	PeakMB     float64 `json:"peak_mb"` // of the worker
	Parts      float64 `json:"parts_per_second"`
	Flushes    uint64  `json:"flushes,omitempty"`
	States     uint64  `json:"states,omitempty"` // rows inserted
	ServerPeak float64 `json:"clickhouse_peak_mb"`
}

func (l load) seconds() float64 { return l.Seconds }

// through measures producers at full speed beside a worker that folds: until all is visible.
func (b *speedBench) through(ctx context.Context, views []string, events int) (l load, err error) {
	p, err := b.openPipeline(ctx, views)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.runWorker(ctx); err != nil {
		return l, err
	}
	return p.measure(ctx, events, func(ctx context.Context) error { return p.publish(ctx, b.events, 0, events, b.speed.PerMessage) })
}

// measure measures what happens from now on until the views show so many events; then the worker ends.
func (p *pipeline) measure(ctx context.Context, events int, produce func(context.Context) error) (l load, err error) {
	before, _, err := p.spent()
	if err != nil {
		return l, err
	}
	parts, err := p.server.partsMade(ctx)
	if err != nil {
		return l, err
	}
	began := time.Now()
	if err := produce(ctx); err != nil {
		return l, err
	}
	if err := p.visible(ctx, events); err != nil {
		return l, err
	}
	l = load{Events: events, Seconds: time.Since(began).Seconds()}
	l.Rate = float64(events) / l.Seconds
	after, peak, err := p.spent()
	if err != nil {
		return l, err
	}
	l.CPU, l.PeakMB = after.since(before, events), peak
	made, err := p.server.partsMade(ctx)
	if err != nil {
		return l, err
	}
	l.Parts = float64(made-parts) / l.Seconds
	c, err := costOf(p.server.Pid())
	if err != nil {
		return l, err
	}
	l.ServerPeak = c.PeakMB
	s, err := p.stopWorker()
	l.Flushes, l.States = s.Flushes, s.States
	if err == nil && s.Duplicates+s.Rejects+s.Restarts > 0 {
		err = fmt.Errorf("the worker found %d duplicates and %d rejects, and started over %d times; want none", s.Duplicates, s.Rejects, s.Restarts)
	}
	return l, err
}

// A singles is one event per message: a log of such messages is there, and is read.
type singles struct {
	Messages  int     `json:"messages"`
	Bare      float64 `json:"bare_messages_per_second"`      // a consumer that only reads
	Worker    float64 `json:"worker_messages_per_second"`    // into one view, visible
	Ratio     float64 `json:"ratio"`                         // of the two
	WorkerCPU spent   `json:"cpu_microseconds_per_message"`  // with the worker
	Published float64 `json:"published_messages_per_second"` // into the log, before
	PeakMB    float64 `json:"peak_mb"`                       // of the worker
}

func (s singles) seconds() float64 { return -s.Ratio }

// oneByOne measures bare consumers and workers in turn, on one log; each worker has a database of its own,
// whose tables are there.
func (b *speedBench) oneByOne(ctx context.Context) (m singles, err error) {
	p, err := b.openPipeline(ctx, b.data.first(1))
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	messages := min(b.speed.Singles, b.events.len())
	for run := range b.cfg.Runs {
		p.database = fmt.Sprintf("run%d", run)
		if err := p.runWorker(ctx); err != nil {
			return m, err
		}
		if _, err := p.stopWorker(); err != nil {
			return m, err
		}
	}
	began := time.Now()
	if err := p.publish(ctx, b.events, 0, messages, 1); err != nil {
		return m, err
	}
	published := float64(messages) / time.Since(began).Seconds()
	last, _, err := p.log.End(ctx)
	if err != nil {
		return m, err
	}
	run := 0
	return median(b, "one event per message", func() (m singles, err error) {
		p.database = fmt.Sprintf("run%d", run)
		run++
		m = singles{Messages: messages, Published: published}
		if m.Bare, err = p.bare(ctx, last); err != nil {
			return m, err
		}
		if err := p.startWorker(ctx); err != nil {
			return m, err
		}
		l, err := p.measure(ctx, messages, func(context.Context) error { return p.worker.begin() })
		m.Worker, m.WorkerCPU, m.PeakMB = l.Rate, l.CPU, l.PeakMB
		m.Ratio = m.Worker / m.Bare
		return m, err
	})
}

// bare is how many messages a second a bare consumer reads.
func (p *pipeline) bare(ctx context.Context, last uint64) (float64, error) {
	r, _, err := startProcess(ctx, task{Stay: stayReader, NATS: p.url, Until: last})
	if err != nil {
		return 0, err
	}
	var seconds float64
	err = r.begin()
	if err == nil {
		err = r.say(&seconds)
	}
	return float64(last) / seconds, errors.Join(err, r.close(nil))
}

// A backlog is a worker that was away, and catches up while producers go on at the live rate.
type backlog struct {
	Events   int     `json:"events"` // that had gathered
	Live     int     `json:"live_events_per_second"`
	Seconds  float64 `json:"seconds"` // from its start until views show all but the last two seconds
	Rate     float64 `json:"events_per_second"`
	Multiple float64 `json:"multiple_of_live_rate"`
	PeakMB   float64 `json:"peak_mb"`
}

// level is how far views may be behind when a worker has caught up.
const level = 2 * time.Second

// restart stops a worker, lets events gather, starts it again, and counts at the end.
func (b *speedBench) restart(ctx context.Context) (r backlog, err error) {
	p, err := b.openPipeline(ctx, b.six())
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.runWorker(ctx); err != nil {
		return r, err
	}
	gathered := min(b.speed.Backlog, b.events.len())
	early := gathered / 50
	if err := p.publish(ctx, b.events, 0, early, b.speed.PerMessage); err != nil {
		return r, err
	}
	if err := p.visible(ctx, early); err != nil {
		return r, err
	}
	if _, err := p.stopWorker(); err != nil {
		return r, err
	}
	if err := p.publish(ctx, b.events, early, gathered, b.speed.PerMessage); err != nil {
		return r, err
	}
	r = backlog{Events: gathered - early, Live: b.speed.Live}
	g, gctx := errgroup.WithContext(ctx)
	began := time.Now()
	caughtUp := make(chan struct{})
	var sent int
	g.Go(func() (err error) {
		sent, err = p.publishAt(gctx, b.live, b.speed.Live, began, caughtUp)
		return err
	})
	g.Go(func() error {
		defer close(caughtUp)
		if err := p.startWorker(ctx); err != nil { // it outlives the group
			return err
		}
		if err := p.worker.begin(); err != nil {
			return err
		}
		return p.until(gctx, seldom, func() (bool, error) {
			behind := time.Since(began) - level
			var n int
			if err := p.server.row(gctx, fmt.Sprintf("SELECT sum(views) FROM %s.day_device_status", p.database), &n); err != nil {
				return false, err
			}
			live := min(b.live.len(), int(behind.Seconds()*float64(b.speed.Live)))
			if n < gathered+live {
				return false, nil
			}
			r.Seconds = time.Since(began).Seconds()
			r.Rate = float64(n-early) / r.Seconds
			r.Multiple = r.Rate / float64(r.Live)
			return true, nil
		})
	})
	if err := g.Wait(); err != nil {
		return r, err
	}
	if err := p.visible(ctx, gathered+sent); err != nil {
		return r, err
	}
	_, r.PeakMB, err = p.spent()
	if err != nil {
		return r, err
	}
	_, err = p.stopWorker()
	b.say("restart with a backlog of %d events: %.0f events/s, %.1f times the live rate, %.0f MB", r.Events, r.Rate, r.Multiple, r.PeakMB)
	return r, err
}
