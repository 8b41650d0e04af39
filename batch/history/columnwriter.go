package history

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"watershed/schemas"
)

// A columnWriter encodes one column: values become pages, and pages a chunk, which is handed over at the end of a
// row group. What it has allocated it uses again, for the next chunk and the next file.
type columnWriter struct {
	name     string
	typ      schemas.Type
	optional bool
	leaf     parquet.Type
	physical format.Type
	encoding encoding.Encoding
	codec    compress.Codec

	page  pageValues
	chunk chunk
	stats columnStats // of all row groups

	dict       *dictionary       // of strings; nil: the column is stored without
	numbers    *numberDictionary // of numbers, likewise
	dictFull   bool              // the rest of the row group goes on without it
	source     dictionarySource
	present    []int32 // scratch: the rows of a span that are not null
	raw, extra []byte  // scratch: a page's values
	packed     []byte  // scratch: compressed
	shared     []int32 // scratch: lengths of prefixes, or of values
	lengths    []int32
	protocol   thrift.CompactProtocol
	header     appender
}

// pageValues are the values of the page at hand. Nulls are in the levels alone.
type pageValues struct {
	rows    int
	levels  []byte // of an optional column: 1 if there is a value
	bits    []byte // a byte each
	int32s  []int32
	int64s  []int64
	doubles []float64
	fixed   []byte
	data    []byte   // strings, end to end
	ends    []uint32 // where each of them ends
	codes   []int32  // into the dictionary
	stats   columnStats
}

func (p *pageValues) reset() {
	p.rows, p.levels, p.bits, p.int32s, p.int64s = 0, p.levels[:0], p.bits[:0], p.int32s[:0], p.int64s[:0]
	p.doubles, p.fixed, p.data, p.ends, p.codes = p.doubles[:0], p.fixed[:0], p.data[:0], p.ends[:0], p.codes[:0]
	p.stats.reset()
}

// A chunk is the pages of a column in a row group.
type chunk struct {
	pages        []byte // headers and all
	places       []format.PageLocation
	bounds       []columnStats // of the pages
	uncompressed int64
	encoded      int32 // pages whose values are in the dictionary
	plain        int32 // other pages
	rows         int64
	stats        columnStats
}

func (c *chunk) reset() {
	c.pages, c.places, c.bounds = c.pages[:0], c.places[:0], c.bounds[:0]
	c.uncompressed, c.encoded, c.plain, c.rows = 0, 0, 0, 0
	c.stats.reset()
}

func newColumnWriter(f schemas.Field, node parquet.Node) *columnWriter {
	c := &columnWriter{
		name: f.Name, typ: f.Type, optional: f.Optional, leaf: node.Type(), physical: format.Type(node.Type().Kind()),
		encoding: node.Encoding(), codec: node.Compression(),
	}
	if c.encoding == nil {
		c.encoding = &parquet.Plain
	}
	if c.encoding.Encoding() == format.RLEDictionary {
		switch c.physical {
		case format.ByteArray:
			c.dict = newDictionary()
		case format.Int64, format.Int32, format.Double:
			c.numbers = newNumberDictionary()
		}
	}
	for _, s := range []*columnStats{&c.stats, &c.page.stats, &c.chunk.stats} {
		s.typ, s.narrow = f.Type, c.physical == format.Int32
	}
	return c
}

// reset makes the writer ready for another file.
func (c *columnWriter) reset() {
	c.page.reset()
	c.chunk.reset()
	c.stats.reset()
	c.source = dictionarySource{}
	c.resetDictionary()
}

func (c *columnWriter) resetDictionary() {
	c.dictFull = false
	if c.dict != nil {
		c.dict.reset()
	}
	if c.numbers != nil {
		c.numbers.reset()
	}
}

// withoutDictionary is the encoding of pages behind those that a dictionary takes.
func (c *columnWriter) withoutDictionary() format.Encoding {
	enc := c.encoding.Encoding()
	switch {
	case enc != format.RLEDictionary:
		return enc
	case c.physical == format.Int64 || c.physical == format.Int32:
		return format.DeltaBinaryPacked
	}
	return format.Plain
}

