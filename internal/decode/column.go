package decode

import (
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/schemas"
)

// A column is the values of one field of the events appended so far. Which slice is used
// follows from the kind. Slices are handed over to the record, never used again after it.
type column struct {
	name     string
	quoted   string // the name as a JSON string
	kind     schemas.Kind
	typ      schemas.Type
	optional bool
	key      key    // the same with a colon behind it
	follow   int    // the field that came after this one last time
	seen     uint64 // number of the line that had this field last

	ints     []int64 // int64; timestamp, µs
	days     []int32 // date
	floats   []float64
	decimals []decimal128.Num
	bools    []byte
	text     text
	null     []bool // optional fields only
}

func newColumn(f schemas.Field, follow int) column {
	return column{
		name: f.Name, quoted: `"` + f.Name + `"`, key: newKey(`"` + f.Name + `":`), kind: f.Type.Kind, typ: f.Type, optional: f.Optional, follow: follow,
	}
}

func (c *column) appendNull() {
	switch c.kind {
	case schemas.String:
		c.text.appendNull()
	case schemas.Bool:
		c.bools = append(c.bools, 0)
	case schemas.Int64, schemas.Timestamp:
		c.ints = append(c.ints, 0)
	case schemas.Float64:
		c.floats = append(c.floats, 0)
	case schemas.Decimal:
		c.decimals = append(c.decimals, decimal128.Num{})
	case schemas.Date:
		c.days = append(c.days, 0)
	}
	c.null = append(c.null, true)
}

// truncate forgets what was appended behind the first n rows: that of a row which is refused.
func (c *column) truncate(n int) {
	switch c.kind {
	case schemas.String:
		c.text.truncate(n)
	case schemas.Bool:
		c.bools = c.bools[:min(n, len(c.bools))]
	case schemas.Int64, schemas.Timestamp:
		c.ints = c.ints[:min(n, len(c.ints))]
	case schemas.Float64:
		c.floats = c.floats[:min(n, len(c.floats))]
	case schemas.Decimal:
		c.decimals = c.decimals[:min(n, len(c.decimals))]
	case schemas.Date:
		c.days = c.days[:min(n, len(c.days))]
	}
	c.null = c.null[:min(n, len(c.null))]
}

// take hands over the column's n rows as an array and its field, and starts anew with room for
// as many.
func (c *column) take(n int) (arrow.Field, arrow.Array) {
	field := arrow.Field{Name: c.name, Type: c.typ.Arrow(), Nullable: c.optional}
	valid, nulls := bitmap(c.null)
	var values *memory.Buffer
	switch c.kind {
	case schemas.String:
		arr := c.text.take(n, valid, nulls)
		field.Type = arr.DataType()
		c.null = c.null[:0]
		return field, arr
	case schemas.Bool:
		values = memory.NewBufferBytes(pack(c.bools))
		c.bools = c.bools[:0]
	case schemas.Int64, schemas.Timestamp:
		values = memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(c.ints))
		c.ints = make([]int64, 0, n)
	case schemas.Float64:
		values = memory.NewBufferBytes(arrow.Float64Traits.CastToBytes(c.floats))
		c.floats = make([]float64, 0, n)
	case schemas.Decimal:
		values = memory.NewBufferBytes(arrow.Decimal128Traits.CastToBytes(c.decimals))
		c.decimals = make([]decimal128.Num, 0, n)
	case schemas.Date:
		values = memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.days))
		c.days = make([]int32, 0, n)
	}
	c.null = c.null[:0]
	data := array.NewData(field.Type, n, []*memory.Buffer{valid, values}, nil, nulls, 0)
	defer data.Release()
	return field, array.MakeFromData(data)
}

// Record hands over the events appended since the last Record: the declared fields in their
// order, _seq and _row, in the order of appending. A string column is a dictionary of int32
// indexes when it has few different values, and such dictionaries are shared by successive
// records as long as no value is added. The caller releases the record.
func (d *Decoder) Record() arrow.Record {
	n := d.rows
	fields := make([]arrow.Field, 0, len(d.cols)+2)
	arrays := make([]arrow.Array, 0, len(d.cols)+2)
	for i := range d.cols {
		f, a := d.cols[i].take(n)
		fields, arrays = append(fields, f), append(arrays, a)
	}
	seqs := array.NewData(arrow.PrimitiveTypes.Int64, n,
		[]*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(d.seqs))}, nil, 0, 0)
	rows := array.NewData(arrow.PrimitiveTypes.Int32, n,
		[]*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(d.rowNums))}, nil, 0, 0)
	defer seqs.Release()
	defer rows.Release()
	fields = append(fields, arrow.Field{Name: schemas.SeqColumn, Type: arrow.PrimitiveTypes.Int64},
		arrow.Field{Name: schemas.RowColumn, Type: arrow.PrimitiveTypes.Int32})
	arrays = append(arrays, array.NewInt64Data(seqs), array.NewInt32Data(rows))
	rec := array.NewRecord(arrow.NewSchema(fields, nil), arrays, int64(n))
	for _, a := range arrays {
		a.Release()
	}
	d.seqs, d.rowNums, d.rows, d.bytes = make([]int64, 0, n), make([]int32, 0, n), 0, 0
	return rec
}

// bitmap is Arrow's validity bitmap of rows of which some are null, nil if none is.
func bitmap(null []bool) (*memory.Buffer, int) {
	nulls := 0
	for _, is := range null {
		if is {
			nulls++
		}
	}
	if nulls == 0 {
		return nil, 0
	}
	bits := make([]byte, (len(null)+7)/8)
	for i, is := range null {
		if !is {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return memory.NewBufferBytes(bits), nulls
}

// pack makes a bitmap of bytes that are 0 or 1.
func pack(bools []byte) []byte {
	bits := make([]byte, (len(bools)+7)/8)
	for i, b := range bools {
		bits[i/8] |= b << (i % 8)
	}
	return bits
}
