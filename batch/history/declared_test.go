package history

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

// checkpointFile is a checkpoint of a table with files, tombstones and txns, written as it is on disk.
func checkpointFile(t testing.TB) []byte {
	t.Helper()
	root := t.TempDir()
	table := filled(t, root, newRand(51), 6)
	replaceFile(t, table, snapshot(t, table).Files[0])
	rows := table.state.checkpointRows(0)
	var b bytes.Buffer
	w := parquet.NewGenericWriter[checkpointRow](&b, parquet.Compression(&parquet.Zstd))
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := decodeCheckpoint(bytes.NewReader(b.Bytes()), int64(b.Len()), 100); err != nil || len(s.files) != 6 || len(s.removed) != 1 {
		t.Fatalf("the undamaged checkpoint: %v", err)
	}
	return b.Bytes()
}

// bounded runs what reads any bytes: it must end within a second, without a panic, and without memory that
// the input's size does not justify.
func bounded(t *testing.T, size int, read func()) {
	t.Helper()
	allocated := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	before, start := allocated(), time.Now()
	read()
	if got := allocated() - before; got > maxScanBytes {
		t.Errorf("%d bytes of input took %d bytes of memory", size, got)
	}
	if took := time.Since(start); took > 10*time.Second { // a second, with room for a machine that is busy
		t.Errorf("%d bytes of input took %v", size, took)
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add(checkpointFile(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, len(b), func() { _, _ = decodeCheckpoint(bytes.NewReader(b), int64(len(b)), 100) })
	})
}

func TestCheckpointSurvivesMutations(t *testing.T) {
	whole := checkpointFile(t)
	r := newRand(52)
	for range 1500 {
		b := bytes.Clone(whole)
		for range 1 + r.IntN(6) {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
		bounded(t, len(b), func() { _, _ = decodeCheckpoint(bytes.NewReader(b), int64(len(b)), 100) })
	}
}

// FuzzTableLog replays a log whose second commit is any bytes: it is an error, or a table that can be read.
func FuzzTableLog(f *testing.F) {
	root := f.TempDir()
	table := filled(f, root, newRand(53), 2)
	first, err := os.ReadFile(table.commitPath(0))
	if err != nil {
		f.Fatal(err)
	}
	for v := range int64(3) {
		text, err := os.ReadFile(table.commitPath(v))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"metaData":{"schemaString":"{}","configuration":{"watershed.id":"id"}}}`))
	dir := f.TempDir()
	n := 0
	f.Fuzz(func(t *testing.T, text []byte) {
		n++
		sub := filepath.Join(dir, fmt.Sprint(n))
		logs := filepath.Join(sub, "a", logDirName)
		if err := os.MkdirAll(logs, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(sub)
		for v, b := range [][]byte{first, text} {
			if err := os.WriteFile(filepath.Join(logs, versionName(int64(v))), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		bounded(t, len(text), func() {
			if table, err := Open(t.Context(), sub, smallEvent("a")); err == nil {
				_ = snapshot(t, table)
			}
			if _, err := Verify(t.Context(), sub); err != nil {
				t.Errorf("verify: %v", err)
			}
		})
	})
}
