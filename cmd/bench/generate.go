package main

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"watershed/batch/history"
	"watershed/schemas"
)

// Traffic says what page views are generated. Equal Traffic gives equal events, on every machine.
type Traffic struct {
	Events     int     `json:"events"`     // distinct ones
	Days       int     `json:"days"`       // that they are spread over, evenly
	Seed       uint64  `json:"seed"`       // what they are drawn by
	Duplicates float64 `json:"duplicates"` // share of events that the raw history has once more
	Late       float64 `json:"late"`       // share of events that came a day late
}

const (
	microsPerDay = 86_400_000_000
	users        = 1_000_000
	pages        = 10_000
	hours        = 24 // files of a date of the raw history, besides that of the late events
)

// firstDate is the date of the first events, in days since 1970-01-01.
var firstDate = int32(time.Date(2025, time.March, 3, 0, 0, 0, 0, time.UTC).Unix() / 86_400)

var (
	devices   = []string{"desktop", "mobile", "tablet", "tv"}
	countries = []string{
		"US", "IN", "BR", "GB", "DE", "FR", "JP", "CA", "MX", "ID", "ES", "IT", "TR", "NL", "AU", "KR", "PL", "PH", "VN", "AR",
		"CO", "TH", "MY", "SE", "ZA", "EG", "NG", "PK", "BD", "UA", "RO", "BE", "CH", "AT", "CZ", "PT", "GR", "DK", "NO", "FI",
		"IE", "IL", "CL", "PE", "SG", "HK", "TW", "NZ", "HU", "KE",
	}
)

// dates are those of the events.
func (t Traffic) dates() []int32 {
	out := make([]int32, t.Days)
	for i := range out {
		out[i] = firstDate + int32(i)
	}
	return out
}

// on is the range of event numbers on a date.
func (t Traffic) on(date int32) (from, to int) {
	day := int(date - firstDate)
	return day * t.Events / t.Days, (day + 1) * t.Events / t.Days
}

// power draws ranks 0..n-1 whose frequency falls with the rank to the power -s, by the inverse of the
// continuous distribution.
func power(n, s float64) func(*rand.Rand) int {
	if s == 1 {
		return func(r *rand.Rand) int { return int(math.Exp(r.Float64()*math.Log(n+1))) - 1 }
	}
	e := 1 - s
	width := math.Pow(n+1, e) - 1
	return func(r *rand.Rand) int { return min(int(math.Pow(1+r.Float64()*width, 1/e))-1, int(n)-1) }
}

// A pageviews is the events of one date: the distinct ones by time, then the second copies.
type pageviews struct {
	record   arrow.Record
	distinct int
	copyOf   []int32 // of the second copies: which event
	rng      *rand.Rand
}

// generate draws the events of a date. Dates are independent, so they can be made in any order.
func (t Traffic) generate(ev *schemas.Event, date int32) pageviews {
	from, to := t.on(date)
	rng := rand.New(rand.NewPCG(t.Seed, uint64(date)))
	p := pageviews{distinct: to - from, rng: rng}
	rows := make([]int32, p.distinct) // row of the distinct events by row of the record
	for i := range rows {
		rows[i] = int32(i)
	}
	for i := range rows {
		if rng.Float64() < t.Duplicates {
			p.copyOf = append(p.copyOf, int32(i))
		}
	}
	rows = append(rows, p.copyOf...)
	columns := []arrow.Array{
		ids(rows, uint64(from), t.Seed), times(rng, rows, p.distinct, date), userColumn(rng, rows, p.distinct),
		coded(rows, pageNames(), draw(rng, p.distinct, power(pages, 1))),
		coded(rows, countries, draw(rng, p.distinct, power(float64(len(countries)), 0.9))),
		coded(rows, devices, draw(rng, p.distinct, weighted(40, 52, 6, 2))),
		ints(rows, statuses(rng, p.distinct)), latencies(rng, rows, p.distinct), amounts(rng, rows, p.distinct),
		ints(rows, make([]int64, p.distinct)), numbers(len(rows)),
	}
	fields := ev.ArrowSchema().Fields()
	for i := range fields {
		fields[i].Type = columns[i].DataType()
	}
	p.record = array.NewRecord(arrow.NewSchema(fields, nil), columns, int64(len(rows)))
	return p
}

func draw(rng *rand.Rand, n int, one func(*rand.Rand) int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(one(rng))
	}
	return out
}

// weighted draws indexes by their weights in percent.
func weighted(percent ...int) func(*rand.Rand) int {
	return func(r *rand.Rand) int {
		x := r.IntN(100)
		for i, p := range percent {
			if x -= p; x < 0 {
				return i
			}
		}
		return len(percent) - 1
	}
}

// ids are 16 hexadecimal digits: a permutation of the events' numbers, so that no two are equal.
func ids(rows []int32, first, seed uint64) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	b.Reserve(len(rows))
	b.ReserveData(16 * len(rows))
	var digits [16]byte
	for _, r := range rows {
		x := first + uint64(r) + seed<<40
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
		for i := range digits {
			digits[i] = "0123456789abcdef"[x>>(60-4*i)&15]
		}
		b.BinaryBuilder.Append(digits[:])
	}
	return b.NewArray()
}

