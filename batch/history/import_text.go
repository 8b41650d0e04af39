package history

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/internal/decode"
	"watershed/schemas"
)

const (
	maxTextLine = 8 << 20
	textBlock   = 1 << 20 // bytes of JSON that make a record, about
)

// importInstant and the decoder's limits let every event time pass that the decoder can hold. An import has no log timestamp.
var importInstant = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

func newImportDecoder(ev *schemas.Event) *decode.Decoder {
	const years = 365 * day
	return decode.New(ev, decode.Limits{Past: 250 * years, Future: 250 * years, Bytes: textBlock + 2*maxTextLine})
}

// A textSource reads events line by line, as JSON that it takes or makes.
type textSource struct {
	info    sourceInfo
	decoder *decode.Decoder
	line    func(to []byte, row int64) ([]byte, error) // appends the next event's JSON and a newline; io.EOF
	read    *counter
	row     int64
	noID    bool
}

func (s *textSource) done() int64  { return int64(*s.read) }
func (s *textSource) unique() bool { return s.noID }

// next is the next record, of about textBlock bytes of JSON.
func (s *textSource) next() (arrow.Record, error) {
	var block []byte
	first := s.row
	for len(block) < textBlock {
		var err error
		if block, err = s.line(block, s.row); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("row %d: %w", s.row, err)
		}
		if s.row++; s.row > math.MaxInt32 {
			return nil, errors.New("more rows than fit _row")
		}
	}
	if s.row == first {
		return nil, io.EOF
	}
	for _, r := range s.decoder.Append(block, 0, importInstant) {
		return nil, fmt.Errorf("row %d: %s", first+int64(r.Row), r.Reason)
	}
	rec := s.decoder.Record()
	defer rec.Release()
	n := int(rec.NumRows())
	if int64(n) != s.row-first {
		return nil, fmt.Errorf("behind row %d: %d events in %d lines", first, n, s.row-first)
	}
	columns := append([]arrow.Array(nil), rec.Columns()...)
	columns[len(columns)-1] = rowNumbers(first, n)
	return array.NewRecord(rec.Schema(), columns, int64(n)), nil
}

// openNDJSON reads one JSON object a line.
func openNDJSON(r io.Reader, info sourceInfo) (*textSource, error) {
	s := &textSource{info: info, decoder: newImportDecoder(info.event), read: new(counter)}
	lines := bufio.NewScanner(io.TeeReader(r, s.read))
	lines.Buffer(make([]byte, 64<<10), maxTextLine)
	first := true
	s.line = func(to []byte, row int64) ([]byte, error) {
		for lines.Scan() {
			line := bytes.TrimSpace(lines.Bytes())
			if len(line) == 0 {
				continue
			}
			if first {
				first = false
				if err := s.findID(line); err != nil {
					return to, err
				}
			}
			return s.object(to, line, row)
		}
		if err := lines.Err(); err != nil {
			return to, err
		}
		return to, io.EOF
	}
	return s, nil
}

// findID looks into the first event whether ids come with the source.
func (s *textSource) findID(line []byte) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(line, &keys); err != nil {
		return err
	}
	_, has := keys[s.info.column(s.info.event.ID)]
	if s.noID = !has && s.info.columns[s.info.event.ID] == ""; s.noID {
		return s.info.checkNoID()
	}
	return nil
}

// object appends one event. Without a mapping the line itself goes to the decoder, as strict as the
// log's; with one, the columns that are mapped to fields are taken.
func (s *textSource) object(to, line []byte, row int64) ([]byte, error) {
	if len(s.info.columns) == 0 && !s.noID {
		return append(append(to, line...), '\n'), nil
	}
	if line[0] != '{' {
		return to, errors.New("is no JSON object")
	}
	if len(s.info.columns) > 0 {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(line, &keys); err != nil {
			return to, err
		}
		w := objectWriter{to: to}
		for _, f := range s.info.event.Fields {
			if s.noID && f.Name == s.info.event.ID {
				w.field(f.Name, s.rowID(row))
			} else if raw, ok := keys[s.info.column(f.Name)]; ok {
				w.field(f.Name, raw)
			}
		}
		return w.close(), nil
	}
	w := objectWriter{to: to}
	w.field(s.info.event.ID, s.rowID(row))
	if rest := bytes.TrimSpace(line[1:]); len(rest) > 0 && rest[0] != '}' {
		w.to = append(w.to, ',')
	}
	return append(append(w.to, line[1:]...), '\n'), nil
}

