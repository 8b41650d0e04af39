package history

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// repeatedLog is a scripted log in which most events come several times, and the compacted history of it.
func repeatedLog(t *testing.T, seed uint64) (l *testLog, root string, dropped int64) {
	t.Helper()
	l, root = repeatedScript(seed), t.TempDir()
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	for _, d := range compacted(t, root, CompactOptions{}).Dates {
		dropped += d.Duplicates
	}
	return l, root, dropped
}

func repeatedScript(seed uint64) *testLog {
	r := newRand(seed)
	l := script(r, 60)
	for i, m := range l.messages {
		if m.record == nil {
			continue
		}
		ids := array.NewStringBuilder(memory.DefaultAllocator)
		for range m.record.NumRows() {
			ids.Append(fmt.Sprintf("id-%d", r.IntN(40)))
		}
		columns := slices.Clone(m.record.Columns())
		columns[m.record.Schema().FieldIndices("id")[0]] = ids.NewArray()
		l.messages[i].record = array.NewRecord(m.record.Schema(), columns, m.record.NumRows())
	}
	return l
}

// The log is held against history that has been compacted: duplicates may be missing, and nothing else.
func TestVerifyLogKnowsCompactedDuplicates(t *testing.T) {
	l, root, dropped := repeatedLog(t, 71)
	r, err := VerifyLog(t.Context(), root, testApp, l.open)
	if err != nil || len(r.Problems) > 0 || r.LeftOut != dropped || dropped == 0 {
		t.Fatalf("got %+v, %v; want no problems, and %d left out", r, err, dropped)
	}
	// Without the file that has the first ones, the others are missing.
	table := mustOpen(t, root, l.cuts[4].Definitions.Event("a"))
	if _, err := table.commit(t.Context(), &change{operation: "TEST", removes: []*remove{table.removal(snapshot(t, table).Files[0])}}); err != nil {
		t.Fatal(err)
	}
	r, err = VerifyLog(t.Context(), root, testApp, l.open)
	if err != nil || !slices.Equal(kinds(r.Problems), []string{"a event missing"}) || r.LeftOut >= dropped {
		t.Errorf("got %+v, %v; want the events of a missing", r, err)
	}
}

// Damaged compacted files are written again from the log, without the duplicates that it has, and as long
// as it has all of their events.
func TestCompactedFilesAreRestoredFromTheLog(t *testing.T) {
	l, root, dropped := repeatedLog(t, 72)
	table := mustOpen(t, root, l.cuts[4].Definitions.Event("a"))
	before := snapshot(t, table)
	texts := map[int32]string{}
	for _, f := range before.Files {
		texts[f.Date] = scanText(t, table, f)
		flipBit(t, table.onDisk(f))
	}
	problems := verified(t, root).Problems
	if len(problems) != len(before.Files) {
		t.Fatalf("got %v; want %d damaged files", problems, len(before.Files))
	}
	for what, source := range map[string]OpenSource{"trimmed": l.trimmedTo(l.cuts[2]), "no log": nil} {
		r := repaired(t, root, problems, source, RepairOptions{})
		if len(r.Left()) != len(problems) {
			t.Errorf("%s: got %+v; want nothing done", what, r.Remedies)
		}
	}
	if r := repaired(t, root, problems, l.open, RepairOptions{DryRun: true}); len(r.Left()) != len(problems) || len(verified(t, root).Problems) == 0 {
		t.Errorf("a dry run: got %+v", r.Remedies)
	}
	if r := repaired(t, root, problems, l.open, RepairOptions{}); len(r.Left()) != 0 {
		t.Fatalf("got %+v; want all done", r.Remedies)
	}
	after := snapshot(t, table)
	if left := verified(t, root).Problems; len(left) > 0 || len(after.Files) != len(before.Files) {
		t.Errorf("got %d files, and problems %v", len(after.Files), left)
	}
	for i, f := range after.Files {
		old := before.Files[i]
		if got := scanText(t, table, f); got != texts[f.Date] {
			t.Errorf("%s has other rows than before", f.Path)
		}
		if Content([]File{f}) != Content([]File{old}) || f.Distinct != old.Distinct || f.Duplicates != old.Duplicates || f.AsOf != old.AsOf {
			t.Errorf("got %+v; want the tags of %+v", f, old)
		}
	}
	if r, err := VerifyLog(t.Context(), root, testApp, l.open); err != nil || len(r.Problems) > 0 || r.LeftOut != dropped {
		t.Errorf("the log against history: %+v, %v; want %d left out", r, err, dropped)
	}
}

