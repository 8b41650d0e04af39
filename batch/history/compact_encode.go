package history

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding"

	"watershed/schemas"
)

// A form is how a column can be stored.
type form struct {
	encoding encoding.Encoding // nil: plain
	codec    compress.Codec
}

// worthwhile is what share of a column's size a form must save to be taken instead of one that is read
// faster: 1/16.
const worthwhile = 16

// better is the level of zstd behind the default one, which is tried for strings, too. BenchmarkZstd, ids of 16 random hex
// digits: the fastest leaves 15.6 bytes of each, the default 10.7, this one 8.4 (8.1 with lengths apart) in more than twice
// the CPU time, the best 8.5. Random floats stay as large as they are at any level.
var better compress.Codec = &zstd.Codec{Level: zstd.SpeedBetterCompression}

// forms are those that are tried for a type, the ones that are read fastest first.
func forms(t schemas.Type) []form {
	switch t.Kind {
	case schemas.String:
		return []form{
			{&parquet.RLEDictionary, &parquet.Snappy}, {&parquet.RLEDictionary, &parquet.Zstd},
			{&parquet.DeltaLengthByteArray, &parquet.Zstd}, {&parquet.DeltaLengthByteArray, better},
			{&parquet.DeltaByteArray, &parquet.Zstd}, {&parquet.DeltaByteArray, better},
		}
	case schemas.Bool:
		return []form{{nil, &parquet.Snappy}, {nil, &parquet.Zstd}}
	case schemas.Float64:
		return []form{{&parquet.RLEDictionary, &parquet.Snappy}, {nil, &parquet.Zstd}}
	case schemas.Decimal:
		if t.Precision > 18 {
			return []form{{nil, &parquet.Zstd}}
		}
	}
	return []form{
		{&parquet.DeltaBinaryPacked, &parquet.Snappy}, {&parquet.RLEDictionary, &parquet.Snappy}, {&parquet.RLEDictionary, &parquet.Zstd},
		{&parquet.DeltaBinaryPacked, &parquet.Zstd}, {nil, &parquet.Zstd},
	}
}

// What a trial encodes: some stretches of rows as they will lie in the file; of strings a whole row group,
// since that is what a dictionary is for.
const (
	trialStretches = 4
	trialRows      = pageRows / 2 // each
)

// chooseSchema tries for each column which form stores its rows, in that order, in the fewest bytes.
func chooseSchema(ev *schemas.Event, rec arrow.Record, order []int32) (*parquet.Schema, error) {
	var sample []int32
	for k := range trialStretches {
		from := k * max(0, len(order)-trialRows) / (trialStretches - 1)
		sample = append(sample, order[from:min(from+trialRows, len(order))]...)
		if len(order) <= trialRows {
			break
		}
	}
	group := parquet.Group{}
	for k, f := range ownFields(ev) {
		rows := sample
		if f.Type.Kind == schemas.String {
			rows = order[:min(len(order), rowGroupRows)]
		}
		best, err := choose(f, rec.Column(k), rows, forms(f.Type))
		if err == nil {
			group[f.Name], err = best.node(f)
		}
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	return parquet.NewSchema(ev.Name, group), nil
}

// choose is the form of a column that stores rows of it in the fewest bytes.
func choose(f schemas.Field, col arrow.Array, rows []int32, among []form) (best form, err error) {
	least := -1
	for _, form := range among {
		node, err := form.node(f)
		if err != nil {
			return best, err
		}
		n, err := trial(f, node, col, rows)
		if err != nil {
			return best, err
		}
		if least < 0 || n < least-least/worthwhile {
			best, least = form, n
		}
	}
	return best, nil
}

// ownFields are an event's fields and the columns that we add.
func ownFields(ev *schemas.Event) []schemas.Field {
	return append(append([]schemas.Field(nil), ev.Fields...),
		schemas.Field{Name: schemas.SeqColumn, Type: schemas.Type{Kind: schemas.Int64}},
		schemas.Field{Name: schemas.RowColumn, Type: schemas.Type{Kind: schemas.Int64}})
}

func (m form) node(f schemas.Field) (parquet.Node, error) {
	node, err := parquetLeaf(f.Type)
	if f.Name == schemas.RowColumn {
		node = parquet.Int(32)
	}
	if err != nil {
		return nil, err
	}
	if m.encoding != nil {
		node = parquet.Encoded(node, m.encoding)
	}
	node = parquet.Compressed(node, m.codec)
	if f.Optional {
		node = parquet.Optional(node)
	}
	return node, nil
}

// trial is how many bytes some rows of one column take.
func trial(f schemas.Field, node parquet.Node, col arrow.Array, rows []int32) (int, error) {
	c := newColumnWriter(f, node)
	for from := 0; from < len(rows); from += pageRows {
		part := rows[from:min(from+pageRows, len(rows))]
		if err := c.write(col, span{rows: part}); err != nil {
			return 0, err
		}
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	size := len(c.chunk.pages)
	if c.chunk.encoded > 0 {
		dict, _, err := c.dictionaryPage()
		if err != nil {
			return 0, err
		}
		size += len(dict)
	}
	return size, nil
}
