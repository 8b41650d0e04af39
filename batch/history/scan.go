package history

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"watershed/schemas"
)

// Scan reads the named columns (declared fields, _seq, _row) of a file in the file's order, and calls fn
// with one record after the other, usually of 32,768 rows. Only the pages of those columns are read.
// Every row of a file that was written before a field was added is null there.
//
// A string column comes as a dictionary with int32 indexes where it is stored so, and then its
// dictionary is one object for all records of a row group, and where it is not stored at all; else as
// plain strings. The records' memory is immutable and never used again: they may be kept, and read by
// several goroutines. An error of fn ends the scan and is returned. A file that is gone, damaged, or not what
// history writes, is a *CorruptError.
func (t *Table) Scan(ctx context.Context, f File, columns []string, fn func(arrow.Record) error) error {
	return t.ScanGroups(ctx, f, columns, 0, math.MaxInt, fn)
}

// ScanGroups is Scan of the row groups from..to-1, as far as there are so many.
func (t *Table) ScanGroups(ctx context.Context, f File, columns []string, from, to int, fn func(arrow.Record) error) error {
	s, file, err := t.open(f, columns)
	if err != nil {
		return err
	}
	defer file.Close()
	s.group, s.until = from, min(to, s.until)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := s.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return corrupt(file.Name(), err)
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
}

// RowGroups is the number of rows in each of the file's row groups. Its errors are those of Scan.
func (t *Table) RowGroups(f File) ([]int64, error) {
	s, file, err := t.open(f, nil)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	rows := make([]int64, s.until)
	for i := range rows {
		rows[i] = s.meta.RowGroups[i].NumRows
	}
	return rows, nil
}

// open opens a data file that is as it was committed.
func (t *Table) open(f File, columns []string) (s *scan, file *os.File, err error) {
	name := filepath.Join(t.dir, filepath.FromSlash(f.Path))
	file, err = os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, &CorruptError{Path: name, Err: err}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("scan: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("scan: %w", err)
	}
	if info.Size() != f.Size {
		return nil, nil, &CorruptError{name, fmt.Errorf("%d bytes, not the %d committed", info.Size(), f.Size)}
	}
	if s, err = openScan(file, t.event, f, columns); err != nil {
		return nil, nil, corrupt(name, err)
	}
	rows := int64(0)
	for i := range s.meta.RowGroups {
		rows += s.meta.RowGroups[i].NumRows
	}
	if rows != f.Rows {
		return nil, nil, &CorruptError{name, fmt.Errorf("%d rows, not the %d committed", rows, f.Rows)}
	}
	return s, file, nil
}

// A columnError is a mistake of the caller, not of the file.
type columnError struct{ name, mistake string }

func (e *columnError) Error() string { return "field " + e.name + " " + e.mistake }

func corrupt(name string, err error) error {
	var unknown *columnError
	if errors.As(err, &unknown) {
		return fmt.Errorf("scan %s: %w", name, err)
	}
	return &CorruptError{name, err}
}

// recoverCorrupt makes an error of a panic of the Parquet library, which trusts its input in places.
func recoverCorrupt(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("damaged Parquet: %v", p)
	}
}

// A scan reads some columns of one data file.
type scan struct {
	file    io.ReaderAt
	size    int64
	meta    *format.FileMetaData
	columns []*scanColumn
	group   int   // of the row group to open next
	until   int   // which is not read any more
	left    int64 // rows of the open row group
}

type scanColumn struct {
	name     string
	leaf     int
	missing  bool // in the file: it was added to the type later
	optional bool // in the definition
	levels   bool // in the file: it says by row whether there is a value
	width    int
	physical format.Type
	maker    arrayMaker
	chunk    *chunkReader
	page     arrow.Array
	at       int // row of page that comes next
}

func openScan(r io.ReaderAt, ev *schemas.Event, f File, columns []string) (s *scan, err error) {
	defer recoverCorrupt(&err)
	file, err := openParquet(r, f.Size)
	if err != nil {
		return nil, err
	}
	s = &scan{file: r, size: f.Size, meta: file.Metadata(), until: len(file.Metadata().RowGroups)}
	types := ev.ArrowSchema()
	for _, name := range columns {
		at := types.FieldIndices(name)
		if len(at) != 1 {
			return nil, &columnError{name, "is not defined"}
		}
		c := &scanColumn{name: name, physical: format.Int64, maker: arrayMaker{typ: types.Field(at[0]).Type}}
		if f := ev.Field(name); f != nil {
			c.optional, c.physical = f.Optional, physical(f.Type)
		} else if name == schemas.RowColumn {
			c.physical = format.Int32
		}
		if err := c.find(file.Schema(), f); err != nil {
			return nil, fmt.Errorf("column %s: %w", name, err)
		}
		s.columns = append(s.columns, c)
	}
	return s, nil
}

