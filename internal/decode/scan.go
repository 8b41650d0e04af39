package decode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"

	"watershed/schemas"
)

// object reads one event into the columns. On an error some have got a value and some not.
// Where the keys come in the order that they came in before, finding a field is one comparison.
func (d *Decoder) object(s []byte) error {
	i := skip(s, 0)
	if s[i] != '{' {
		return fmt.Errorf("not a JSON object: %s", excerpt(s, i))
	}
	if i = skip(s, i+1); i < len(s) && s[i] == '}' {
		return end(s, i+1)
	}
	last, next := -1, d.first
	for {
		c := &d.cols[next]
		if n := i + len(c.quoted); n <= len(s) && string(s[i:n]) == c.quoted {
			i = n
		} else {
			var err error
			if next, i, err = d.key(s, i); err != nil {
				return err
			}
			if c = &d.cols[next]; last < 0 {
				d.first = next
			} else {
				d.cols[last].follow = next
			}
		}
		if c.seen == d.line {
			return fmt.Errorf("field %s: comes twice", c.name)
		}
		c.seen = d.line
		if i = skip(s, i); i == len(s) || s[i] != ':' {
			return fmt.Errorf("field %s: not JSON: %s where ':' must be", c.name, excerpt(s, i))
		}
		var err error
		if i, err = d.value(c, s, skip(s, i+1)); err != nil {
			return fmt.Errorf("field %s: %w", c.name, err)
		}
		i = skip(s, i)
		switch {
		case i < len(s) && s[i] == ',':
			i = skip(s, i+1)
		case i < len(s) && s[i] == '}':
			return end(s, i+1)
		default:
			return fmt.Errorf("field %s: not JSON: %s where ',' or '}' must be", c.name, excerpt(s, i))
		}
		last, next = next, c.follow
	}
}

func end(s []byte, i int) error {
	if i = skip(s, i); i < len(s) {
		return fmt.Errorf("not JSON: %s behind the event", excerpt(s, i))
	}
	return nil
}

// key reads a key at i and finds its column.
func (d *Decoder) key(s []byte, i int) (col, next int, err error) {
	name, next, err := d.str(s, i)
	if err != nil {
		return 0, 0, fmt.Errorf("not JSON: a field's name must be here: %w", err)
	}
	col, ok := d.index[string(name)]
	if !ok {
		return 0, 0, fmt.Errorf("field %s: not declared", clip(name))
	}
	return col, next, nil
}

// value reads the value at i into c and returns where it ends.
func (d *Decoder) value(c *column, s []byte, i int) (next int, err error) {
	if i < len(s) && s[i] == 'n' {
		if !literal(s, i, "null") {
			return 0, wrong(c, s, i)
		}
		if !c.optional {
			return 0, errors.New("null, but not optional")
		}
		c.appendNull()
		return i + 4, nil
	}
	switch c.kind {
	case schemas.String:
		if i == len(s) || s[i] != '"' {
			return 0, wrong(c, s, i)
		}
		var b []byte
		if b, next, err = d.str(s, i); err == nil {
			c.text.append(b)
		}
	case schemas.Bool:
		switch {
		case literal(s, i, "true"):
			c.bools, next = append(c.bools, 1), i+4
		case literal(s, i, "false"):
			c.bools, next = append(c.bools, 0), i+5
		default:
			return 0, wrong(c, s, i)
		}
	case schemas.Int64:
		var v int64
		if v, next, err = integer(c, s, i); err == nil {
			c.ints = append(c.ints, v)
		}
	case schemas.Float64:
		var v float64
		if v, next, err = float(c, s, i); err == nil {
			c.floats = append(c.floats, v)
		}
	case schemas.Decimal:
		next, err = d.decimal(c, s, i)
	case schemas.Timestamp:
		next, err = d.timestamp(c, s, i)
	case schemas.Date:
		next, err = d.date(c, s, i)
	}
	if c.optional {
		c.null = append(c.null, false)
	}
	return next, err
}

func literal(s []byte, i int, want string) bool {
	return len(s)-i >= len(want) && string(s[i:i+len(want)]) == want
}

