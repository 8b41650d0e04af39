package history

import (
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/schemas"
)

// maxSharedDict is how many bytes of distinct strings a column keeps as a dictionary while it is gathered.
const maxSharedDict = 4 << 20

// A gatherer copies chosen rows of many records into one.
type gatherer struct {
	schema  *arrow.Schema
	columns []*gathered
	keys    []rowKey
	timeAt  int
}

// gathered is one column of it.
type gathered struct {
	typ      arrow.DataType
	rows     int
	invalid  []int // rows that are null, ascending
	int64s   []int64
	int32s   []int32 // or codes into dict
	doubles  []float64
	bools    []bool
	decimals []decimal128.Num

	text    []byte // strings, end to end: of the rows, or of the dictionary
	offsets []int32
	dict    map[string]int32 // nil: the strings are those of the rows
	from    *array.Data      // the dictionary that codes were last taken of
	codes   []int32          // by its codes: ours; -1: not met yet
}

func newGatherer(ev *schemas.Event) *gatherer {
	g := &gatherer{schema: ev.ArrowSchema()}
	g.timeAt = g.schema.FieldIndices(ev.Time)[0]
	for _, f := range g.schema.Fields() {
		c := &gathered{typ: f.Type}
		if f.Type.ID() == arrow.STRING {
			c.dict, c.offsets = map[string]int32{}, []int32{0}
		}
		g.columns = append(g.columns, c)
	}
	return g
}

// add copies rows of a record whose columns are those of the schema.
func (g *gatherer) add(rec arrow.Record, keys []rowKey, rows []int32) error {
	for _, i := range rows {
		g.keys = append(g.keys, keys[i])
	}
	for k, c := range g.columns {
		if err := c.add(rec.Column(k), rows); err != nil {
			return fmt.Errorf("column %s: %w", rec.ColumnName(k), err)
		}
		if len(c.text) > math.MaxInt32 {
			return fmt.Errorf("column %s: more than %d bytes at once: give the compaction less memory", rec.ColumnName(k), math.MaxInt32)
		}
	}
	return nil
}

func (c *gathered) add(arr arrow.Array, rows []int32) error {
	if arr.NullN() > 0 {
		for k, i := range rows {
			if arr.IsNull(int(i)) {
				c.invalid = append(c.invalid, c.rows+k)
			}
		}
	}
	c.rows += len(rows)
	switch a := arr.(type) {
	case *array.Int64:
		c.int64s = appendRows(c.int64s, a.Int64Values(), rows)
	case *array.Timestamp:
		for _, i := range rows {
			c.int64s = append(c.int64s, int64(a.Value(int(i))))
		}
	case *array.Int32:
		c.int32s = appendRows(c.int32s, a.Int32Values(), rows)
	case *array.Date32:
		for _, i := range rows {
			c.int32s = append(c.int32s, int32(a.Value(int(i))))
		}
	case *array.Float64:
		c.doubles = appendRows(c.doubles, a.Float64Values(), rows)
	case *array.Boolean:
		for _, i := range rows {
			c.bools = append(c.bools, a.Value(int(i)))
		}
	case *array.Decimal128:
		c.decimals = appendRows(c.decimals, a.Values(), rows)
	case *array.String:
		c.spell()
		for _, i := range rows {
			c.text = append(c.text, a.Value(int(i))...)
			c.offsets = append(c.offsets, int32(len(c.text)))
		}
	case *array.Dictionary:
		return c.addCodes(a, rows)
	default:
		return fmt.Errorf("%s: %w", arr.DataType(), errColumnType)
	}
	return nil
}

func appendRows[T any](to, from []T, rows []int32) []T {
	for _, i := range rows {
		to = append(to, from[i])
	}
	return to
}

