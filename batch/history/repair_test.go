package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"watershed/schemas"
)

// archived is a scripted log and the history of it.
func archived(t *testing.T, seed uint64) (*testLog, string) {
	t.Helper()
	l, root := script(newRand(seed), 30), t.TempDir()
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	return l, root
}

func verified(t *testing.T, root string) VerifyReport {
	t.Helper()
	r, err := Verify(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func kinds(problems []Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.Type+" "+string(p.Kind))
	}
	slices.Sort(out)
	return out
}

func repaired(t *testing.T, root string, problems []Problem, source OpenSource, opts RepairOptions) RepairReport {
	t.Helper()
	r, err := Repair(t.Context(), root, testApp, problems, source, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func flipBit(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// trimmedTo is the log as it is read after everything before a cut was trimmed.
func (l *testLog) trimmedTo(cut schemas.Cut) OpenSource {
	return func(ctx context.Context, after schemas.Position, types ...string) (Source, schemas.Cut, error) {
		if after.Seq == 0 {
			return &testSource{log: l, next: cut.Position.Seq - 1, after: &after, types: types}, cut, nil
		}
		if after.Seq < cut.Position.Seq {
			return nil, cut, trimmedError{}
		}
		return l.open(ctx, after, types...)
	}
}

func TestFilesAreRestoredFromTheLog(t *testing.T) {
	l, root := archived(t, 41)
	table := mustOpen(t, root, l.cuts[4].Definitions.Event("a"))
	before := snapshot(t, table)
	flipBit(t, table.onDisk(before.Files[0]))
	if err := os.Remove(table.onDisk(before.Files[len(before.Files)-1])); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(table.onDisk(before.Files[2]), 5); err != nil {
		t.Fatal(err)
	}
	problems := verified(t, root).Problems
	if got, want := kinds(problems), []string{"a bytes", "a bytes", "a missing"}; !slices.Equal(got, want) {
		t.Fatalf("verify found %v; want %v", problems, want)
	}
	dry := repaired(t, root, problems, l.open, RepairOptions{DryRun: true})
	if len(dry.Left()) != 3 || len(verified(t, root).Problems) != 3 {
		t.Errorf("a dry run changed something: %+v", dry)
	}
	if none := repaired(t, root, problems, nil, RepairOptions{}); len(none.Left()) != 3 {
		t.Errorf("without a log: %+v; want nothing done", none)
	}
	r := repaired(t, root, problems, l.open, RepairOptions{})
	if len(r.Left()) != 0 || len(verified(t, root).Problems) != 0 {
		t.Errorf("left: %v", r.Left())
	}
	for _, m := range r.Remedies {
		if !strings.Contains(m.Action, "same bytes") {
			t.Errorf("%s: got %q; want the same bytes: writing the same rows is deterministic", m.Problem, m.Action)
		}
	}
	if got := snapshot(t, mustOpen(t, root, table.Event())); got.Version != before.Version || !slices.Equal(got.Files, before.Files) {
		t.Errorf("got version %d; want %d, unchanged", got.Version, before.Version)
	}
	l.check(t, root)
}

// A file whose bytes cannot be made again, as an older release wrote it, is replaced by a commit.
func TestRestoredFileOfOtherBytesIsCommitted(t *testing.T) {
	l, root := archived(t, 42)
	table := mustOpen(t, root, l.cuts[4].Definitions.Event("a"))
	f := snapshot(t, table).Files[0]
	if err := os.Remove(table.onDisk(f)); err != nil {
		t.Fatal(err)
	}
	problems := verified(t, root).Problems
	problems[0].file.SHA256 = strings.Repeat("0", 64)
	if r := repaired(t, root, problems, l.open, RepairOptions{}); len(r.Left()) != 0 {
		t.Fatalf("left: %v", r.Left())
	}
	if got := verified(t, root).Problems; len(got) != 0 {
		t.Errorf("problems: %v", got)
	}
	for _, g := range snapshot(t, table).Files {
		if g.Path == f.Path {
			t.Errorf("%s is live still", f.Path)
		}
	}
	if r, err := VerifyLog(t.Context(), root, testApp, l.open); err != nil || len(r.Problems) != 0 {
		t.Errorf("against the log: %v, %v", r.Problems, err)
	}
}

func TestLostFilesAreCounted(t *testing.T) {
	l, root := archived(t, 43)
	table := mustOpen(t, root, l.cuts[4].Definitions.Event("a"))
	f := slices.MinFunc(snapshot(t, table).Files, func(a, b File) int { return cmp.Compare(a.MaxSeq, b.MaxSeq) }) // before cut 1
	flipBit(t, table.onDisk(f))
	problems := verified(t, root).Problems
	source := l.trimmedTo(l.cuts[2])
	if r := repaired(t, root, problems, source, RepairOptions{}); len(r.Left()) != 1 || len(verified(t, root).Problems) != 1 {
		t.Errorf("got %+v; want nothing done", r)
	}
	r := repaired(t, root, problems, source, RepairOptions{AcceptLoss: true})
	if len(r.Left()) != 0 || r.Remedies[0].Lost[f.Date] != f.Rows {
		t.Errorf("got %+v; want %d events lost on %s", r, f.Rows, formatDate(f.Date))
	}
	got := verified(t, root)
	if len(got.Problems) != 0 {
		t.Errorf("problems: %v", got.Problems)
	}
	want := []Loss{{Type: "a", Events: f.Rows, Date: formatDate(f.Date)}}
	if !slices.Equal(got.GivenUp, want) {
		t.Errorf("given up: %v; want %v", got.GivenUp, want)
	}
	// A second loss of the date is added to the first.
	for _, g := range snapshot(t, table).Files {
		if g.Date == f.Date {
			flipBit(t, table.onDisk(g))
			want[0].Events += g.Rows
		}
	}
	if want[0].Events == f.Rows {
		t.Fatalf("one file on %s; want several", want[0].Date)
	}
	repaired(t, root, verified(t, root).Problems, nil, RepairOptions{AcceptLoss: true})
	if got := verified(t, root).GivenUp; !slices.Equal(got, want) {
		t.Errorf("given up: %v; want %v", got, want)
	}
}

func TestImportsAreRepeatedAfterARepair(t *testing.T) {
	root := t.TempDir()
	table := mustOpen(t, root, smallEvent("a"))
	path := filepath.Join(t.TempDir(), "source.ndjson")
	var text []byte
	for i := range 60 {
		text = fmt.Appendf(text, "{\"id\":\"e%d\",\"time\":\"2001-01-%02dT00:00:00Z\"}\n", i, 1+i%3)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	mustImport(t, table, ImportConfig{Path: path})
	before := snapshot(t, table)
	flipBit(t, table.onDisk(before.Files[1]))
	problems := verified(t, root).Problems
	r := repaired(t, root, problems, nil, RepairOptions{})
	if left := r.Left(); len(left) != 1 || left[0].Import == "" || !slices.Equal(snapshot(t, table).Files, before.Files) {
		t.Errorf("got %+v; want nothing done, and the source named", r)
	}
	r = repaired(t, root, problems, nil, RepairOptions{AcceptLoss: true})
	lost := int64(0)
	for _, n := range r.Remedies[0].Lost {
		lost += n
	}
	if len(r.Left()) != 0 || lost != before.Rows() || len(snapshot(t, table).Files) != 0 {
		t.Errorf("got %+v; want all files of the import removed", r)
	}
	// Whoever looks later, after the repair was killed or its output lost, finds what is to be made again.
	want := []Loss{{Type: "a", Events: before.Rows(), Import: r.Remedies[0].Import}}
	if got := verified(t, root).GivenUp; !slices.Equal(got, want) {
		t.Errorf("given up: %v; want %v", got, want)
	}
	if again := mustImport(t, table, ImportConfig{Path: path}); again.Already || again.Rows != before.Rows() || again.Source != r.Remedies[0].Import {
		t.Errorf("the import made again: %+v", again)
	}
	if again := mustImport(t, table, ImportConfig{Path: path}); !again.Already {
		t.Errorf("the import made a third time: %+v; want nothing done", again)
	}
	if got := verified(t, root); len(got.Problems)+len(got.GivenUp) != 0 {
		t.Errorf("problems: %v, given up: %v; want none", got.Problems, got.GivenUp)
	}
}

func TestTornLastCommitIsMadeAgain(t *testing.T) {
	l, root := archived(t, 44)
	table := mustOpen(t, root, l.cuts[4].Definitions.Event("a"))
	version := snapshot(t, table).Version
	last := table.commitPath(version)
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(last, whole[:len(whole)-9], 0o600); err != nil {
		t.Fatal(err)
	}
	problems := verified(t, root).Problems
	if got, want := kinds(problems), []string{"a log"}; !slices.Equal(got, want) || problems[0].Path != last {
		t.Fatalf("verify found %v; want %s", problems, last)
	}
	if r := repaired(t, root, problems, l.trimmedTo(l.cuts[4]), RepairOptions{}); len(r.Left()) != 1 {
		t.Errorf("the log does not have it any more: got %+v; want nothing done", r)
	}
	if r := repaired(t, root, problems, l.open, RepairOptions{}); len(r.Left()) != 0 {
		t.Fatalf("left: %v", r.Left())
	}
	// A process that has read the commit while it was whole must not commit behind the hole.
	var conflict *conflictError
	if _, err := table.commit(t.Context(), &change{operation: "STREAMING UPDATE"}); !errors.As(err, &conflict) {
		t.Errorf("a commit behind version %d, which is gone: %v; want a conflict", version, err)
	}
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	if r := verified(t, root); len(r.Problems) != 0 {
		t.Errorf("problems: %v", r.Problems)
	}
	l.check(t, root)
}

func TestDamagedCommits(t *testing.T) {
	root := t.TempDir()
	table := filled(t, root, newRand(45), 130)
	for _, v := range []int64{50, 120} {
		if err := os.WriteFile(table.commitPath(v), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		problems := slices.DeleteFunc(verified(t, root).Problems, func(p Problem) bool { return p.version != v })
		if len(problems) != 1 || problems[0].Path != table.commitPath(v) {
			t.Fatalf("commit %d: verify found %v", v, problems)
		}
		r := repaired(t, root, problems, nil, RepairOptions{})
		if got := strings.Contains(r.Remedies[0].Action, "no harm"); got != (v == 50) {
			t.Errorf("commit %d: %s", v, r.Remedies[0].Action)
		}
	}
}

func TestVerifyLogFindsWhatDiffers(t *testing.T) {
	l, root := archived(t, 46)
	check := func(what string, source OpenSource, want ...string) LogReport {
		t.Helper()
		r, err := VerifyLog(t.Context(), root, testApp, source)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := kinds(r.Problems); !slices.Equal(got, want) {
			t.Errorf("%s: got %v; want %v", what, r.Problems, want)
		}
		return r
	}
	events := 0
	for _, ev := range definedBy(l.cuts[4]) {
		events += len(l.want(ev, uint64(len(l.messages))))
	}
	if r := check("as it was archived", l.open); r.From != 1 || r.To != uint64(len(l.messages)) || r.Events != int64(events) {
		t.Errorf("compared %+v; want %d events", r, events)
	}
	if r := check("trimmed", l.trimmedTo(l.cuts[2])); r.From != l.cuts[2].Position.Seq+1 {
		t.Errorf("compared from %d; want the first message behind the cut at %d", r.From, l.cuts[2].Position.Seq)
	}

	ev := l.cuts[4].Definitions.Event("a")
	table := mustOpen(t, root, ev)
	txns := func() int64 { return snapshot(t, table).Txns[testApp] }
	first := slices.MinFunc(snapshot(t, table).Files, func(a, b File) int { return cmp.Compare(a.MaxSeq, b.MaxSeq) })
	if _, err := table.commit(t.Context(), &change{operation: "TEST", removes: []*remove{table.removal(first)}}); err != nil {
		t.Fatal(err)
	}
	r := check("a file was removed", l.open, "a event missing")
	if len(r.Problems) == 1 && r.Problems[0].Rows != first.Rows {
		t.Errorf("%d events are missing; want %d", r.Problems[0].Rows, first.Rows)
	}
	seq := int64(0) // of an event of a
	for i, m := range l.messages {
		if m.typ == "a" && !m.reject {
			seq = int64(i + 1)
		}
	}
	addFile(t, table, randomRecord(newRand(99), ev, 1, 10, seq), 10, testApp, txns()) // row 0 again
	addFile(t, table, randomRecord(newRand(98), ev, 1, 10, l.cutSeq(2)), 10, testApp, txns())
	check("and others added", l.open, "a event differs", "a event missing", "a event twice", "a event unknown")
}

func (l *testLog) cutSeq(n int) int64 { return int64(l.cuts[n-1].Position.Seq) }
