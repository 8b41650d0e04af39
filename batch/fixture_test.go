package batch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/google/go-cmp/cmp"

	"watershed/batch"
	"watershed/batch/history"
	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
	"watershed/speed"
)

func TestMain(m *testing.M) { devtest.Main(m) }

const (
	patience = 3 * time.Minute // on a machine on which many packages are tested at once
	app      = "watershed/WATERSHED/0"
)

const definitions = `
event: hit
id: id
time: time
fields: {id: int64, time: timestamp, site: string, n: int64}
---
view: sites
from: hit
dimensions: {site: site}
measures: {hits: count(), n: sum(n)}
---
view: total
from: hit
measures: {hits: count(), ids: uniq(id)}
`

// A world is a log, its history and a database, with a speed worker and an archiver at work.
type world struct {
	t    *testing.T
	log  *eventlog.Log
	db   *store.DB
	name string
	root string
	defs schemas.Set
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOf(t, definitions)
}

func newWorldOf(t *testing.T, definitions string) *world {
	t.Helper()
	c := devtest.SharedClickHouse(t)
	w := &world{t: t, name: "watershed_" + strings.NewReplacer("/", "_").Replace(t.Name()), root: filepath.Join(devtest.UserFiles(c), t.Name())}
	set, err := schemas.Load(fstest.MapFS{"d.yaml": {Data: []byte(definitions)}})
	w.check(err)
	w.defs = *set
	w.log, err = eventlog.Open(t.Context(), eventlog.Config{URL: devtest.NATS(t).URL(), MaxBytes: 256 << 20})
	w.check(err)
	t.Cleanup(w.log.Close)
	w.reopen()
	_, err = w.log.PublishCut(t.Context(), schemas.Cut{}, w.defs, schemas.Set{})
	w.check(err)
	return w
}

// reopen connects to ClickHouse, and makes the database if it is not there.
func (w *world) reopen() {
	w.t.Helper()
	c := devtest.SharedClickHouse(w.t)
	user, password := c.Admin()
	db, err := store.Open(w.t.Context(), store.Config{Addr: c.Addr(), Database: w.name, User: user, Password: password, NoFsync: true})
	w.check(err)
	w.db = db
	w.t.Cleanup(func() { w.check(db.Close()) })
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// background runs a loop until the test ends, or stop is called.
func (w *world) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			w.t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	w.t.Cleanup(stop)
	return stop
}

// archive starts the archiver.
func (w *world) archive() { w.archiveIn(w.root) }

func (w *world) archiveIn(root string) {
	a, err := history.NewArchiver(history.ArchiverConfig{Root: root, App: app, DeadLetters: w.log,
		Source: func(ctx context.Context, after schemas.Position, types ...string) (history.Source, schemas.Cut, error) {
			cut, _, err := w.log.CutFor(ctx, after.Seq)
			if err != nil {
				return nil, cut, err
			}
			chunks, err := w.log.Chunks(ctx, after, eventlog.ChunkOptions{Types: types})
			return chunks, cut, err
		}})
	w.check(err)
	w.background(a.Run)
}

type speedLog struct{ *eventlog.Log }

func (l speedLog) Chunks(ctx context.Context, after schemas.Position) (speed.Source, error) {
	return l.Log.Chunks(ctx, after, eventlog.ChunkOptions{})
}

// fold starts the speed worker and waits until it is level with the log.
func (w *world) fold() {
	w.t.Helper()
	w.foldUntil()
}

// foldUntil is fold, until stop is called.
func (w *world) foldUntil() (stop func()) {
	w.t.Helper()
	stop = w.background(speed.New(speedLog{w.log}, steady{w.db}, speed.Config{FlushEvery: 5 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}).Run)
	w.level()
	return stop
}

func (w *world) level() {
	w.t.Helper()
	info, err := w.log.Info(w.t.Context())
	w.check(err)
	deadline := time.After(patience)
	// Rarer with time: to ask ClickHouse costs as much as what is waited for.
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 32*time.Millisecond) {
		marks, err := w.db.Positions(w.t.Context(), w.plans())
		var e interface{ Code() int }
		if !errors.As(err, &e) || e.Code() != 60 { // the tables are not there yet
			w.check(err)
		}
		done := true
		for _, p := range w.plans() {
			done = done && marks[p.Hash].Position.Seq >= info.Last
		}
		if done {
			return
		}
		select {
		case <-time.After(pause):
		case <-deadline:
			w.t.Fatalf("the speed layer is not level within %s", patience)
		}
	}
}

