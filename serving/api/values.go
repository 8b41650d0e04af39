package api

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"watershed/schemas"
)

// time is the view's time dimension: its first time bucket, or else its first timestamp or date.
func (v View) time() *Dimension {
	for i, d := range v.Dimensions {
		if d.Bucket > 0 {
			return &v.Dimensions[i]
		}
	}
	for i, d := range v.Dimensions {
		if d.Type.Kind == schemas.Timestamp || d.Type.Kind == schemas.Date {
			return &v.Dimensions[i]
		}
	}
	return nil
}

// width is the dimension's width as a bucket of time; 0: it is none.
func (d Dimension) width() time.Duration {
	if d.Bucket == 0 && d.Type.Kind == schemas.Date {
		return day
	}
	return d.Bucket
}

const day = 24 * time.Hour

// parseGrain reads whole days and weeks, which time.ParseDuration does not know, and durations.
func parseGrain(s string) (time.Duration, error) {
	for suffix, unit := range map[string]time.Duration{"d": day, "w": 7 * day} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseUint(digits, 10, 31)
			if err != nil || n == 0 || n > uint64(math.MaxInt64/unit) {
				return 0, fmt.Errorf("grain %q", s)
			}
			return time.Duration(n) * unit, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d%time.Microsecond != 0 {
		return 0, fmt.Errorf("grain %q", s)
	}
	return d, nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t, err = time.Parse(time.DateOnly, s)
	}
	if err != nil {
		return t, fmt.Errorf("%q: want an RFC 3339 time like 2001-06-01T12:00:00Z, or a date like 2001-06-01", s)
	}
	if t.Nanosecond()%1000 != 0 {
		return t, fmt.Errorf("%q: times have microseconds", s)
	}
	// ClickHouse's DateTime64(6) reaches over these years.
	if y := t.UTC().Year(); y < 1900 || y > 2299 {
		return t, fmt.Errorf("%q: want a year from 1900 to 2299", s)
	}
	return t.UTC(), nil
}

// bind gives the SQL expression of a value of that type that travels in a parameter, and its text there.
func bind(t schemas.Type, parameter, value string) (expression, text string, err error) {
	plain := "{" + parameter + ":" + t.ClickHouse() + "}"
	switch t.Kind {
	case schemas.String:
		if !utf8.ValidString(value) {
			return "", "", fmt.Errorf("%q is not UTF-8", value)
		}
		return plain, value, nil
	case schemas.Bool:
		if value != "true" && value != "false" {
			return "", "", fmt.Errorf("%q: want true or false", value)
		}
		return plain, value, nil
	case schemas.Int64:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return "", "", fmt.Errorf("%q: want a 64-bit integer", value)
		}
		return plain, strconv.FormatInt(n, 10), nil
	case schemas.Float64:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return "", "", fmt.Errorf("%q: want a finite number", value)
		}
		return plain, strconv.FormatFloat(f, 'g', -1, 64), nil
	case schemas.Decimal:
		m := regexp.MustCompile(`^-?([0-9]{1,38})(?:\.([0-9]{1,38}))?$`).FindStringSubmatch(value)
		if m == nil || len(m[2]) > t.Scale || len(strings.TrimLeft(m[1], "0")) > t.Precision-t.Scale {
			return "", "", fmt.Errorf("%q: want a %s", value, t)
		}
		return plain, value, nil
	case schemas.Timestamp:
		at, err := parseTime(value)
		if err != nil {
			return "", "", err
		}
		return "fromUnixTimestamp64Micro({" + parameter + ":Int64}, 'UTC')", strconv.FormatInt(at.UnixMicro(), 10), nil
	case schemas.Date:
		at, err := time.Parse(time.DateOnly, value)
		if err != nil {
			return "", "", fmt.Errorf("%q: want a date like 2001-06-01", value)
		}
		return plain, at.Format(time.DateOnly), nil
	}
	return "", "", fmt.Errorf("dimensions of type %s cannot be filtered", t)
}
