package history

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// repeatedLog is a scripted log in which most events come several times, and the compacted history of it.
func repeatedLog(t *testing.T, seed uint64) (l *testLog, root string, dropped int64) {
	t.Helper()
	r := newRand(seed)
	l, root = script(r, 60), t.TempDir()
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
	if err := l.archiver(t, root).Run(t.Context()); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	for _, d := range compacted(t, root, CompactOptions{}).Dates {
		dropped += d.Duplicates
	}
	return l, root, dropped
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