// addCodes takes strings that come with a dictionary.
func (c *gathered) addCodes(a *array.Dictionary, rows []int32) error {
	at, ok := a.Indices().(*array.Int32)
	words, text := a.Dictionary().(*array.String)
	if !ok || !text {
		return fmt.Errorf("%s: %w", a.DataType(), errColumnType)
	}
	if c.dict != nil && len(c.text) > maxSharedDict {
		c.spell()
	}
	codes := at.Int32Values()
	if c.dict == nil {
		for _, i := range rows {
			if a.IsValid(int(i)) {
				c.text = append(c.text, words.Value(int(codes[i]))...)
			}
			c.offsets = append(c.offsets, int32(len(c.text)))
		}
		return nil
	}
	if data := a.Data().Dictionary().(*array.Data); c.from != data {
		c.from, c.codes = data, make([]int32, words.Len())
		for k := range c.codes {
			c.codes[k] = -1
		}
	}
	for _, i := range rows {
		if a.IsNull(int(i)) {
			c.int32s = append(c.int32s, 0)
			continue
		}
		code := c.codes[codes[i]]
		if code < 0 {
			code = c.word(words.Value(int(codes[i])))
			c.codes[codes[i]] = code
		}
		c.int32s = append(c.int32s, code)
	}
	return nil
}

// word is the code of a string.
func (c *gathered) word(s string) int32 {
	code, ok := c.dict[s]
	if !ok {
		code = int32(len(c.dict))
		c.text = append(c.text, s...)
		c.offsets = append(c.offsets, int32(len(c.text)))
		c.dict[string(c.text[len(c.text)-len(s):])] = code
	}
	return code
}

// spell goes over from codes to the strings themselves.
func (c *gathered) spell() {
	if c.dict == nil {
		return
	}
	codes, words, ends := c.int32s, c.text, c.offsets
	c.dict, c.int32s, c.text, c.offsets = nil, nil, nil, make([]int32, 1, len(codes)+1)
	for _, k := range codes {
		if int(k)+1 < len(ends) { // a null may come before any word
			c.text = append(c.text, words[ends[k]:ends[k+1]]...)
		}
		c.offsets = append(c.offsets, int32(len(c.text)))
	}
}

// record is what was gathered. It shares the gatherer's memory.
func (g *gatherer) record() arrow.Record {
	fields := make([]arrow.Field, len(g.columns))
	arrays := make([]arrow.Array, len(g.columns))
	for k, c := range g.columns {
		arrays[k] = c.array()
		fields[k] = arrow.Field{Name: g.schema.Field(k).Name, Type: arrays[k].DataType(), Nullable: g.schema.Field(k).Nullable}
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), arrays, int64(len(g.keys)))
}

func (c *gathered) array() arrow.Array {
	var validity, data *memory.Buffer
	if len(c.invalid) > 0 {
		bitmap := make([]byte, bitutil.BytesForBits(int64(c.rows)))
		bitutil.SetBitsTo(bitmap, 0, int64(c.rows), true)
		for _, i := range c.invalid {
			bitutil.ClearBit(bitmap, i)
		}
		validity = memory.NewBufferBytes(bitmap)
	}
	switch c.typ.ID() {
	case arrow.STRING:
		return c.strings(validity)
	case arrow.BOOL:
		packed := make([]byte, bitutil.BytesForBits(int64(c.rows)))
		for i, v := range c.bools {
			bitutil.SetBitTo(packed, i, v)
		}
		data = memory.NewBufferBytes(packed)
	case arrow.INT32, arrow.DATE32:
		data = buffer(c.int32s)
	case arrow.FLOAT64:
		data = buffer(c.doubles)
	case arrow.DECIMAL128:
		data = buffer(c.decimals)
	default:
		data = buffer(c.int64s)
	}
	return array.MakeFromData(array.NewData(c.typ, c.rows, []*memory.Buffer{validity, data}, nil, len(c.invalid), 0))
}

func (c *gathered) strings(validity *memory.Buffer) arrow.Array {
	if c.dict == nil {
		return array.NewStringData(array.NewData(c.typ, c.rows, []*memory.Buffer{validity, buffer(c.offsets), memory.NewBufferBytes(c.text)}, nil, len(c.invalid), 0))
	}
	if len(c.dict) == 0 { // all are null: codes refer to a word all the same
		c.word("")
	}
	words := array.NewData(c.typ, len(c.dict), []*memory.Buffer{nil, buffer(c.offsets), memory.NewBufferBytes(c.text)}, nil, 0, 0)
	return array.NewDictionaryData(array.NewDataWithDictionary(dictionaryType, c.rows, []*memory.Buffer{validity, buffer(c.int32s)}, len(c.invalid), 0, words))
}
