package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/schemas"
)

const testApp = "watershed/TEST/0"

// A testMessage is one message of a scripted log: events, a reject, or a cut.
type testMessage struct {
	typ    string
	record arrow.Record
	reject bool
	cut    *schemas.Cut
}

// A testLog is a log in memory, and the dead letters that came of it.
type testLog struct {
	messages []testMessage // sequence i+1
	cuts     []schemas.Cut
	chunk    int    // messages in a chunk at most
	offset   uint64 // of the sequences, of a log begun anew
	wait     bool

	mu      sync.Mutex
	letters map[uint64]int
}

func (l *testLog) position(seq uint64) schemas.Position {
	if seq == 0 {
		return schemas.Position{}
	}
	return schemas.Position{Seq: seq, Hash: seq * 0x9E3779B97F4A7C15}
}

func (l *testLog) open(_ context.Context, after schemas.Position, types ...string) (Source, schemas.Cut, error) {
	if after.Seq <= l.offset {
		return &testSource{log: l, next: l.offset, after: &after, types: types}, l.cuts[0], nil
	}
	if after != l.position(after.Seq) {
		return nil, schemas.Cut{}, fmt.Errorf("another log: %v", after)
	}
	cut := l.cuts[0]
	for _, c := range l.cuts {
		if c.Position.Seq <= after.Seq {
			cut = c
		}
	}
	return &testSource{log: l, next: after.Seq, types: types}, cut, nil
}

func (l *testLog) DeadLetter(_ context.Context, rejects []schemas.Reject) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range rejects {
		l.letters[r.Seq]++
	}
	return nil
}

// end is the error of a scripted log's last chunk.
var errEnd = errors.New("the script is at its end")

type testSource struct {
	log   *testLog
	next  uint64
	types []string          // empty: all
	after *schemas.Position // of a log begun anew: where its reader stood
}

func (s *testSource) Close() {}

func (s *testSource) Next(ctx context.Context) (*schemas.Chunk, error) {
	l := s.log
	if s.next == l.offset+uint64(len(l.messages)) {
		if l.wait {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, errEnd
	}
	c := &schemas.Chunk{After: l.position(s.next), Records: map[string]arrow.Record{}}
	parts := map[string][]arrow.Record{}
	if s.after != nil {
		c.After, s.after = *s.after, nil
	}
	for n := 0; n < l.chunk && s.next < l.offset+uint64(len(l.messages)); n++ {
		m := l.messages[s.next-l.offset]
		s.next++
		switch {
		case m.cut != nil:
			if c.Cut, c.BeforeCut = m.cut, l.position(s.next-1); n == 0 {
				c.BeforeCut = c.After
			}
		case len(s.types) > 0 && !slices.Contains(s.types, m.typ):
		case m.reject:
			c.Rejects = append(c.Rejects, schemas.Reject{Seq: s.next, Type: m.typ, Reason: "script"})
		default:
			rec := m.record
			rec.Retain()
			if len(s.types) > 0 { // another reader has the record: each decodes its own
				rec = copied(rec)
			}
			parts[m.typ] = append(parts[m.typ], rec)
		}
		if c.Cut != nil {
			break
		}
	}
	for typ, recs := range parts {
		c.Records[typ] = concat(recs)
	}
	c.Last = l.position(s.next)
	return c, nil
}

// copied is a record of the same rows that shares nothing.
func copied(rec arrow.Record) arrow.Record {
	n := rec.NumRows()
	return concat([]arrow.Record{rec.NewSlice(0, n), rec.NewSlice(0, 0)})
}

// smallEvent is a type with few columns.
func smallEvent(name string) *schemas.Event {
	return &schemas.Event{Name: name, ID: "id", Time: "time", Fields: []schemas.Field{
		{Name: "id", Type: schemas.Type{Kind: schemas.String}},
		{Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}},
		{Name: "n", Type: schemas.Type{Kind: schemas.Int64}, Optional: true},
	}}
}

// plus is an event with further fields.
func plus(ev *schemas.Event, more ...schemas.Field) *schemas.Event {
	out := *ev
	out.Fields = append(slices.Clone(ev.Fields), more...)
	return &out
}

