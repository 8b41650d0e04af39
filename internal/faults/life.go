package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"watershed/internal/faultproxy"
)

// logBytes is the limit of the log.
const logBytes = 64 << 20

// A life is one Watershed from its first event on: two engines and three roles as processes, with a
// proxy between each role and each engine, publishers, and a reader.
//
//	publishers ─▶ proxy ─▶ NATS ◀─ proxy ◀─ speed, batch, serve
//	reader ─▶ serve ─▶ proxy ─▶ ClickHouse ◀─ proxy ◀─ speed, batch
type life struct {
	dir   string
	bin   string
	seed  uint64
	r     *rand.Rand
	pace  pace
	views []viewSpec
	disks *disks

	horizon time.Duration // stretch of log in which the speed layer finds duplicates

	nats       *service
	clickhouse *clickhouse
	speed      *service
	serve      *service
	batch      *batches
	env        map[string][]string // of a role's commands
	proxies    map[string]*faultproxy.Proxy
	endpoint   string

	ledger     *ledger
	publishers []*publisher
	reader     *reader
	importGen  map[string]*generator
	imports    int
	whole      bool // the log has all messages since the life began

	healer func(ctx context.Context, args ...string) (string, error) // runs a command that heals

	tally *tally
	ctx   context.Context // of all that runs; ends with close
	end   context.CancelFunc
	group *errgroup.Group
}

// paths of a life.
func (l *life) path(names ...string) string {
	return filepath.Join(append([]string{l.dir}, names...)...)
}

// newLife starts everything and returns when the endpoint answers with the first events. With a walk,
// the roles die from their first start on.
func newLife(ctx context.Context, dir, bin string, seed uint64, p pace, t *tally, horizon time.Duration, withDisks bool, w *walk) (l *life, err error) {
	l = &life{
		dir: dir, bin: bin, seed: seed, pace: p, tally: t, horizon: horizon, views: viewSpecs(), whole: horizon == wholeHorizon,
		r:   rand.New(rand.NewPCG(seed, 1)),
		env: make(map[string][]string), proxies: make(map[string]*faultproxy.Proxy), importGen: make(map[string]*generator),
	}
	l.healer = l.once
	inner, end := context.WithCancel(ctx)
	l.end = end
	l.group, l.ctx = errgroup.WithContext(inner)
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := os.MkdirAll(l.path("definitions"), 0o755); err != nil {
		return l, err
	}
	if err := os.WriteFile(l.path("definitions", "views.yaml"), []byte(definitionFiles), 0o644); err != nil {
		return l, err
	}
	if l.disks, err = newDisks(l.dir, withDisks); err != nil {
		return l, err
	}
	if err := l.startEngines(); err != nil {
		return l, err
	}
	if err := l.makeRoles(); err != nil {
		return l, err
	}
	if err := l.startTraffic(); err != nil {
		return l, err
	}
	if w != nil {
		// First the worker alone, then batches alone: it computes what views lack by itself, and each would
		// take that over from the other.
		w.l = l
		w.enter(true, false)
		l.batch.gate.Lock()
	}
	for _, run := range []func(context.Context) error{l.speed.run, l.serve.run, l.batch.run} {
		l.group.Go(func() error { return run(l.ctx) })
	}
	begin, cancel := context.WithTimeout(l.ctx, longest)
	defer cancel()
	err = l.reader.again(begin)
	if w != nil {
		l.batch.gate.Unlock()
		w.enter(false, true)
	}
	if err != nil {
		return l, errors.Join(err, context.Cause(l.ctx))
	}
	return l, l.batch.complete(begin)
}

func (l *life) startEngines() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	if l.nats, err = natsService(l.dir, l.path("nats"), port, l.tally); err != nil {
		return err
	}
	l.group.Go(func() error { return l.nats.run(l.ctx) })
	if err := os.MkdirAll(l.path("history"), 0o755); err != nil {
		return err
	}
	if l.clickhouse, err = startClickHouse(l.ctx, l.path("clickhouse"), l.path("history")); err != nil {
		return err
	}
	l.group.Go(func() error { return l.clickhouse.run(l.ctx) })
	natsAddr := net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	for _, role := range []string{"publisher", "speed", "batch", "serve"} {
		if l.proxies[role+"-nats"], err = faultproxy.New(natsAddr); err != nil {
			return err
		}
		if l.proxies[role+"-clickhouse"], err = faultproxy.New(l.clickhouse.server().Addr()); err != nil {
			return err
		}
	}
	return nil
}

func (l *life) makeRoles() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	listen := net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	l.endpoint = (&url.URL{Scheme: "http", Host: listen}).String()
	user, password := l.clickhouse.server().Admin()
	reader, readerPassword := l.clickhouse.server().Reader()
	for _, role := range []string{"speed", "batch", "serve"} {
		l.env[role] = environment(
			"WATERSHED_NATS=nats://"+l.proxies[role+"-nats"].Addr(), "WATERSHED_CLICKHOUSE="+l.proxies[role+"-clickhouse"].Addr(),
			"WATERSHED_CLICKHOUSE_USER="+user, "WATERSHED_CLICKHOUSE_PASSWORD="+password,
			"WATERSHED_READER_USER="+reader, "WATERSHED_READER_PASSWORD="+readerPassword,
			"WATERSHED_DIR="+l.path("data"), "WATERSHED_HISTORY="+l.path("history"),
			"WATERSHED_DEFINITIONS="+l.path("definitions"), "WATERSHED_LISTEN="+listen,
			"WATERSHED_HORIZON="+l.horizon.String(), "WATERSHED_FLUSH_EVERY=400ms", "WATERSHED_BATCH_MEMORY=1048576", fmt.Sprintf("WATERSHED_LOG_MAX_BYTES=%d", logBytes),
		)
	}
	if l.speed, err = newService("speed", l.dir, l.bin, []string{"speed"}, l.env["speed"], l.tally); err != nil {
		return err
	}
	if l.serve, err = newService("serve", l.dir, l.bin, []string{"serve"}, l.env["serve"], l.tally); err != nil {
		return err
	}
	if l.batch, err = newBatches(l.dir, l.bin, l.env["batch"], l.seed, l.pace.batchEvery, l.tally); err != nil {
		return err
	}
	return nil
}

func (l *life) startTraffic() (err error) {
	if l.ledger, err = newLedger(l.path("ledger.ndjson"), l.horizon); err != nil {
		return err
	}
	for i, eventType := range []string{"sale", "visit"} {
		p := newPublisher("nats://"+l.proxies["publisher-nats"].Addr(), eventType, l.seed+uint64(i), l.ledger)
		l.publishers = append(l.publishers, p)
		l.importGen[eventType] = newGenerator(l.seed+uint64(i)+100, eventType)
		l.group.Go(func() error { return p.run(l.ctx) })
	}
	l.reader = &reader{now: make(chan struct{}, 1), endpoint: l.endpoint, views: l.views, ledger: l.ledger, report: l.tally.violate}
	l.group.Go(func() error { return l.reader.run(l.ctx) })
	return nil
}

// close ends everything.
func (l *life) close() error {
	l.end()
	err := l.group.Wait()
	for _, p := range l.proxies {
		if p != nil {
			err = errors.Join(err, p.Close())
		}
	}
	if l.ledger != nil {
		err = errors.Join(err, l.ledger.file.Close())
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}