// A date that makes several files: the contents of all are that of the date, and no part has it.
func TestCompactIntoSeveralFiles(t *testing.T) {
	root, ev := t.TempDir(), smallEvent("a")
	table := mustOpen(t, root, ev)
	r := newRand(73)
	for seq := int64(1); seq <= 2; seq++ {
		addFile(t, table, randomRecord(r, ev, rowGroupRows/2+100, 5, seq), 5, testApp, seq)
	}
	before := snapshot(t, table)
	compacted(t, root, CompactOptions{FileBytes: 1, Memory: 16 << 20})
	after := snapshot(t, table)
	if len(after.Files) != 2 || Content(after.Files) != Content(before.Files) || after.Rows() != before.Rows() {
		t.Fatalf("got %+v; want two files of the same content", after.Files)
	}
	for i, f := range after.Files {
		if f.Distinct != after.Files[0].Distinct || Content(after.Files[i:i+1]) == Content(before.Files) {
			t.Errorf("file %d: %+v; want one id, and a content of its own", i, f)
		}
	}
	checkSorted(t, table, after)
}

// importOf writes events with ids that the log has, and some of its own, at the times of a table's rows,
// each twice, as a source to import.
func importOf(t *testing.T, table *Table) string {
	t.Helper()
	var text []byte
	n := 0
	for _, f := range snapshot(t, table).Files {
		err := table.Scan(t.Context(), f, []string{"id", "time"}, func(rec arrow.Record) error {
			for i, at := range rec.Column(1).(*array.Timestamp).TimestampValues() {
				if n++; n%3 == 0 {
					id := fmt.Sprintf("id-%d", (i*7)%60)
					for range 2 {
						text = fmt.Appendf(text, "{\"id\":%q,\"time\":%q}\n", id, time.UnixMicro(int64(at)).UTC().Format(time.RFC3339Nano))
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "source.ndjson")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// An import whose events the log has too is compacted with them, given up, and made again: at no time is
// an event of the log missing, and without the import history is what it would be had it never been made.
func TestImportGivenUpTakesNothingElse(t *testing.T) {
	c, root := readableRoot(t)
	l := repeatedScript(74)
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	table := mustOpen(t, root, l.cuts[4].Definitions.Event("a"))
	alone, contentsAlone := distinctLines(t, c, table), contents(snapshot(t, table))
	path := importOf(t, table)
	mustImport(t, table, ImportConfig{Path: path})
	both, contentsBoth := distinctLines(t, c, table), contents(snapshot(t, table))
	if len(both) <= len(alone) || len(both) >= len(alone)+int(snapshot(t, table).Rows()) {
		t.Fatalf("%d events with the import, %d without; want some of its own, and some of the log's", len(both), len(alone))
	}
	leftOut := int64(0)
	check := func(what string, want []string, names map[int32]string) {
		t.Helper()
		if got := distinctLines(t, c, table); !slices.Equal(got, want) {
			t.Errorf("%s: %d events count; want %d", what, len(got), len(want))
		}
		if got := contents(snapshot(t, table)); !maps.Equal(got, names) {
			t.Errorf("%s: contents by date %v; want %v", what, got, names)
		}
		if v := verified(t, root); len(v.Problems) > 0 {
			t.Errorf("%s: %v", what, v.Problems)
		}
		r, err := VerifyLog(t.Context(), root, testApp, l.open)
		if err != nil || len(r.Problems) > 0 || r.LeftOut == 0 || leftOut > 0 && r.LeftOut != leftOut {
			t.Errorf("%s: the log against history: %+v, %v; want no problems, and %d left out", what, r, err, leftOut)
		}
		leftOut = r.LeftOut
	}
	compacted(t, root, CompactOptions{MinFiles: 1})
	check("compacted", both, contentsBoth)
	for _, f := range snapshot(t, table).Files {
		if f.Import {
			flipBit(t, table.onDisk(f))
		}
	}
	if r := repaired(t, root, verified(t, root).Problems, l.open, RepairOptions{AcceptLoss: true}); len(r.Left()) > 0 {
		t.Fatalf("got %+v; want the import given up", r.Remedies)
	}
	check("given up", alone, contentsAlone)
	if again := mustImport(t, table, ImportConfig{Path: path}); again.Already {
		t.Fatalf("the import made again: %+v", again)
	}
	check("made again", both, contentsBoth)
	// A compacted file of the log is written again although the import has events before its own.
	for _, f := range snapshot(t, table).Files {
		if !f.Import {
			flipBit(t, table.onDisk(f))
		}
	}
	if r := repaired(t, root, verified(t, root).Problems, l.open, RepairOptions{}); len(r.Left()) > 0 {
		t.Fatalf("got %+v; want all done", r.Remedies)
	}
	check("restored", both, contentsBoth)
	compacted(t, root, CompactOptions{MinFiles: 1, Every: true})
	check("compacted again", both, contentsBoth)
}

// A last commit that only compacted, and cannot be read, is set aside as long as the files that it replaced
// are there; whatever of it is damaged.
func TestTornCompactionIsSetAside(t *testing.T) {
	for seed, damage := range map[uint64]func([]byte) []byte{
		75: func(b []byte) []byte { return b[:len(b)-3] },
		76: func(b []byte) []byte { b[len(b)/2] = 0; return b },
	} {
		l := repeatedScript(seed)
		root := t.TempDir()
		if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
			t.Fatal(err)
		}
		table := mustOpen(t, root, l.cuts[4].Definitions.Event("a"))
		before := snapshot(t, table)
		date := time.Unix(int64(before.Files[0].Date)*86400, 0)
		compacted(t, root, CompactOptions{Type: "a", MinFiles: 1, From: date, To: date.AddDate(0, 0, 1)})
		if v := snapshot(t, table).Version; v != before.Version+1 {
			t.Fatalf("compacted to version %d; want %d", v, before.Version+1)
		}
		last := table.commitPath(before.Version + 1)
		whole, err := os.ReadFile(last)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(last, damage(slices.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		problems := verified(t, root).Problems
		if len(problems) != 1 || problems[0].Path != last {
			t.Fatalf("verify found %v; want %s", problems, last)
		}
		// Vacuum has been there: nothing is changed, and it is said why.
		gone := table.onDisk(before.Files[0])
		if err := os.Rename(gone, gone+".away"); err != nil {
			t.Fatal(err)
		}
		r := repaired(t, root, problems, l.open, RepairOptions{})
		if len(r.Left()) != 1 || !strings.Contains(r.Remedies[0].Action, "1 are gone") {
			t.Errorf("a file that was compacted is gone: got %+v; want nothing done, and the reason", r.Remedies)
		}
		if err := os.Rename(gone+".away", gone); err != nil {
			t.Fatal(err)
		}
		if r := repaired(t, root, problems, nil, RepairOptions{}); len(r.Left()) > 0 { // a log is not needed
			t.Fatalf("got %+v; want it done", r.Remedies)
		}
		again := mustOpen(t, root, table.Event())
		if got := snapshot(t, again); got.Version != before.Version || !slices.Equal(got.Files, before.Files) {
			t.Errorf("got version %d; want the files of %d", got.Version, before.Version)
		}
		if got := compacted(t, root, CompactOptions{Type: "a", MinFiles: 1}); len(got.Dates) == 0 {
			t.Error("nothing was compacted afterwards")
		}
		if v := verified(t, root); len(v.Problems) > 0 || len(v.Strays) == 0 {
			t.Errorf("got %+v; want no problems, and the files of the first compaction as strays", v)
		}
		if r, err := VerifyLog(t.Context(), root, testApp, l.open); err != nil || len(r.Problems) > 0 {
			t.Errorf("the log against history: %+v, %v", r, err)
		}
	}
}
