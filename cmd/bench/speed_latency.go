package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/internal/eventlog"
)

// A latency is from the moment at which an event was to be sent until every view shows it.
type latency struct {
	Rate       int     `json:"events_per_second"`
	Events     int     `json:"events"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p99.9_ms"`
	Max        float64 `json:"max_ms"`
	CPU        spent   `json:"cpu_microseconds_per_event"`
	Busy       float64 `json:"cores_busy"`
	PeakMB     float64 `json:"peak_mb"`
	Parts      float64 `json:"parts_per_second"`
	LooksEvery float64 `json:"look_ms"`  // how often it was looked what is stored, on average
	Query      float64 `json:"query_ms"` // the median of asking all views that count for their markers
}

func (l latency) seconds() float64 { return l.P99 }

// messageEvery is how long producers gather events for a message; it is part of the latency.
const messageEvery = 5 * time.Millisecond

// sent is how many events of a message: of those that come in messageEvery.
func perMessageAt(rate int) int { return max(1, int(float64(rate)*messageEvery.Seconds())) }

// publishAt sends a stream at a fixed rate, whatever becomes of it: event i is due at began + i/rate, and
// its message is sent when the last of it is. It ends with the stream or when stop is closed, and returns
// how many events it has sent.
func (p *pipeline) publishAt(ctx context.Context, s *stream, rate int, began time.Time, stop <-chan struct{}) (sent int, err error) {
	pub, err := p.log.NewPublisher(eventlog.PublisherOptions{InFlight: 1 << 16})
	if err != nil {
		return 0, err
	}
	defer pub.Close()
	per := perMessageAt(rate)
	for sent < s.len() {
		to := min(sent+per, s.len())
		select {
		case <-time.After(time.Until(began.Add(due(to-1, rate)))):
		case <-ctx.Done():
			return sent, ctx.Err()
		case <-stop:
			_, err := pub.Flush(ctx)
			return sent, err
		}
		if err := pub.Publish(ctx, p.b.data.event.Name, s.lines(sent, to), ""); err != nil {
			return sent, err
		}
		sent = to
	}
	_, err = pub.Flush(ctx)
	return sent, err
}

// due is when event i is to be sent.
func due(i, rate int) time.Duration {
	return time.Duration(float64(i) / float64(rate) * float64(time.Second))
}

// A look is how many markers were seen at a time.
type look struct {
	at    time.Duration
	shown int
}

// atRate measures latencies at a fixed rate of events, whose messages end with a marker each.
func (b *speedBench) atRate(ctx context.Context, views []string, rate int, s *stream) (l latency, err error) {
	p, err := b.openPipeline(ctx, views)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.runWorker(ctx); err != nil {
		return l, err
	}
	before, _, err := p.spent()
	if err != nil {
		return l, err
	}
	parts, err := p.server.partsMade(ctx)
	if err != nil {
		return l, err
	}
	began := time.Now().Add(50 * time.Millisecond)
	var looks []look
	var stored atomic.Int64
	var queries []float64
	all := make(chan struct{})
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := p.publishAt(gctx, s, rate, began, nil)
		return err
	})
	g.Go(func() error {
		defer close(all)
		return p.watch(gctx, func(n int) bool {
			looks = append(looks, look{time.Since(began), n})
			stored.Store(int64(n))
			return n >= s.markers
		})
	})
	g.Go(func() (err error) {
		queries, err = p.control(gctx, &stored, all)
		return err
	})
	if err := g.Wait(); err != nil {
		return l, err
	}
	took := time.Since(began).Seconds()
	after, peak, err := p.spent()
	if err != nil {
		return l, err
	}
	made, err := p.server.partsMade(ctx)
	if err != nil {
		return l, err
	}
	if err := p.visible(ctx, s.len()); err != nil {
		return l, err
	}
	l = latency{Rate: rate, Events: s.len(), CPU: after.since(before, s.len()), PeakMB: peak, Parts: float64(made-parts) / took,
		LooksEvery: 1000 * took / float64(len(looks)), Query: percentile(queries, 0.5)}
	l.Busy = l.CPU.sum() * float64(rate) / 1e6
	ms := latencyOf(looks, s.len(), rate)
	l.P50, l.P99, l.P999, l.Max = percentile(ms, 0.5), percentile(ms, 0.99), percentile(ms, 0.999), ms[len(ms)-1]
	_, err = p.stopWorker()
	return l, err
}