// times ascend over a day that has its busy and its quiet hours.
func times(rng *rand.Rand, rows []int32, n int, date int32) arrow.Array {
	at := make([]int64, n)
	for i := range at {
		for {
			x := rng.Float64()
			if rng.Float64() < 0.55-0.45*math.Cos(2*math.Pi*(x-0.1)) {
				at[i] = int64(x * microsPerDay)
				break
			}
		}
	}
	slices.Sort(at)
	b := array.NewTimestampBuilder(memory.DefaultAllocator, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"})
	b.Reserve(len(rows))
	for _, r := range rows {
		b.UnsafeAppend(arrow.Timestamp(int64(date)*microsPerDay + at[r]))
	}
	return b.NewArray()
}

// userColumn scatters the ranks over the numbers, so that busy users are no neighbours.
func userColumn(rng *rand.Rand, rows []int32, n int) arrow.Array {
	v := make([]int64, n)
	rank := power(users, 0.8)
	for i := range v {
		v[i] = int64(rank(rng)) * 614_657 % users // the factor has no divisor in common with users
	}
	return ints(rows, v)
}

func statuses(rng *rand.Rand, n int) []int64 {
	v := make([]int64, n)
	of, one := []int64{200, 301, 404, 500}, weighted(92, 3, 4, 1)
	for i := range v {
		v[i] = of[one(rng)]
	}
	return v
}

// latencies are log-normal with a median of 90 ms, to the microsecond.
func latencies(rng *rand.Rand, rows []int32, n int) arrow.Array {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.Round(1000*math.Exp(4.5+0.9*rng.NormFloat64())+1) / 1000
	}
	b := array.NewFloat64Builder(memory.DefaultAllocator)
	b.Reserve(len(rows))
	for _, r := range rows {
		b.UnsafeAppend(v[r])
	}
	return b.NewArray()
}

func amounts(rng *rand.Rand, rows []int32, n int) arrow.Array {
	v := make([]int64, n)
	for i := range v {
		v[i] = int64(100 * math.Exp(3+rng.NormFloat64()))
	}
	b := array.NewDecimal128Builder(memory.DefaultAllocator, &arrow.Decimal128Type{Precision: 18, Scale: 2})
	b.Reserve(len(rows))
	for _, r := range rows {
		b.UnsafeAppend(decimal128.FromI64(v[r]))
	}
	return b.NewArray()
}

func ints(rows []int32, v []int64) arrow.Array {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	b.Reserve(len(rows))
	for _, r := range rows {
		b.UnsafeAppend(v[r])
	}
	return b.NewArray()
}

func numbers(n int) arrow.Array {
	b := array.NewInt32Builder(memory.DefaultAllocator)
	b.Reserve(n)
	for i := range n {
		b.UnsafeAppend(int32(i))
	}
	return b.NewArray()
}

// coded is a dictionary column.
func coded(rows []int32, names []string, code []int32) arrow.Array {
	dict := array.NewStringBuilder(memory.DefaultAllocator)
	dict.AppendValues(names, nil)
	b := array.NewInt32Builder(memory.DefaultAllocator)
	b.Reserve(len(rows))
	for _, r := range rows {
		b.UnsafeAppend(code[r])
	}
	return array.NewDictionaryArray(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}, b.NewArray(), dict.NewArray())
}

func pageNames() []string {
	sections := []string{"", "articles/", "products/", "help/", "people/", "search/results/"}
	out := make([]string, pages)
	for i := range out {
		out[i] = "/" + sections[i%len(sections)] + strconv.FormatInt(int64(i)*7919%99_991, 36)
	}
	return out
}

// The two histories of the same events.
const (
	raw       = "raw"       // as the archiver leaves it: a file an hour, late events, second copies in other files
	compacted = "compacted" // what compaction makes of that: a file a date, by time, without second copies
)

// load writes the raw history.
func (t Traffic) load(ctx context.Context, table *history.Table) error {
	return history.Load(ctx, table, "bench", t.dates(), func(ctx context.Context, date int32, write func(history.LoadFile) error) error {
		p := t.generate(table.Event(), date)
		for _, rows := range p.files(t.Late) {
			if len(rows) == 0 {
				continue
			}
			if err := errors.Join(ctx.Err(), write(history.LoadFile{Record: p.record, Rows: rows})); err != nil {
				return err
			}
		}
		return nil
	})
}

// files are the rows of the raw files, in the order in which events came: nearly by time. Second
// copies come in the next hour or, one in ten, with the late events.
func (p pageviews) files(late float64) [][]int32 {
	out := make([][]int32, hours+1)
	at := p.record.Column(1).(*array.Timestamp).TimestampValues()
	hour := func(row int32) int { return int(int64(at[row]) % microsPerDay / (microsPerDay / hours)) }
	for i := range p.distinct {
		if p.rng.Float64() < late {
			out[hours] = append(out[hours], int32(i))
			continue
		}
		h := hour(int32(i))
		out[h] = append(out[h], int32(i))
	}
	for i, of := range p.copyOf {
		file := hour(of) + 1
		if p.rng.IntN(10) == 0 {
			file = hours
		}
		out[file] = append(out[file], int32(p.distinct+i))
	}
	for h, rows := range out {
		width := 64 // events that overtake each other
		if h == hours {
			width = len(rows)
		}
		for chunk := range slices.Chunk(rows, max(width, 1)) {
			p.rng.Shuffle(len(chunk), func(i, j int) { chunk[i], chunk[j] = chunk[j], chunk[i] })
		}
	}
	return out
}
