package history

import (
	"fmt"

	"github.com/parquet-go/parquet-go"

	"watershed/schemas"
)

// The shape of the data files. Pages of all columns begin at the same rows, so that a scan can hand
// them on without copying.
const (
	pageRows     = 32 << 10
	rowGroupRows = 512 << 10
	pageBytes    = 1 << 20 // a page of long strings ends earlier
	maxDictBytes = 1 << 20 // a string column with a larger dictionary goes on without one
	maxDictText  = 2 << 10 // and one that meets a longer text: ClickHouse makes room for the average entry in every row that it reads
)

// parquetSchema is the schema of a type's data files. Parquet groups are unordered for us: columns are
// found by name.
func parquetSchema(ev *schemas.Event) (*parquet.Schema, error) {
	group := parquet.Group{
		schemas.SeqColumn: delta(parquet.Int(64)),
		schemas.RowColumn: delta(parquet.Int(32)),
	}
	for _, f := range ev.Fields {
		node, err := parquetNode(f.Type, f.Name == ev.ID)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
		if f.Optional {
			node = parquet.Optional(node)
		}
		group[f.Name] = node
	}
	return parquet.NewSchema(ev.Name, group), nil
}

// delta packs integers by their differences. What is left has little for a general compressor, and
// unpacking is several times faster than decompressing (measured in BenchmarkScan).
func delta(n parquet.Node) parquet.Node {
	return parquet.Compressed(parquet.Encoded(n, &parquet.DeltaBinaryPacked), &parquet.Snappy)
}

// parquetNode maps a field's type onto Parquet.
//
// An id is another in every row, and often begins like the one before. Sharing prefixes and zstd gave the
// smallest files of all encodings and codecs tried, at 16 to 78 M values/s of decoding on one core
// (BenchmarkID; bytes a value, and M values/s, against lengths apart with zstd): "file#row" 0.06 at 78
// against 0.36 at 60, "ord-N" 0.81 at 63 against 2.46 at 73, UUID v7 10.6 at 27 against 12.8 at 25, UUID
// v4 19.4 at 16 against 20.4 at 22. Snappy and no compression decode random ids 1.1 and 2.5 times as fast, and take
// 1.7 to 1.9 times the space.
func parquetNode(t schemas.Type, id bool) (parquet.Node, error) {
	leaf, err := parquetLeaf(t)
	if err != nil {
		return nil, err
	}
	switch t.Kind {
	case schemas.String:
		if id {
			return parquet.Compressed(parquet.Encoded(leaf, &parquet.DeltaByteArray), &parquet.Zstd), nil
		}
		return parquet.Compressed(parquet.Encoded(leaf, &parquet.RLEDictionary), &parquet.Snappy), nil
	case schemas.Bool:
		return parquet.Compressed(leaf, &parquet.Snappy), nil
	case schemas.Float64:
		return parquet.Compressed(leaf, &parquet.Zstd), nil
	case schemas.Decimal:
		if t.Precision > 18 {
			return parquet.Compressed(leaf, &parquet.Zstd), nil
		}
	}
	return delta(leaf), nil
}

// parquetLeaf is a field's type in Parquet, without an encoding.
func parquetLeaf(t schemas.Type) (parquet.Node, error) {
	switch t.Kind {
	case schemas.String:
		return parquet.String(), nil
	case schemas.Bool:
		return parquet.Leaf(parquet.BooleanType), nil
	case schemas.Int64:
		return parquet.Int(64), nil
	case schemas.Float64:
		return parquet.Leaf(parquet.DoubleType), nil
	case schemas.Decimal:
		if t.Precision <= 18 {
			return parquet.Decimal(t.Scale, t.Precision, parquet.Int64Type), nil
		}
		return parquet.Decimal(t.Scale, t.Precision, parquet.FixedLenByteArrayType(16)), nil
	case schemas.Timestamp:
		return parquet.Timestamp(parquet.Microsecond), nil
	case schemas.Date:
		return parquet.Date(), nil
	}
	return nil, fmt.Errorf("no Parquet type for %s", t)
}
