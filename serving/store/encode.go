package store

import (
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// value follows pointers and interfaces; what is nil is not valid.
func value(v reflect.Value) reflect.Value {
	for v.IsValid() && (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) {
		if v.Kind() == reflect.Pointer {
			if _, isBig := v.Interface().(*big.Int); isBig && !v.IsNil() {
				return v
			}
			if _, isMap := v.Interface().(*orderedMap); isMap {
				return v
			}
		}
		v = v.Elem()
	}
	return v
}

// A scalar is the text of a value that is not composed, and how formats have to treat it.
type class uint8

const (
	bare    class = iota // a number, a bool: never quoted
	quoted               // text without anything to escape: dates, UUIDs, addresses
	escaped              // text of any kind
	special              // NaN and infinities: null in JSON
	null
)

// scalar gives the text of a value.
func scalar(t *typ, v reflect.Value) (string, class) {
	v = value(v)
	if !v.IsValid() {
		return "", null
	}
	switch t.name {
	case "Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Int128", "Int256", "UInt128", "UInt256",
		"Decimal", "Decimal32", "Decimal64", "Decimal128", "Decimal256":
		return fmt.Sprint(v.Interface()), bare
	case "Float32":
		return float(v.Float(), 32)
	case "Float64":
		return float(v.Float(), 64)
	case "Date", "Date32":
		return v.Interface().(time.Time).Format("2006-01-02"), quoted
	case "DateTime":
		return v.Interface().(time.Time).Format("2006-01-02 15:04:05"), quoted
	case "DateTime64":
		layout := "2006-01-02 15:04:05"
		if t.scale > 0 {
			layout += "." + strings.Repeat("0", t.scale)
		}
		return v.Interface().(time.Time).Format(layout), quoted
	case "UUID", "IPv4", "IPv6":
		return fmt.Sprint(v.Interface()), quoted
	case "Nothing":
		return "", null
	}
	return v.String(), escaped
}

// float is the shortest text that reads back as the number, in ClickHouse's form: plain from
// 1e-6 up to 1e21, with an exponent without sign or zeros beyond.
func float(x float64, bits int) (string, class) {
	switch {
	case math.IsNaN(x):
		return "nan", special
	case math.IsInf(x, 1):
		return "inf", special
	case math.IsInf(x, -1):
		return "-inf", special
	}
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e21) {
		s := strconv.FormatFloat(x, 'e', -1, bits)
		mantissa, exponent, _ := strings.Cut(s, "e")
		sign := strings.TrimLeft(exponent[:1], "+")
		return mantissa + "e" + sign + strings.TrimLeft(exponent[1:], "0"), bare
	}
	return strconv.FormatFloat(x, 'f', -1, bits), bare
}

// items lists what an array, map or tuple is composed of.
func items(t *typ, v reflect.Value) (keys, values []reflect.Value) {
	v = value(v)
	if m, ok := v.Interface().(*orderedMap); ok {
		for i := range m.keys {
			keys, values = append(keys, reflect.ValueOf(m.keys[i])), append(values, reflect.ValueOf(m.values[i]))
		}
		return keys, values
	}
	switch {
	case t.name == "Tuple" && v.Kind() == reflect.Map: // the driver's form of a named one
		for _, f := range t.fields {
			values = append(values, v.MapIndex(reflect.ValueOf(f)))
		}
	case v.Kind() == reflect.Map: // a map inside another value has lost its order
		keys = v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int {
			return strings.Compare(fmt.Sprint(a.Interface()), fmt.Sprint(b.Interface()))
		})
		for _, k := range keys {
			values = append(values, v.MapIndex(k))
		}
	default:
		for i := range v.Len() {
			values = append(values, v.Index(i))
		}
	}
	return keys, values
}

func appendJSON(b []byte, t *typ, v reflect.Value) []byte {
	t = t.plain()
	switch t.name {
	case "Array", "Tuple", "Map":
		keys, values := items(t, v)
		object := t.name == "Map" || len(t.fields) > 0
		b = append(b, map[bool]byte{true: '{', false: '['}[object])
		for i, x := range values {
			if i > 0 {
				b = append(b, ',')
			}
			if t.name == "Map" {
				key, _ := scalar(t.args[0].plain(), keys[i])
				b = append(jsonString(b, key), ':')
			} else if object {
				b = append(jsonString(b, t.fields[i]), ':')
			}
			b = appendJSON(b, t.item(i), x)
		}
		return append(b, map[bool]byte{true: '}', false: ']'}[object])
	}
	switch text, class := scalar(t, v); class {
	case bare:
		return append(b, text...)
	case special, null:
		return append(b, "null"...)
	default:
		return jsonString(b, text)
	}
}

// item is the type of the i-th value of a composed one.
func (t *typ) item(i int) *typ {
	switch t.name {
	case "Array":
		return t.args[0]
	case "Map":
		return t.args[1]
	}
	return t.args[i]
}

// jsonString quotes as ClickHouse does, a slash included. Bytes that are no UTF-8 become
// U+FFFD: JSON has no other way.
func jsonString(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == 0x2028 || r == 0x2029 { // line ends in JavaScript
				b = append(b, fmt.Sprintf("\\u%04x", r)...)
			} else {
				b = utf8.AppendRune(b, r)
			}
			i += n
			continue
		}
		switch c {
		case '"', '\\', '/':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, "\\b"...)
		case '\f':
			b = append(b, "\\f"...)
		case '\n':
			b = append(b, "\\n"...)
		case '\r':
			b = append(b, "\\r"...)
		case '\t':
			b = append(b, "\\t"...)
		default:
			if c < 0x20 {
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			} else {
				b = append(b, c)
			}
		}
		i++
	}
	return append(b, '"')
}

func appendCSV(b []byte, t *typ, v reflect.Value) []byte {
	t = t.plain()
	switch t.name {
	case "Tuple":
		_, values := items(t, v)
		for i, x := range values {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendCSV(b, t.args[i], x)
		}
		return b
	case "Array", "Map":
		return csvString(b, string(appendText(nil, t, v)))
	}
	switch text, class := scalar(t, v); class {
	case bare, special:
		return append(b, text...)
	case null:
		return append(b, `\N`...)
	default:
		return csvString(b, text)
	}
}

func csvString(b []byte, s string) []byte {
	b = append(b, '"')
	b = append(b, strings.ReplaceAll(s, `"`, `""`)...)
	return append(b, '"')
}

// appendText writes a value inside an array or map of ClickHouse's text formats.
func appendText(b []byte, t *typ, v reflect.Value) []byte {
	t = t.plain()
	brackets := map[string]string{"Array": "[]", "Map": "{}", "Tuple": "()"}[t.name]
	if brackets != "" {
		keys, values := items(t, v)
		b = append(b, brackets[0])
		for i, x := range values {
			if i > 0 {
				b = append(b, ',')
			}
			if t.name == "Map" {
				b = append(appendText(b, t.args[0], keys[i]), ':')
			}
			b = appendText(b, t.item(i), x)
		}
		return append(b, brackets[1])
	}
	switch text, class := scalar(t, v); class {
	case bare, special:
		return append(b, text...)
	case null:
		return append(b, "NULL"...)
	case quoted:
		return append(append(append(b, '\''), text...), '\'')
	default:
		return append(append(append(b, '\''), textEscapes(text)...), '\'')
	}
}

func textEscapes(s string) string {
	return strings.NewReplacer("\\", "\\\\", "'", "\\'", "\n", "\\n", "\t", "\\t", "\r", "\\r", "\b", "\\b", "\f", "\\f", "\x00", "\\0").Replace(s)
}
