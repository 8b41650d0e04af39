package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"watershed/schemas"
)

// damage puts a commit that nobody can read behind the newest of a table.
func damage(t testing.TB, root, name string) (heal func()) {
	t.Helper()
	table := readOnly(filepath.Join(root, name))
	if err := table.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := table.commitPath(table.state.version + 1)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

// eventually polls until ok, or fails the test after a minute.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline, poll := time.After(time.Minute), time.NewTicker(2*time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

var quickPauses = pauses{time.Millisecond, 10 * time.Millisecond}

func TestOneFailingTypeDoesNotHoldTheOthers(t *testing.T) {
	l, root := script(newRand(5), 30), t.TempDir()
	whole := l.messages
	l.messages = whole[:l.cuts[0].Position.Seq] // all types are there after cut 1
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	l.messages, l.wait = whole, true
	heal := damage(t, root, "b")
	a := l.archiver(t, root)
	a.pause = quickPauses
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()

	last := l.cuts[len(l.cuts)-1]
	eventually(t, "the others reach the last cut", func() bool {
		p := a.Positions()
		return p["a"] == last.Position && p["c"] == last.Position
	})
	if got, ok := a.Positions()["b"]; !ok || got.Seq > l.cuts[0].Position.Seq {
		t.Errorf("the failing type stands at %v (%t); want it at or before cut 1, so that the log is kept", got, ok)
	}
	var corrupt *CorruptError
	if err := a.Failing()["b"]; !errors.As(err, &corrupt) || len(a.Failing()) != 1 {
		t.Errorf("failing: got %v; want b with a CorruptError", a.Failing())
	}
	if _, err := mustOpen(t, root, last.Definitions.Event("a")).SnapshotAt(t.Context(), testApp, last.Position.Seq); err != nil {
		t.Errorf("the last cut of a: %v", err)
	}
	heal()
	eventually(t, "b is back", func() bool { return len(a.Failing()) == 0 })
	if got := a.Positions()["b"]; got != last.Position {
		t.Errorf("b is back at %v; want %v", got, last.Position)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	l.check(t, root)
}

// Wherever the process dies after a type was set aside, while it is brought back or just level, nothing
// is lost and nothing is there twice.
func TestArchiverSurvivesDeathWhileATypeFails(t *testing.T) {
	died := map[string]bool{}
	for n := 0; n < 60; n += 1 + n/5 { // 0: when the type is level
		l, root := script(newRand(6), 6), t.TempDir()
		l.wait = true
		a := l.archiver(t, root)
		a.pause = quickPauses
		var mu sync.Mutex // guards what follows: lanes take steps as well
		steps, after, heal, where := 0, 0, func() {}, ""
		a.step = func(name string) {
			mu.Lock()
			defer mu.Unlock()
			switch steps++; {
			case steps == 15:
				heal = damage(t, root, "b")
			case name == stepAside:
				heal()
			}
			if name == stepAside || after > 0 {
				after++
			}
			if where == "" && (n == 0 && name == stepLevel || n > 0 && after == n) {
				where = name
				panic(killed{name})
			}
		}
		runUntil(t, a, l, func() bool { return len(a.Failing()) == 0 })
		if where == "" {
			t.Fatalf("there was no step %d after a type was set aside", n)
		}
		died[where] = true
		heal()
		again := l.archiver(t, root)
		runUntil(t, again, l, func() bool { return true })
		l.check(t, root)
		if t.Failed() {
			t.Fatalf("after death %d steps after a type was set aside, %s", n, where)
		}
	}
	for _, step := range []string{stepAside, stepLevel} {
		if !died[step] {
			t.Errorf("no test died at %q", step)
		}
	}
}

// runUntil runs an archiver until it dies by its hook, or all types stand at the log's end and ok.
func runUntil(t *testing.T, a *Archiver, l *testLog, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(killed); !ok {
					panic(p)
				}
				ended <- context.Canceled
			}
		}()
		ended <- a.Run(ctx)
	}()
	end := l.position(uint64(len(l.messages)))
	level := func() bool {
		p := a.Positions()
		for _, ev := range definedBy(l.cuts[len(l.cuts)-1]) {
			if p[ev.Name] != end {
				return false
			}
		}
		return ok()
	}
	eventually(t, "all types at the end of the log", func() bool {
		if level() {
			cancel()
		}
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			return true
		default:
			return false
		}
	})
}

