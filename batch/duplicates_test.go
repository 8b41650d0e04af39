package batch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/google/go-cmp/cmp"

	"watershed/batch/history"
	"watershed/internal/decode"
	"watershed/internal/devserver/devtest"
	"watershed/schemas"
)

func hitEvent() *schemas.Event {
	return &schemas.Event{Name: "hit", ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: schemas.Type{Kind: schemas.String}},
		{Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
		{Name: "n", Type: schemas.Type{Kind: schemas.Int64}, Optional: true},
	}}
}

const testApp = "watershed/TEST/0"

// A scriptedLog hands out what was decoded, a chunk per cut, to an archiver.
type scriptedLog struct {
	chunks []*schemas.Chunk
	cut    schemas.Cut
}

var errEnd = errors.New("the script is at its end")

func (l *scriptedLog) Next(context.Context) (*schemas.Chunk, error) {
	if len(l.chunks) == 0 {
		return nil, errEnd
	}
	c := l.chunks[0]
	l.chunks = l.chunks[1:]
	return c, nil
}

func (l *scriptedLog) Close() {}

func (l *scriptedLog) DeadLetter(context.Context, []schemas.Reject) error { return nil }

// A past is a random history of a few dates: what the log brought before and after a cut, and what was
// imported before and after it.
type past struct {
	t     testing.TB
	r     *rand.Rand
	root  string
	table *history.Table
	at    schemas.Position // of the cut
	lines int              // of all imports so far
	files int
	fresh int // lines of the imports before the cut
	snap  *snapshot
}

// event is a line of NDJSON; few ids, so that many meet, and payloads that mostly agree.
func (p *past) event(ids int) string {
	id := p.r.IntN(ids)
	day, hour, n := 1+p.r.IntN(2), 12, id%5
	if p.r.IntN(4) == 0 {
		n, hour = p.r.IntN(3), p.r.IntN(3)
	}
	if p.r.IntN(9) == 0 {
		return fmt.Sprintf(`{"id":"e%d","time":"2024-05-%02dT%02d:00:00Z"}`, id, day, hour) + "\n"
	}
	return fmt.Sprintf(`{"id":"e%d","time":"2024-05-%02dT%02d:00:00Z","n":%d}`, id, day, hour, n) + "\n"
}

