package history

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"watershed/schemas"
)

const magic = "PAR1"

// A parquetFile puts the chunks of columns together to a Parquet file.
type parquetFile struct {
	out     io.Writer
	at      int64
	schema  *parquet.Schema
	columns []*columnWriter // as the schema has them
	meta    format.FileMetaData
	indexes [][]format.ColumnIndex // by row group and column
	offsets [][]format.OffsetIndex
}

// newParquetFile begins a file of those columns.
func newParquetFile(out io.Writer, schema *parquet.Schema, columns []*columnWriter) (*parquetFile, error) {
	f := &parquetFile{out: out, schema: schema, columns: columns}
	f.meta = format.FileMetaData{Version: 2, CreatedBy: "watershed", Schema: []format.SchemaElement{{Name: schema.Name(), NumChildren: thrift.New(int32(len(columns)))}}}
	for _, c := range columns {
		e := format.SchemaElement{Name: c.name, Type: thrift.New(c.physical), RepetitionType: thrift.New(format.Required)}
		if c.optional {
			e.RepetitionType = thrift.New(format.Optional)
		}
		if n := c.leaf.Length(); c.physical == format.FixedLenByteArray {
			e.TypeLength = thrift.New(int32(n))
		}
		if t := c.leaf.ConvertedType(); t != nil {
			e.ConvertedType = thrift.New(*t)
		}
		if t := c.leaf.LogicalType(); t != nil {
			e.LogicalType = *t
			if d, ok := t.Value.(*format.DecimalType); ok {
				e.Scale, e.Precision = thrift.New(d.Scale), thrift.New(d.Precision)
			}
		}
		f.meta.Schema = append(f.meta.Schema, e)
		f.meta.ColumnOrders = append(f.meta.ColumnOrders, *c.leaf.ColumnOrder())
	}
	return f, f.write([]byte(magic))
}

// schemaColumns are writers of the columns of a schema, in its order.
func schemaColumns(ev *schemas.Event, schema *parquet.Schema) []*columnWriter {
	var out []*columnWriter
	fields := ownFields(ev)
	for _, node := range schema.Fields() {
		for _, f := range fields {
			if f.Name == node.Name() {
				out = append(out, newColumnWriter(f, node))
			}
		}
	}
	return out
}

func (f *parquetFile) write(b []byte) error {
	n, err := f.out.Write(b)
	f.at += int64(n)
	return err
}

// endGroup writes the row group that the columns have.
func (f *parquetFile) endGroup() error {
	g := format.RowGroup{FileOffset: f.at, Ordinal: int16(len(f.meta.RowGroups))}
	var indexes []format.ColumnIndex
	var offsets []format.OffsetIndex
	for _, c := range f.columns {
		if err := c.flush(); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
		chunk, index, offset, err := f.putChunk(c)
		if err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
		g.Columns = append(g.Columns, chunk)
		g.NumRows = chunk.MetaData.NumValues
		g.TotalByteSize += chunk.MetaData.TotalUncompressedSize
		g.TotalCompressedSize += chunk.MetaData.TotalCompressedSize
		indexes, offsets = append(indexes, index), append(offsets, offset)
	}
	if g.NumRows == 0 {
		return nil
	}
	f.meta.NumRows += g.NumRows
	f.meta.RowGroups = append(f.meta.RowGroups, g)
	f.indexes, f.offsets = append(f.indexes, indexes), append(f.offsets, offsets)
	return nil
}