// trimmedError is what the log says of a position that it does not have any more.
type trimmedError struct{}

func (trimmedError) Error() string { return "it begins further on" }
func (trimmedError) Trimmed() bool { return true }

func TestTrimmedPositions(t *testing.T) {
	l, root := script(newRand(7), 20), t.TempDir()
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	open := func(ctx context.Context, after schemas.Position, types ...string) (Source, schemas.Cut, error) {
		return nil, schemas.Cut{}, fmt.Errorf("read log: %w", trimmedError{})
	}
	a := l.archiver(t, root)
	a.cfg.Source = open
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "watershed repair") || !isTrimmed(err) {
		t.Errorf("got %v; want an error that names watershed repair", err)
	}

	// An empty directory beside a log whose beginning is trimmed has lost everything.
	trimmed := &testLog{messages: l.messages, cuts: l.cuts[2:], chunk: 4, letters: map[uint64]int{}}
	if err := trimmed.archiver(t, t.TempDir()).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "watershed repair") {
		t.Errorf("empty directory: got %v; want an error that names watershed repair", err)
	}
}

// A table that was restored from an older copy than the log reaches back to is set aside, and the others
// go on.
func TestOneTrimmedTypeDoesNotHoldTheOthers(t *testing.T) {
	l, root := script(newRand(8), 20), t.TempDir()
	whole := l.messages
	l.messages = whole[:l.cuts[0].Position.Seq]
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(root, "b"))); err != nil {
		t.Fatal(err)
	}
	l.messages = whole
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(root, "b"), os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	l.wait = true
	a := l.archiver(t, root)
	a.pause = quickPauses
	open := a.cfg.Source
	a.cfg.Source = func(ctx context.Context, after schemas.Position, types ...string) (Source, schemas.Cut, error) {
		if after.Seq <= l.cuts[0].Position.Seq {
			return nil, schemas.Cut{}, trimmedError{}
		}
		return open(ctx, after, types...)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	last := l.cuts[len(l.cuts)-1].Position
	eventually(t, "the others go on", func() bool { return a.Positions()["a"] == last })
	if err := a.Failing()["b"]; err == nil || !strings.Contains(err.Error(), "watershed repair") {
		t.Errorf("failing: got %v; want an error of b that names watershed repair", err)
	}
	cancel()
	<-done
}

// A table that is lost wholly is not begun again as if its type were new, not even where all others stand
// exactly at a cut; one that is new in that cut begins there still.
func TestALostTableIsNotBegunAgain(t *testing.T) {
	for n := range 5 {
		l, root := script(newRand(9), 10), t.TempDir()
		cut := l.cuts[n]
		l.messages = l.messages[:cut.Position.Seq]
		a := l.archiver(t, root)
		if n == 1 { // it dies when all old types are at the cut, and none of the new ones has begun
			a.step = func(name string) {
				if name == stepCutTypes && a.at.Seq > l.cuts[0].Position.Seq {
					panic(killed{name})
				}
			}
		}
		func() {
			defer func() { recover() }()
			if err := a.Run(t.Context()); !errors.Is(err, errEnd) {
				t.Fatal(err)
			}
		}()
		if err := os.RemoveAll(filepath.Join(root, "a")); err != nil {
			t.Fatal(err)
		}
		a = l.archiver(t, root)
		if err := a.Run(t.Context()); !errors.Is(err, errEnd) {
			t.Fatal(err)
		}
		err := a.Failing()["a"]
		if err == nil || !strings.Contains(err.Error(), filepath.Join(root, "a")) || !strings.Contains(err.Error(), "watershed repair") {
			t.Errorf("at cut %d: %v; want an error that names the directory and watershed repair", n+1, err)
		}
		for _, ev := range definedBy(cut) {
			if there, err := Exists(root, ev.Name); err != nil || there != (ev.Name != "a") || ev.Name != "a" && a.Positions()[ev.Name] != cut.Position {
				t.Errorf("at cut %d: %s is there: %t, %v, at %v; want all but a, at the cut", n+1, ev.Name, there, err, a.Positions()[ev.Name])
			}
		}
		// A repair finds it, and begun again with the whole log it has everything.
		lost, err := LostTables(t.Context(), root, testApp, cut.Position, l.open)
		if err != nil || len(lost) != 1 || lost[0].Name != "a" {
			t.Fatalf("at cut %d: lost are %v, %v; want a", n+1, lost, err)
		}
		if err := BeginLost(t.Context(), root, testApp, l.cuts[0].Definitions.Event("a"), schemas.Position{}); err != nil {
			t.Fatal(err)
		}
		if lost, err := LostTables(t.Context(), root, testApp, cut.Position, l.open); err != nil || len(lost) != 0 {
			t.Errorf("at cut %d: lost are %v, %v; want none", n+1, lost, err)
		}
		if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
			t.Fatal(err)
		}
		got, err := VerifyLog(t.Context(), root, testApp, l.open)
		if err != nil || len(got.Problems) > 0 {
			t.Errorf("at cut %d, begun again: %v, %v", n+1, got.Problems, err)
		}
	}
}

