package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// Limits on what a Parquet file may declare. They are far above what this package writes, and keep a
// damaged or hostile file from asking for more memory than it has bytes to justify.
const (
	maxFooterBytes = 64 << 20
	maxPageBytes   = 256 << 20 // uncompressed
	maxPageValues  = 64 << 20
	maxChunkBytes  = 2 << 30
)

// A page is one decoded data page. Of the values only those that are not null are there; which of the
// slices is set follows from the physical type, or codes if the page refers to a dictionary.
type page struct {
	rows   int
	levels []byte // by row: 1 if there is a value; nil if every row has one
	values values
	codes  []int32 // into dict
	dict   *values
}

// values are plain values of one physical type.
type values struct {
	n       int
	bits    []byte // BOOLEAN, one bit each
	int32s  []int32
	int64s  []int64
	floats  []float32
	doubles []float64
	data    []byte   // BYTE_ARRAY and FIXED_LEN_BYTE_ARRAY, end to end
	offsets []uint32 // BYTE_ARRAY: n+1 offsets into data
}

// A chunkReader decodes the pages of one column of one row group.
type chunkReader struct {
	meta     *format.ColumnMetaData
	width    int  // of FIXED_LEN_BYTE_ARRAY
	optional bool // one definition level
	left     []byte
	rows     int64 // that have not been read
	dict     *values
}

// openChunk reads a column chunk into memory. What the chunk's metadata says is checked against the
// file's size first.
func openChunk(r io.ReaderAt, size int64, meta *format.ColumnMetaData, rows int64, optional bool, width int) (*chunkReader, error) {
	start := meta.DataPageOffset
	if meta.DictionaryPageOffset > 0 && meta.DictionaryPageOffset < start {
		start = meta.DictionaryPageOffset
	}
	n := meta.TotalCompressedSize
	if start < 0 || n < 0 || n > maxChunkBytes || start > size || n > size-start || meta.NumValues != rows || rows < 0 {
		return nil, fmt.Errorf("chunk of %d values in %d bytes at %d does not lie in the file", meta.NumValues, n, start)
	}
	b := make([]byte, n)
	if _, err := r.ReadAt(b, start); err != nil {
		return nil, fmt.Errorf("read chunk: %w", err)
	}
	return &chunkReader{meta: meta, width: width, optional: optional, left: b, rows: rows}, nil
}

// next decodes the next data page; io.EOF after the last.
func (c *chunkReader) next() (*page, error) {
	for c.rows > 0 {
		header, body, err := c.cut()
		if err != nil {
			return nil, err
		}
		switch header.Type {
		case format.DictionaryPage:
			if err := c.readDictionary(header, body); err != nil {
				return nil, fmt.Errorf("dictionary page: %w", err)
			}
		case format.DataPage, format.DataPageV2:
			p, err := c.readData(header, body)
			if err != nil {
				return nil, fmt.Errorf("data page: %w", err)
			}
			c.rows -= int64(p.rows)
			return p, nil
		default: // an index page, which nothing writes
		}
	}
	return nil, io.EOF
}

// cut takes the next page off the chunk and checks its sizes and its checksum.
func (c *chunkReader) cut() (*format.PageHeader, []byte, error) {
	protocol := new(thrift.CompactProtocol)
	r := protocol.NewReaderFromBytes(c.left)
	header := new(format.PageHeader)
	if err := thrift.NewDecoder(r).Decode(header); err != nil {
		return nil, nil, fmt.Errorf("page header: %w", err)
	}
	rest := c.left[r.BytesRead():]
	n := int(header.CompressedPageSize)
	if n < 0 || n > len(rest) || header.UncompressedPageSize < 0 || header.UncompressedPageSize > maxPageBytes {
		return nil, nil, fmt.Errorf("page of %d bytes, %d uncompressed, where %d are left", n, header.UncompressedPageSize, len(rest))
	}
	body := rest[:n:n]
	c.left = rest[n:]
	if header.CRC != 0 && crc32.ChecksumIEEE(body) != uint32(header.CRC) {
		return nil, nil, errors.New("page checksum does not match")
	}
	return header, body, nil
}

func (c *chunkReader) readDictionary(header *format.PageHeader, body []byte) error {
	if !header.DictionaryPageHeader.Valid || c.dict != nil {
		return errors.New("page header does not fit")
	}
	n := int(header.DictionaryPageHeader.V.NumValues)
	if n < 0 || n > maxPageValues {
		return fmt.Errorf("%d entries", n)
	}
	raw, err := decompress(c.meta.Codec, body, int(header.UncompressedPageSize))
	if err != nil {
		return err
	}
	v, err := c.decode(format.Plain, raw, n)
	if err != nil {
		return err
	}
	c.dict = &v
	return nil
}

// readData decodes a data page of either version.
func (c *chunkReader) readData(header *format.PageHeader, body []byte) (*page, error) {
	var rows int
	var levels []byte // encoded
	var enc format.Encoding
	raw, err := body, error(nil)
	switch h1, h2 := header.DataPageHeader, header.DataPageHeaderV2; {
	case header.Type == format.DataPage && h1.Valid:
		rows, enc = int(h1.V.NumValues), h1.V.Encoding
		if raw, err = decompress(c.meta.Codec, body, int(header.UncompressedPageSize)); err != nil {
			return nil, err
		}
		if c.optional {
			if len(raw) < 4 || uint64(binary.LittleEndian.Uint32(raw)) > uint64(len(raw)-4) {
				return nil, errors.New("definition levels are cut off")
			}
			n := int(binary.LittleEndian.Uint32(raw))
			levels, raw = raw[4:4+n], raw[4+n:]
		}
	case header.Type == format.DataPageV2 && h2.Valid:
		rows, enc = int(h2.V.NumValues), h2.V.Encoding
		n := int(h2.V.DefinitionLevelsByteLength)
		if n < 0 || n > len(body) || h2.V.RepetitionLevelsByteLength != 0 || n > int(header.UncompressedPageSize) {
			return nil, errors.New("definition levels are cut off")
		}
		levels, raw = body[:n], body[n:]
		if !h2.V.IsCompressed.Valid || h2.V.IsCompressed.V {
			if raw, err = decompress(c.meta.Codec, raw, int(header.UncompressedPageSize)-n); err != nil {
				return nil, err
			}
		}
	default:
		return nil, errors.New("page header does not fit")
	}
	if rows <= 0 || rows > maxPageValues || int64(rows) > c.rows {
		return nil, fmt.Errorf("page of %d rows where %d are left", rows, c.rows)
	}
	return c.fill(&page{rows: rows}, enc, levels, raw)
}

// fill decodes a page's levels and values.
func (c *chunkReader) fill(p *page, enc format.Encoding, levels, raw []byte) (*page, error) {
	present := p.rows
	if c.optional {
		l, err := decodeLevels(levels, p.rows)
		if err != nil {
			return nil, fmt.Errorf("definition levels: %w", err)
		}
		if present = countOnes(l); present < p.rows {
			p.levels = l
		}
	}
	var err error
	if enc != format.RLEDictionary && enc != format.PlainDictionary {
		p.values, err = c.decode(enc, raw, present)
		return p, err
	}
	if c.dict == nil {
		return nil, errors.New("there is no dictionary")
	}
	p.dict = c.dict
	p.codes, err = decodeCodes(raw, present, c.dict.n)
	return p, err
}

func countOnes(levels []byte) int {
	n := 0
	for _, l := range levels {
		n += int(l)
	}
	return n
}
