// Package aggtest lets the tests of measures and views speak with a real ClickHouse: SQL over
// HTTP, records in as Arrow streams, rows out as text.
package aggtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"watershed/internal/devserver"
	"watershed/schemas"
)

// A DB is one database of a running server.
type DB struct {
	url, name, user, password string
	scales                    map[string]int32 // of decimals in our own tables, by table and column
}

// New makes a database of that name, anew.
func New(c *devserver.ClickHouse, name string) (*DB, error) {
	user, password := c.Admin()
	db := &DB{url: "http://" + c.HTTPAddr() + "/", user: user, password: password, scales: make(map[string]int32)}
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + name, "CREATE DATABASE " + name} {
		if err := db.Exec(sql); err != nil {
			return nil, err
		}
	}
	db.name = name
	return db, nil
}

func (db *DB) post(sql string, body io.Reader) ([]byte, error) {
	params := url.Values{"query": {sql}, "wait_end_of_query": {"1"}, "output_format_json_quote_64bit_integers": {"1"}, "async_insert": {"0"}}
	if db.name != "" {
		params.Set("database", db.name)
	}
	req, err := http.NewRequest(http.MethodPost, db.url+"?"+params.Encode(), body)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(db.user, db.password)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s\n%s", sql, text)
	}
	return text, nil
}

// Exec runs a statement.
func (db *DB) Exec(sql string) error {
	_, err := db.post(sql, nil)
	return err
}

// Table makes a table anew, in memory.
func (db *DB) Table(name string, columns []string) error {
	for _, c := range columns {
		column, typ, _ := strings.Cut(c, " ")
		delete(db.scales, name+"."+column)
		if _, scale, ok := strings.Cut(typ, "Decimal(76, "); ok {
			n, err := strconv.Atoi(strings.TrimRight(scale, ")"))
			if err != nil {
				return err
			}
			db.scales[name+"."+column] = int32(n)
		}
	}
	return db.Exec("CREATE OR REPLACE TABLE " + name + " (" + strings.Join(columns, ", ") + ") ENGINE = Memory")
}

// Insert appends records of one schema to a table with columns of the same names.
func (db *DB) Insert(table string, recs ...arrow.Record) error {
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(db.decimals(table, recs[0]).Schema()))
	for _, rec := range recs {
		if err := w.Write(db.decimals(table, rec)); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err := db.post("INSERT INTO "+table+" FORMAT ArrowStream", &b)
	return err
}

// decimals gives the sums of decimals, which state records carry as plain bytes, their type:
// ClickHouse reads those only from the native protocol.
func (db *DB) decimals(table string, rec arrow.Record) arrow.Record {
	fields, columns := slices.Clone(rec.Schema().Fields()), slices.Clone(rec.Columns())
	for i, f := range fields {
		if scale, ok := db.scales[table+"."+f.Name]; ok && f.Type.ID() == arrow.FIXED_SIZE_BINARY {
			fields[i].Type = &arrow.Decimal256Type{Precision: 76, Scale: scale}
			d := columns[i].Data()
			columns[i] = array.MakeFromData(array.NewData(fields[i].Type, d.Len(), d.Buffers(), nil, d.NullN(), d.Offset()))
		}
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), columns, rec.NumRows())
}

// Rows runs a query; each row is its columns as text, arrays as JSON text, null as "NULL".
func (db *DB) Rows(sql string) ([][]string, error) {
	text, err := db.post(sql+" FORMAT JSONCompactEachRow", nil)
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var raw []json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		row := make([]string, len(raw))
		for i, x := range raw {
			if row[i] = string(x); row[i] == "null" {
				row[i] = "NULL"
			} else if x[0] == '"' {
				if err := json.Unmarshal(x, &row[i]); err != nil {
					return nil, err
				}
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// Array builds an array of the type out of values as Value draws them; nil is null. Strings
// are dictionary-coded if asked, with an entry that is used twice.
func Array(t schemas.Type, values []any, dictionary bool) arrow.Array {
	if t.Kind == schemas.String && dictionary {
		typ := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
		b := array.NewDictionaryBuilder(memory.DefaultAllocator, typ).(*array.BinaryDictionaryBuilder)
		for _, v := range values {
			if v == nil {
				b.AppendNull()
			} else if err := b.AppendString(v.(string)); err != nil {
				panic(err) // out of memory
			}
		}
		return b.NewArray()
	}
	b := array.NewBuilder(memory.DefaultAllocator, t.Arrow())
	for _, v := range values {
		appendValue(b, v)
	}
	return b.NewArray()
}

// Draw draws a value of the type: small ones mostly, so that they repeat, and extremes.
func Draw(t schemas.Type) *rapid.Generator[any] {
	switch t.Kind {
	case schemas.Int64:
		return rapid.OneOf(rapid.Int64Range(-20, 20), rapid.Int64(),
			rapid.SampledFrom([]int64{-1 << 63, 1<<63 - 1, 4095, 4096, -4096})).AsAny()
	case schemas.Float64:
		return rapid.OneOf(rapid.Float64Range(-3, 3), rapid.Float64Range(-1e9, 1e9), rapid.Map(rapid.IntRange(-5, 5), func(i int) float64 { return float64(i) }),
			rapid.SampledFrom([]float64{1e-37, -3e38, 3e38, -1e-37, 9.9e-38, 3.1e38, 1e-300, -1e200})).AsAny()
	case schemas.Bool:
		return rapid.Bool().AsAny()
	case schemas.String:
		return rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b", "LAX", "JFK", "é"}), rapid.StringN(0, 40, -1)).AsAny()
	case schemas.Decimal:
		return drawDecimal(t).AsAny()
	case schemas.Timestamp: // from 1960 to 2120, where toStartOf… functions wrap
		return rapid.OneOf(rapid.Int64Range(-315619200_000000, 4733510400_000000), rapid.Int64Range(-3, 3)).AsAny()
	case schemas.Date:
		return rapid.Int64Range(-3653, 54786).AsAny()
	}
	panic("no such type")
}