// control asks the views once a second, and when all is stored, whether they show what was stored before they
// were asked. It returns how long that took each time, in milliseconds and in ascending order.
func (p *pipeline) control(ctx context.Context, stored *atomic.Int64, all <-chan struct{}) (ms []float64, err error) {
	for last := false; !last; {
		select {
		case <-time.After(time.Second):
		case <-all:
			last = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		want, at := int(stored.Load()), time.Now()
		shown, err := p.markers(ctx, p.table)
		if err != nil {
			return nil, err
		}
		if shown < want {
			return nil, fmt.Errorf("views show %d markers when %d were stored", shown, want)
		}
		ms = append(ms, float64(time.Since(at))/1e6)
	}
	slices.Sort(ms)
	return ms, nil
}

// latencyOf are those of all events in milliseconds, in ascending order. An event counts as visible when
// the answer is there that the marker of its message is stored.
func latencyOf(looks []look, events, rate int) []float64 {
	per := perMessageAt(rate)
	ms := make([]float64, 0, events)
	at := 0
	for i := range events {
		for at < len(looks)-1 && looks[at].shown <= i/per {
			at++
		}
		ms = append(ms, float64(looks[at].at-due(i, rate))/1e6)
	}
	slices.Sort(ms)
	return ms
}

func percentile(sorted []float64, p float64) float64 {
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

// idle measures single events that come to a system in which nothing else happens, in all views.
func (b *speedBench) idle(ctx context.Context, n int) (l latency, err error) {
	p, err := b.openPipeline(ctx, b.six())
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.runWorker(ctx); err != nil {
		return l, err
	}
	var ms []float64
	rng := rand.New(rand.NewPCG(b.cfg.Seed, 0))
	for i := range n {
		select { // at no fixed phase of the worker's flushes
		case <-time.After(time.Duration(200+rng.IntN(200)) * time.Millisecond):
		case <-ctx.Done():
			return l, ctx.Err()
		}
		at := time.Now()
		if _, err := p.log.Publish(ctx, b.data.event.Name, b.marked.lines(i, i+1), ""); err != nil {
			return l, err
		}
		if err := p.watch(ctx, func(stored int) bool { return stored > i }); err != nil {
			return l, err
		}
		ms = append(ms, float64(time.Since(at))/1e6)
	}
	if shown, err := p.markers(ctx, p.table); err != nil || shown != n {
		return l, errors.Join(err, fmt.Errorf("views show %d markers when %d were stored", shown, n))
	}
	slices.Sort(ms)
	l = latency{Events: n, P50: percentile(ms, 0.5), P99: percentile(ms, 0.99), P999: percentile(ms, 0.999), Max: ms[n-1]}
	_, err = p.stopWorker()
	b.say("idle: p50 %.0f ms, max %.0f ms", l.P50, l.Max)
	return l, err
}

// A timed is a measurement of which there are several, in an order.
type timed interface{ seconds() float64 }

// median does it Runs times, and takes the middle one.
func median[T timed](b *speedBench, what string, once func() (T, error)) (T, error) {
	var all []T
	for range b.cfg.Runs {
		m, err := once()
		if err != nil {
			return m, fmt.Errorf("%s: %w", what, err)
		}
		b.say("%s: %+v", what, m)
		all = append(all, m)
	}
	slices.SortFunc(all, func(x, y T) int {
		switch {
		case x.seconds() < y.seconds():
			return -1
		case x.seconds() > y.seconds():
			return 1
		}
		return 0
	})
	return all[(len(all)-1)/2], nil
}
