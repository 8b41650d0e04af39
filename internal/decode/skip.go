package decode

import (
	"errors"
	"fmt"
)

// maxDepth is how deeply a value may nest that is not read.
const maxDepth = 64

var errDeep = errors.New("nested too deeply")

// skipValue checks the JSON value at i, of any type, and returns where it ends.
func (d *Decoder) skipValue(s []byte, i, depth int) (next int, err error) {
	if i == len(s) {
		return 0, errors.New("not JSON: the end where a value must be")
	}
	switch s[i] {
	case '"':
		_, next, err = d.str(s, i)
		return next, err
	case '{', '[':
		return d.skipNested(s, i, depth)
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if literal(s, i, word) {
			return i + len(word), nil
		}
	}
	if _, next, ok := scanNumber(s, i); ok {
		return next, nil
	}
	return 0, fmt.Errorf("not JSON: %s where a value must be", excerpt(s, i))
}

// skipNested is skipValue for an object or an array.
func (d *Decoder) skipNested(s []byte, i, depth int) (next int, err error) {
	if depth == 0 {
		return 0, errDeep
	}
	object, closing := s[i] == '{', s[i]+2 // '{' and '}', '[' and ']' are two apart
	if i = skip(s, i+1); i < len(s) && s[i] == closing {
		return i + 1, nil
	}
	for {
		if object {
			if _, i, err = d.str(s, i); err != nil {
				return 0, fmt.Errorf("not JSON: a name must be here: %w", err)
			}
			if i = skip(s, i); i == len(s) || s[i] != ':' {
				return 0, fmt.Errorf("not JSON: %s where ':' must be", excerpt(s, i))
			}
			i = skip(s, i+1)
		}
		if i, err = d.skipValue(s, i, depth-1); err != nil {
			return 0, err
		}
		switch i = skip(s, i); {
		case i < len(s) && s[i] == ',':
			i = skip(s, i+1)
		case i < len(s) && s[i] == closing:
			return i + 1, nil
		default:
			return 0, fmt.Errorf("not JSON: %s where ',' or %q must be", excerpt(s, i), closing)
		}
	}
}
