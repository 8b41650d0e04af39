package decode

import "fmt"

// timestamp reads a timestamp, text or microseconds.
func (d *Decoder) timestamp(c *column, s []byte, i int) (next int, err error) {
	var v int64
	if i < len(s) && s[i] == '"' {
		var text []byte
		if text, next, err = d.str(s, i); err != nil {
			return 0, err
		}
		var ok bool
		if v, ok = d.day.parseTime(text); !ok {
			return 0, fmt.Errorf("want a timestamp such as \"2006-01-02T15:04:05.999999Z\", got %s", clip(s[i:next]))
		}
	} else if v, next, err = integer(c, s, i); err != nil {
		return 0, err
	}
	if v < minMicros || v > maxMicros {
		return 0, fmt.Errorf("not in the years 1900 to 2299: %s", clip(s[i:next]))
	}
	c.ints = append(c.ints, v)
	return next, nil
}

// date reads a date.
func (d *Decoder) date(c *column, s []byte, i int) (next int, err error) {
	if i == len(s) || s[i] != '"' {
		return 0, wrong(c, s, i)
	}
	text, next, err := d.str(s, i)
	if err != nil {
		return 0, err
	}
	day, ok := 0, len(text) == 10
	if ok {
		day, ok = parseDay(text)
	}
	if !ok {
		return 0, fmt.Errorf("want a date such as \"2006-01-02\", got %s", clip(s[i:next]))
	}
	if day < minDay || day > maxDay {
		return 0, fmt.Errorf("not in the years 1900 to 2299: %s", clip(s[i:next]))
	}
	c.days = append(c.days, int32(day))
	return next, nil
}

// parseTime reads 2006-01-02T15:04:05[.f]Z, with ±hh:mm in place of Z, or
// 2006-01-02 15:04:05[.f], which is UTC; f is 1 to 9 digits. The result is in microseconds,
// rounded down.
func (l *lastDay) parseTime(b []byte) (int64, bool) {
	if len(b) < 19 {
		return 0, false
	}
	day, ok := l.parseDay(b)
	h, ok1 := two(b, 11)
	m, ok2 := two(b, 14)
	s, ok3 := two(b, 17)
	if !ok || !ok1 || !ok2 || !ok3 || b[13] != ':' || b[16] != ':' || h > 23 || m > 59 || s > 59 {
		return 0, false
	}
	rest := b[19:]
	micros, n := fraction(rest)
	if n < 0 {
		return 0, false
	}
	rest = rest[n:]
	t := int64(day)*dayMicros + int64(h*3600+m*60+s)*1_000_000 + micros
	switch {
	case b[10] == ' ':
		return t, len(rest) == 0
	case b[10] != 'T':
		return 0, false
	case len(rest) == 1 && rest[0] == 'Z':
		return t, true
	}
	offset, ok := zone(rest)
	return t - offset, ok
}

// fraction reads an optional point and 1 to 9 digits, and returns the bytes taken, -1 if it is
// malformed.
func fraction(b []byte) (micros int64, n int) {
	if len(b) == 0 || b[0] != '.' {
		return 0, 0
	}
	for n = 1; n < len(b) && b[n]-'0' <= 9; n++ {
		if n <= 6 {
			micros = micros*10 + int64(b[n]-'0')
		}
	}
	if n == 1 || n > 10 {
		return 0, -1
	}
	for i := n; i <= 6; i++ {
		micros *= 10
	}
	return micros, n
}

// zone reads ±hh:mm as microseconds.
func zone(b []byte) (int64, bool) {
	if len(b) != 6 || b[0] != '+' && b[0] != '-' || b[3] != ':' {
		return 0, false
	}
	h, ok1 := two(b, 1)
	m, ok2 := two(b, 4)
	if !ok1 || !ok2 || h > 23 || m > 59 {
		return 0, false
	}
	offset := int64(h*60+m) * 60_000_000
	if b[0] == '-' {
		offset = -offset
	}
	return offset, true
}

func two(b []byte, i int) (int, bool) {
	tens, ones := b[i]-'0', b[i+1]-'0'
	return int(tens)*10 + int(ones), tens <= 9 && ones <= 9
}

// A lastDay is the day read last: most events have the same.
type lastDay struct {
	text [10]byte
	day  int
}

// parseDay reads 2006-01-02 at the beginning of b as days since 1970-01-01.
func (l *lastDay) parseDay(b []byte) (int, bool) {
	text := [10]byte(b)
	if text == l.text {
		return l.day, true
	}
	day, ok := parseDay(b)
	if ok {
		l.text, l.day = text, day
	}
	return day, ok
}

// parseDay reads 2006-01-02 at the beginning of b as days since 1970-01-01.
func parseDay(b []byte) (int, bool) {
	century, ok1 := two(b, 0)
	y, ok2 := two(b, 2)
	m, ok3 := two(b, 5)
	d, ok4 := two(b, 8)
	y += century * 100
	if !ok1 || !ok2 || !ok3 || !ok4 || b[4] != '-' || b[7] != '-' || m < 1 || m > 12 || d < 1 || d > daysIn(y, m) {
		return 0, false
	}
	// Days since 0000-03-01, counted in years that begin in March, so that the leap day is last.
	if m -= 3; m < 0 {
		m += 12
		y--
	}
	if y < 0 {
		return 0, false // January and February of the year 0: long before what is accepted
	}
	days := 365*y + y/4 - y/100 + y/400 + (153*m+2)/5 + d - 1
	return days - 719468, true
}

func daysIn(y, m int) int {
	switch m {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if y%4 == 0 && (y%100 != 0 || y%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}