// script writes a log: cut 1 defines a and b, cut 2 drops b to retiring, adds c and widens a, cut 3 drops
// b, cut 4 brings b back, with a field that was required being optional now, and widens a again, in front.
func script(r *rand.Rand, perEpoch int) *testLog {
	text, number := schemas.Type{Kind: schemas.String}, schemas.Type{Kind: schemas.Int64}
	a, c := smallEvent("a"), smallEvent("c")
	a2 := plus(a, schemas.Field{Name: "text", Type: text, Optional: true})
	a3 := plus(a2)
	a3.Fields = slices.Insert(a3.Fields, 1, schemas.Field{Name: "flag", Type: schemas.Type{Kind: schemas.Bool}, Optional: true})
	b := plus(smallEvent("b"), schemas.Field{Name: "k", Type: number})
	b2 := plus(smallEvent("b"), schemas.Field{Name: "k", Type: number, Optional: true})
	epochs := []schemas.Cut{
		{Definitions: schemas.Set{Events: []*schemas.Event{a, b}}},
		{Definitions: schemas.Set{Events: []*schemas.Event{a2, c}}, Retiring: schemas.Set{Events: []*schemas.Event{b}}},
		{Definitions: schemas.Set{Events: []*schemas.Event{a2, c}}},
		{Definitions: schemas.Set{Events: []*schemas.Event{a3, b2, c}}},
		{Definitions: schemas.Set{Events: []*schemas.Event{a3, b2, c}}},
	}
	l := &testLog{chunk: 4, letters: map[uint64]int{}}
	active := definedBy(epochs[0])
	for i := range epochs {
		for range perEpoch {
			ev := active[r.IntN(len(active))]
			if r.IntN(8) == 0 {
				l.messages = append(l.messages, testMessage{typ: ev.Name, reject: true})
				continue
			}
			seq := int64(len(l.messages) + 1)
			l.messages = append(l.messages, testMessage{typ: ev.Name, record: randomRecord(r, ev, 1+r.IntN(3), int32(10+r.IntN(2)), seq)})
		}
		cut := epochs[i]
		cut.Number, cut.Position = uint64(i+1), l.position(uint64(len(l.messages)+1))
		if i > 0 {
			cut.Previous = l.cuts[i-1].Position
		}
		l.cuts = append(l.cuts, cut)
		l.messages = append(l.messages, testMessage{cut: &l.cuts[i]})
		active = definedBy(cut)
	}
	for i := range l.messages { // the slice of cuts may have moved
		if c := l.messages[i].cut; c != nil {
			l.messages[i].cut = &l.cuts[c.Number-1]
		}
	}
	return l
}

func (l *testLog) archiver(t testing.TB, root string) *Archiver {
	t.Helper()
	a, err := NewArchiver(ArchiverConfig{Root: root, App: testApp, Source: l.open, DeadLetters: l, MaxRows: 10})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// project is a record with the columns of another definition: null where it lacks one.
func project(rec arrow.Record, ev *schemas.Event) arrow.Record {
	schema := ev.ArrowSchema()
	var columns []arrow.Array
	for _, f := range schema.Fields() {
		if at := rec.Schema().FieldIndices(f.Name); len(at) == 1 {
			columns = append(columns, rec.Column(at[0]))
		} else {
			columns = append(columns, array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, int(rec.NumRows())))
		}
	}
	return array.NewRecord(schema, columns, rec.NumRows())
}

// want is what history must have of a type, up to a position, read by the definition given.
func (l *testLog) want(ev *schemas.Event, upto uint64) []string {
	var lines []string
	for _, m := range l.messages[:upto] {
		if m.typ == ev.Name && !m.reject {
			lines = append(lines, strings.Split(strings.TrimSpace(text(project(m.record, ev))), "\n")...)
		}
	}
	slices.Sort(lines)
	return lines
}

func (l *testLog) check(t *testing.T, root string) {
	t.Helper()
	for _, cut := range l.cuts {
		for _, ev := range definedBy(cut) {
			table, err := Open(t.Context(), root, ev)
			if err != nil {
				t.Fatal(err)
			}
			s, err := table.SnapshotAt(t.Context(), testApp, cut.Position.Seq)
			if err != nil {
				t.Fatalf("cut %d of %s: %v", cut.Number, ev.Name, err)
			}
			var got []string
			for _, f := range s.Files {
				lines := strings.Split(strings.TrimSpace(scanText(t, table, f)), "\n")
				if f.MaxSeq > cut.Position.Seq {
					t.Errorf("file %s straddles cut %d", f.Path, cut.Number)
				}
				got = append(got, lines...)
			}
			slices.Sort(got)
			if want := l.want(ev, cut.Position.Seq); !slices.Equal(got, want) {
				t.Errorf("cut %d of %s: got %d rows; want %d", cut.Number, ev.Name, len(got), len(want))
			}
		}
	}
	l.checkColumns(t, root)
	for i, m := range l.messages {
		if n := l.letters[uint64(i+1)]; m.reject != (n > 0) {
			t.Errorf("message %d: reject %t, %d dead letters", i+1, m.reject, n)
		}
	}
}