// archived waits until the archiver has everything in the log.
func (w *world) archived() {
	w.t.Helper()
	cut, _, err := w.log.LastCut(w.t.Context())
	w.check(err)
	cut, err = w.log.PublishCut(w.t.Context(), cut, cut.Definitions, cut.Retiring)
	w.check(err)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for _, ev := range cut.Definitions.Events {
		for deadline := time.After(patience); ; {
			table, err := history.Open(w.t.Context(), w.root, ev)
			w.check(err)
			if _, err = table.SnapshotAt(w.t.Context(), app, cut.Position.Seq); err == nil {
				break
			}
			select {
			case <-poll.C:
			case <-deadline:
				w.t.Fatalf("%s is not archived within %s: %v", ev.Name, patience, err)
			}
		}
	}
}

func (w *world) plans() []*view.Plan {
	w.t.Helper()
	plans, err := view.CompileSet(&w.defs)
	w.check(err)
	return plans
}

// hits is NDJSON of events from..to-1 on a day of May; n is added to what each counts.
func hits(from, to, day, n int) string {
	var b strings.Builder
	for id := from; id < to; id++ {
		fmt.Fprintf(&b, `{"id":%d,"time":"2024-05-%02dT10:00:00Z","site":"site %d","n":%d}`+"\n", id, day, id%7, id%13+n)
	}
	return b.String()
}

func (w *world) publish(events string) {
	w.t.Helper()
	w.publishAs("hit", events)
}

func (w *world) publishAs(event, events string) {
	w.t.Helper()
	_, err := w.log.Publish(w.t.Context(), event, []byte(events), "")
	w.check(err)
}

func (w *world) importFile(events string) {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "events.ndjson")
	w.check(os.WriteFile(path, []byte(events), 0o600))
	table, err := history.Open(w.t.Context(), w.root, w.defs.Event("hit"))
	w.check(err)
	_, err = history.Import(w.t.Context(), table, history.ImportConfig{Path: path})
	w.check(err)
}

func (w *world) config() batch.Config {
	return batch.Config{History: w.root, App: app, Wait: patience, Workers: 2, Logger: slog.New(slog.DiscardHandler)}
}

func (w *world) batch(change func(*batch.Config)) *batch.Report {
	w.t.Helper()
	cfg := w.config()
	if change != nil {
		change(&cfg)
	}
	r, err := batch.Run(w.t.Context(), w.log, w.db, cfg)
	w.check(err)
	return r
}

// rollback makes a build live.
func (w *world) rollback(number uint64, pinned bool) (schemas.Live, error) {
	choose := func(context.Context, schemas.Live) (uint64, error) { return number, nil }
	return batch.Rollback(w.t.Context(), w.log, w.db, choose, pinned)
}

// rows are a query's, as JSON.
func (w *world) rows(sql string) []string {
	w.t.Helper()
	got, err := w.db.Query(w.t.Context(), store.Query{SQL: sql})
	w.check(err)
	defer func() { w.check(errors.Join(got.Err(), got.Close())) }()
	rows := []string{}
	for got.Next() {
		var line []byte
		for i := range got.Columns {
			line = append(got.AppendJSON(line, i), ' ')
		}
		rows = append(rows, string(line))
	}
	return rows
}

// exec runs a statement that has no result.
func (w *world) exec(sql string) {
	w.t.Helper()
	c := devtest.SharedClickHouse(w.t)
	user, password := c.Admin()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{c.Addr()}, Auth: clickhouse.Auth{Username: user, Password: password}})
	w.check(err)
	defer func() { w.check(conn.Close()) }()
	w.check(conn.Exec(w.t.Context(), sql))
}

// exact fails the test unless the views answer as a recount of the Parquet files by ClickHouse.
func (w *world) exact() {
	w.t.Helper()
	for _, p := range w.plans() {
		from := fmt.Sprintf("(SELECT * FROM deltaLakeLocal('%s') ORDER BY _seq, _row LIMIT 1 BY id, toDate32(time, 'UTC'))", filepath.Join(w.root, p.Event.Name))
		want := w.rows("SELECT * FROM (" + p.SelectFinal(from) + ") ORDER BY ALL")
		got := w.rows(fmt.Sprintf("SELECT * FROM %s.%s ORDER BY ALL", w.name, p.Name()))
		if diff := cmp.Diff(want, got); diff != "" {
			w.t.Errorf("view %s (-want +got):\n%s", p.Name(), diff)
		}
	}
}

// A steady store finishes what was begun: the driver ends a cancelled statement by resetting its
// connection, and that can end the embedded ClickHouse as a whole.
type steady struct{ *store.DB }

