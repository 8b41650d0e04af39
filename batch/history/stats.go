package history

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/parquet-go/parquet-go/format"

	"watershed/schemas"
)

// maxStatBytes is the longest string that goes into the statistics. Longer ones are left out, never cut:
// a cut maximum would be wrong.
const maxStatBytes = 128

// columnStats are the smallest and largest value of one column of a file, and its nulls.
type columnStats struct {
	typ                schemas.Type
	narrow             bool // numbers take four bytes
	any                bool // there is a value that is not null
	nulls              int64
	minInt, maxInt     int64
	minFloat, maxFloat float64
	minDec, maxDec     decimal128.Num
	minText, maxText   string
}

// reset forgets all values.
func (c *columnStats) reset() { *c = columnStats{typ: c.typ, narrow: c.narrow} }

// merge takes in what another stretch of the column has.
func (c *columnStats) merge(o *columnStats) {
	nulls := c.nulls + o.nulls
	switch {
	case !o.any:
	case !c.any:
		*c = *o
	default:
		c.minInt, c.maxInt = min(c.minInt, o.minInt), max(c.maxInt, o.maxInt)
		c.minFloat, c.maxFloat = min(c.minFloat, o.minFloat), max(c.maxFloat, o.maxFloat)
		c.minText, c.maxText = min(c.minText, o.minText), max(c.maxText, o.maxText)
		if c.typ.Kind == schemas.Decimal {
			c.decimal(o.minDec)
			c.decimal(o.maxDec)
		}
	}
	c.nulls = nulls
}

func (c *columnStats) ints(values []int64) {
	if len(values) == 0 {
		return
	}
	if !c.any {
		c.minInt, c.maxInt, c.any = values[0], values[0], true
	}
	lo, hi := c.minInt, c.maxInt
	for _, v := range values {
		lo, hi = min(lo, v), max(hi, v)
	}
	c.minInt, c.maxInt = lo, hi
}

func (c *columnStats) int(v int64) {
	if !c.any {
		c.minInt, c.maxInt, c.any = v, v, true
	}
	c.minInt, c.maxInt = min(c.minInt, v), max(c.maxInt, v)
}

func (c *columnStats) float(v float64) {
	if !c.any {
		c.minFloat, c.maxFloat, c.any = v, v, true
	}
	c.minFloat, c.maxFloat = min(c.minFloat, v), max(c.maxFloat, v)
}

func (c *columnStats) decimal(v decimal128.Num) {
	if !c.any {
		c.minDec, c.maxDec, c.any = v, v, true
	}
	if v.Less(c.minDec) {
		c.minDec = v
	}
	if c.maxDec.Less(v) {
		c.maxDec = v
	}
}

func (c *columnStats) text(v string) {
	switch {
	case !c.any:
		c.minText, c.any = strings.Clone(v), true
		c.maxText = c.minText
	case v < c.minText:
		c.minText = strings.Clone(v)
	case v > c.maxText:
		c.maxText = strings.Clone(v)
	}
}

// bounds are the column's minimum and maximum as JSON; ok is false if they are left out.
func (c *columnStats) bounds() (lo, hi string, ok bool) {
	if !c.any {
		return "", "", false
	}
	switch c.typ.Kind {
	case schemas.Int64:
		return strconv.FormatInt(c.minInt, 10), strconv.FormatInt(c.maxInt, 10), true
	case schemas.Float64:
		return strconv.FormatFloat(c.minFloat, 'g', -1, 64), strconv.FormatFloat(c.maxFloat, 'g', -1, 64), true
	case schemas.Decimal:
		return decimalText(c.minDec, c.typ.Scale), decimalText(c.maxDec, c.typ.Scale), true
	case schemas.Date:
		return quoted(dateText(c.minInt), dateText(c.maxInt))
	case schemas.Timestamp:
		return quoted(instantText(floorDiv(c.minInt, 1000)), instantText(-floorDiv(-c.maxInt, 1000)))
	case schemas.String:
		if len(c.minText) > maxStatBytes || len(c.maxText) > maxStatBytes {
			return "", "", false
		}
		return quoted(c.minText, c.maxText)
	}
	return "", "", false // bool has none
}

// encoded are the bounds as Parquet has them; ok is false if they are left out.
func (c *columnStats) encoded() (lo, hi []byte, ok bool) {
	if !c.any {
		return nil, nil, false
	}
	switch c.typ.Kind {
	case schemas.String:
		if len(c.minText) > maxStatBytes || len(c.maxText) > maxStatBytes {
			return nil, nil, false
		}
		return []byte(c.minText), []byte(c.maxText), true
	case schemas.Bool:
		return []byte{byte(c.minInt)}, []byte{byte(c.maxInt)}, true
	case schemas.Float64:
		lo, hi := c.minFloat, c.maxFloat
		if lo == 0 { // Parquet: some readers take -0 for less than 0
			lo = math.Copysign(0, -1)
		}
		if hi == 0 {
			hi = 0
		}
		return encode64(math.Float64bits(lo)), encode64(math.Float64bits(hi)), true
	case schemas.Decimal:
		if c.typ.Precision > 18 {
			return encode128(c.minDec), encode128(c.maxDec), true
		}
		return encode64(c.minDec.LowBits()), encode64(c.maxDec.LowBits()), true
	}
	if c.narrow {
		return encode64(uint64(c.minInt))[:4], encode64(uint64(c.maxInt))[:4], true
	}
	return encode64(uint64(c.minInt)), encode64(uint64(c.maxInt)), true
}

func encode64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func encode128(v decimal128.Num) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(v.HighBits())), v.LowBits())
}

// parquet is what a row group says of the column.
func (c *columnStats) parquet() format.Statistics {
	out := format.Statistics{NullCount: c.nulls}
	if lo, hi, ok := c.encoded(); ok {
		out.MinValue, out.MaxValue = lo, hi
	}
	return out
}

func quoted(lo, hi string) (string, string, bool) {
	if lo == "" && hi == "" {
		return "", "", false
	}
	return quote(lo), quote(hi), true
}

func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// instantText is an instant given in ms as Delta writes it.
func instantText(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

func dateText(days int64) string {
	return time.Unix(days*int64(day/time.Second), 0).UTC().Format(time.DateOnly)
}

func decimalText(v decimal128.Num, scale int) string {
	text := v.BigInt().String()
	if scale == 0 {
		return text
	}
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	if len(text) <= scale {
		text = strings.Repeat("0", scale+1-len(text)) + text
	}
	return sign + text[:len(text)-scale] + "." + text[len(text)-scale:]
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// stats is the file's statistics as Delta writes them.
func (w *fileWriter) stats() string {
	var lo, hi, nulls []string
	for _, c := range w.columns {
		key := quote(c.name) + ":"
		if l, h, ok := c.stats.bounds(); ok {
			lo, hi = append(lo, key+l), append(hi, key+h)
		}
		nulls = append(nulls, key+strconv.FormatInt(c.stats.nulls, 10))
	}
	return `{"numRecords":` + strconv.FormatInt(w.rows, 10) +
		`,"minValues":{` + strings.Join(lo, ",") + `},"maxValues":{` + strings.Join(hi, ",") +
		`},"nullCount":{` + strings.Join(nulls, ",") + `}}`
}
