package api

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A format writes a result as one of ClickHouse's output formats does, byte for byte.
type format struct {
	name        string   // in format=
	contentType string   // of the answer
	accepts     []string // media types in Accept that mean it
	begin       func(dst []byte, columns []Column) []byte
	row         func(dst []byte, columns []Column, rows Rows, n uint64) []byte // n: rows before
	end         func(dst []byte, n uint64, stats Stats, saw saw) []byte
}

// formats lists them; the first is what a client gets that does not say.
func formats() []format {
	return []format{
		{"json", "application/json", []string{"application/json", "application/*", "*/*"}, beginJSON, rowJSON, endJSON},
		{"csv", "text/csv; charset=utf-8; header=present", []string{"text/csv", "text/*"}, beginCSV, rowCSV, nil},
		{"ndjson", "application/x-ndjson", []string{"application/x-ndjson", "application/ndjson", "application/jsonl"}, nil, rowNDJSON, nil},
	}
}

// chooseFormat is the format named, or the first of those that the Accept header likes best.
func chooseFormat(named string, header http.Header) (format, error) {
	all := formats()
	if named != "" {
		for _, f := range all {
			if f.name == named {
				return f, nil
			}
		}
		return format{}, badParameter("format", "unknown format %q: want json, csv or ndjson", named)
	}
	accept := strings.Join(header.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return all[0], nil
	}
	best, bestQ := -1, 0.0
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		for i, f := range all {
			for _, a := range f.accepts {
				if a == media && q > bestQ {
					best, bestQ = i, q
				}
			}
		}
	}
	if best < 0 {
		return format{}, problem(NotAcceptable, "Accept %q: there are application/json, text/csv and application/x-ndjson", accept)
	}
	return all[best], nil
}

func beginJSON(dst []byte, columns []Column) []byte {
	dst = append(dst, "{\n\t\"meta\":\n\t["...)
	for i, c := range columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, "\n\t\t{\n\t\t\t\"name\": "...)
		dst = appendString(dst, c.Name)
		dst = append(dst, ",\n\t\t\t\"type\": "...)
		dst = appendString(dst, c.Type)
		dst = append(dst, "\n\t\t}"...)
	}
	return append(dst, "\n\t],\n\n\t\"data\":\n\t[\n"...)
}

func rowJSON(dst []byte, columns []Column, rows Rows, n uint64) []byte {
	if n > 0 {
		dst = append(dst, ",\n"...)
	}
	dst = append(dst, "\t\t{"...)
	for i, c := range columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, "\n\t\t\t"...)
		dst = append(appendString(dst, c.Name), ": "...)
		dst = rows.AppendJSON(dst, i)
	}
	return append(dst, "\n\t\t}"...)
}

func endJSON(dst []byte, n uint64, stats Stats, saw saw) []byte {
	dst = append(dst, "\n\t],\n\n\t\"rows\": "...)
	dst = strconv.AppendUint(dst, n, 10)
	dst = append(dst, ",\n\n\t\"statistics\":\n\t{\n\t\t\"elapsed\": "...)
	dst = strconv.AppendFloat(dst, stats.Elapsed.Seconds(), 'f', -1, 64)
	dst = append(dst, ",\n\t\t\"rows_read\": "...)
	dst = strconv.AppendUint(dst, stats.RowsRead, 10)
	dst = append(dst, ",\n\t\t\"bytes_read\": "...)
	dst = strconv.AppendUint(dst, stats.BytesRead, 10)
	dst = append(dst, "\n\t},\n\n\t\"watershed\":\n\t{\n\t\t\"build\": "...)
	dst = strconv.AppendUint(dst, saw.Build, 10)
	dst = append(dst, ",\n\t\t\"cut\": "...)
	dst = strconv.AppendUint(dst, saw.Cut, 10)
	dst = append(dst, ",\n\t\t\"positions\": [{\"shard\": 0, \"seq\": "...)
	dst = strconv.AppendUint(dst, saw.Seq, 10)
	return append(dst, "}]\n\t}\n}\n"...)
}

func beginCSV(dst []byte, columns []Column) []byte {
	first := true
	for _, c := range columns {
		for _, name := range csvNames(c.Name, c.Type) {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = append(dst, '"')
			dst = append(dst, strings.ReplaceAll(name, `"`, `""`)...)
			dst = append(dst, '"')
		}
	}
	return append(dst, '\n')
}

// csvNames are a column's names in CSV, where a tuple is as many columns as it has elements: x.1, or x.name if
// they have names.
func csvNames(name, typ string) []string {
	inner, ok := strings.CutPrefix(typ, "Tuple(")
	if !ok {
		return []string{name}
	}
	var names []string
	for i, element := range cutType(strings.TrimSuffix(inner, ")"), ',') {
		label, rest := strconv.Itoa(i+1), strings.TrimSpace(element)
		if parts := cutType(rest, ' '); len(parts) > 1 {
			label, rest = strings.Trim(parts[0], "`"), rest[len(parts[0])+1:]
		}
		names = append(names, csvNames(name+"."+label, rest)...)
	}
	return names
}

// cutType cuts the text of a type at separators outside parentheses and quotes.
func cutType(s string, separator byte) (parts []string) {
	depth, start := 0, 0
	var quote byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '\'' || c == '`':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == separator && depth == 0:
			parts, start = append(parts, s[start:i]), i+1
		}
	}
	return append(parts, s[start:])
}

func rowCSV(dst []byte, columns []Column, rows Rows, _ uint64) []byte {
	for i := range columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = rows.AppendCSV(dst, i)
	}
	return append(dst, '\n')
}

func rowNDJSON(dst []byte, columns []Column, rows Rows, _ uint64) []byte {
	for i, c := range columns {
		if i > 0 {
			dst = append(dst, ',')
		} else {
			dst = append(dst, '{')
		}
		dst = append(appendString(dst, c.Name), ':')
		dst = rows.AppendJSON(dst, i)
	}
	return append(dst, "}\n"...)
}

// appendString appends a JSON string with the escapes that ClickHouse uses (writeAnyEscapedString and
// writeJSONString in its WriteHelpers.h), the slash among them.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch r {
		case '"', '\\', '/':
			dst = append(dst, '\\', byte(r))
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		case '\u2028', '\u2029':
			dst = append(dst, `\u202`...)
			dst = append(dst, hex[r&15])
		default:
			if r < ' ' {
				dst = append(dst, `\u00`...)
				dst = append(dst, hex[r>>4], hex[r&15])
			} else {
				dst = utf8.AppendRune(dst, r)
			}
		}
	}
	return append(dst, '"')
}

// seconds reads a limit in seconds.
func seconds(s string) (time.Duration, bool) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0) || f > 1e9 {
		return 0, false
	}
	return time.Duration(f * float64(time.Second)), true
}