func (s steady) EnsurePlans(ctx context.Context, plans []*view.Plan, fresh bool) error {
	return s.DB.EnsurePlans(context.WithoutCancel(ctx), plans, fresh)
}

func (s steady) PublishViews(ctx context.Context, plans []*view.Plan) error {
	return s.DB.PublishViews(context.WithoutCancel(ctx), plans)
}

func (s steady) Term(ctx context.Context, role string) (uint64, error) {
	return s.DB.Term(context.WithoutCancel(ctx), role)
}

func (s steady) TakeOver(ctx context.Context, role string, term uint64) error {
	return s.DB.TakeOver(context.WithoutCancel(ctx), role, term)
}

func (s steady) Positions(ctx context.Context, plans []*view.Plan) (map[string]schemas.Mark, error) {
	return s.DB.Positions(context.WithoutCancel(ctx), plans)
}

func (s steady) SavePositions(ctx context.Context, term uint64, marks map[string]schemas.Mark) error {
	return s.DB.SavePositions(context.WithoutCancel(ctx), term, marks)
}

func (s steady) InsertSpeed(ctx context.Context, p *view.Plan, term uint64, mark schemas.Mark, states arrow.Record) error {
	return s.DB.InsertSpeed(context.WithoutCancel(ctx), p, term, mark, states)
}

// errLost is an outcome that nobody knows.
var errLost = errors.New("the answer was lost")

// A mortal store dies at some call: that one and all later ones fail.
type mortal struct {
	*store.DB
	at   int      // call; 0: never
	done bool     // the call itself is carried out
	of   []string // calls that count; none: all

	mu    sync.Mutex // guards what follows
	calls int
	died  string
}

func (m *mortal) do(op string, do func() error) error {
	m.mu.Lock()
	dead := m.died != ""
	dies := false
	if !dead && (len(m.of) == 0 || slices.Contains(m.of, op)) {
		m.calls++
		if dies = m.calls == m.at; dies {
			m.died = op
		}
	}
	m.mu.Unlock()
	if dead || dies && !m.done {
		return errLost
	}
	if err := do(); err != nil {
		return err
	}
	if dies {
		return errLost
	}
	return nil
}

func (m *mortal) TakeOver(ctx context.Context, role string, term uint64) error {
	return m.do("TakeOver", func() error { return m.DB.TakeOver(ctx, role, term) })
}

func (m *mortal) EnsurePlans(ctx context.Context, plans []*view.Plan, fresh bool) error {
	return m.do("EnsurePlans", func() error { return m.DB.EnsurePlans(ctx, plans, fresh) })
}

func (m *mortal) InsertSlices(ctx context.Context, p *view.Plan, term uint64, parts []schemas.SliceStates) error {
	return m.do("InsertSlices", func() error { return m.DB.InsertSlices(context.WithoutCancel(ctx), p, term, parts) })
}

func (m *mortal) CountSlices(ctx context.Context, plans []*view.Plan, ids map[string][]uint64) (map[uint64]uint64, error) {
	return m.DB.CountSlices(context.WithoutCancel(ctx), plans, ids)
}

func (m *mortal) CondenseSlice(ctx context.Context, p *view.Plan, id uint64, column string) (groups, sum uint64, err error) {
	err = m.do("CondenseSlice", func() error {
		groups, sum, err = m.DB.CondenseSlice(context.WithoutCancel(ctx), p, id, column)
		return err
	})
	return groups, sum, err
}

func (m *mortal) RegisterSlices(ctx context.Context, term uint64, s []schemas.Slice) error {
	return m.do("RegisterSlices", func() error { return m.DB.RegisterSlices(context.WithoutCancel(ctx), term, s) })
}

func (m *mortal) SaveAudits(ctx context.Context, term uint64, audits []schemas.Audit) error {
	return m.do("SaveAudits", func() error { return m.DB.SaveAudits(ctx, term, audits) })
}

func (m *mortal) SaveBuild(ctx context.Context, term uint64, b schemas.Build) error {
	return m.do("SaveBuild", func() error { return m.DB.SaveBuild(ctx, term, b) })
}

func (m *mortal) PublishViews(ctx context.Context, plans []*view.Plan) error {
	return m.do("PublishViews", func() error { return m.DB.PublishViews(ctx, plans) })
}

func (m *mortal) Flip(ctx context.Context, term uint64, to schemas.Live) error {
	return m.do("Flip", func() error { return m.DB.Flip(ctx, term, to) })
}

func (m *mortal) Garbage(ctx context.Context, term, keep uint64) (n int, err error) {
	err = m.do("Garbage", func() error { n, err = m.DB.Garbage(ctx, term, keep); return err })
	return n, err
}
