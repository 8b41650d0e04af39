package decode

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow/decimal128"
)

// integer reads a JSON number without fraction and exponent.
func integer(c *column, s []byte, i int) (v int64, next int, err error) {
	start, negative := i, i < len(s) && s[i] == '-'
	if negative {
		i++
	}
	digits := i
	var u uint64
	for i < len(s) && s[i]-'0' <= 9 {
		u = u*10 + uint64(s[i]-'0')
		i++
	}
	n := i - digits
	switch {
	case n == 0 || n > 1 && s[digits] == '0':
		return 0, 0, wrong(c, s, start)
	case i < len(s) && (s[i] == '.' || s[i]|0x20 == 'e'):
		return 0, 0, fmt.Errorf("not an integer: %s", clip(s[start:numberEnd(s, start)]))
	case n > 19 || u > math.MaxInt64+1 || u == math.MaxInt64+1 && !negative: // 19 digits fit in 64 bits
		return 0, 0, fmt.Errorf("beyond 64 bits: %s", clip(s[start:i]))
	case negative:
		return -int64(u), i, nil
	}
	return int64(u), i, nil
}

// numberEnd is where the run of bytes that can belong to a number ends, for messages.
func numberEnd(s []byte, i int) int {
	for i < len(s) && (s[i]-'0' <= 9 || s[i] == '+' || s[i] == '-' || s[i] == '.' || s[i]|0x20 == 'e') {
		i++
	}
	return i
}

// A number is a JSON number in its parts: ±mantissa·10^exponent, the mantissa without zeros at
// either end. When it has more than 38 digits the mantissa is not known.
type number struct {
	negative bool
	hi, lo   uint64
	digits   int
	exponent int
}

// shortNumber reads a number ±v·10^exponent of at most 18 digits that is written without an exponent, as
// almost all are. It returns next = 0 if it is not one.
func shortNumber(s []byte, i int) (v uint64, exponent int, negative bool, next int) {
	if i < len(s) && s[i] == '-' {
		negative = true
		i++
	}
	whole := i
	for ; i < len(s) && s[i]-'0' <= 9; i++ {
		v = v*10 + uint64(s[i]-'0')
	}
	digits := i - whole
	if digits == 0 || digits > 1 && s[whole] == '0' {
		return 0, 0, false, 0
	}
	if i < len(s) && s[i] == '.' {
		point := i + 1
		for i = point; i < len(s) && s[i]-'0' <= 9; i++ {
			v = v*10 + uint64(s[i]-'0')
		}
		exponent = point - i
		if digits -= exponent; i == point {
			return 0, 0, false, 0
		}
	}
	if digits > 18 || i < len(s) && s[i]|0x20 == 'e' {
		return 0, 0, false, 0
	}
	return v, exponent, negative, i
}

var powers = [...]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19}

// scanNumber reads the JSON number at i, if there is one.
func scanNumber(s []byte, i int) (n number, next int, ok bool) {
	if i < len(s) && s[i] == '-' {
		n.negative = true
		i++
	}
	whole := i
	zeros := 0
	for ; i < len(s) && s[i]-'0' <= 9; i++ {
		zeros = n.digit(s[i]-'0', zeros)
	}
	if i == whole || i-whole > 1 && s[whole] == '0' {
		return n, 0, false
	}
	if i < len(s) && s[i] == '.' {
		i++
		point := i
		for ; i < len(s) && s[i]-'0' <= 9; i++ {
			zeros = n.digit(s[i]-'0', zeros)
		}
		if i == point {
			return n, 0, false
		}
		n.exponent = point - i
	}
	n.exponent += zeros
	if i < len(s) && s[i]|0x20 == 'e' {
		exponent, next, ok := scanExponent(s, i+1)
		if !ok {
			return n, 0, false
		}
		n.exponent += exponent
		i = next
	}
	return n, i, true
}

func scanExponent(s []byte, i int) (exponent, next int, ok bool) {
	negative := false
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		negative = s[i] == '-'
		i++
	}
	start := i
	for ; i < len(s) && s[i]-'0' <= 9; i++ {
		if exponent < 1<<40 { // more than any payload has digits
			exponent = exponent*10 + int(s[i]-'0')
		}
	}
	if negative {
		exponent = -exponent
	}
	return exponent, i, i > start
}

