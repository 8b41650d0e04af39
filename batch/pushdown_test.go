package batch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"watershed/batch"
	"watershed/batch/history"
	"watershed/schemas"
	"watershed/schemas/view"
	"watershed/serving/store"
)

// shippedDefinitions are all event and view files of this repository that are not there to be refused.
func shippedDefinitions(t *testing.T) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && (name == "testdata" || name == "node_modules" || name[0] == '.'):
			return filepath.SkipDir
		case filepath.Ext(path) != ".yaml" && filepath.Ext(path) != ".yml":
			return nil
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "\nevent: ") || strings.Contains(string(text), "\nview: ") {
			out = append(out, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n---\n")
}

// widest has what shipped views lack: dimensions that may be null, conditions that may, every kind of field, no
// dimension at all.
const widest = `
event: widest
id: id
time: time
fields:
  id: int64
  time: timestamp
  tag: {type: string, optional: true}
  ok: {type: bool, optional: true}
  level: {type: int64, optional: true}
  heat: {type: float64, optional: true}
  price: {type: "decimal(18,2)", optional: true}
  wide: "decimal(38,6)"
  due: {type: timestamp, optional: true}
  day: {type: date, optional: true}
---
view: nulls
from: widest
where: ok || level > 3
dimensions: {tag: tag, ok: ok, day: day, heat: heat}
measures: {n: count(), price: sum(price), due: max(due), first: min(time), days: uniq(day), last: max(tag), hot: "quantiles(heat, 0.1, 0.9)"}
---
view: everything
from: widest
measures: {high: count(level > 10), wide: sum(wide), mean: avg(wide), heat: sum(heat), warm: avg(heat), tags: uniq(tag), prices: uniq(price), low: min(level)}
---
view: nothing
from: widest
where: level > 1000000
dimensions: {level: level}
measures: {n: count()}
`

// A drawer draws events of any type: few values, so that groups have many events, and nulls.
type drawer struct{ *rand.Rand }

func (r drawer) events(ev *schemas.Event, from, to, days int) string {
	var b strings.Builder
	for id := from; id < to; id++ {
		fields := make(map[string]any)
		for _, f := range ev.Fields {
			switch {
			case f.Name == ev.ID && f.Type.Kind == schemas.String:
				fields[f.Name] = fmt.Sprint("e", id)
			case f.Name == ev.ID:
				fields[f.Name] = id
			case f.Name == ev.Time: // an identity keeps its date
				day := time.Date(2024, 2, 28, 0, 0, 0, 0, time.UTC).AddDate(0, 0, id%days)
				fields[f.Name] = day.Add(time.Duration(r.Int64N(86_400e6)) * time.Microsecond).Format(time.RFC3339Nano)
			case f.Optional && r.IntN(4) == 0:
			default:
				fields[f.Name] = r.value(f.Type)
			}
		}
		line, _ := json.Marshal(fields) // of texts and numbers
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func (r drawer) value(t schemas.Type) any {
	switch t.Kind {
	case schemas.String:
		return []string{"", "x", "Zürich", "tab\t", "quote'\\"}[r.IntN(5)]
	case schemas.Bool:
		return r.IntN(2) == 0
	case schemas.Int64:
		return r.IntN(700) - 20
	case schemas.Float64:
		return []float64{0, 0.5, -2, r.ExpFloat64() * 700}[r.IntN(4)]
	case schemas.Decimal:
		return fmt.Sprintf("%d.%02d", r.IntN(1000)-500, r.IntN(100))
	case schemas.Timestamp:
		return time.UnixMicro(r.Int64N(4e15) - 2e15).UTC().Format(time.RFC3339Nano)
	default:
		return time.Unix(86_400*(r.Int64N(40_000)-20_000), 0).UTC().Format(time.DateOnly)
	}
}

// pushdown is ClickHouse as the engine of the world's batches.
func (w *world) pushdown(db *store.DB) *store.Pushdown {
	w.t.Helper()
	p, err := db.Pushdown(store.HistoryAt{Root: w.root})
	w.check(err)
	return p
}

func (w *world) importOf(event, events string) {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "events.ndjson")
	w.check(os.WriteFile(path, []byte(events), 0o600))
	table, err := history.Open(w.t.Context(), w.root, w.defs.Event(event))
	w.check(err)
	_, err = history.Import(w.t.Context(), table, history.ImportConfig{Path: path})
	w.check(err)
}

// counted is what a report says of the input and of what came of it, which is the same whoever computed it.
func counted(r *batch.Report) any {
	type audit struct{ Groups, Equal, Explained, Drifted, Late, Import, Conflicts uint64 }
	audits := make(map[string]audit)
	for _, a := range r.Audit {
		audits[a.View] = audit{a.Groups, a.Equal, a.Explained, a.Drifted, a.LateDuplicates, a.ImportDuplicates, a.Conflicts}
	}
	return []any{r.Dates, r.Events, r.Groups, r.Duplicates, r.Conflicts, r.Slices.Computed, audits}
}

// Every view of this repository comes out the same, whether its slices are folded here or computed by ClickHouse from the
// files: values, groups, duplicates, conflicts and audits; with late events, nulls, imports before and
// after a build, duplicates at any distance and compacted dates.
func TestEnginesAgree(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, shippedDefinitions(t)+"\n---\n"+widest)
	if len(w.defs.Views) < 20 {
		t.Fatalf("%d views; the repository has more", len(w.defs.Views))
	}
	r := drawer{rand.New(rand.NewPCG(rand.Uint64(), 1))}
	w.archive()
	goEngine := func(c *batch.Config) {}
	clickhouse := func(c *batch.Config) { c.Engine = w.pushdown(w.db) }
	rebuilt := func(engine func(*batch.Config)) *batch.Report {
		t.Helper()
		return w.batch(func(c *batch.Config) { c.Rebuild = true; engine(c) })
	}
	w.fold()
	for i, engine := range []func(*batch.Config){clickhouse, goEngine} {
		for _, ev := range w.defs.Events {
			from := 300 * i
			w.publishAs(ev.Name, r.events(ev, from, from+200, 2+i))
			w.importOf(ev.Name, r.events(ev, from+100, from+300, 2+i)) // half of them come again, with other content
			w.publishAs(ev.Name, r.events(ev, max(0, from-150), from+20, 2+i))
		}
		w.level()
		first := w.batch(engine)
		if first.Slices.Computed == 0 || first.Duplicates == 0 || first.Conflicts.Count == 0 || first.Drifted() > 0 || !first.Flipped {
			t.Fatalf("build %d: %+v", first.Build, first)
		}
		// The other engine uses what the one has computed, under the same keys.
		other := []func(*batch.Config){goEngine, clickhouse}[i]
		if again := w.batch(other); again.Slices.Computed != 0 || again.Slices.Reused != first.Slices.Computed+first.Slices.Reused {
			t.Errorf("build %d: computed %d slices again, reused %d", again.Build, again.Slices.Computed, again.Slices.Reused)
		}
		if i == 0 {
			w.compact(func(o *history.CompactOptions) { o.MinFiles, o.Every = 1, true })
		}
	}
	// A rebuild fails if a finished value differs: of dates that the one has computed or the other.
	if diff := cmp.Diff(counted(rebuilt(goEngine)), counted(rebuilt(clickhouse))); diff != "" {
		t.Errorf("reports (-go +clickhouse):\n%s", diff)
	}
	w.verified()
}

// Both engines audit the same: what a build says of the one before it, computed by either.
func TestEnginesAuditAlike(t *testing.T) {
	t.Parallel()
	var reports []any
	for _, name := range []string{"go", "clickhouse"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			engine := func(c *batch.Config) {
				if name == "clickhouse" {
					c.Engine = w.pushdown(w.db)
				}
			}
			w.archive()
			w.publish(hits(0, 100, 1, 0) + hits(100, 200, 2, 0))
			w.fold()
			var got []any
			for _, change := range []func(){
				func() {},
				func() { w.publish(hits(50, 80, 1, 3) + hits(300, 400, 3, 0)); w.level() },    // late duplicates, some with other content
				func() { w.importFile(hits(90, 130, 1, 0) + hits(150, 220, 2, 1)) },           // imported ones
				func() { w.importFile(hits(0, 100, 4, 0)); w.importFile(hits(50, 60, 4, 0)) }, // a date of imports alone
				func() { w.publish(hits(0, 5, 4, 2)); w.level() },
			} {
				change()
				r := w.batch(engine)
				for i := range r.Conflicts.First { // files are named at random
					r.Conflicts.First[i].Kept.File, r.Conflicts.First[i].Dropped.File = "", ""
				}
				got = append(got, counted(r))
				w.exact()
			}
			reports = append(reports, got)
		})
	}
	if t.Failed() {
		return
	}
	if diff := cmp.Diff(reports[0], reports[1]); diff != "" {
		t.Errorf("reports (-go +clickhouse):\n%s", diff)
	}
}

