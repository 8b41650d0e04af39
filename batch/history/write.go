package history

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"path/filepath"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"

	"watershed/internal/durable"
)

// A fileWriter writes one data file from columns, never through rows. It is used by one goroutine.
type fileWriter struct {
	table   *Table
	path    string // relative to the table
	date    int32
	file    *durable.File
	hash    hash.Hash
	size    int64
	buffer  *bufio.Writer
	parquet *parquetFile
	columns []*columnWriter // as Event.ArrowSchema has them
	rows    int64
	inPage  int
	inGroup int
}

// newFile begins a data file of one date. It has no name yet, and is gone after abort.
func (t *Table) newFile(date int32) (*fileWriter, error) {
	return t.newFileNamed(date, newFileName())
}

func newFileName() string { return uuid.NewString() + ".parquet" }

func (t *Table) newFileNamed(date int32, name string) (*fileWriter, error) {
	schema, err := parquetSchema(t.event)
	if err != nil {
		return nil, err
	}
	return t.newFileAs(date, name, schema)
}

// newFileAs begins a data file whose columns are stored as the schema says.
func (t *Table) newFileAs(date int32, name string, schema *parquet.Schema) (*fileWriter, error) {
	dir := dateColumn + "=" + formatDate(date)
	err := durable.MkdirAll(filepath.Join(t.dir, dir))
	if err != nil {
		return nil, err
	}
	w := &fileWriter{table: t, path: path.Join(dir, name), date: date, hash: sha256.New()}
	if w.file, err = durable.Create(filepath.Join(t.dir, filepath.FromSlash(w.path))); err != nil {
		return nil, err
	}
	w.buffer = bufio.NewWriterSize(io.MultiWriter(w.file, w.hash, (*counter)(&w.size)), 256<<10)
	columns := schemaColumns(t.event, schema)
	if w.parquet, err = newParquetFile(w.buffer, schema, columns); err != nil {
		return nil, errors.Join(err, w.file.Abort())
	}
	for _, f := range ownFields(t.event) {
		w.columns = append(w.columns, columns[slices.IndexFunc(columns, func(c *columnWriter) bool { return c.name == f.Name })])
	}
	return w, nil
}

// counter counts the bytes written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// write appends rows of a record whose columns are those of Event.ArrowSchema, in that order. rows are
// the indexes to take, in that order; nil takes all. Nothing of the record is kept.
func (w *fileWriter) write(rec arrow.Record, rows []int32) error {
	n := len(rows)
	if rows == nil {
		n = int(rec.NumRows())
	}
	for from := 0; from < n; {
		to := min(n, from+pageRows-w.inPage, from+rowGroupRows-w.inGroup)
		part := span{from: from, to: to}
		if rows != nil {
			part = span{rows: rows[from:to]}
		}
		for i, c := range w.columns {
			if err := c.write(rec.Column(i), part); err != nil {
				return fmt.Errorf("write %s: column %s: %w", w.path, c.name, err)
			}
		}
		if err := w.advance(to - from); err != nil {
			return fmt.Errorf("write %s: %w", w.path, err)
		}
		from = to
	}
	return nil
}

func (w *fileWriter) advance(n int) error {
	w.rows += int64(n)
	w.inPage += n
	w.inGroup += n
	if w.inGroup == rowGroupRows {
		w.inPage, w.inGroup = 0, 0
		return w.parquet.endGroup()
	}
	if w.inPage == pageRows {
		w.inPage = 0
		for _, c := range w.columns {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// close makes the file durable and returns the action that adds it. Until a commit carries that action
// the file belongs to no version: if we stop after close, it lies there unnamed.
func (w *fileWriter) close(unique, imported bool) (*add, error) {
	defer w.abort()
	err := w.parquet.close()
	if err == nil {
		err = w.buffer.Flush()
	}
	if err == nil {
		err = w.file.Commit()
	}
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", w.path, err)
	}
	sum := hex.EncodeToString(w.hash.Sum(nil))
	tags := map[string]string{tagSHA256: sum, tagContent: sum, tagUnique: "false", tagImport: "false"}
	if unique {
		tags[tagUnique] = "true"
	}
	if imported {
		tags[tagImport] = "true"
	}
	return &add{
		Path: encodePath(w.path), PartitionValues: map[string]string{dateColumn: formatDate(w.date)},
		Size: w.size, ModificationTime: w.table.now().UnixMilli(), DataChange: true, Stats: w.stats(), Tags: tags,
	}, nil
}

// abort throws an unfinished file away; after close it does nothing.
func (w *fileWriter) abort() { _ = w.file.Abort() }