// importSome imports events in a file whose rows have numbers that no other file's have: which of two
// equal events stands first is then told by _seq and _row alone.
func (p *past) importSome(events, ids int) {
	p.t.Helper()
	var b strings.Builder
	for i := range p.lines {
		fmt.Fprintf(&b, `{"id":"filler %d %d","time":"2024-06-01T00:00:00Z"}`+"\n", p.files, i)
	}
	for range events {
		b.WriteString(p.event(ids))
	}
	p.lines += events
	p.files++
	path := filepath.Join(p.t.TempDir(), fmt.Sprintf("%d.ndjson", p.files))
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if _, err := history.Import(p.t.Context(), p.table, history.ImportConfig{Path: path}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *past) archive(l *scriptedLog) {
	p.t.Helper()
	a, err := history.NewArchiver(history.ArchiverConfig{Root: p.root, App: testApp, DeadLetters: l,
		Source: func(context.Context, schemas.Position, ...string) (history.Source, schemas.Cut, error) {
			return l, l.cut, nil
		}})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := a.Run(p.t.Context()); !errors.Is(err, errEnd) {
		p.t.Fatal(err)
	}
}

// newPast writes a random history; most is how many events there are at most.
func newPast(t testing.TB, seed uint64, most int) *past {
	t.Helper()
	ev := hitEvent()
	p := &past{t: t, r: rand.New(rand.NewPCG(seed, 4)), root: filepath.Join(devtest.UserFiles(devtest.SharedClickHouse(t)), strings.ReplaceAll(t.Name(), "/", "_"), fmt.Sprint(seed))}
	var err error
	if p.table, err = history.Open(t.Context(), p.root, ev); err != nil {
		t.Fatal(err)
	}
	size := func() int { return p.r.IntN(most/8 + 1) }
	ids := 1 + p.r.IntN(most)
	defs := schemas.Set{Events: []*schemas.Event{ev}}
	seq := uint64(0)
	stretch := func(cut uint64, after schemas.Position) *schemas.Chunk {
		d := decode.New(ev, decode.Limits{})
		for range 1 + p.r.IntN(4) {
			seq++
			var b strings.Builder
			for range size() {
				b.WriteString(p.event(ids))
			}
			if rejects := d.Append([]byte(b.String()), seq, time.Date(2024, 5, 3, 0, 0, 0, 0, time.UTC)); len(rejects) > 0 && b.Len() > 0 {
				t.Fatalf("rejected: %+v", rejects)
			}
		}
		c := &schemas.Chunk{Epoch: cut - 1, After: after, BeforeCut: schemas.Position{Seq: seq, Hash: seq}, Records: map[string]arrow.Record{}}
		if d.Rows() > 0 {
			c.Records[ev.Name] = d.Record()
		}
		seq++
		c.Last = schemas.Position{Seq: seq, Hash: seq}
		c.Cut = &schemas.Cut{Number: cut, Definitions: defs, Position: c.Last}
		return c
	}
	p.importSome(size(), ids)
	p.importSome(size(), ids)
	first := stretch(1, schemas.Position{})
	p.at = first.Last
	p.archive(&scriptedLog{chunks: []*schemas.Chunk{first}, cut: *first.Cut})
	p.fresh = p.lines
	p.importSome(size(), ids)
	second := stretch(2, first.Last)
	p.archive(&scriptedLog{chunks: []*schemas.Chunk{second}, cut: *first.Cut})
	before, err := p.table.SnapshotAt(t.Context(), testApp, first.Last.Seq)
	if err != nil {
		t.Fatal(err)
	}
	now, err := p.table.SnapshotAt(t.Context(), testApp, second.Last.Seq)
	if err != nil {
		t.Fatal(err)
	}
	p.snap = &snapshot{table: p.table, dates: divide(now.Files, before), baseAt: first.Last.Seq}
	return p
}

// A recount is what ClickHouse finds in the files.
type recount struct {
	Dropped, Late, Again, Differing, Shown uint64
}

func (p *past) recount(d date) (r recount, conflicts []string) {
	p.t.Helper()
	c := devtest.SharedClickHouse(p.t)
	user, password := c.Admin()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{c.Addr()}, Auth: clickhouse.Auth{Username: user, Password: password}})
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	// Per row: the number among its equals, and what stands first of them.
	rows := fmt.Sprintf(`(SELECT id, _seq, _row, toString((id, time, n)) AS payload, _seq = 0 AND _row >= %d AS fresh,
		row_number() OVER w AS number, first_value(payload) OVER w AS kept, first_value(fresh) OVER w AS kept_fresh,
		first_value(_seq) OVER w AS kept_seq, first_value(_row) OVER w AS kept_row,
		fresh OR kept_fresh AS again, NOT again AND _seq > %d AS late
		FROM deltaLakeLocal('%s') WHERE toDate32(time, 'UTC') = toDate32('%s')
		WINDOW w AS (PARTITION BY id ORDER BY _seq, _row ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))`,
		p.fresh, p.at.Seq, filepath.Join(p.root, "hit"), dateText(d.day))
	err = conn.QueryRow(p.t.Context(), "SELECT count(), countIf(late), countIf(again), countIf(payload != kept), countIf(payload != kept AND (late OR again)) FROM "+rows+" WHERE number > 1").
		Scan(&r.Dropped, &r.Late, &r.Again, &r.Differing, &r.Shown)
	if err != nil {
		p.t.Fatal(err)
	}
	list, err := conn.Query(p.t.Context(), fmt.Sprintf("SELECT concat(id, ' ', toString((kept_seq, kept_row)), ' ', toString((_seq, _row))) FROM %s WHERE number > 1 AND payload != kept ORDER BY _seq, _row LIMIT %d", rows, maxConflicts))
	if err != nil {
		p.t.Fatal(err)
	}
	defer list.Close()
	for list.Next() {
		var s string
		if err := list.Scan(&s); err != nil {
			p.t.Fatal(err)
		}
		conflicts = append(conflicts, s)
	}
	if err := list.Err(); err != nil {
		p.t.Fatal(err)
	}
	return r, conflicts
}

