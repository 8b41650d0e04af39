package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
)

// dataFile is a table with one file of every type, and that file's bytes.
func dataFile(t testing.TB, rows int) (*Table, File, []byte) {
	t.Helper()
	ev := everyType()
	table := mustOpen(t, t.TempDir(), ev)
	addFile(t, table, randomRecord(newRand(21), ev, rows, 3, 1), 3, "app", 1)
	f := snapshot(t, table).Files[0]
	b, err := os.ReadFile(filepath.Join(table.Dir(), filepath.FromSlash(f.Path)))
	if err != nil {
		t.Fatal(err)
	}
	return table, f, b
}

// scanBytes scans Parquet bytes as a data file of the event with every type, and returns its rows as text.
func scanBytes(b []byte, f File) (string, error) {
	ev := everyType()
	s, err := openScan(bytes.NewReader(b), ev, f, columnNames(ev))
	var rows strings.Builder
	for err == nil {
		var rec arrow.Record
		if rec, err = s.next(); err == nil {
			rows.WriteString(text(rec))
		}
	}
	return rows.String(), err
}

func TestScanFindsDamage(t *testing.T) {
	table, f, whole := dataFile(t, 200)
	path := filepath.Join(table.Dir(), filepath.FromSlash(f.Path))
	check := func(what string, damaged []byte) {
		t.Helper()
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		err := table.Scan(t.Context(), f, columnNames(table.Event()), func(arrow.Record) error { return nil })
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.Path != path {
			t.Errorf("%s: got %v; want a CorruptError of %s", what, err, path)
		}
		r, err := Verify(t.Context(), filepath.Dir(table.Dir()))
		if err != nil || len(r.Problems) != 1 || r.Problems[0].Path != path {
			t.Errorf("%s: verify found %+v, %v", what, r.Problems, err)
		}
	}
	check("cut off", whole[:len(whole)-1])
	check("longer", append(bytes.Clone(whole), 0))
	check("empty", nil)
	file, err := openParquet(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Metadata().RowGroups[0].Columns {
		start := c.MetaData.DataPageOffset
		if d := c.MetaData.DictionaryPageOffset; d > 0 {
			start = d
		}
		b := bytes.Clone(whole)
		b[start+c.MetaData.TotalCompressedSize-1] ^= 0x10 // in the body of the column's last page
		check("bit flipped in "+c.MetaData.PathInSchema[0], b)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(t.Context(), filepath.Dir(table.Dir())); err != nil || len(r.Problems) != 0 {
		t.Errorf("undamaged: %+v, %v", r.Problems, err)
	}
	if err := table.Scan(t.Context(), f, []string{"nothing"}, nil); err == nil || errors.As(err, new(*CorruptError)) {
		t.Errorf("unknown column: got %v; want an error that is no CorruptError", err)
	}
}

// A changed bit anywhere in a file is an error, or changes nothing that is read: not every byte has a checksum
// (headers of pages, indexes, the footer), and a batch or a compaction does not compare hashes of files.
func TestNoBitChangesRows(t *testing.T) {
	_, f, whole := dataFile(t, 40)
	want, end := scanBytes(whole, f)
	if !errors.Is(end, io.EOF) {
		t.Fatal(end)
	}
	r, found := newRand(27), 0
	for i := range whole {
		b, bit := bytes.Clone(whole), r.IntN(8)
		b[i] ^= 1 << bit
		switch got, err := scanBytes(b, f); {
		case !errors.Is(err, io.EOF):
			found++
		case got != want:
			t.Errorf("bit %d of byte %d of %d changes rows, and no error says so", bit, i, len(whole))
		}
	}
	if found < len(whole)/2 {
		t.Errorf("%d of %d changed bits were found; want most", found, len(whole))
	}
}

func TestDamagedLogIsCorrupt(t *testing.T) {
	root := t.TempDir()
	table := mustOpen(t, root, smallEvent("a"))
	path := table.commitPath(1)
	for _, text := range []string{"{", `{"add":{"path":"../x","partitionValues":{"_date":"2001-01-01"},"stats":"{\"numRecords\":1}"}}`,
		`{"add":{"path":"x","partitionValues":{},"stats":"{\"numRecords\":1}"}}`, `{"protocol":{"minReaderVersion":3,"minWriterVersion":7}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := table.Snapshot(t.Context())
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.Path != path {
			t.Errorf("%s: got %v; want a CorruptError of %s", text, err, path)
		}
	}
}

// A checkpoint that cannot be read costs time, not history.
func TestDamagedCheckpointIsPassedOver(t *testing.T) {
	root, ev := t.TempDir(), smallEvent("a")
	table := mustOpen(t, root, ev)
	r := newRand(23)
	for i := range 205 {
		addFile(t, table, randomRecord(r, ev, 1, 1, int64(i+1)), 1, "app", int64(i+1))
	}
	want := snapshot(t, table)
	if err := os.WriteFile(table.checkpointPath(200), []byte("PAR1 not PAR1"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := snapshot(t, mustOpen(t, root, ev))
	if got.Version != want.Version || !slices.Equal(got.Files, want.Files) {
		t.Errorf("got version %d, %d files; want %d, %d", got.Version, len(got.Files), want.Version, len(want.Files))
	}
	if err := os.Remove(filepath.Join(table.logDir(), lastCheckpointName)); err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t, mustOpen(t, root, ev)); !slices.Equal(got.Files, want.Files) {
		t.Errorf("without the hint: got %d files; want %d", len(got.Files), len(want.Files))
	}
}

func FuzzAction(f *testing.F) {
	ev := smallEvent("a")
	table := mustOpen(f, f.TempDir(), ev)
	addFile(f, table, randomRecord(newRand(24), ev, 2, 1, 1), 1, "app", 1)
	for v := range int64(2) {
		text, err := os.ReadFile(table.commitPath(v))
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			f.Add(line)
		}
	}
	f.Add([]byte(`{"remove":{"path":"a%20b"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := decodeAction(line)
		if err != nil {
			return
		}
		if err := newState().take(a); err != nil {
			t.Fatalf("an action that decodes cannot be taken: %v", err)
		}
		if a.Add != nil {
			file, err := a.Add.file()
			if err != nil {
				t.Fatal(err)
			}
			if !filepath.IsLocal(filepath.FromSlash(file.Path)) {
				t.Fatalf("path %q leaves the table", file.Path)
			}
		}
		if _, err := json.Marshal(a); err != nil {
			t.Fatal(err)
		}
	})
}

// maxScanBytes is what a scan of a small file may take at most, whatever the file says.
const maxScanBytes = 256 << 20

// boundedScan scans any bytes: it must end, without a panic, and without memory that the input's size
// does not justify.
func boundedScan(t *testing.T, b []byte) {
	t.Helper()
	allocated := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	before := allocated()
	_, _ = scanBytes(b, File{Size: int64(len(b))})
	if got := allocated() - before; got > maxScanBytes {
		t.Errorf("%d bytes of input took %d bytes of memory", len(b), got)
	}
}

// FuzzScan is best run with -fuzzminimizetime=1x: inputs are large.
func FuzzScan(f *testing.F) {
	_, _, small := dataFile(f, 5)
	f.Add(small)
	f.Fuzz(boundedScan)
}

func TestScanSurvivesMutations(t *testing.T) {
	_, _, whole := dataFile(t, 300)
	r := newRand(25)
	for range 4000 {
		b := bytes.Clone(whole)
		for range 1 + r.IntN(8) {
			at := r.IntN(len(b))
			if r.IntN(2) == 0 { // page checksums protect the rest; this is mostly the footer
				at = len(b) - 1 - r.IntN(min(4000, len(b)))
			}
			b[at] = byte(r.Uint32())
		}
		boundedScan(t, b)
	}
}