// wrong says that what stands at i is no value of the column's type.
func wrong(c *column, s []byte, i int) error {
	return fmt.Errorf("want %s, got %s", c.typ, excerpt(s, i))
}

// excerpt is the beginning of what stands at i, quoted.
func excerpt(s []byte, i int) string {
	if i >= len(s) {
		return "the end"
	}
	return clip(s[i:])
}

func clip(s []byte) string {
	const most = 40
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

func skip(s []byte, i int) int {
	for i < len(s) && s[i] <= ' ' && isSpace(s[i]) {
		i++
	}
	return i
}

var errUnclosed = errors.New("a string without its closing quote")

// str reads the JSON string at i. The text is a part of s or of the decoder's scratch space,
// and holds until the next string is read.
func (d *Decoder) str(s []byte, i int) (text []byte, next int, err error) {
	if i >= len(s) || s[i] != '"' {
		return nil, 0, fmt.Errorf("want a string, got %s", excerpt(s, i))
	}
	start, ascii := i+1, true
	for i = start; ; i++ {
		i += plain(s[i:])
		switch {
		case i == len(s):
			return nil, 0, errUnclosed
		case s[i] == '"':
			if text = s[start:i]; !ascii && !utf8.Valid(text) {
				return nil, 0, fmt.Errorf("not UTF-8: %s", clip(text))
			}
			return text, i + 1, nil
		case s[i] == '\\':
			return d.unescape(s, start, i)
		case s[i] < ' ':
			return nil, 0, fmt.Errorf("control character %#02x in a string", s[i])
		}
		ascii = false
	}
}

// plain counts the bytes at the beginning of s that are printing ASCII and neither quote nor
// backslash, eight at a time.
func plain(s []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		x := binary.LittleEndian.Uint64(s[i:])
		quote, slash := x^('"'*ones), x^('\\'*ones)
		// The top bit of each byte that is below ' ', or equal, or not ASCII. A borrow can set one
		// too many, but only above the first that is right.
		if special := ((x-' '*ones)&^x | (quote-ones)&^quote | (slash-ones)&^slash | x) & highs; special != 0 {
			return i + bits.TrailingZeros64(special)/8
		}
	}
	for i < len(s) && s[i] >= ' ' && s[i] < 0x80 && s[i] != '"' && s[i] != '\\' {
		i++
	}
	return i
}

// unescape reads on at the first backslash of a string that began at start.
func (d *Decoder) unescape(s []byte, start, i int) (text []byte, next int, err error) {
	b := append(d.scratch[:0], s[start:i]...)
	defer func() { d.scratch = b }()
	for i < len(s) {
		switch c := s[i]; {
		case c == '"':
			if !utf8.Valid(b) {
				return nil, 0, fmt.Errorf("not UTF-8: %s", clip(b))
			}
			return b, i + 1, nil
		case c < ' ':
			return nil, 0, fmt.Errorf("control character %#02x in a string", c)
		case c != '\\':
			n := max(plain(s[i:]), 1)
			b, i = append(b, s[i:i+n]...), i+n
		case i+1 == len(s):
			return nil, 0, errUnclosed
		case s[i+1] == 'u':
			r, n := escaped(s[i:])
			if n == 0 {
				return nil, 0, fmt.Errorf("not a character: %s", clip(s[i:min(i+12, len(s))]))
			}
			b, i = utf8.AppendRune(b, r), i+n
		default:
			r := short(s[i+1])
			if r == 0 {
				return nil, 0, fmt.Errorf("not an escape: %q", s[i:i+2])
			}
			b, i = append(b, r), i+2
		}
	}
	return nil, 0, errUnclosed
}

func short(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return 0
}

// escaped reads a character written as \uXXXX or as a surrogate pair of them, and returns how
// many bytes it took, 0 if it is none.
func escaped(s []byte) (rune, int) {
	r, ok := hex(s)
	switch {
	case !ok:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	}
	low, ok := hex(s[6:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

func hex(s []byte) (r rune, ok bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	for _, c := range s[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