// Whatever the memory, the same rows are duplicates, late, conflicts: those that ClickHouse finds by
// SQL in the files.
func TestDuplicatesWithinAnyMemory(t *testing.T) {
	several, paired, searched, sum := 0, 0, 0, recount{}
	for seed := range uint64(10) {
		p := newPast(t, seed, 200<<(seed%5))
		for _, d := range p.snap.dates {
			want, listing := p.recount(d)
			sum = recount{sum.Dropped + want.Dropped, sum.Late + want.Late, sum.Again + want.Again, sum.Differing + want.Differing, sum.Shown + want.Shown}
			all, err := newFinder(1<<30).find(t.Context(), p.snap, d)
			if err != nil {
				t.Fatal(err)
			}
			got := recount{uint64(all.rows.n()), uint64(all.late.n()), uint64(all.again.n()), all.differing.n, all.shown.n}
			if got != want || all.n != all.rows.n() {
				t.Errorf("seed %d, %s: got %+v, %d dropped; ClickHouse counts %+v", seed, dateText(d.day), got, all.n, want)
			}
			var listed []string
			for _, c := range all.differing.first {
				listed = append(listed, fmt.Sprintf("%s (%d,%d) (%d,%d)", c.ID, c.Kept.Seq, c.Kept.Row, c.Dropped.Seq, c.Dropped.Row))
			}
			if diff := cmp.Diff(listing, listed); diff != "" {
				t.Errorf("seed %d, %s: conflicts (-ClickHouse +got):\n%s", seed, dateText(d.day), diff)
			}
			f := newFinder(0)
			for _, memory := range []int64{0, leastDuplicateMemory + p.r.Int64N(1<<17), p.r.Int64N(1 << 20)} {
				f.memory = max(memory, leastDuplicateMemory)
				some, err := f.find(t.Context(), p.snap, d)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(all, some, cmp.AllowUnexported(drops{}, conflicts{})); diff != "" {
					t.Errorf("seed %d, %s, %d bytes, %d passes (-unbounded +bounded):\n%s", seed, dateText(d.day), memory, f.passes, diff)
				}
				listed := int64(cap(f.pairs.list)) * 40 // with the twins that they need
				if memory == 0 && f.firsts.Bytes()+f.twins.Bytes()+listed > leastDuplicateMemory {
					t.Errorf("seed %d: %d + %d + %d bytes; want %d at most", seed, f.firsts.Bytes(), f.twins.Bytes(), listed, leastDuplicateMemory)
				}
				if f.pairs.complete() {
					paired++
				} else {
					searched++
				}
				if f.passes > 2 {
					several++
				}
			}
		}
	}
	if several == 0 || paired == 0 || searched == 0 || sum.Late == 0 || sum.Again == 0 || sum.Shown == 0 || sum.Differing == sum.Shown {
		t.Errorf("%d dates were read in parts, %d judged by pairs and %d by fingerprints, all in all %+v; want some of everything", several, paired, searched, sum)
	}
}

// A million rows of one date, a tenth of them twice, within less and less memory.
func BenchmarkDuplicates(b *testing.B) {
	p := &past{t: b, r: rand.New(rand.NewPCG(1, 1)), root: filepath.Join(b.TempDir(), "history")}
	var err error
	if p.table, err = history.Open(b.Context(), p.root, hitEvent()); err != nil {
		b.Fatal(err)
	}
	const rows = 1_000_000
	for file := range 2 {
		var text strings.Builder
		for i := range rows / 2 {
			id := i + file*rows/2
			if i < rows/10 {
				id = i
			}
			fmt.Fprintf(&text, `{"id":"e%d","time":"2024-05-01T10:00:00Z","n":%d}`+"\n", id, id)
		}
		path := filepath.Join(b.TempDir(), fmt.Sprintf("%d.ndjson", file))
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			b.Fatal(err)
		}
		if _, err := history.Import(b.Context(), p.table, history.ImportConfig{Path: path}); err != nil {
			b.Fatal(err)
		}
	}
	now, err := p.table.Snapshot(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	snap := &snapshot{table: p.table, dates: divide(now.Files, &history.Snapshot{})}
	for _, memory := range []int64{256 << 20, 32 << 20, 8 << 20, 1 << 20} {
		b.Run(fmt.Sprintf("%dMiB", memory>>20), func(b *testing.B) {
			b.ReportAllocs()
			f := newFinder(memory)
			for b.Loop() {
				d, err := f.find(b.Context(), snap, snap.dates[0])
				if err != nil {
					b.Fatal(err)
				}
				if d.n != rows/10 {
					b.Fatalf("%d duplicates; want %d", d.n, rows/10)
				}
			}
			b.ReportMetric(float64(f.passes), "parts")
			b.ReportMetric(float64(f.firsts.Bytes()+f.twins.Bytes()+int64(cap(f.pairs.list))*40)/(1<<20), "MiB")
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