// checkColumns holds the tables' columns against those of the last definitions, and that each change
// of them was committed once.
func (l *testLog) checkColumns(t *testing.T, root string) {
	t.Helper()
	for _, last := range definedBy(l.cuts[len(l.cuts)-1]) {
		want, defined := 0, (*schemas.Event)(nil)
		for _, cut := range l.cuts {
			for _, ev := range definedBy(cut) {
				if ev.Name == last.Name && (defined == nil || !sameDefinition(ev, defined)) {
					want, defined = want+1, ev
				}
			}
		}
		columns, changes := tableColumns(t, root, last.Name)
		if len(columns) != len(last.Fields)+len(ownColumns()) || changes != want {
			t.Errorf("%s has columns %v after %d changes; want those of %v after %d", last.Name, columns, changes, last.Fields, want)
		}
	}
}

// tableColumns are the columns in a table's newest schema, and how many commits set one.
func tableColumns(t *testing.T, root, name string) (columns []string, changes int) {
	t.Helper()
	table := readOnly(filepath.Join(root, name))
	if err := table.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	var id string
	for v := range table.state.version + 1 {
		actions, err := table.readCommit(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range actions {
			if a.MetaData == nil {
				continue
			}
			if changes++; id != "" && a.MetaData.ID != id {
				t.Errorf("%s: version %d has another table id", name, v)
			}
			id = a.MetaData.ID
		}
	}
	var s deltaStruct
	if err := json.Unmarshal([]byte(table.state.meta.SchemaString), &s); err != nil {
		t.Fatal(err)
	}
	for _, f := range s.Fields {
		columns = append(columns, f.String())
	}
	return columns, changes
}

func TestArchiverCopiesTheLog(t *testing.T) {
	l, root := script(rand.New(rand.NewPCG(1, 1)), 40), t.TempDir()
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	l.check(t, root)
	for seq, n := range l.letters {
		if n != 1 {
			t.Errorf("message %d went to the dead letters %d times without a crash", seq, n)
		}
	}
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	l.check(t, root)
}

// killed is what a test's hook panics with where the process would die.
type killed struct{ step string }

// runKilled runs an archiver that dies at its n-th step. It returns the step, or none if there were fewer.
func runKilled(t *testing.T, a *Archiver, n int) (step string) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			k, ok := p.(killed)
			if !ok {
				panic(p)
			}
			step = k.step
		}
	}()
	a.step = func(name string) {
		if n--; n == 0 {
			panic(killed{name})
		}
	}
	if err := a.Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	return ""
}

func TestArchiverSurvivesDeathAtEveryStep(t *testing.T) {
	died := map[string]bool{}
	for n := 1; ; n++ {
		l, root := script(rand.New(rand.NewPCG(2, 2)), 5), t.TempDir()
		step := runKilled(t, l.archiver(t, root), n)
		died[step] = true
		if step == "" {
			break
		}
		// The second process dies as well, a little further on.
		runKilled(t, l.archiver(t, root), 1+n%5)
		if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
			t.Fatalf("after death at step %d, %s: %v", n, step, err)
		}
		l.check(t, root)
		if t.Failed() {
			t.Fatalf("after death at step %d, %s", n, step)
		}
	}
	for _, step := range []string{stepRejected, stepBuffered, stepFile, stepFiles, stepCommit, stepCutTypes, stepBegun, stepWidened, stepCut} {
		if !died[step] {
			t.Errorf("no test died at %q", step)
		}
	}
}

func TestArchiverRefusesAnotherLog(t *testing.T) {
	l, root := script(rand.New(rand.NewPCG(3, 3)), 5), t.TempDir()
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	other := &testLog{messages: l.messages, cuts: l.cuts[:1], chunk: 1, letters: map[uint64]int{}}
	cfg := other.archiver(t, root).cfg
	cfg.Source = func(ctx context.Context, after schemas.Position, _ ...string) (Source, schemas.Cut, error) {
		after.Hash++
		return other.open(ctx, after)
	}
	a, err := NewArchiver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || errors.Is(err, errEnd) || errors.Is(err, io.EOF) {
		t.Fatalf("got %v; want the source's refusal", err)
	}
}

// Not in a synctest bubble: the compressors' pools outlive it.
func TestArchiverCommitsByAge(t *testing.T) {
	l, root := script(newRand(4), 20), t.TempDir()
	l.messages = l.messages[:l.cuts[0].Position.Seq+6]
	l.wait = true
	a := l.archiver(t, root)
	a.cfg.MaxRows, a.cfg.MaxAge = 1000, 20*time.Millisecond
	table := mustOpen(t, root, l.cuts[1].Definitions.Events[0])
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	deadline, poll := time.After(time.Minute), time.NewTicker(5*time.Millisecond)
	defer poll.Stop()
	for snapshot(t, table).Txns[testApp] != int64(len(l.messages)) {
		select {
		case <-poll.C:
		case err := <-done:
			t.Fatal(err)
		case <-deadline:
			t.Fatalf("nothing committed: at %d of %d", snapshot(t, table).Txns[testApp], len(l.messages))
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
