package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// What a file that the library reads may declare, beside its size.
const (
	spareBytes  = 32 << 20  // uncompressed
	spareValues = 256 << 10 // nulls included
	perByte     = 256       // uncompressed bytes for each of the file; zstd seldom reaches it
)

// checkDeclarations goes through all pages of a Parquet file that the library is to read, and holds what
// they declare (sizes, numbers of values, lengths of runs) against the bytes that are there: the library
// believes it, and would make as much memory as a damaged byte asks for.
func checkDeclarations(r io.ReaderAt, size int64, file *parquet.File) error {
	left := declared{bytes: spareBytes + perByte*size, values: spareValues + 8*size}
	schema, leaves := file.Schema(), file.Schema().Columns()
	for g, group := range file.Metadata().RowGroups {
		if len(group.Columns) != len(leaves) {
			return fmt.Errorf("row group %d has %d columns, not %d", g, len(group.Columns), len(leaves))
		}
		for i := range group.Columns {
			leaf, ok := schema.Lookup(leaves[i]...)
			if !ok {
				return fmt.Errorf("column %v is not in the schema", leaves[i])
			}
			if err := left.column(r, size, &group.Columns[i].MetaData, leaf); err != nil {
				return fmt.Errorf("column %v of row group %d: %w", leaves[i], g, err)
			}
		}
	}
	return nil
}

// declared is how much may be declared still.
type declared struct{ bytes, values int64 }

func (d *declared) column(r io.ReaderAt, size int64, meta *format.ColumnMetaData, leaf parquet.LeafColumn) error {
	if d.values -= meta.NumValues; meta.NumValues < 0 || d.values < 0 {
		return fmt.Errorf("%d values are more than the file can have", meta.NumValues)
	}
	c, err := openChunk(r, size, meta, meta.NumValues, false, 0)
	if err != nil {
		return err
	}
	for len(c.left) > 0 {
		header, body, err := c.cut()
		if err != nil {
			return err
		}
		if d.bytes -= int64(header.UncompressedPageSize); d.bytes < 0 {
			return errors.New("its pages are larger than the file can justify")
		}
		if err := checkPage(meta, header, body, leaf); err != nil {
			return err
		}
	}
	return nil
}

// checkPage holds the runs of a page against its number of values.
func checkPage(meta *format.ColumnMetaData, header *format.PageHeader, body []byte, leaf parquet.LeafColumn) error {
	var n int64
	var enc format.Encoding
	repWidth, defWidth := bits.Len(uint(leaf.MaxRepetitionLevel)), bits.Len(uint(leaf.MaxDefinitionLevel))
	var levels [2][]byte
	raw, err := body, error(nil)
	switch h1, h2 := header.DataPageHeader, header.DataPageHeaderV2; {
	case header.Type == format.DictionaryPage && header.DictionaryPageHeader.Valid:
		if n := int64(header.DictionaryPageHeader.V.NumValues); n < 0 || n > int64(header.UncompressedPageSize) {
			return fmt.Errorf("%d entries", n)
		}
		return nil
	case header.Type == format.DataPage && h1.Valid:
		n, enc = int64(h1.V.NumValues), h1.V.Encoding
		if raw, err = decompress(meta.Codec, body, int(header.UncompressedPageSize)); err != nil {
			return err
		}
		for i, width := range []int{repWidth, defWidth} {
			if width == 0 {
				continue
			}
			if len(raw) < 4 || uint64(binary.LittleEndian.Uint32(raw)) > uint64(len(raw)-4) {
				return errors.New("levels are cut off")
			}
			k := int(binary.LittleEndian.Uint32(raw))
			levels[i], raw = raw[4:4+k], raw[4+k:]
		}
	case header.Type == format.DataPageV2 && h2.Valid:
		n, enc = int64(h2.V.NumValues), h2.V.Encoding
		r, d := int64(h2.V.RepetitionLevelsByteLength), int64(h2.V.DefinitionLevelsByteLength)
		if r < 0 || d < 0 || r+d > int64(len(body)) || r+d > int64(header.UncompressedPageSize) || h2.V.NumNulls < 0 || h2.V.NumRows < 0 {
			return errors.New("levels are cut off")
		}
		levels[0], levels[1], raw = body[:r], body[r:r+d], body[r+d:]
		if !h2.V.IsCompressed.Valid || h2.V.IsCompressed.V {
			if raw, err = decompress(meta.Codec, raw, int(int64(header.UncompressedPageSize)-r-d)); err != nil {
				return err
			}
		}
	default:
		return errors.New("page header does not fit")
	}
	if n < 0 || n > meta.NumValues {
		return fmt.Errorf("page of %d values in a column of %d", n, meta.NumValues)
	}
	for i, width := range []int{repWidth, defWidth} {
		if err := runs(levels[i], width, int(n)+63); err != nil {
			return fmt.Errorf("levels: %w", err)
		}
	}
	switch {
	case enc != format.RLEDictionary && enc != format.PlainDictionary:
		return checkPacked(enc, raw, n)
	case len(raw) == 0:
		return nil
	case raw[0] > 32:
		return errors.New("damaged dictionary indexes")
	}
	return runs(raw[1:], int(raw[0]), int(n)+63)
}

// checkPacked holds the number of values that encoded data declares of itself against the page's.
func checkPacked(enc format.Encoding, raw []byte, n int64) error {
	switch enc {
	case format.Plain:
		return nil
	case format.RLE:
		if len(raw) < 4 {
			return errShort
		}
		return runs(raw[4:], 1, int(n)+63)
	case format.DeltaBinaryPacked, format.DeltaLengthByteArray, format.DeltaByteArray:
		for range 2 { // block size, number of miniblocks
			v, k := binary.Uvarint(raw)
			if k <= 0 || v > 1<<16 {
				return errShort
			}
			raw = raw[k:]
		}
		if total, k := binary.Uvarint(raw); k <= 0 || total > uint64(n) {
			return fmt.Errorf("%d packed values in a page of %d", total, n)
		}
		return nil
	}
	return fmt.Errorf("encoding %s is not supported", enc)
}