// putChunk writes a column's chunk and makes its writer ready for the next.
func (f *parquetFile) putChunk(c *columnWriter) (chunk format.ColumnChunk, index format.ColumnIndex, offset format.OffsetIndex, err error) {
	if c.chunk.rows == 0 {
		return chunk, index, offset, nil
	}
	start := f.at
	m := format.ColumnMetaData{
		Type: c.physical, PathInSchema: []string{c.name}, NumValues: c.chunk.rows, TotalUncompressedSize: c.chunk.uncompressed,
		Encoding: []format.Encoding{format.RLE}, Statistics: c.chunk.stats.parquet(),
	}
	if c.codec != nil {
		m.Codec = c.codec.CompressionCodec()
	}
	if c.chunk.encoded > 0 {
		page, uncompressed, err := c.dictionaryPage()
		if err != nil {
			return chunk, index, offset, err
		}
		m.DictionaryPageOffset = f.at
		m.TotalUncompressedSize += uncompressed
		m.Encoding = append(m.Encoding, format.Plain, format.RLEDictionary)
		m.EncodingStats = append(m.EncodingStats, format.PageEncodingStats{PageType: format.DictionaryPage, Encoding: format.Plain, Count: 1},
			format.PageEncodingStats{PageType: format.DataPageV2, Encoding: format.RLEDictionary, Count: c.chunk.encoded})
		if err := f.write(page); err != nil {
			return chunk, index, offset, err
		}
	}
	if c.chunk.plain > 0 {
		enc := c.withoutDictionary()
		if enc != format.Plain || c.chunk.encoded == 0 {
			m.Encoding = append(m.Encoding, enc)
		}
		m.EncodingStats = append(m.EncodingStats, format.PageEncodingStats{PageType: format.DataPageV2, Encoding: enc, Count: c.chunk.plain})
	}
	m.DataPageOffset = f.at
	for _, p := range c.chunk.places {
		p.Offset += f.at
		offset.PageLocations = append(offset.PageLocations, p)
	}
	if err := f.write(c.chunk.pages); err != nil {
		return chunk, index, offset, err
	}
	m.TotalCompressedSize = f.at - start
	index = columnIndex(c.chunk.bounds)
	c.stats.merge(&c.chunk.stats)
	c.chunk.reset()
	c.source = dictionarySource{codes: c.source.codes}
	c.resetDictionary()
	return format.ColumnChunk{MetaData: m}, index, offset, nil
}

// columnIndex is the least and largest value of each page; none if one of them is too long to be told.
func columnIndex(pages []columnStats) (x format.ColumnIndex) {
	for i := range pages {
		lo, hi, ok := pages[i].encoded()
		if !ok && pages[i].any {
			return format.ColumnIndex{}
		}
		x.NullPages = append(x.NullPages, !pages[i].any)
		x.MinValues, x.MaxValues = append(x.MinValues, lo), append(x.MaxValues, hi)
		x.NullCounts = append(x.NullCounts, pages[i].nulls)
	}
	return x
}

// close writes what stands behind the row groups.
func (f *parquetFile) close() error {
	if err := f.endGroup(); err != nil {
		return err
	}
	var b bytes.Buffer
	protocol := new(thrift.CompactProtocol)
	enc, base := thrift.NewEncoder(protocol.NewWriter(&b)), f.at
	for i := range f.meta.RowGroups {
		for k := range f.meta.RowGroups[i].Columns {
			c := &f.meta.RowGroups[i].Columns[k]
			if len(f.indexes[i][k].NullPages) > 0 {
				c.ColumnIndexOffset = base + int64(b.Len())
				if err := enc.Encode(&f.indexes[i][k]); err != nil {
					return err
				}
				c.ColumnIndexLength = int32(base + int64(b.Len()) - c.ColumnIndexOffset)
			}
		}
	}
	for i := range f.meta.RowGroups {
		for k := range f.meta.RowGroups[i].Columns {
			c := &f.meta.RowGroups[i].Columns[k]
			c.OffsetIndexOffset = base + int64(b.Len())
			if err := enc.Encode(&f.offsets[i][k]); err != nil {
				return err
			}
			c.OffsetIndexLength = int32(base + int64(b.Len()) - c.OffsetIndexOffset)
		}
	}
	footer := b.Len()
	if err := enc.Encode(&f.meta); err != nil {
		return err
	}
	b.Write(binary.LittleEndian.AppendUint32(nil, uint32(b.Len()-footer)))
	b.WriteString(magic)
	return f.write(b.Bytes())
}
