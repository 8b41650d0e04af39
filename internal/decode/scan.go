package decode

import (
	"encoding/binary"
	"errors"
	"fmt"

	"watershed/schemas"
)

// object reads the event at i into the columns and returns where it ends. On an error some have
// got a value and some not. Where the keys come in the order that they came in before, finding a
// field is one comparison.
func (d *Decoder) object(s []byte, i int) (int, error) {
	if i == len(s) || s[i] != '{' {
		return 0, fmt.Errorf("not a JSON object: %s", excerpt(s, i))
	}
	if i = skip(s, i+1); i < len(s) && s[i] == '}' {
		return i + 1, nil
	}
	last, next := -1, d.first
	for {
		c := &d.cols[next]
		if c.key.at(s, i) {
			i += c.key.length - 1 // the colon is looked at below
		} else if n := i + len(c.quoted); n <= len(s) && string(s[i:n]) == c.quoted {
			i = n
		} else {
			var err error
			var at int
			if at, i, err = d.key(s, i); err != nil {
				return 0, err
			}
			if at < 0 {
				if i, err = d.ignored(s, i); err != nil {
					return 0, err
				}
				if s[i] == '}' {
					return i + 1, nil
				}
				i = skip(s, i+1)
				continue
			}
			next = at
			if c = &d.cols[next]; last < 0 {
				d.first = next
			} else {
				d.cols[last].follow = next
			}
		}
		if c.seen == d.line {
			return 0, fmt.Errorf("field %s: comes twice", c.name)
		}
		c.seen = d.line
		if i == len(s) || s[i] != ':' {
			if i = skip(s, i); i == len(s) || s[i] != ':' {
				return 0, fmt.Errorf("field %s: not JSON: %s where ':' must be", c.name, excerpt(s, i))
			}
		}
		if i++; i < len(s) && s[i] <= ' ' { // skip is not inlined, and mostly there is nothing
			i = skip(s, i)
		}
		var err error
		if i, err = d.value(c, s, i); err != nil {
			return 0, fmt.Errorf("field %s: %w", c.name, err)
		}
		if i < len(s) && s[i] <= ' ' {
			i = skip(s, i)
		}
		switch {
		case i < len(s) && s[i] == ',':
			if i++; i < len(s) && s[i] <= ' ' {
				i = skip(s, i)
			}
		case i < len(s) && s[i] == '}':
			return i + 1, nil
		default:
			return 0, fmt.Errorf("field %s: not JSON: %s where ',' or '}' must be", c.name, excerpt(s, i))
		}
		last, next = next, c.follow
	}
}

// A key is a text of at most 16 bytes that is compared with two words of the input, eight bytes each.
type key struct {
	length            int // 0: it is longer
	low, high         uint64
	lowMask, highMask uint64
}

func newKey(text string) key {
	var b, mask [16]byte
	if len(text) > len(b) {
		return key{}
	}
	for i := range copy(b[:], text) {
		mask[i] = 0xFF
	}
	return key{len(text), binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:]),
		binary.LittleEndian.Uint64(mask[:]), binary.LittleEndian.Uint64(mask[8:])}
}

// at reports that the key is at i, with so much behind it that both words can be read.
func (k *key) at(s []byte, i int) bool {
	if k.length == 0 || i > len(s)-16 {
		return false
	}
	b := s[i : i+16]
	return (binary.LittleEndian.Uint64(b)^k.low)&k.lowMask|(binary.LittleEndian.Uint64(b[8:])^k.high)&k.highMask == 0
}

func end(s []byte, i int) error {
	if i = skip(s, i); i < len(s) {
		return fmt.Errorf("not JSON: %s behind the event", excerpt(s, i))
	}
	return nil
}

// key reads a key at i and finds its column, -1 if it is to be ignored.
func (d *Decoder) key(s []byte, i int) (col, next int, err error) {
	name, next, err := d.str(s, i)
	if err != nil {
		return 0, 0, fmt.Errorf("not JSON: a field's name must be here: %w", err)
	}
	col, ok := d.index[string(name)]
	if !ok && d.event.IgnoreUnknown {
		d.unknown = append(d.unknown[:0], name...)
		return -1, next, nil
	}
	if !ok {
		return 0, 0, fmt.Errorf("field %s: not declared", clip(name))
	}
	return col, next, nil
}

// ignored passes by the value of the unknown field whose name ends at i, and returns where ',' or
// '}' stands.
func (d *Decoder) ignored(s []byte, i int) (int, error) {
	if i = skip(s, i); i == len(s) || s[i] != ':' {
		return 0, fmt.Errorf("field %s: not JSON: %s where ':' must be", clip(d.unknown), excerpt(s, i))
	}
	i, err := d.skipValue(s, skip(s, i+1), maxDepth)
	if err != nil {
		return 0, fmt.Errorf("field %s: %w", clip(d.unknown), err)
	}
	if i = skip(s, i); i == len(s) || s[i] != ',' && s[i] != '}' {
		return 0, fmt.Errorf("field %s: not JSON: %s where ',' or '}' must be", clip(d.unknown), excerpt(s, i))
	}
	return i, nil
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