// verified fails the test unless a verification by either engine finds every view sound.
func (w *world) verified() {
	w.t.Helper()
	for _, pushed := range []bool{false, true} {
		scratch, err := w.db.Scratch(w.t.Context())
		w.check(err)
		cfg := w.config()
		if pushed {
			cfg.Engine = w.pushdown(scratch)
		}
		r, err := batch.Verify(w.t.Context(), w.db, scratch, cfg)
		w.check(err)
		w.check(scratch.Drop(w.t.Context()))
		for _, v := range r.Views {
			if len(v.Problems) > 0 || v.Slices == 0 || v.Skipped != "" {
				w.t.Errorf("pushed down %t: %+v; want it sound", pushed, v)
			}
		}
	}
}

// A mortalEngine loses the answer of a push, before or after it was carried out.
type mortalEngine struct {
	batch.Engine
	at   int
	done bool

	mu    sync.Mutex // guards what follows
	calls int
	lost  map[uint64]bool // slices whose outcome is not known
}

func (m *mortalEngine) Push(ctx context.Context, p *view.Plan, term uint64, push schemas.Push) (map[uint64]schemas.Pushed, error) {
	m.mu.Lock()
	m.calls++
	dies := m.calls == m.at
	if dies {
		for _, s := range push.Slices {
			m.lost[s.ID] = true
		}
	}
	m.mu.Unlock()
	if !dies {
		return m.Engine.Push(ctx, p, term, push)
	}
	if m.done {
		if _, err := m.Engine.Push(ctx, p, term, push); err != nil {
			return nil, err
		}
	}
	return nil, errLost
}

