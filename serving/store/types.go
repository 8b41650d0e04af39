package store

import (
	"fmt"
	"strconv"
	"strings"
)

// A typ is the name of a ClickHouse type, taken apart.
type typ struct {
	name   string
	args   []*typ   // of Array, Nullable, LowCardinality, Map, Tuple
	fields []string // of a named Tuple
	scale  int      // of DateTime64
}

// plain is the type without Nullable and LowCardinality around it.
func (t *typ) plain() *typ {
	for t.name == "Nullable" || t.name == "LowCardinality" || t.name == "SimpleAggregateFunction" {
		t = t.args[0]
	}
	return t
}

// maxNesting bounds how deeply types may be nested: parseType recurses.
const maxNesting = 32

// parseType reads a type's name. Types whose values have no encoding are errors.
func parseType(s string) (*typ, error) { return parseNested(s, maxNesting) }

func parseNested(s string, depth int) (*typ, error) {
	s = strings.TrimSpace(s)
	if depth == 0 {
		return nil, fmt.Errorf("a type is nested more than %d deep", maxNesting)
	}
	name, inside, nested := strings.Cut(s, "(")
	t := &typ{name: name}
	var args []string
	if nested {
		args = split(strings.TrimSuffix(inside, ")"))
	}
	if want, ok := arguments()[name]; ok && len(args) != want {
		return nil, fmt.Errorf("type %s: %d arguments, want %d", s, len(args), want)
	}
	switch name {
	case "Nullable", "LowCardinality", "Array", "Map":
	case "SimpleAggregateFunction":
		args = args[1:]
	case "Tuple":
		for i, a := range args {
			if field, rest, ok := fieldName(a); ok {
				t.fields, args[i] = append(t.fields, field), rest
			}
		}
	case "DateTime64":
		if len(args) == 0 {
			return nil, fmt.Errorf("type %s: want a scale", s)
		}
		scale, err := strconv.Atoi(args[0])
		if err != nil {
			return nil, fmt.Errorf("type %s: %w", s, err)
		}
		t.scale = scale
		return t, nil
	case "Bool", "Int8", "Int16", "Int32", "Int64", "Int128", "Int256", "UInt8", "UInt16", "UInt32", "UInt64", "UInt128", "UInt256",
		"Float32", "Float64", "String", "FixedString", "Enum8", "Enum16", "UUID", "IPv4", "IPv6", "Date", "Date32", "DateTime",
		"Decimal", "Decimal32", "Decimal64", "Decimal128", "Decimal256", "Nothing":
		return t, nil
	default:
		return nil, fmt.Errorf("a column of type %s cannot be sent: cast it to String", s)
	}
	for _, a := range args {
		arg, err := parseNested(a, depth-1)
		if err != nil {
			return nil, err
		}
		t.args = append(t.args, arg)
	}
	return t, nil
}

// arguments is how many arguments types have that say what their values consist of.
func arguments() map[string]int {
	return map[string]int{"Nullable": 1, "LowCardinality": 1, "Array": 1, "Map": 2, "SimpleAggregateFunction": 2}
}

// split cuts a list at its commas, not at those inside parentheses, quotes or backquotes.
func split(s string) []string {
	var out []string
	depth, start := 0, 0
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0 && c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '`':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[start:i]))
			start = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[start:]))
}

// fieldName takes the name off an element of a named tuple.
func fieldName(s string) (name, rest string, ok bool) {
	if strings.HasPrefix(s, "`") {
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case '`':
				return strings.NewReplacer("\\\\", "\\", "\\`", "`").Replace(s[1:i]), strings.TrimSpace(s[i+1:]), true
			}
		}
	}
	name, rest, ok = strings.Cut(s, " ")
	if strings.ContainsAny(name, "(,") {
		return "", s, false
	}
	return name, rest, ok
}
