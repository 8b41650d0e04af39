package exact

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"watershed/batch"
	"watershed/batch/history"
	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
	"watershed/speed"
)

const app = "watershed/WATERSHED/0"

// A pipeline is all layers over real engines, and the books of what was put in.
type pipeline struct {
	t      *testing.T
	r      *rand.Rand
	server *devserver.ClickHouse
	log    *eventlog.Log
	db     *store.DB
	name   string // of the database
	root   string // of history
	logger *slog.Logger

	gen       *generator
	lines     []string // what history must hold
	misfits   int
	last      uint64 // sequence of the last message
	files     int
	published int
}

func newPipeline(t *testing.T, seed uint64) *pipeline {
	t.Helper()
	p := &pipeline{t: t, r: rand.New(rand.NewPCG(seed, 1)), name: fmt.Sprintf("watershed_%d", seed),
		logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	p.server = devtest.SharedClickHouse(t)
	p.root = filepath.Join(devtest.UserFiles(p.server), p.name)
	log, err := eventlog.Open(t.Context(), eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: 256 << 20, Logger: p.logger})
	p.check(err)
	t.Cleanup(log.Close)
	p.log = log
	p.db = p.database(p.name)
	p.gen = newGenerator(p.r, definitions(t, firstViews))
	return p
}

func (p *pipeline) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pipeline) database(name string) *store.DB {
	p.t.Helper()
	user, password := p.server.Admin()
	db, err := store.Open(p.t.Context(), store.Config{Addr: p.server.Addr(), Database: name, User: user, Password: password, NoFsync: true})
	p.check(err)
	p.t.Cleanup(func() {
		if err := db.Close(); err != nil {
			p.t.Error(err)
		}
	})
	return db
}

// publish publishes some messages; imported says whether they may repeat imported events.
func (p *pipeline) publish(n int, imported bool) {
	p.t.Helper()
	for range n {
		m := p.gen.message(imported)
		p.published++
		id := fmt.Sprintf("m-%d", p.published)
		for range 1 + p.r.IntN(8)/7 { // a producer may send a message twice
			seq, err := p.log.Publish(p.t.Context(), m.ev.Name, m.payload, id)
			p.check(err)
			p.last = seq
		}
		for row, e := range m.events {
			p.lines = append(p.lines, e.line(p.last, row))
		}
		p.misfits += m.misfits
	}
}

// importFile imports a new file of some type, and then the same again.
func (p *pipeline) importFile() {
	p.t.Helper()
	ev := p.gen.eventType()
	events := p.gen.file(ev)
	p.files++
	path := filepath.Join(p.t.TempDir(), fmt.Sprintf("file%d.ndjson", p.files))
	var b bytes.Buffer
	csvToo := true // an empty text and null are one in CSV
	for _, f := range ev.Fields {
		csvToo = csvToo && !f.Optional
	}
	if csvToo && p.r.IntN(2) == 0 {
		path = strings.TrimSuffix(path, "ndjson") + "csv"
		p.writeCSV(&b, ev, events)
	} else {
		for _, e := range events {
			b.WriteString(p.gen.json(e) + "\n")
		}
	}
	p.check(os.WriteFile(path, b.Bytes(), 0o600))
	table, err := history.Open(p.t.Context(), p.root, ev)
	p.check(err)
	for i := range 2 {
		report, err := history.Import(p.t.Context(), table, history.ImportConfig{Path: path})
		p.check(err)
		if report.Already != (i == 1) {
			p.t.Fatalf("import %d of one file: got already imported: %t", i+1, report.Already)
		}
	}
	for row, e := range events {
		p.lines = append(p.lines, e.line(0, row))
	}
}

func (p *pipeline) writeCSV(b *bytes.Buffer, ev *schemas.Event, events []event) {
	w := csv.NewWriter(b)
	var record []string
	for _, f := range ev.Fields {
		record = append(record, f.Name)
	}
	p.check(w.Write(record))
	for _, e := range events {
		for i, f := range ev.Fields {
			text := p.gen.jsonValue(f.Type, e.values[i])
			if f.Type.Kind == schemas.String {
				text = e.values[i].(string)
			}
			record[i] = strings.Trim(text, `"`)
			if f.Type.Kind == schemas.String {
				record[i] = text
			}
		}
		p.check(w.Write(record))
	}
	w.Flush()
	p.check(w.Error())
}