const maxDigits = 38 // digits of a decimal

// digit takes the next digit. Zeros are held back until another digit follows.
func (n *number) digit(v byte, zeros int) int {
	if v == 0 {
		if n.digits == 0 {
			return 0
		}
		return zeros + 1
	}
	n.digits += zeros + 1
	if n.digits <= maxDigits {
		n.shift(zeros + 1)
		var carry uint64
		n.lo, carry = bits.Add64(n.lo, uint64(v), 0)
		n.hi += carry
	}
	return 0
}

// shift multiplies the mantissa by 10^by.
func (n *number) shift(by int) {
	for ; by > 0; by-- {
		over, lo := bits.Mul64(n.lo, 10)
		n.hi, n.lo = n.hi*10+over, lo
	}
}

// float reads a JSON number as the nearest float64.
func float(c *column, s []byte, i int) (v float64, next int, err error) {
	// A mantissa below 2^53 and a power of ten up to 10^22 are both exact, so one operation on
	// them rounds correctly (Clinger, "How to read floating point numbers accurately", 1990).
	if u, exponent, negative, next := shortNumber(s, i); next > 0 && u < 1<<53 {
		if v = float64(u) / tens[-exponent]; negative && v != 0 {
			v = -v
		}
		return v, next, nil
	}
	n, next, ok := scanNumber(s, i)
	if !ok {
		return 0, 0, wrong(c, s, i)
	}
	if n.hi == 0 && n.digits <= 15 && n.exponent >= -22 && n.exponent <= 22 {
		if v = float64(n.lo); n.exponent < 0 {
			v /= tens[-n.exponent]
		} else {
			v *= tens[n.exponent]
		}
		if n.negative && v != 0 {
			v = -v
		}
		return v, next, nil
	}
	v, err = strconv.ParseFloat(unsafe.String(&s[i], next-i), 64) // which keeps no part of it
	if err != nil {
		return 0, 0, fmt.Errorf("beyond float64: %s", clip(s[i:next]))
	}
	return v + 0, next, nil // -0 + 0 is 0
}

var tens = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13,
	1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// decimal reads an exact decimal, a number or a string that holds one.
func (d *Decoder) decimal(c *column, s []byte, i int) (next int, err error) {
	if u, exponent, negative, next := shortNumber(s, i); next > 0 && c.typ.Scale+exponent >= 0 && c.typ.Scale+exponent < len(powers) {
		hi, lo := bits.Mul64(u, powers[c.typ.Scale+exponent])
		if hi == 0 && (c.typ.Precision >= len(powers) || lo < powers[c.typ.Precision]) {
			v := decimal128.New(0, lo)
			if negative {
				v = v.Negate()
			}
			c.decimals = append(c.decimals, v)
			return next, nil
		}
	}
	text, at := s, i
	if i < len(s) && s[i] == '"' {
		if text, next, err = d.str(s, i); err != nil {
			return 0, err
		}
		at = 0
	}
	n, end, ok := scanNumber(text, at)
	if !ok || next > 0 && end < len(text) {
		return 0, wrong(c, s, i)
	}
	if next == 0 {
		next = end
	}
	p, scale := c.typ.Precision, c.typ.Scale
	if n.digits == 0 {
		c.decimals = append(c.decimals, decimal128.Num{})
		return next, nil
	}
	by := n.exponent + scale
	if by < 0 {
		return 0, fmt.Errorf("more than %d digits behind the point: %s", scale, clip(s[i:next]))
	}
	if n.digits+by > p {
		return 0, fmt.Errorf("more than %s can hold: %s", c.typ, clip(s[i:next]))
	}
	n.shift(by) // digits+by is at most 38 here, so the mantissa is known and stays below 2^127
	v := decimal128.New(int64(n.hi), n.lo)
	if n.negative {
		v = v.Negate()
	}
	c.decimals = append(c.decimals, v)
	return next, nil
}
