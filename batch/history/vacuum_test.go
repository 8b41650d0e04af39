package history

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// later is a clock that far ahead of the files on disk.
func later(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

const month = 30 * 24 * time.Hour

// filled is a table of n commits, one row each.
func filled(t testing.TB, root string, r *rand.Rand, n int) *Table {
	t.Helper()
	table := mustOpen(t, root, smallEvent("a"))
	for i := range n {
		addFile(t, table, randomRecord(r, table.Event(), 1, 1, int64(i+1)), 1, testApp, int64(i+1))
	}
	return table
}

// replaceFile replaces a file by another of the same rows, as a compaction does.
func replaceFile(t testing.TB, table *Table, f File) {
	t.Helper()
	w, err := table.newFile(f.Date)
	if err != nil {
		t.Fatal(err)
	}
	defer w.abort()
	if err := w.write(randomRecord(newRand(1), table.Event(), int(f.Rows), f.Date, int64(f.MinSeq)), nil); err != nil {
		t.Fatal(err)
	}
	a, err := w.close(false, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.commit(t.Context(), &change{operation: "OPTIMIZE", adds: []*add{a}, removes: []*remove{table.removal(f)}}); err != nil {
		t.Fatal(err)
	}
}

func TestVacuumKeepsWhatIsNeeded(t *testing.T) {
	c, root := readableRoot(t)
	const commits, kept = 320, 230
	table := filled(t, root, newRand(31), commits)
	keptVersion, err := table.SnapshotAt(t.Context(), testApp, kept)
	if err != nil {
		t.Fatal(err)
	}
	inKept, files := keptVersion.Files[7], snapshot(t, table).Files
	after := files[slices.IndexFunc(files, func(f File) bool { return f.MinSeq > kept })]
	replaceFile(t, table, inKept)
	replaceFile(t, table, after)
	w, err := table.newFile(1) // of a writer that died
	if err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(table.Dir(), "_date=1970-01-02", "stray.parquet")
	foreign := filepath.Join(table.Dir(), "_date=1970-01-02", "notes.txt")
	for _, name := range []string{stray, foreign} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer w.abort()
	lines := theirLines(t, c, table, "1")
	opts := VacuumOptions{App: testApp, Keep: []uint64{kept, 9_999}}

	if r, err := Vacuum(t.Context(), root, opts); err != nil || len(r.Paths) != 0 {
		t.Errorf("all is young: got %+v, %v; want nothing removed", r, err)
	}
	opts.Now, opts.DryRun = later(month), true
	dry, err := Vacuum(t.Context(), root, opts)
	if err != nil {
		t.Fatal(err)
	}
	opts.DryRun = false
	r, err := Vacuum(t.Context(), root, opts)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(dry.Paths, r.Paths) || dry.Bytes != r.Bytes {
		t.Errorf("a dry run reports %v; then %v were removed", dry.Paths, r.Paths)
	}
	// The newest checkpoint at or before the kept version is 200; commits 0 to 199 and checkpoint 100 go.
	if r.Files != 2 || r.Temps != 1 || r.Commits != 200 || r.Checkpoints != 1 {
		t.Errorf("got %d files, %d temporary ones, %d commits, %d checkpoints; want 2, 1, 200, 1", r.Files, r.Temps, r.Commits, r.Checkpoints)
	}
	for path, want := range map[string]bool{
		stray: false, foreign: true,
		filepath.Join(table.Dir(), inKept.Path): true, filepath.Join(table.Dir(), after.Path): false,
	} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) == want {
			t.Errorf("%s: there is %t; want %t", path, !want, want)
		}
	}
	for what, table := range map[string]*Table{"open before": table, "opened after": mustOpen(t, root, table.Event())} {
		got, err := table.SnapshotAt(t.Context(), testApp, kept)
		if err != nil || !slices.Equal(got.Files, keptVersion.Files) {
			t.Errorf("%s: the kept version: %v", what, err)
		}
		if _, err := table.SnapshotAt(t.Context(), testApp, 150); what == "opened after" && !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("%s: a version that was not kept: got %v; want ErrNoSnapshot", what, err)
		}
		if got := len(snapshot(t, table).Files); got != commits {
			t.Errorf("%s: got %d files; want %d", what, got, commits)
		}
	}
	if got := theirLines(t, c, table, "1"); !slices.Equal(got, lines) {
		t.Errorf("ClickHouse reads %d rows after the vacuum; %d before", len(got), len(lines))
	}
	if r, err := Verify(t.Context(), root); err != nil || len(r.Problems) != 0 {
		t.Errorf("verify: %v, %v", r.Problems, err)
	}
	addFile(t, mustOpen(t, root, table.Event()), randomRecord(newRand(2), table.Event(), 1, 1, commits+1), 1, testApp, commits+1)
}

// A file that was removed lately stays, however old it is: a reader of the version before may need it.
func TestVacuumKeepsWhatWasRemovedLately(t *testing.T) {
	root := t.TempDir()
	table := filled(t, root, newRand(32), 3)
	f := snapshot(t, table).Files[0]
	table.now = later(month)
	replaceFile(t, table, f)
	r, err := Vacuum(t.Context(), root, VacuumOptions{App: testApp, Now: later(month + time.Hour)})
	if err != nil || r.Files != 0 {
		t.Errorf("got %+v, %v; want nothing removed", r, err)
	}
	if r, err = Vacuum(t.Context(), root, VacuumOptions{App: testApp, Now: later(2 * month)}); err != nil || r.Files != 1 {
		t.Errorf("later: got %+v, %v; want one file removed", r, err)
	}
	if _, err := Vacuum(t.Context(), root, VacuumOptions{Retention: 2 * month}); err == nil {
		t.Error("a retention that the tombstones do not reach: got nil; want an error")
	}
}

// A log whose checkpoints are damaged is not taken for an empty table, nor one with a hole for its end.
func TestHolesInTheLogAreCorrupt(t *testing.T) {
	root := t.TempDir()
	table := filled(t, root, newRand(33), 210)
	if _, err := Vacuum(t.Context(), root, VacuumOptions{App: testApp, Now: later(month)}); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		_, err := Open(t.Context(), root, table.Event())
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "missing") {
			t.Errorf("%s: got %v; want a CorruptError that names the missing commit", what, err)
		}
	}
	if err := os.Remove(table.commitPath(205)); err != nil {
		t.Fatal(err)
	}
	check("a commit is missing")
	for _, v := range []int64{100, 200} {
		if err := os.WriteFile(table.checkpointPath(v), []byte("PAR1 no PAR1"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check("both checkpoints are damaged")
}
