package expr

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"cel.dev/cel-go/common/ast"

	"watershed/schemas"
	"watershed/schemas/column"
)

const (
	second = int64(1_000_000) // microseconds
	hour   = 3600 * second
	day    = 24 * hour
)

// The range of ClickHouse's calendar.
var (
	firstTime = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
	endTime   = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)
)

// floorDiv rounds toward minus infinity; d > 0.
func floorDiv(x, d int64) int64 {
	q := x / d
	if x%d < 0 {
		q--
	}
	return q
}

// epochDiv is floorDiv of a timestamp's microseconds in SQL. positiveModulo makes the
// division exact, so that its truncation does not matter.
func epochDiv(ts string, d int64) string {
	us := "toUnixTimestamp64Micro(" + ts + ")"
	return fmt.Sprintf("intDiv(%s - positiveModulo(%s, toInt64(%d)), toInt64(%d))", us, us, d, d)
}

// epochMod is the rest of that division.
func epochMod(ts string, d int64) string {
	return fmt.Sprintf("toInt64(positiveModulo(toUnixTimestamp64Micro(%s), toInt64(%d)))", ts, d)
}

// A getter reads one part of a timestamp, or of a date, in UTC, counted as CEL counts.
type getter struct {
	ofDate bool
	part   func(us int64) int64
	sql    func(ts string) string // over a timestamp
}

// civil makes a getter of what the calendar says.
func civil(sql string, part func(time.Time) int) getter {
	return getter{ofDate: true, sql: func(ts string) string { return fmt.Sprintf(sql, ts) },
		part: func(us int64) int64 { return int64(part(time.UnixMicro(us).UTC())) }}
}

// clock makes a getter of the part of the day in units of d, up to n.
func clock(d, n int64) getter {
	return getter{
		sql:  func(ts string) string { return fmt.Sprintf("intDiv(%s, toInt64(%d))", epochMod(ts, d*n), d) },
		part: func(us int64) int64 { return (us - floorDiv(us, d*n)*d*n) / d }}
}

var getters = map[string]getter{
	"getFullYear":     civil("toInt64(toYear(%s))", time.Time.Year),
	"getMonth":        civil("(toInt64(toMonth(%s)) - 1)", func(t time.Time) int { return int(t.Month()) - 1 }),
	"getDate":         civil("toInt64(toDayOfMonth(%s))", time.Time.Day),
	"getDayOfMonth":   civil("(toInt64(toDayOfMonth(%s)) - 1)", func(t time.Time) int { return t.Day() - 1 }),
	"getDayOfYear":    civil("(toInt64(toDayOfYear(%s)) - 1)", func(t time.Time) int { return t.YearDay() - 1 }),
	"getDayOfWeek":    civil("toInt64(toDayOfWeek(%s) %% 7)", func(t time.Time) int { return int(t.Weekday()) }),
	"getHours":        clock(hour, 24),
	"getMinutes":      clock(60*second, 60),
	"getSeconds":      clock(second, 60),
	"getMilliseconds": clock(second/1000, 1000),
}

func (g getter) node(a *node) *node {
	unit := int64(1)
	if a.typ.Kind == schemas.Date {
		unit = day
	}
	return strict(schemas.Int64, false, g.sql(a.sql), func(n int, args []operand) column.Vector {
		return ints(n, args[0], func(x int64) int64 { return g.part(x * unit) })
	}, a)
}

// timeOrDecimal is bucket() and date(), and the calls that write literals.
func (c *compiler) timeOrDecimal(e ast.Expr, name string, exprs []ast.Expr, args []*node) *node {
	a := args[0]
	if name == "bucket" {
		return c.bucket(exprs[1], a, args[1])
	}
	if name == "date" && a.typ.Kind == schemas.Timestamp {
		return strict(schemas.Date, false, "toDate32("+a.sql+")", func(n int, args []operand) column.Vector {
			return ints(n, args[0], func(us int64) int64 { return floorDiv(us, day) })
		}, a)
	}
	if a.con == nil {
		return c.fail(exprs[0], name+"() wants a literal", "strings are not converted row by row")
	}
	text := a.con.Dict.Strings[0]
	switch name {
	case "decimal":
		n, err := decimalLiteral(text)
		if err != nil {
			return c.fail(exprs[0], err.Error(), `for example decimal("1.50")`)
		}
		return n
	case "date":
		t, err := time.Parse(time.DateOnly, text)
		if err != nil || t.Before(firstTime) || !t.Before(endTime) {
			return c.fail(exprs[0], fmt.Sprintf("%q is not a date of the years 1900 to 2299", text), `for example date("2024-01-31")`)
		}
		return constant(schemas.Type{Kind: schemas.Date}, column.Vector{Ints: []int64{t.Unix() / 86400}})
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Before(firstTime) || !t.Before(endTime) || t.Nanosecond()%1000 != 0 {
		return c.fail(exprs[0], fmt.Sprintf("%q is not a time of the years 1900 to 2299 in microseconds", text), `for example timestamp("2024-01-31T00:00:00Z")`)
	}
	return constant(schemas.Type{Kind: schemas.Timestamp}, column.Vector{Ints: []int64{t.UnixMicro()}})
}

var widthText = regexp.MustCompile(`^([1-9][0-9]{0,5})(s|m|h|d)$`)

// bucket is the start of the bucket that a time lies in. Buckets are counted from the epoch
// on, to both sides: those of 7d begin on Thursdays.
func (c *compiler) bucket(at ast.Expr, a, width *node) *node {
	const hint = `for example bucket(time, "15m"), with s, m, h or d`
	if width.con == nil {
		return c.fail(at, "a bucket's width must be a literal", hint)
	}
	m := widthText.FindStringSubmatch(width.con.Dict.Strings[0])
	if m == nil {
		return c.fail(at, fmt.Sprintf("%q is not a bucket's width", width.con.Dict.Strings[0]), hint)
	}
	n, _ := strconv.ParseInt(m[1], 10, 64) // at most six digits
	us := n * map[string]int64{"s": second, "m": 60 * second, "h": hour, "d": day}[m[2]]
	if us > 3660*day {
		return c.fail(at, "a bucket is at most ten years wide", hint)
	}
	sql := fmt.Sprintf("fromUnixTimestamp64Micro(toUnixTimestamp64Micro(%s) - positiveModulo(toUnixTimestamp64Micro(%s), toInt64(%d)), 'UTC')", a.sql, a.sql, us)
	b := strict(schemas.Timestamp, false, sql, func(n int, args []operand) column.Vector {
		return bucketKernel(n, args[0], us)
	}, a)
	b.bucket = time.Duration(us) * time.Microsecond
	return b
}

// bucketKernel takes from each time what lies between it and its bucket's start. Events come
// nearly in order, so the last bucket is tried first: that saves most divisions.
func bucketKernel(n int, a operand, us int64) column.Vector {
	out := make([]int64, n)
	start, end := int64(0), int64(0)
	for i := range out {
		x := a.Ints[i*a.step]
		if x < start || x >= end {
			start = floorDiv(x, us) * us
			end = start + us
		}
		out[i] = start
	}
	return column.Vector{Ints: out, Valid: both(n, a)}
}
