package decode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

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