// flush ends the page.
func (c *columnWriter) flush() error {
	p := &c.page
	if p.rows == 0 {
		return nil
	}
	if uint64(len(p.data)) > maxPageBytes {
		return fmt.Errorf("a page of %d bytes", len(p.data))
	}
	levels, err := c.encodeLevels()
	if err != nil {
		return err
	}
	enc, err := c.encode()
	if err != nil {
		return err
	}
	body, compressed, err := c.compress(c.raw)
	if err != nil {
		return err
	}
	sum := crc32.Update(crc32.ChecksumIEEE(levels), crc32.IEEETable, body)
	header := format.PageHeader{
		Type: format.DataPageV2, UncompressedPageSize: int32(len(levels) + len(c.raw)), CompressedPageSize: int32(len(levels) + len(body)), CRC: int32(sum),
		DataPageHeaderV2: thrift.New(format.DataPageHeaderV2{
			NumValues: int32(p.rows), NumNulls: int32(p.stats.nulls), NumRows: int32(p.rows), Encoding: enc,
			DefinitionLevelsByteLength: int32(len(levels)), IsCompressed: thrift.New(compressed),
		}),
	}
	at := len(c.chunk.pages)
	if c.chunk.pages, err = c.appendHeader(c.chunk.pages, &header); err != nil {
		return err
	}
	c.chunk.uncompressed += int64(len(c.chunk.pages)-at) + int64(header.UncompressedPageSize)
	c.chunk.pages = append(append(c.chunk.pages, levels...), body...)
	c.chunk.places = append(c.chunk.places, format.PageLocation{
		Offset: int64(at), CompressedPageSize: int32(len(c.chunk.pages) - at), FirstRowIndex: c.chunk.rows,
	})
	if enc == format.RLEDictionary {
		c.chunk.encoded++
	} else {
		c.chunk.plain++
	}
	c.chunk.rows += int64(p.rows)
	c.chunk.bounds = append(c.chunk.bounds, p.stats)
	c.chunk.stats.merge(&p.stats)
	p.reset()
	if c.dict != nil && c.dict.bytes() > maxDictBytes {
		c.dictFull = true
	}
	return nil
}

// compress compresses a page's values, unless that makes them no smaller: then they are also read faster.
func (c *columnWriter) compress(raw []byte) (body []byte, compressed bool, err error) {
	if len(raw) == 0 || c.codec == nil || c.codec.CompressionCodec() == format.Uncompressed {
		return raw, false, nil
	}
	c.packed, err = c.codec.Encode(c.packed[:cap(c.packed)], raw)
	if err != nil {
		return nil, false, fmt.Errorf("compress: %w", err)
	}
	if len(c.packed) >= len(raw) {
		return raw, false, nil
	}
	return c.packed, true, nil
}

// A dictionary page says nothing about its compression: it is always compressed.
func (c *columnWriter) dictionaryPage() ([]byte, int64, error) {
	var raw []byte
	var n int
	if c.dict != nil {
		raw, n = c.dict.plain(), c.dict.n()
	} else {
		raw, n = c.numbers.plain(c.physical), len(c.numbers.values)
	}
	body := raw
	if c.codec != nil && c.codec.CompressionCodec() != format.Uncompressed {
		var err error
		if c.packed, err = c.codec.Encode(c.packed[:cap(c.packed)], raw); err != nil {
			return nil, 0, fmt.Errorf("compress: %w", err)
		}
		body = c.packed
	}
	header := format.PageHeader{
		Type: format.DictionaryPage, UncompressedPageSize: int32(len(raw)), CompressedPageSize: int32(len(body)), CRC: int32(crc32.ChecksumIEEE(body)),
		DictionaryPageHeader: thrift.New(format.DictionaryPageHeader{NumValues: int32(n), Encoding: format.Plain}),
	}
	out, err := c.appendHeader(nil, &header)
	if err != nil {
		return nil, 0, err
	}
	return append(out, body...), int64(len(out) + len(raw)), nil
}

// An appender is a writer that appends.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

func (c *columnWriter) appendHeader(to []byte, header *format.PageHeader) ([]byte, error) {
	c.header.b = c.header.b[:0]
	if err := thrift.NewEncoder(c.protocol.NewWriter(&c.header)).Encode(header); err != nil {
		return to, fmt.Errorf("page header: %w", err)
	}
	return append(to, c.header.b...), nil
}

var errNull = errors.New("null in a field that is not optional")