func (c *scanColumn) find(schema *parquet.Schema, f File) error {
	leaf, ok := schema.Lookup(c.name)
	if !ok {
		if !c.optional || f.has(c.name) {
			return errors.New("is not in the file")
		}
		c.missing = true
		return nil
	}
	typ := leaf.Node.Type()
	if leaf.MaxRepetitionLevel != 0 || leaf.MaxDefinitionLevel > 1 || format.Type(typ.Kind()) != c.physical {
		return fmt.Errorf("is stored as %s", typ)
	}
	if c.physical == format.FixedLenByteArray {
		if c.width = typ.Length(); c.width != 16 {
			return fmt.Errorf("is stored as %s", typ)
		}
	}
	c.levels = leaf.MaxDefinitionLevel == 1
	c.leaf = leaf.ColumnIndex
	return nil
}

// openParquet reads a Parquet file's footer, of bounded size.
func openParquet(r io.ReaderAt, size int64) (*parquet.File, error) {
	var tail [8]byte
	if size < 12 {
		return nil, fmt.Errorf("%d bytes are no Parquet file", size)
	}
	if _, err := r.ReadAt(tail[:], size-8); err != nil {
		return nil, err
	}
	if n := int64(binary.LittleEndian.Uint32(tail[:])); string(tail[4:]) != "PAR1" || n > size-12 || n > maxFooterBytes {
		return nil, errors.New("no Parquet footer at the end: the file is cut off or of another format")
	}
	return parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
}

// next is the next record; io.EOF after the last.
func (s *scan) next() (rec arrow.Record, err error) {
	defer recoverCorrupt(&err)
	for s.left == 0 {
		if s.group >= s.until {
			return nil, io.EOF
		}
		if err := s.openGroup(); err != nil {
			return nil, err
		}
	}
	n := s.left
	for _, c := range s.columns {
		if err := c.load(); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		n = min(n, int64(c.page.Len()-c.at))
	}
	fields := make([]arrow.Field, len(s.columns))
	arrays := make([]arrow.Array, len(s.columns))
	for i, c := range s.columns {
		arrays[i] = c.take(int(n))
		fields[i] = arrow.Field{Name: c.name, Type: arrays[i].DataType(), Nullable: c.optional}
	}
	s.left -= n
	return array.NewRecord(arrow.NewSchema(fields, nil), arrays, n), nil
}

func (s *scan) openGroup() error {
	g := &s.meta.RowGroups[s.group]
	for _, c := range s.columns {
		if c.missing {
			continue
		}
		if c.leaf >= len(g.Columns) {
			return fmt.Errorf("row group %d has no column %s", s.group, c.name)
		}
		meta := &g.Columns[c.leaf].MetaData
		if meta.Type != c.physical {
			return fmt.Errorf("column %s of row group %d is %s", c.name, s.group, meta.Type)
		}
		var err error
		if c.chunk, err = openChunk(s.file, s.size, meta, g.NumRows, c.levels, c.width); err != nil {
			return fmt.Errorf("column %s of row group %d: %w", c.name, s.group, err)
		}
		c.page, c.at, c.maker.dict = nil, 0, nil
	}
	s.left = g.NumRows
	s.group++
	return nil
}

// load makes sure that there is a row to take.
func (c *scanColumn) load() error {
	if c.missing {
		if c.page == nil {
			c.page = nulls(c.maker.typ, pageRows)
		}
		c.at = 0 // the same for all rows
		return nil
	}
	if c.page != nil && c.at < c.page.Len() {
		return nil
	}
	p, err := c.chunk.next()
	if errors.Is(err, io.EOF) {
		return errShort
	}
	if err != nil {
		return err
	}
	if p.levels != nil && !c.optional {
		return &columnError{c.name, "is null here, and this definition does not make it optional: use a later one"}
	}
	c.page, err = c.maker.make(p)
	c.at = 0
	return err
}

func (c *scanColumn) take(n int) arrow.Array {
	from := c.at
	c.at += n
	return part(c.page, from, n)
}