// A log that was begun anew behind what was archived: every type commits at its first cut, wherever it
// stood, those that are not defined any more end there, and new ones begin.
func TestLogBegunAnew(t *testing.T) {
	for n := 1; ; n++ {
		l, root := script(newRand(9), 5), t.TempDir()
		whole, cuts := l.messages, l.cuts
		// The process died when the types stood at different positions, none at the end of the log.
		runKilled(t, l.archiver(t, root), 8+n%23)
		anew := begunAnew(l, 100)
		step := runKilled(t, anew.archiver(t, root), n)
		if err := anew.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
			t.Fatalf("after death at step %d, %s: %v", n, step, err)
		}
		cut := anew.cuts[0]
		for _, ev := range definedBy(cut) {
			s, err := mustOpen(t, root, ev).SnapshotAt(t.Context(), testApp, cut.Position.Seq)
			if err != nil {
				t.Fatalf("after death at step %d, %s: the first cut of %s: %v", n, step, ev.Name, err)
			}
			for _, f := range s.Files {
				if f.MaxSeq > uint64(len(whole)) {
					t.Errorf("%s has events of the new log before its first cut", ev.Name)
				}
			}
		}
		for _, typ := range []string{"a", "b", "c"} {
			p, ended, err := anew.archiver(t, root).recorded(t.Context(), typ)
			if errors.Is(err, fs.ErrNotExist) && typ == "c" {
				continue // never begun
			}
			defined := cut.Definitions.Event(typ) != nil
			if err != nil || ended == defined || defined && p.Seq < cut.Position.Seq {
				t.Errorf("after death at step %d, %s: %s stands at %d, ended %t, %v; the new log defines it: %t", n, step, typ, p.Seq, ended, err, defined)
			}
		}
		if got, want := countBehind(t, root, anew), len(anew.want(cut.Definitions.Event("a"), uint64(len(anew.messages)))); got != want {
			t.Errorf("after death at step %d, %s: %d events of a behind the first cut; want %d", n, step, got, want)
		}
		if t.Failed() || step == "" {
			return
		}
		l.cuts = cuts
	}
}

// begunAnew is a log whose first message is a cut behind anew that defines a alone, then 20 events of it.
func begunAnew(l *testLog, anew uint64) *testLog {
	old := l.cuts[len(l.cuts)-1]
	out := &testLog{chunk: 4, letters: map[uint64]int{}, offset: anew}
	ev := old.Definitions.Event("a")
	out.cuts = []schemas.Cut{{Number: old.Number + 7, Anew: anew, Definitions: schemas.Set{Events: []*schemas.Event{ev}}, Position: out.position(anew + 1)}}
	out.messages = append(out.messages, testMessage{cut: &out.cuts[0]})
	r := newRand(10)
	for i := range 20 {
		out.messages = append(out.messages, testMessage{typ: "a", record: randomRecord(r, ev, 2, 10, int64(anew)+int64(i)+2)})
	}
	last := out.cuts[0]
	last.Number, last.Anew, last.Position = last.Number+1, 0, out.position(anew+uint64(len(out.messages))+1)
	out.cuts = append(out.cuts, last)
	out.messages = append(out.messages, testMessage{cut: &last})
	out.messages[0].cut = &out.cuts[0]
	return out
}

// countBehind counts the events of a that history has of a log begun anew.
func countBehind(t *testing.T, root string, l *testLog) int {
	t.Helper()
	n := 0
	for _, f := range snapshot(t, mustOpen(t, root, l.cuts[0].Definitions.Event("a"))).Files {
		if f.MinSeq > l.offset {
			n += int(f.Rows)
		}
	}
	return n
}
