package speed_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"watershed/internal/devserver/devtest"
	"watershed/internal/eventlog"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
	"watershed/speed"
)

// TestMain has properties checked 20 times, since here they are checked with the race detector;
// -rapid.checks=1000 looks longer.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "20"); err != nil { // what the command line says comes later
		panic(err) // the flag is rapid's
	}
	devtest.Main(m)
}

// patience bounds each wait, on a machine on which many packages are tested at once.
const patience = 3 * time.Minute

const hitEvent = `
event: hit
id: id
time: time
fields: {id: int64, time: timestamp, site: string, n: int64}
`

const sitesView = `
---
view: sites
from: hit
dimensions: {site: site}
measures: {hits: count(), n: sum(n), ids: uniq(id)}
`

const otherViews = `
---
view: total
from: hit
measures: {hits: count()}
---
view: none
from: hit
where: n < 0
measures: {hits: count()}
`

func parse(t testing.TB, text string) schemas.Set {
	t.Helper()
	set, err := schemas.Load(fstest.MapFS{"d.yaml": {Data: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return *set
}

func compile(t testing.TB, set schemas.Set) []*view.Plan {
	t.Helper()
	plans, err := view.CompileSet(&set)
	if err != nil {
		t.Fatal(err)
	}
	return plans
}

// A world is a log and a database, and the books of what was published.
type world struct {
	t    *testing.T
	url  string
	log  *eventlog.Log
	defs schemas.Set

	epoch uint64
	ids   map[int]bool
	sites map[string][2]int64            // hits and sum of n by site, each event once
	each  map[uint64]map[string][2]int64 // the same by epoch of the first occurrence
}

// newWorld has a log without a cut. It fails the test if a goroutine outlives it.
func newWorld(t *testing.T) *world {
	t.Helper()
	devtest.SharedClickHouse(t)
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	w := &world{t: t, url: devtest.NATS(t).URL(), defs: parse(t, hitEvent+sitesView+otherViews),
		ids: make(map[int]bool), sites: make(map[string][2]int64), each: make(map[uint64]map[string][2]int64)}
	w.log = w.openLog()
	return w
}

func (w *world) openLog() *eventlog.Log {
	w.t.Helper()
	log, err := eventlog.Open(w.t.Context(), eventlog.Config{URL: w.url, MaxBytes: 256 << 20})
	w.check(err)
	w.t.Cleanup(log.Close)
	return log
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// hit is one event's JSON; an id always has the same payload.
func hit(id int) (site string, n int64, payload string) {
	site, n = fmt.Sprintf("site %d", id%7), int64(id%13)
	return site, n, fmt.Sprintf(`{"id":%d,"time":"2024-05-%02dT10:00:00Z","site":%q,"n":%d}`+"\n", id, 1+id%3, site, n)
}

// publish publishes events with ids from..to-1 in one message.
func (w *world) publish(from, to int) {
	w.t.Helper()
	var b strings.Builder
	for id := from; id < to; id++ {
		site, n, payload := hit(id)
		b.WriteString(payload)
		if w.ids[id] {
			continue
		}
		w.ids[id] = true
		if w.each[w.epoch] == nil {
			w.each[w.epoch] = make(map[string][2]int64)
		}
		for _, books := range []map[string][2]int64{w.sites, w.each[w.epoch]} {
			books[site] = [2]int64{books[site][0] + 1, books[site][1] + n}
		}
	}
	_, err := w.log.Publish(w.t.Context(), "hit", []byte(b.String()), "")
	w.check(err)
}

// publishMany publishes so many messages of one event, which is always the same.
func (w *world) publishMany(n int) {
	w.t.Helper()
	w.publish(0, 1)
	_, _, payload := hit(0)
	pub, err := w.log.NewPublisher(eventlog.PublisherOptions{})
	w.check(err)
	defer pub.Close()
	for range n {
		w.check(pub.Publish(w.t.Context(), "hit", []byte(payload), ""))
	}
	_, err = pub.Flush(w.t.Context())
	w.check(err)
}

func (w *world) cut(defs, retiring schemas.Set) schemas.Cut {
	w.t.Helper()
	last, _, err := w.log.LastCut(w.t.Context())
	w.check(err)
	cut, err := w.log.PublishCut(w.t.Context(), last, defs, retiring)
	w.check(err)
	w.epoch = cut.Number
	return cut
}

// database is a new one of the world's own.
func (w *world) database(suffix string) *sink {
	w.t.Helper()
	c := devtest.SharedClickHouse(w.t)
	user, password := c.Admin()
	name := "watershed_" + strings.NewReplacer("/", "_", "=", "_", ",", "_").Replace(w.t.Name()) + suffix
	db, err := store.Open(w.t.Context(), store.Config{Addr: c.Addr(), Database: name, User: user, Password: password, NoFsync: true})
	w.check(err)
	w.t.Cleanup(func() {
		if err := db.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return &sink{DB: db, name: name}
}

// rows are a query's, each value as JSON.
func (w *world) rows(db *sink, sql string) (rows [][]string) {
	w.t.Helper()
	got, err := db.Query(w.t.Context(), store.Query{SQL: sql})
	w.check(err)
	defer func() { w.check(errors.Join(got.Err(), got.Close())) }()
	for got.Next() {
		row := make([]string, len(got.Columns))
		for i := range row {
			row[i] = strings.Trim(string(got.AppendJSON(nil, i)), `"`)
		}
		rows = append(rows, row)
	}
	return rows
}

// shows fails the test unless the view `sites` answers with every event once.
func (w *world) shows(db *sink) {
	w.t.Helper()
	got := make(map[string][2]int64)
	for _, row := range w.rows(db, "SELECT site, hits, n FROM "+db.name+".sites") {
		got[row[0]] = [2]int64{w.number(row[1]), w.number(row[2])}
	}
	if diff := cmp.Diff(w.sites, got); diff != "" {
		w.t.Fatalf("view sites (-want +got):\n%s", diff)
	}
}

// statement carries out an administrator's statement.
func (w *world) statement(sql string) {
	w.t.Helper()
	c := devtest.SharedClickHouse(w.t)
	user, password := c.Admin()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{c.Addr()}, Auth: clickhouse.Auth{Username: user, Password: password}})
	w.check(err)
	defer conn.Close()
	w.check(conn.Exec(w.t.Context(), sql))
}

func query(sql string) store.Query { return store.Query{SQL: sql} }

// epochs fails the test unless the stored states of each epoch hold the epoch's events.
func (w *world) epochs(db *sink, p *view.Plan) {
	w.t.Helper()
	w.epochsFrom(db, p, 0)
}

// epochsFrom is the same for the epochs from one on.
func (w *world) epochsFrom(db *sink, p *view.Plan, from uint64) {
	w.t.Helper()
	got := make(map[uint64]map[string][2]int64)
	for _, row := range w.rows(db, fmt.Sprintf("SELECT _epoch, site, sum(hits) AS h, sum(n) AS s FROM %s.%s__speed WHERE _epoch >= %d GROUP BY _epoch, site", db.name, p.ID(), from)) {
		e := uint64(w.number(row[0]))
		if got[e] == nil {
			got[e] = make(map[string][2]int64)
		}
		got[e][row[1]] = [2]int64{w.number(row[2]), w.number(row[3])}
	}
	if diff := cmp.Diff(w.each, got); diff != "" {
		w.t.Fatalf("epochs of %s (-want +got):\n%s", p.Name(), diff)
	}
}

func (w *world) number(text string) int64 {
	w.t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	w.check(err)
	return n
}

// until polls a condition.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	// Rarer with time: to ask ClickHouse costs as much as what is waited for.
	for pause := 2 * time.Millisecond; !holds(); pause = min(2*pause, 32*time.Millisecond) {
		select {
		case <-time.After(pause):
		case <-deadline:
			w.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// caughtUp waits until stored states of the plans reach the log's end.
func (w *world) caughtUp(db *sink, plans ...*view.Plan) {
	w.t.Helper()
	info, err := w.log.Info(w.t.Context())
	w.check(err)
	w.until("states up to the log's end", func() bool { return w.behind(db, info.Last, plans...) == "" })
}

// behind names a plan whose states do not reach a position yet.
func (w *world) behind(db *sink, seq uint64, plans ...*view.Plan) string {
	w.t.Helper()
	marks, err := db.DB.Positions(w.t.Context(), plans)
	var e interface{ Code() int }
	if errors.As(err, &e) && e.Code() == 60 {
		return "all" // their tables are not there yet
	}
	w.check(err)
	for _, p := range plans {
		if marks[p.Hash].Position.Seq < seq {
			return p.Name()
		}
	}
	return ""
}

// quick flushes soon.
func quick() speed.Config { return speed.Config{FlushEvery: 5 * time.Millisecond} }

// A running worker.
type running struct {
	*speed.Worker
	w      *world
	cancel context.CancelFunc
	done   chan error
}

func (w *world) start(db *sink, cfg speed.Config) *running {
	w.t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(w.t.Output(), nil))
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Worker: speed.New(speedLog{w.log}, db, cfg), w: w, cancel: cancel, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- r.Run(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

// stop ends the worker, which must not fail.
func (r *running) stop() {
	r.w.t.Helper()
	r.cancel()
	r.w.check(<-r.done)
}

// wait waits until the worker ends by itself.
func (r *running) wait() error {
	r.w.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		r.w.t.Fatalf("the worker still runs after %s", patience)
		return nil
	}
}

type speedLog struct{ *eventlog.Log }

func (l speedLog) Chunks(ctx context.Context, after schemas.Position) (speed.Source, error) {
	return l.Log.Chunks(ctx, after, eventlog.ChunkOptions{Traced: speed.Traced})
}

// A sink is a real one. A hook may make an operation fail, before it is done or after.
type sink struct {
	*store.DB
	name string

	mu   sync.Mutex // guards hook
	hook func(op string, plan *view.Plan) (fail, done error)
}

// on sets the hook. It is called before each operation: with fail set the operation fails, with
// done it fails after it was done.
func (s *sink) on(hook func(op string, plan *view.Plan) (fail, done error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

func (s *sink) do(op string, plan *view.Plan, do func() error) error {
	s.mu.Lock()
	var fail, done error
	if s.hook != nil {
		fail, done = s.hook(op, plan)
	}
	s.mu.Unlock()
	if fail != nil {
		return fail
	}
	if err := do(); err != nil {
		return err
	}
	return done
}

// A stop does not cut off what was sent: the driver would reset the connection.
func (s *sink) EnsurePlans(ctx context.Context, plans []*view.Plan, fresh bool) error {
	return s.do("EnsurePlans", nil, func() error { return s.DB.EnsurePlans(context.WithoutCancel(ctx), plans, fresh) })
}

func (s *sink) PublishViews(ctx context.Context, plans []*view.Plan) error {
	return s.do("PublishViews", nil, func() error { return s.DB.PublishViews(context.WithoutCancel(ctx), plans) })
}

func (s *sink) Term(ctx context.Context, role string) (term uint64, err error) {
	err = s.do("Term", nil, func() error { term, err = s.DB.Term(context.WithoutCancel(ctx), role); return err })
	return term, err
}

func (s *sink) TakeOver(ctx context.Context, role string, term uint64) error {
	return s.do("TakeOver", nil, func() error { return s.DB.TakeOver(context.WithoutCancel(ctx), role, term) })
}

func (s *sink) Positions(ctx context.Context, plans []*view.Plan) (marks map[string]schemas.Mark, err error) {
	err = s.do("Positions", nil, func() error { marks, err = s.DB.Positions(context.WithoutCancel(ctx), plans); return err })
	return marks, err
}

func (s *sink) SavePositions(ctx context.Context, term uint64, marks map[string]schemas.Mark) error {
	return s.do("SavePositions", nil, func() error { return s.DB.SavePositions(context.WithoutCancel(ctx), term, marks) })
}

func (s *sink) Begin(ctx context.Context, term uint64, marks map[string]schemas.Mark) error {
	return s.do("Begin", nil, func() error { return s.DB.Begin(context.WithoutCancel(ctx), term, marks) })
}

func (s *sink) InsertSpeed(ctx context.Context, p *view.Plan, term uint64, mark schemas.Mark, states arrow.Record) error {
	return s.do("InsertSpeed", p, func() error { return s.DB.InsertSpeed(context.WithoutCancel(ctx), p, term, mark, states) })
}

// errLost is an outcome that nobody knows.
var errLost = errors.New("the answer was lost")

// A refusal is what ClickHouse says of states that it does not take.
type refusal struct{}

func (refusal) Error() string { return "refused by the test" }
func (refusal) Refused() bool { return true }
func (refusal) Fenced() bool  { return false }
func (refusal) Code() int     { return 53 }

func asJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}