func (s *textSource) rowID(row int64) []byte {
	return []byte(quote(string(appendRowID(nil, s.info.name, row))))
}

// An objectWriter writes one JSON object a line.
type objectWriter struct {
	to    []byte
	begun bool
}

func (w *objectWriter) field(name string, raw []byte) {
	if w.begun {
		w.to = append(w.to, ',')
	} else {
		w.to, w.begun = append(w.to, '{'), true
	}
	w.to = append(append(append(append(w.to, '"'), name...), `":`...), raw...)
}

func (w *objectWriter) close() []byte {
	if !w.begun {
		w.to = append(w.to, '{')
	}
	return append(w.to, "}\n"...)
}

// openCSV reads comma-separated values whose first line names the columns.
func openCSV(r io.Reader, info sourceInfo) (*textSource, error) {
	s := &textSource{info: info, decoder: newImportDecoder(info.event), read: new(counter)}
	rows := csv.NewReader(bufio.NewReaderSize(io.TeeReader(r, s.read), 256<<10))
	rows.ReuseRecord = true
	head, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("first line: %w", err)
	}
	at := map[string]int{}
	for i, name := range head {
		name = strings.TrimPrefix(name, "\ufeff")
		if _, twice := at[name]; twice {
			return nil, fmt.Errorf("column %s comes twice", name)
		}
		at[name] = i
	}
	columns := make([]int, len(info.event.Fields))
	for i, f := range info.event.Fields {
		k, ok := at[info.column(f.Name)]
		columns[i] = k
		if ok {
			continue
		}
		columns[i] = -1
		switch {
		case f.Name == info.event.ID && info.columns[f.Name] == "":
			if err := info.checkNoID(); err != nil {
				return nil, err
			}
			s.noID = true
		case !f.Optional || info.columns[f.Name] != "":
			return nil, fmt.Errorf("there is no column %s for the field %s", info.column(f.Name), f.Name)
		}
	}
	s.line = func(to []byte, row int64) ([]byte, error) {
		record, err := rows.Read()
		if err != nil {
			return to, err
		}
		w := objectWriter{to: to}
		for i, f := range info.event.Fields {
			switch {
			case columns[i] >= 0:
				raw, err := csvValue(f, record[columns[i]])
				if err != nil {
					return to, fmt.Errorf("column %s: %w", info.column(f.Name), err)
				}
				w.field(f.Name, raw)
			case s.noID && f.Name == info.event.ID:
				w.field(f.Name, s.rowID(row))
			}
		}
		return w.close(), nil
	}
	return s, nil
}

// csvValue is the JSON of a value. What is not text must be a number or a word, so that it stays within
// its field.
func csvValue(f schemas.Field, text string) ([]byte, error) {
	if text == "" && f.Optional {
		return []byte("null"), nil
	}
	if !utf8.ValidString(text) {
		return nil, errors.New("is not valid UTF-8")
	}
	number := text != "" && strings.Trim(text, "0123456789+-.eE") == ""
	switch f.Type.Kind {
	case schemas.String, schemas.Date, schemas.Decimal:
		return []byte(quote(text)), nil
	case schemas.Timestamp:
		if strings.Trim(text, "-0123456789") != "" || strings.Contains(strings.TrimPrefix(text, "-"), "-") {
			return []byte(quote(text)), nil
		}
		return []byte(text), nil
	case schemas.Bool:
		if text == "true" || text == "false" {
			return []byte(text), nil
		}
	default:
		if number {
			return []byte(text), nil
		}
	}
	return nil, fmt.Errorf("%q is no %s", text, f.Type)
}