// batch runs one batch to its end.
func (p *pipeline) batch(defs *schemas.Set) (*batch.Report, error) {
	return batch.Run(p.t.Context(), p.log, p.db, batch.Config{
		History: p.root, App: app, Definitions: defs, Wait: patience, Workers: 2, Logger: p.logger,
	})
}

// await polls until the condition holds.
func (p *pipeline) await(what string, holds func() (bool, error)) {
	p.t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.After(patience); ; {
		ok, err := holds()
		p.check(err)
		if ok {
			return
		}
		select {
		case <-poll.C:
		case <-deadline:
			p.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// caughtUp waits until the states of all plans reach the log's end.
func (p *pipeline) caughtUp(db *store.DB, plans []*view.Plan) {
	p.t.Helper()
	info, err := p.log.Info(p.t.Context())
	p.check(err)
	p.await("states up to the log's end", func() (bool, error) {
		marks, err := db.Positions(p.t.Context(), plans)
		for _, plan := range plans {
			if marks[plan.Hash].Position.Seq < info.Last {
				return false, err
			}
		}
		return true, err
	})
}

// A loop runs something again and again, each time until it is stopped at a random moment.
type loop struct {
	mu     sync.Mutex // guards stop
	stop   func()
	cancel context.CancelFunc
	done   chan error
}

// startLoop calls run until the loop is ended. What it gives run ends when restart is called.
// It ends with the test at the latest.
func (p *pipeline) startLoop(run func(ctx context.Context) error) *loop {
	ctx, cancel := context.WithCancel(context.Background())
	l := &loop{cancel: cancel, done: make(chan error, 1)}
	ended := make(chan struct{})
	p.t.Cleanup(func() {
		cancel()
		<-ended
	})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			once, stop := context.WithCancel(ctx)
			l.mu.Lock()
			l.stop = stop
			l.mu.Unlock()
			err := run(once)
			stop()
			if err != nil {
				l.done <- err
				return
			}
		}
		l.done <- nil
	}()
	return l
}

func (l *loop) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		l.stop()
	}
}

func (l *loop) end() error {
	l.cancel()
	return <-l.done
}

// worker is a speed worker under conditions drawn anew for each of its lives: sizes and
// intervals of flushes, inserts whose outcome it does not learn, and how it dies.
func (p *pipeline) worker(seed uint64, db *store.DB, faults bool) *loop {
	r := rand.New(rand.NewPCG(seed, 2))
	return p.startLoop(func(ctx context.Context) error {
		cfg := speed.Config{FlushEvery: time.Duration(5+r.IntN(95)) * time.Millisecond, FlushRows: 1 + r.IntN(2000), Logger: p.logger}
		sink := &unreliable{DB: db, seed: r.Uint64()}
		if faults {
			sink.every = 25
			if r.IntN(2) == 0 { // dies without another word
				context.AfterFunc(ctx, sink.sever)
			}
		}
		err := speed.New(speedLog{p.log, 1 + r.IntN(500)}, sink, cfg).Run(ctx)
		if ctx.Err() != nil {
			return nil // what a dying worker says does not matter
		}
		return err
	})
}

func (p *pipeline) archiver(seed uint64) (*loop, *history.Archiver) {
	r := rand.New(rand.NewPCG(seed, 3))
	a, err := history.NewArchiver(history.ArchiverConfig{
		Root: p.root, App: app, DeadLetters: p.log,
		MaxRows: 1 + r.Int64N(3000), MaxAge: time.Duration(20+r.IntN(500)) * time.Millisecond,
		Source: func(ctx context.Context, after schemas.Position, types ...string) (history.Source, schemas.Cut, error) {
			cut, _, err := p.log.CutFor(ctx, after.Seq)
			if err != nil {
				return nil, cut, err
			}
			chunks, err := p.log.Chunks(ctx, after, eventlog.ChunkOptions{Types: types})
			return chunks, cut, err
		},
	})
	p.check(err)
	return p.startLoop(func(ctx context.Context) error {
		err := a.Run(ctx)
		var none interface{ NoCut() bool }
		if ctx.Err() != nil || errors.As(err, &none) {
			return nil // before cut 1 there is nothing to go by: try again
		}
		return err
	}), a
}

// speedLog is the log as the speed layer reads it, in chunks of some size.
type speedLog struct {
	*eventlog.Log
	rows int
}

func (l speedLog) Chunks(ctx context.Context, after schemas.Position) (speed.Source, error) {
	return l.Log.Chunks(ctx, after, eventlog.ChunkOptions{MaxRows: l.rows})
}
