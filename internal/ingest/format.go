package ingest

import (
	"fmt"
	"strings"

	"watershed/internal/decode"
)

// A format says how a body is read.
type format struct {
	arrow bool          // it is an Arrow stream; what follows is about JSON
	split bool          // it is a JSON value, or an array of them; else they are lines already
	as    decode.Format // of a line
	plain bool          // a line is an event as the log has it; else it is rewritten as one
}

// formatOf says how a body is read: by the headers that say it of a message too. What is one value there may be an array
// of them here.
func formatOf(header func(string) string) (format, error) {
	as, err := decode.FormatOf(header)
	if err != nil {
		return format{}, &MediaTypeError{err}
	}
	inner := as.Header()
	switch media := inner[decode.ContentType]; {
	case inner == nil:
		return format{plain: true}, nil
	case media == decode.JSON && len(inner) == 1:
		return format{split: true, plain: true}, nil
	case media == decode.CloudEventBatch:
		as, err = decode.FormatOf(func(string) string { return decode.CloudEvent })
		return format{split: true, as: as}, err
	case media == decode.ArrowStream:
		return format{arrow: true}, nil
	}
	return format{split: true, as: as}, nil
}

// keyOf is the request's key; "" if it has none.
func keyOf(header func(string) string) (string, error) {
	key := header("Idempotency-Key")
	if len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", &BodyError{fmt.Errorf("Idempotency-Key: want at most %d characters of printable ASCII", maxKey)}
	}
	return key, nil
}

// values makes one line of each element of a JSON array, or of the one value that the body is. What the values
// are is seen when they are checked; here only strings and brackets count.
func values(body []byte) ([]byte, error) {
	i := skip(body, 0)
	if i == len(body) {
		return nil, nil
	}
	if body[i] != '[' {
		end, err := value(body, i)
		if err == nil {
			err = nothingBehind(body, end)
		}
		return flat(body[i:end]), err
	}
	if i = skip(body, i+1); i < len(body) && body[i] == ']' {
		return nil, nothingBehind(body, i+1)
	}
	// An element comes with a bracket or a comma before it, so its line's end never reaches what is still to be read.
	out := body[:0]
	for {
		end, err := value(body, i)
		if err != nil {
			return nil, err
		}
		out = append(append(out, flat(body[i:end])...), '\n')
		switch i = skip(body, end); {
		case i == len(body):
			return nil, notJSON("it ends within an array")
		case body[i] == ']':
			return out, nothingBehind(body, i+1)
		case body[i] != ',':
			return nil, notJSON("no ',' or ']' at byte %d", i)
		}
		i = skip(body, i+1)
	}
}

// value returns where the value at i ends.
func value(b []byte, i int) (end int, err error) {
	depth, j := 0, i
scan:
	for ; j < len(b); j++ {
		switch b[j] {
		case '"':
			if j, err = text(b, j); err != nil {
				return 0, err
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				break scan
			}
			if depth--; depth == 0 {
				return j + 1, nil
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				break scan
			}
		}
	}
	switch {
	case depth > 0:
		return 0, notJSON("it ends within a value")
	case j == i:
		return 0, notJSON("no value at byte %d", i)
	}
	return j, nil
}

// text returns where the string at i has its last quote.
func text(b []byte, i int) (int, error) {
	for j := i + 1; j < len(b); j++ {
		switch c := b[j]; {
		case c == '"':
			return j, nil
		case c == '\\':
			j++
		case c < ' ':
			return 0, notJSON("a control character in a string, at byte %d", j)
		}
	}
	return 0, notJSON("it ends within a string")
}

// flat makes one line of a value, whose strings hold no line's end.
func flat(value []byte) []byte {
	for i, c := range value {
		if c == '\n' {
			value[i] = ' '
		}
	}
	return value
}

func skip(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

func nothingBehind(body []byte, end int) error {
	if i := skip(body, end); i < len(body) {
		return notJSON("there is more behind its end, at byte %d", i)
	}
	return nil
}

func notJSON(format string, args ...any) error {
	return &BodyError{fmt.Errorf("the body is not JSON: "+format, args...)}
}
