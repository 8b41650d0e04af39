package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/speed"
)

// speedLogBytes is what the log may hold: more than any run publishes.
const speedLogBytes = 16 << 30

// A pipeline is the whole path, each engine a process of its own: NATS, ClickHouse and the worker. The
// producers are this process.
type pipeline struct {
	b        *speedBench
	views    []string
	plans    []*view.Plan
	dir      string
	database string
	nats     *process
	url      string
	server   *server
	log      *eventlog.Log
	worker   *process // nil: stopped
}

// openPipeline starts all but the worker. The log has its first cut, with the definitions of these views.
func (b *speedBench) openPipeline(ctx context.Context, views []string) (_ *pipeline, err error) {
	p := &pipeline{b: b, views: views, database: database}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.plans, err = b.data.plans(views); err != nil {
		return nil, err
	}
	if p.dir, err = os.MkdirTemp(b.cfg.Dir, "speed-"); err != nil {
		return nil, err
	}
	if p.nats, p.url, err = startProcess(ctx, task{Stay: stayNATS, Dir: filepath.Join(p.dir, "nats"), Fsync: b.speed.Fsync}); err != nil {
		return nil, err
	}
	if p.server, err = b.startServer(ctx, p.dir); err != nil {
		return nil, err
	}
	if p.log, err = eventlog.Open(ctx, eventlog.Config{URL: p.url, MaxBytes: speedLogBytes}); err != nil {
		return nil, err
	}
	_, err = p.log.PublishCut(ctx, schemas.Cut{}, b.data.set(views), schemas.Set{})
	return p, err
}

// startWorker starts the worker, which waits for begin.
func (p *pipeline) startWorker(ctx context.Context) (err error) {
	user, password := p.server.Admin()
	p.worker, _, err = startProcess(ctx, task{Stay: stayWorker, NATS: p.url, ClickHouse: p.server.Addr(), Database: p.database,
		User: user, Password: password, Fsync: p.b.speed.Fsync, Profile: p.b.cfg.Profile})
	return err
}

// runWorker starts the worker and waits until the views answer.
func (p *pipeline) runWorker(ctx context.Context) error {
	if err := p.startWorker(ctx); err != nil {
		return err
	}
	if err := p.worker.begin(); err != nil {
		return err
	}
	return p.until(ctx, seldom, func() (bool, error) {
		for _, v := range p.plans {
			if _, err := p.server.query(ctx, "SELECT count() FROM "+p.table(v), nil); err != nil {
				return false, ignoreMissing(err)
			}
		}
		return true, nil
	})
}

// ignoreMissing is nil if a view or its build is not there yet.
func ignoreMissing(err error) error {
	for _, code := range []string{"UNKNOWN_TABLE", "UNKNOWN_DATABASE", "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"} {
		if strings.Contains(err.Error(), code) {
			return nil
		}
	}
	return err
}

// stopWorker lets the worker flush and end, and returns what it says that it has done.
func (p *pipeline) stopWorker() (s speed.Stats, err error) {
	if p.worker == nil {
		return s, nil
	}
	err = p.worker.close(&s)
	p.worker = nil
	return s, err
}

func (p *pipeline) table(v *view.Plan) string {
	return view.Quote(p.database) + "." + view.Quote(v.Name())
}

// Pauses between two looks at views: a look takes 14 ms of a processor from what is measured.
const (
	seldom = 50 * time.Millisecond
	rarely = 500 * time.Millisecond // as long as most is still to come
)

// until polls until it holds.
func (p *pipeline) until(ctx context.Context, every time.Duration, holds func() (bool, error)) error {
	return p.poll(ctx, func() (time.Duration, error) {
		if ok, err := holds(); ok || err != nil {
			return 0, err
		}
		return every, nil
	})
}

// poll looks as often as look wants: it says how long to wait until the next time, 0 for no more.
func (p *pipeline) poll(ctx context.Context, look func() (time.Duration, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		wait, err := look()
		if wait == 0 || err != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("views do not show what was published: %w", ctx.Err())
		}
	}
}

