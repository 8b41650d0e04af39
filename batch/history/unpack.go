package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/format"
)

var errShort = errors.New("fewer values than declared")

// zstdDecoder is made once: it is stateless in use, and costly to make.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true))
})

// decompress returns exactly size bytes, and never makes more.
func decompress(codec format.CompressionCodec, in []byte, size int) ([]byte, error) {
	var out []byte
	var err error
	switch codec {
	case format.Uncompressed:
		out = in
	case format.Snappy:
		n, lenErr := snappy.DecodedLen(in)
		if lenErr != nil || n != size {
			return nil, fmt.Errorf("snappy: %d bytes declared, not %d", n, size)
		}
		out, err = snappy.Decode(make([]byte, size), in)
	case format.Zstd:
		if size == 0 {
			return nil, nil
		}
		d, newErr := zstdDecoder()
		if newErr != nil {
			return nil, newErr
		}
		out, err = d.DecodeAll(in, make([]byte, 0, size))
	case format.Gzip:
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(in)); err == nil {
			out = make([]byte, size)
			_, err = io.ReadFull(z, out)
		}
	default:
		return nil, fmt.Errorf("compression %s is not supported: use none, snappy, gzip or zstd", codec)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if len(out) != size {
		return nil, fmt.Errorf("decompress: %d bytes, not the %d declared", len(out), size)
	}
	return out, nil
}

// runs adds up the values of run-length encoded data, so that nothing is decoded that declares more
// than limit. (The decoder itself believes every run header.)
func runs(in []byte, bitWidth, limit int) error {
	total := 0
	for len(in) > 0 {
		u, n := binary.Uvarint(in)
		if n <= 0 {
			return errors.New("damaged run header")
		}
		in = in[n:]
		count, skip := u>>1, uint64((bitWidth+7)/8)
		if u&1 != 0 {
			skip = count * uint64(bitWidth)
			if count > uint64(limit) {
				return errors.New("more values than declared")
			}
			count *= 8
		}
		if count > uint64(limit) || skip > uint64(len(in)) {
			return errors.New("run is longer than the page")
		}
		// The last run of packed values is padded to a multiple of eight.
		if total += int(count); total > limit+63 {
			return errors.New("more values than declared")
		}
		in = in[skip:]
	}
	return nil
}

func decodeLevels(in []byte, n int) ([]byte, error) {
	if err := runs(in, 1, n+63); err != nil {
		return nil, err
	}
	out, err := (&rle.Encoding{BitWidth: 1}).DecodeLevels(make([]byte, 0, n+64), in)
	if err != nil {
		return nil, err
	}
	if len(out) < n {
		return nil, errShort
	}
	for _, l := range out[:n] {
		if l > 1 {
			return nil, errors.New("level above 1")
		}
	}
	return out[:n], nil
}

// decodeCodes decodes dictionary indexes, each of which is below entries.
func decodeCodes(in []byte, n, entries int) ([]int32, error) {
	if n == 0 {
		return nil, nil
	}
	if len(in) == 0 || in[0] > 32 {
		return nil, errors.New("damaged dictionary indexes")
	}
	if err := runs(in[1:], int(in[0]), n+63); err != nil {
		return nil, err
	}
	out, err := parquet.RLEDictionary.DecodeInt32(make([]int32, 0, n+64), in)
	if err != nil {
		return nil, err
	}
	if len(out) < n {
		return nil, errShort
	}
	var top uint32
	for _, k := range out[:n] {
		top = max(top, uint32(k))
	}
	if int64(top) >= int64(entries) {
		return nil, fmt.Errorf("index %d into a dictionary of %d", top, entries)
	}
	return out[:n], nil
}

// decode decodes n values of the column's physical type.
func (c *chunkReader) decode(enc format.Encoding, in []byte, n int) (v values, err error) {
	v.n = n
	if err := checkDeclared(enc, in, n); err != nil {
		return v, err
	}
	var got int
	switch e, t := parquet.LookupEncoding(enc), c.meta.Type; {
	case !supported(enc, t):
		return v, fmt.Errorf("encoding %s of %s is not supported", enc, t)
	case t == format.Boolean:
		v.bits, err = e.DecodeBoolean(make([]byte, 0, n/8+9), in)
		got = 8 * len(v.bits)
	case t == format.Int32:
		v.int32s, err = e.DecodeInt32(make([]int32, 0, n+64), in)
		got, v.int32s = len(v.int32s), cut(v.int32s, n)
	case t == format.Int64:
		v.int64s, err = e.DecodeInt64(make([]int64, 0, n+64), in)
		got, v.int64s = len(v.int64s), cut(v.int64s, n)
	case t == format.Float:
		v.floats, err = e.DecodeFloat(make([]float32, 0, n), in)
		got, v.floats = len(v.floats), cut(v.floats, n)
	case t == format.Double:
		v.doubles, err = e.DecodeDouble(make([]float64, 0, n), in)
		got, v.doubles = len(v.doubles), cut(v.doubles, n)
	case t == format.FixedLenByteArray:
		v.data, err = e.DecodeFixedLenByteArray(make([]byte, 0, len(in)), in, c.width)
		got = len(v.data) / max(c.width, 1)
	case enc == format.DeltaByteArray && n > 0:
		v.data, v.offsets, err = decodePrefixed(in, n)
		got = len(v.offsets) - 1
	default: // BYTE_ARRAY
		v.data, v.offsets, err = decodeByteArrays(e, in, n)
		got = len(v.offsets) - 1
	}
	if err == nil && got < n {
		err = errShort
	}
	return v, err
}

func decodeByteArrays(e encoding.Encoding, in []byte, n int) ([]byte, []uint32, error) {
	if n == 0 {
		return nil, []uint32{0}, nil
	}
	data, offsets, err := e.DecodeByteArray(make([]byte, 0, len(in)), in, make([]uint32, 0, n+1))
	return data, cut(offsets, n+1), err
}

func cut[T any](s []T, n int) []T { return s[:min(n, len(s))] }

// supported lists what history writes and what other writers commonly write.
func supported(enc format.Encoding, t format.Type) bool {
	switch enc {
	case format.Plain:
		return t != format.Int96
	case format.RLE:
		return t == format.Boolean
	case format.DeltaBinaryPacked:
		return t == format.Int32 || t == format.Int64
	case format.DeltaLengthByteArray, format.DeltaByteArray:
		return t == format.ByteArray
	}
	return false
}

// checkDeclared holds the number of values that encoded data declares of itself against that of the page.
func checkDeclared(enc format.Encoding, in []byte, n int) error {
	switch enc {
	case format.RLE:
		if len(in) < 4 {
			return errShort
		}
		return runs(in[4:], 1, n+63)
	case format.DeltaBinaryPacked, format.DeltaLengthByteArray:
		for range 2 { // block size, number of miniblocks
			_, k := binary.Uvarint(in)
			if k <= 0 {
				return errShort
			}
			in = in[k:]
		}
		if total, k := binary.Uvarint(in); k <= 0 || total != uint64(n) {
			return fmt.Errorf("%d packed values in a page of %d", total, n)
		}
	}
	return nil
}
