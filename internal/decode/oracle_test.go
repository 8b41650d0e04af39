package decode_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/internal/decode"
	"watershed/schemas"
)

// The oracle decodes one event the plain way, with encoding/json, big.Rat and time.Parse, to
// values as text: one per field, "null" for null. It shares nothing with the decoder.

var (
	numberShape = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
	zonedShape  = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`)
	plainShape  = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?$`)
	dateShape   = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)
	pair        = regexp.MustCompile(`\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}`)
	surrogate   = regexp.MustCompile(`\\u[dD][89a-fA-F][0-9a-fA-F]{2}`)

	earliest = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)
)

func oracle(ev *schemas.Event, line []byte, from, to time.Time) (values []string, err error) {
	escapes := strings.ReplaceAll(string(line), `\\`, "")
	if !json.Valid(line) || !utf8.Valid(line) || surrogate.MatchString(pair.ReplaceAllString(escapes, "")) {
		return nil, fmt.Errorf("not strict JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("not an object")
	}
	got := make(map[string]string)
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		f := ev.Field(key.(string))
		if f == nil && ev.IgnoreUnknown {
			var passed json.RawMessage
			if err := dec.Decode(&passed); err != nil {
				return nil, err
			}
			continue
		}
		if _, twice := got[key.(string)]; twice || f == nil {
			return nil, fmt.Errorf("field %s is twice or undeclared", key)
		}
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		if got[f.Name], err = oracleValue(f, token); err != nil {
			return nil, err
		}
		if f.Name == ev.Time {
			micros, _ := strconv.ParseInt(got[f.Name], 10, 64)
			if t := time.UnixMicro(micros); t.Before(from) || t.After(to) {
				return nil, fmt.Errorf("event time out of range")
			}
		}
	}
	for _, f := range ev.Fields {
		v, ok := got[f.Name]
		if !ok {
			if v = "null"; !f.Optional {
				return nil, fmt.Errorf("no %s", f.Name)
			}
		}
		values = append(values, v)
	}
	return values, nil
}

func oracleValue(f *schemas.Field, token any) (string, error) {
	bad := fmt.Errorf("bad %s", f.Name)
	text, isText := token.(string)
	number, isNumber := token.(json.Number)
	if token == nil {
		if !f.Optional {
			return "", bad
		}
		return "null", nil
	}
	switch f.Type.Kind {
	case schemas.String:
		if isText {
			return strconv.Quote(text), nil
		}
	case schemas.Bool:
		if b, ok := token.(bool); ok {
			return strconv.FormatBool(b), nil
		}
	case schemas.Int64:
		if v, err := strconv.ParseInt(number.String(), 10, 64); isNumber && err == nil {
			return strconv.FormatInt(v, 10), nil
		}
	case schemas.Float64:
		if v, err := strconv.ParseFloat(number.String(), 64); isNumber && err == nil {
			return strings.TrimPrefix(strconv.FormatFloat(v, 'x', -1, 64), map[bool]string{true: "-"}[v == 0]), nil
		}
	case schemas.Decimal:
		if isNumber {
			text = number.String()
		}
		if (isText || isNumber) && numberShape.MatchString(text) {
			return oracleDecimal(f.Type, text)
		}
	case schemas.Timestamp:
		return oracleTime(text, isText, number)
	case schemas.Date:
		if t, err := time.Parse(time.DateOnly, text); isText && err == nil && dateShape.MatchString(text) && !t.Before(earliest) && t.Before(latest) {
			return text, nil
		}
	}
	return "", bad
}

func oracleDecimal(t schemas.Type, text string) (string, error) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if !strings.ContainsAny(mantissa, "123456789") {
		return "0", nil
	}
	if e, err := strconv.Atoi(exponent); exponent != "" && (err != nil || e > 5000 || e < -5000) {
		return "", fmt.Errorf("more digits than the test's inputs have")
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return "", fmt.Errorf("not a number")
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Scale)), nil)))
	if !r.IsInt() || r.Num().CmpAbs(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Precision)), nil)) >= 0 {
		return "", fmt.Errorf("does not fit")
	}
	return r.Num().String(), nil
}

