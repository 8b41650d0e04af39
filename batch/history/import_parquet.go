package history

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"watershed/schemas"
)

// A parquetSource reads a Parquet file of any columns as events of a type.
type parquetSource struct {
	info    sourceInfo
	file    io.ReaderAt
	size    int64
	meta    *format.FileMetaData
	rows    int64
	row     int64 // that comes next, from 0
	noID    bool
	columns []*sourceColumn // by field; nil: absent, or made from the row
	group   int
	left    int64
}

// A sourceColumn is a column of a foreign file, read as a field of ours.
type sourceColumn struct {
	field  schemas.Field
	name   string // the column's
	leaf   parquet.LeafColumn
	typ    parquet.Type
	chunk  *chunkReader
	maker  arrayMaker
	dict   *values // the foreign dictionary that converted was made of
	conv   *values
	page   arrow.Array
	at     int
	first  int64 // row of the source that the page begins at
	loaded int64
}

func openParquetSource(r io.ReaderAt, size int64, info sourceInfo) (s *parquetSource, err error) {
	defer recoverCorrupt(&err)
	file, err := openParquet(r, size)
	if err != nil {
		return nil, err
	}
	if file.NumRows() > math.MaxInt32 {
		return nil, fmt.Errorf("%d rows are more than fit _row", file.NumRows())
	}
	s = &parquetSource{info: info, file: r, size: size, meta: file.Metadata(), rows: file.NumRows()}
	for _, f := range info.event.Fields {
		name := info.column(f.Name)
		leaf, ok := file.Schema().Lookup(name)
		switch {
		case ok:
			c := &sourceColumn{field: f, name: name, leaf: leaf, typ: leaf.Node.Type(), maker: arrayMaker{typ: f.Type.Arrow()}}
			if err := c.check(); err != nil {
				return nil, fmt.Errorf("column %s: %w", name, err)
			}
			s.columns = append(s.columns, c)
			continue
		case f.Name == info.event.ID && info.columns[f.Name] == "":
			if err := info.checkNoID(); err != nil {
				return nil, err
			}
			s.noID = true
		case !f.Optional || info.columns[f.Name] != "":
			return nil, fmt.Errorf("there is no column %s for the field %s", name, f.Name)
		}
		s.columns = append(s.columns, nil)
	}
	return s, nil
}

func (s *parquetSource) unique() bool { return s.noID }

func (s *parquetSource) done() int64 {
	if s.rows == 0 {
		return s.size
	}
	return int64(float64(s.size) * float64(s.row) / float64(s.rows))
}

// next is the next record: as many rows as lie in one page of every column.
func (s *parquetSource) next() (rec arrow.Record, err error) {
	defer recoverCorrupt(&err)
	for s.left == 0 {
		if s.group == len(s.meta.RowGroups) {
			if s.row != s.rows {
				return nil, fmt.Errorf("%d rows where %d are declared", s.row, s.rows)
			}
			return nil, io.EOF
		}
		if err := s.openGroup(); err != nil {
			return nil, err
		}
	}
	n := min(s.left, pageRows)
	for _, c := range s.columns {
		if c == nil {
			continue
		}
		if err := c.load(); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		n = min(n, int64(c.page.Len()-c.at))
	}
	rec = s.record(int(n))
	s.left -= n
	s.row += n
	return rec, nil
}

func (s *parquetSource) openGroup() error {
	g := &s.meta.RowGroups[s.group]
	for _, c := range s.columns {
		if c == nil {
			continue
		}
		if c.leaf.ColumnIndex >= len(g.Columns) {
			return fmt.Errorf("row group %d has no column %s", s.group, c.name)
		}
		meta := &g.Columns[c.leaf.ColumnIndex].MetaData
		width := 0
		if meta.Type == format.FixedLenByteArray {
			width = c.typ.Length()
		}
		if meta.Type != format.Type(c.typ.Kind()) {
			return fmt.Errorf("column %s of row group %d is %s", c.name, s.group, meta.Type)
		}
		var err error
		if c.chunk, err = openChunk(s.file, s.size, meta, g.NumRows, c.leaf.MaxDefinitionLevel == 1, width); err != nil {
			return fmt.Errorf("column %s of row group %d: %w", c.name, s.group, err)
		}
		c.page, c.at, c.dict = nil, 0, nil
	}
	s.left = g.NumRows
	s.group++
	return nil
}

// load makes sure that there is a row to take.
func (c *sourceColumn) load() error {
	if c.page != nil && c.at < c.page.Len() {
		return nil
	}
	p, err := c.chunk.next()
	if errors.Is(err, io.EOF) {
		err = errShort
	}
	if err != nil {
		return fmt.Errorf("behind row %d: %w", c.loaded, err)
	}
	if err := c.convert(p); err != nil {
		return err
	}
	c.first, c.at = c.loaded, 0
	c.loaded += int64(p.rows)
	c.page, err = c.maker.make(p)
	return err
}

// record takes n rows of every column.
func (s *parquetSource) record(n int) arrow.Record {
	schema := s.info.event.ArrowSchema()
	fields := schema.Fields()
	arrays := make([]arrow.Array, 0, len(fields))
	for i, c := range s.columns {
		switch {
		case c != nil:
			arrays = append(arrays, part(c.page, c.at, n))
			c.at += n
		case s.info.event.Fields[i].Name == s.info.event.ID:
			arrays = append(arrays, rowIDs(s.info.name, s.row, n))
		default:
			arrays = append(arrays, array.MakeArrayOfNull(memory.DefaultAllocator, fields[i].Type, n))
		}
		fields[i].Type = arrays[i].DataType()
	}
	arrays = append(arrays, make64(make([]int64, n)), rowNumbers(s.row, n))
	return array.NewRecord(arrow.NewSchema(fields, nil), arrays, int64(n))
}

// rowIDs are the ids of rows of a source without a column for them.
func rowIDs(name string, first int64, n int) arrow.Array {
	offsets := make([]uint32, 1, n+1)
	data := make([]byte, 0, n*(len(name)+9))
	for i := range n {
		data = appendRowID(data, name, first+int64(i))
		offsets = append(offsets, uint32(len(data)))
	}
	return array.MakeFromData(array.NewData(arrow.BinaryTypes.String, n,
		[]*memory.Buffer{nil, buffer(offsets), memory.NewBufferBytes(data)}, nil, 0, 0))
}

func make64(v []int64) arrow.Array {
	return array.MakeFromData(array.NewData(arrow.PrimitiveTypes.Int64, len(v), []*memory.Buffer{nil, buffer(v)}, nil, 0, 0))
}

func rowNumbers(first int64, n int) arrow.Array {
	rows := make([]int32, n)
	for i := range rows {
		rows[i] = int32(first) + int32(i)
	}
	return array.MakeFromData(array.NewData(arrow.PrimitiveTypes.Int32, n, []*memory.Buffer{nil, buffer(rows)}, nil, 0, 0))
}