// A batch whose push has an unknown outcome registers nothing of it, and the next one, by whichever engine, puts
// everything right.
func TestPushWithUnknownOutcome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	for _, done := range []bool{false, true} {
		for at := 1; ; at++ {
			day := 2 + at
			w.publish(hits(1000*at, 1000*at+10, day, 0) + hits(1000*at, 1000*at+5, day, 0))
			w.level()
			engine := &mortalEngine{Engine: w.pushdown(w.db), at: at, done: done, lost: make(map[uint64]bool)}
			cfg := w.config()
			cfg.Engine, cfg.Workers = engine, 1
			_, err := batch.Run(t.Context(), w.log, w.db, cfg)
			if engine.calls < at {
				w.check(err)
				break
			}
			if !errors.Is(err, errLost) {
				t.Fatalf("%v; want the push lost", err)
			}
			w.exact()
			w.batch(func(c *batch.Config) {
				if at%2 == 0 {
					c.Engine = w.pushdown(w.db)
				}
			})
			registered, err := w.db.Slices(t.Context(), hashes(w.plans())...)
			w.check(err)
			for _, s := range registered {
				if engine.lost[s.ID] {
					t.Errorf("slice %d is registered, and its push was lost", s.ID)
				}
			}
			w.exact()
		}
	}
}

// An older term's push is refused whole.
func TestPushIsFenced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	cfg := w.config()
	cfg.Engine = overtakenEngine{w.pushdown(w.db), w.db}
	_, err := batch.Run(t.Context(), w.log, w.db, cfg)
	if err == nil || !strings.Contains(err.Error(), "took over") {
		t.Fatalf("%v; want that another run took over", err)
	}
	for _, p := range w.plans() {
		if got := w.rows(fmt.Sprintf("SELECT count() FROM %s.%s__batch", w.name, p.ID())); !slices.Equal(got, []string{"0 "}) {
			t.Errorf("view %s: the older term wrote %v rows", p.Name(), got)
		}
	}
	w.batch(func(c *batch.Config) { c.Engine = w.pushdown(w.db) })
	w.exact()
}

// An overtakenEngine is overtaken when it has begun.
type overtakenEngine struct {
	batch.Engine
	db *store.DB
}

func (e overtakenEngine) Push(ctx context.Context, p *view.Plan, term uint64, push schemas.Push) (map[uint64]schemas.Pushed, error) {
	if err := e.db.TakeOver(ctx, batch.Role, term+1); err != nil {
		return nil, err
	}
	return e.Engine.Push(ctx, p, term, push)
}

// Where ClickHouse finds no history, or another one, nothing is written, and the error says what to set.
func TestPushWithoutHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.archive()
	w.publish(hits(0, 100, 1, 0))
	w.fold()
	w.archived()
	other := filepath.Join(filepath.Dir(w.root), t.Name()+"_other")
	w.check(os.CopyFS(other, os.DirFS(w.root)))
	files, err := filepath.Glob(filepath.Join(other, "hit", "_date=*", "*.parquet"))
	w.check(err)
	w.check(os.Remove(files[0]))
	for _, root := range []string{filepath.Join(filepath.Dir(w.root), "nowhere"), "/", other} {
		engine, err := w.db.Pushdown(store.HistoryAt{Root: root})
		w.check(err)
		cfg := w.config()
		cfg.Engine = engine
		_, err = batch.Run(t.Context(), w.log, w.db, cfg)
		var unreadable *store.UnreadableError
		if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), "--clickhouse-history") {
			t.Errorf("%s: %v; want that ClickHouse cannot read history there", root, err)
		}
	}
	w.batch(nil)
	w.exact()
}

func hashes(plans []*view.Plan) (out []string) {
	for _, p := range plans {
		out = append(out, p.Hash)
	}
	return out
}