func oracleTime(text string, isText bool, number json.Number) (string, error) {
	var t time.Time
	var err error
	switch {
	case isText && zonedShape.MatchString(text):
		t, err = time.Parse(time.RFC3339Nano, text)
	case isText && plainShape.MatchString(text):
		t, err = time.Parse(time.DateTime, text)
	default:
		var micros int64
		micros, err = strconv.ParseInt(number.String(), 10, 64)
		t = time.UnixMicro(micros)
	}
	if err != nil || t.Before(earliest) || !t.Before(latest) {
		return "", fmt.Errorf("bad time")
	}
	return strconv.FormatInt(t.UnixMicro(), 10), nil
}

// values are a record's rows, each field as the oracle writes it.
func values(ev *schemas.Event, rec arrow.Record) [][]string {
	out := make([][]string, rec.NumRows())
	for r := range out {
		for i, f := range ev.Fields {
			out[r] = append(out[r], valueText(f, rec.Column(i), r))
		}
	}
	return out
}

func valueText(f schemas.Field, arr arrow.Array, r int) string {
	if arr.IsNull(r) {
		return "null"
	}
	switch a := arr.(type) {
	case *array.String:
		return strconv.Quote(a.Value(r))
	case *array.Dictionary:
		return strconv.Quote(a.Dictionary().(*array.String).Value(a.GetValueIndex(r)))
	case *array.Boolean:
		return strconv.FormatBool(a.Value(r))
	case *array.Int64:
		return strconv.FormatInt(a.Value(r), 10)
	case *array.Timestamp:
		return strconv.FormatInt(int64(a.Value(r)), 10)
	case *array.Date32:
		return a.Value(r).FormattedString()
	case *array.Float64:
		return strconv.FormatFloat(a.Value(r), 'x', -1, 64)
	case *array.Decimal128:
		return a.Value(r).BigInt().String()
	}
	return "unexpected " + arr.DataType().String() + " of " + f.Name
}

// compare decodes a message both ways and says where they differ.
func compare(ev *schemas.Event, payload []byte, at time.Time) error {
	d := decode.New(ev, decode.Limits{Past: 1000 * time.Hour, Future: 10 * time.Hour})
	rejects := d.Append(payload, 7, at)
	rec := d.Record()
	defer rec.Release()
	got := values(ev, rec)
	row, fits := 0, 0
	for line := range bytes.SplitSeq(payload, []byte("\n")) {
		if len(bytes.Trim(line, " \t\r")) == 0 {
			continue
		}
		if ev.IgnoreUnknown && bytes.Count(line, []byte("["))+bytes.Count(line, []byte("{")) > 60 {
			return nil // may be refused for its depth alone
		}
		want, err := oracle(ev, line, at.Add(-1000*time.Hour), at.Add(10*time.Hour))
		switch {
		case err != nil:
			if len(rejects) == 0 || rejects[0].Row != row || !bytes.Equal(rejects[0].Payload, line) {
				return fmt.Errorf("row %d %q: not rejected; the oracle says: %w", row, line, err)
			}
			rejects = rejects[1:]
		case len(rejects) > 0 && rejects[0].Row == row:
			return fmt.Errorf("row %d %q: rejected (%s); the oracle takes it", row, line, rejects[0].Reason)
		case fits == len(got):
			return fmt.Errorf("row %d %q: missing", row, line)
		default:
			if g, w := strings.Join(got[fits], " "), strings.Join(want, " "); g != w {
				return fmt.Errorf("row %d %q: got %s; want %s", row, line, g, w)
			}
			cols := rec.Columns()
			if cols[len(cols)-1].(*array.Int32).Value(fits) != int32(row) || cols[len(cols)-2].(*array.Int64).Value(fits) != 7 {
				return fmt.Errorf("row %d %q: wrong _seq or _row", row, line)
			}
			fits++
		}
		row++
	}
	if row == 0 && len(rejects) == 1 && rejects[0].Row == -1 {
		rejects = nil
	}
	if fits != len(got) || len(rejects) > 0 {
		return fmt.Errorf("got %d rows and %d rejects more than the oracle in %q", len(got)-fits, len(rejects), payload)
	}
	return nil
}
