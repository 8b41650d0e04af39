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
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"
	"golang.org/x/sync/errgroup"

	"watershed/internal/durable"
	"watershed/schemas"
)

// A fileWriter writes one data file from columns, never through rows. It is used by one goroutine.
type fileWriter struct {
	table   *Table
	path    string // relative to the table
	date    int32
	file    *durable.File
	hash    hash.Hash
	size    int64
	encoder *fileEncoder
	parquet *parquetFile
	columns []*columnWriter // as Event.ArrowSchema has them
	rows    int64
	inPage  int
	inGroup int
	cores   int // that encode columns; 0 and 1: the caller's alone
}

// newFile begins a data file of one date. It has no name yet, and is gone after abort.
func (t *Table) newFile(date int32) (*fileWriter, error) {
	return t.newFileNamed(date, newFileName())
}

func newFileName() string { return uuid.NewString() + ".parquet" }

func (t *Table) newFileNamed(date int32, name string) (*fileWriter, error) {
	e, ok := t.encoders.Get().(*fileEncoder)
	if !ok {
		schema, err := parquetSchema(t.event)
		if err != nil {
			return nil, err
		}
		e = newFileEncoder(t.event, schema)
		e.home = &t.encoders
	}
	return t.newFileWith(date, name, e)
}

// newFileAs begins a data file whose columns are stored as the schema says.
func (t *Table) newFileAs(date int32, name string, schema *parquet.Schema) (*fileWriter, error) {
	return t.newFileWith(date, name, newFileEncoder(t.event, schema))
}

// A fileEncoder is the memory that a file is encoded in. That of files of the usual schema is used again.
type fileEncoder struct {
	schema  *parquet.Schema
	stored  []*columnWriter // as the schema has them
	columns []*columnWriter // as Event.ArrowSchema has them
	buffer  *bufio.Writer
	home    *sync.Pool // takes it back; nil: nobody does
}

func newFileEncoder(ev *schemas.Event, schema *parquet.Schema) *fileEncoder {
	e := &fileEncoder{schema: schema, stored: schemaColumns(ev, schema), buffer: bufio.NewWriterSize(nil, writeBytes)}
	for _, f := range ownFields(ev) {
		e.columns = append(e.columns, e.stored[slices.IndexFunc(e.stored, func(c *columnWriter) bool { return c.name == f.Name })])
	}
	return e
}

// writeBytes is how much is written to disk at once.
const writeBytes = 256 << 10

func (t *Table) newFileWith(date int32, name string, e *fileEncoder) (*fileWriter, error) {
	dir := dateColumn + "=" + formatDate(date)
	err := durable.MkdirAll(filepath.Join(t.dir, dir))
	if err != nil {
		return nil, err
	}
	w := &fileWriter{table: t, path: path.Join(dir, name), date: date, hash: sha256.New(), encoder: e, columns: e.columns}
	if w.file, err = durable.Create(filepath.Join(t.dir, filepath.FromSlash(w.path))); err != nil {
		return nil, err
	}
	for _, c := range e.stored {
		c.reset()
	}
	e.buffer.Reset(io.MultiWriter(w.file, w.hash, (*counter)(&w.size)))
	if w.parquet, err = newParquetFile(e.buffer, e.schema, e.stored); err != nil {
		return nil, errors.Join(err, w.file.Abort())
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
		if err := w.each(func(i int, c *columnWriter) error { return c.write(rec.Column(i), part) }); err != nil {
			return fmt.Errorf("write %s: %w", w.path, err)
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
		return w.each(func(_ int, c *columnWriter) error { return c.flush() })
	}
	return nil
}

// each does something with every column; with several at once if the file may use several cores.
func (w *fileWriter) each(do func(i int, c *columnWriter) error) error {
	named := func(i int, c *columnWriter) error {
		if err := do(i, c); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
		return nil
	}
	if w.cores < 2 {
		for i, c := range w.columns {
			if err := named(i, c); err != nil {
				return err
			}
		}
		return nil
	}
	var group errgroup.Group
	group.SetLimit(w.cores)
	for i, c := range w.columns {
		group.Go(func() error { return named(i, c) })
	}
	return group.Wait()
}

// close makes the file durable and returns the action that adds it. Until a commit carries that action
// the file belongs to no version: if we stop after close, it lies there unnamed.
func (w *fileWriter) close(unique, imported bool) (*add, error) {
	defer w.abort()
	err := w.parquet.close()
	if err == nil {
		err = w.encoder.buffer.Flush()
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
	a := &add{
		Path: encodePath(w.path), PartitionValues: map[string]string{dateColumn: formatDate(w.date)},
		Size: w.size, ModificationTime: w.table.now().UnixMilli(), DataChange: true, Stats: w.stats(), Tags: tags,
	}
	if e := w.encoder; e.home != nil { // that of a file that fails is left to the collector
		w.encoder, w.columns, w.parquet = nil, nil, nil
		e.home.Put(e)
	}
	return a, nil
}

// abort throws an unfinished file away; after close it does nothing.
func (w *fileWriter) abort() { _ = w.file.Abort() }