// visible waits until every view shows so many events, and fails if one shows more. The view without a
// count is waited for by the position of its states.
func (p *pipeline) visible(ctx context.Context, events int) error {
	for _, v := range p.plans {
		counting := countOf(v)
		if counting == "" {
			if err := p.until(ctx, seldom, func() (bool, error) { return p.stored(ctx, v) }); err != nil {
				return err
			}
			continue
		}
		began := time.Now()
		err := p.poll(ctx, func() (time.Duration, error) {
			var n int
			if err := p.server.row(ctx, fmt.Sprintf("SELECT sum(%s) FROM %s", counting, p.table(v)), &n); err != nil || n == events {
				return 0, err
			}
			if n > events {
				return 0, &countError{v.Name(), n, events}
			}
			return halfOf(time.Since(began), n, events), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// halfOf is half of the time that the rest of the events takes, if so many took so long, within reason.
func halfOf(took time.Duration, shown, events int) time.Duration {
	left := took.Seconds() * float64(events-shown) / float64(max(shown, 1))
	return time.Duration(min(max(left/2, seldom.Seconds()), rarely.Seconds()) * float64(time.Second))
}

// A countError says that a view does not show each event once.
type countError struct {
	view        string
	shows, want int
}

func (e *countError) Error() string {
	return fmt.Sprintf("view %s shows %d events; %d were published", e.view, e.shows, e.want)
}

// stored reports whether the position of a view's states has reached the end of the log.
func (p *pipeline) stored(ctx context.Context, v *view.Plan) (bool, error) {
	last, _, err := p.log.End(ctx)
	if err != nil {
		return false, err
	}
	var reached uint64
	err = p.server.row(ctx, fmt.Sprintf("SELECT greatest((SELECT max(_pos.1) FROM %s), (SELECT max(seq) FROM %s.positions WHERE plan = '%s'))",
		p.states(v), view.Quote(p.database), v.Hash), &reached)
	return reached >= last, err
}

// countOf is the measure by which a view counts its events; empty: none.
func countOf(v *view.Plan) string {
	for _, m := range v.Measures {
		if m.Func.Name() == "count" && m.Arg == nil && v.Where == nil {
			return view.Quote(m.Name)
		}
	}
	return ""
}

// markers is how many markers all views show that count events, or whatever else table names for each.
func (p *pipeline) markers(ctx context.Context, table func(*view.Plan) string) (n int, err error) {
	var counts []string
	for _, v := range p.plans {
		counting := countOf(v)
		if counting == "" {
			continue
		}
		var where []string
		for _, d := range v.Dimensions {
			if value := markerKeys[d.Name]; value != "" {
				where = append(where, view.Quote(d.Name)+" = "+value)
			}
		}
		counts = append(counts, fmt.Sprintf("(SELECT sum(%s) FROM %s WHERE %s)", counting, table(v), strings.Join(where, " AND ")))
	}
	return n, p.server.row(ctx, "SELECT arrayMin(["+strings.Join(counts, ", ")+"])", &n)
}

// states is the table that the worker writes a plan's states to: all of it is in the view of whoever asks from
// then on, as long as no batch has run.
func (p *pipeline) states(v *view.Plan) string {
	return view.Quote(p.database) + "." + view.Quote(v.ID()+"__speed")
}

// watch says how many markers all tables of states have, whenever the worker hints that it stored something and every 50 ms
// besides, until that is enough.
func (p *pipeline) watch(ctx context.Context, enough func(stored int) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	hint := make(chan struct{}, 1)
	stop, err := p.log.OnStored(func() {
		select {
		case hint <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	for {
		n, err := p.markers(ctx, p.states)
		if err != nil || enough(n) {
			return err
		}
		select {
		case <-hint:
		case <-time.After(seldom):
		case <-ctx.Done():
			return fmt.Errorf("views do not show what was published: %w", ctx.Err())
		}
	}
}

// markerKeys are what markers have in dimensions, as SQL.
var markerKeys = map[string]string{
	"country": "'" + markerCountry + "'", "page": "'" + markerPage + "'", "device": "'" + markerDevice + "'", "user": fmt.Sprint(markerUser),
}

// published is how producers send a stream: so many events to a message, as fast as the log takes them.
func (p *pipeline) publish(ctx context.Context, s *stream, from, to, perMessage int) error {
	pub, err := p.log.NewPublisher(eventlog.PublisherOptions{InFlight: max(64, 4096/perMessage)})
	if err != nil {
		return err
	}
	defer pub.Close()
	for ; from < to; from += perMessage {
		if err := pub.Publish(ctx, p.b.data.event.Name, s.lines(from, min(from+perMessage, to)), ""); err != nil {
			return err
		}
	}
	_, err = pub.Flush(ctx)
	return err
}

func (p *pipeline) close() error {
	var errs []error
	if p.worker != nil {
		errs = append(errs, p.worker.close(nil))
	}
	if p.log != nil {
		p.log.Close()
	}
	if p.server != nil {
		errs = append(errs, p.server.close())
	}
	if p.nats != nil {
		errs = append(errs, p.nats.close(nil))
	}
	if p.dir != "" {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(errs...)
}

// A spent is CPU seconds by process.
type spent struct {
	Producers  float64 `json:"producers"` // this process: what asks the views is in it too
	NATS       float64 `json:"nats"`
	Worker     float64 `json:"worker"`
	ClickHouse float64 `json:"clickhouse"`
}

// since is what was spent since before, over so many events, in microseconds each.
func (s spent) since(before spent, events int) spent {
	per := 1e6 / float64(events)
	return spent{(s.Producers - before.Producers) * per, (s.NATS - before.NATS) * per, (s.Worker - before.Worker) * per, (s.ClickHouse - before.ClickHouse) * per}
}

func (s spent) sum() float64 { return s.Producers + s.NATS + s.Worker + s.ClickHouse }

// spent is what the processes have taken so far, and the highest memory of the worker.
func (p *pipeline) spent() (s spent, peakMB float64, err error) {
	for _, of := range []struct {
		pid int
		cpu *float64
	}{{os.Getpid(), &s.Producers}, {p.nats.pid(), &s.NATS}, {p.server.Pid(), &s.ClickHouse}} {
		c, err := costOf(of.pid)
		if err != nil {
			return s, 0, err
		}
		*of.cpu = c.CPU
	}
	if p.worker == nil {
		return s, 0, nil
	}
	c, err := costOf(p.worker.pid())
	s.Worker = c.CPU
	return s, c.PeakMB, err
}

// partsMade is how many parts inserts have made in a server since it started.
func (s *server) partsMade(ctx context.Context) (n int, err error) {
	return n, s.row(ctx, "SELECT toUInt32(sum(value)) FROM system.events WHERE event IN ('InsertedWideParts', 'InsertedCompactParts')", &n)
}
