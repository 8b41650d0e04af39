package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/serving/api"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// clickhouse speaks to the real server as one user, over its HTTP interface.
type clickhouse struct {
	addr, database, user, password string
}

// exception is ClickHouse's own error.
type exception struct {
	code    int
	message string
}

func (e *exception) Error() string   { return e.message }
func (e *exception) Code() int       { return e.code }
func (e *exception) Message() string { return e.message }

var exceptionText = regexp.MustCompile(`Code: ([0-9]+)\. DB::Exception: `)

func (c clickhouse) post(ctx context.Context, sql string, settings url.Values) (*http.Response, error) {
	query := url.Values{"database": {c.database}}
	for k, v := range settings {
		query[k] = v
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.addr+"/?"+query.Encode(), strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-ClickHouse-User", c.user)
	r.Header.Set("X-ClickHouse-Key", c.password)
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return nil, exceptionOf(string(text))
}

func exceptionOf(text string) error {
	at := exceptionText.FindStringSubmatchIndex(text)
	if at == nil {
		return fmt.Errorf("ClickHouse: %s", text)
	}
	code, err := strconv.Atoi(text[at[2]:at[3]])
	return errors.Join(&exception{code, strings.TrimSpace(text[at[1]:])}, err)
}

// text is a statement's whole output.
func (c clickhouse) text(ctx context.Context, sql string, settings url.Values) (string, error) {
	resp, err := c.post(ctx, sql, settings)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func (c clickhouse) must(t testing.TB, sql string) string {
	t.Helper()
	out, err := c.text(t.Context(), sql, nil)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// Query implements api.Reader: rows come as ClickHouse writes them, and are only cut into values here.
func (c clickhouse) Query(ctx context.Context, q api.Query) (api.Rows, error) {
	settings := url.Values{
		"default_format":     {map[api.Encoding]string{api.JSON: "JSONCompactEachRowWithNamesAndTypes", api.CSV: "CSVWithNamesAndTypes"}[q.Encoding]},
		"max_execution_time": {strconv.FormatFloat(q.Timeout.Seconds(), 'f', -1, 64)},
		"max_result_rows":    {strconv.FormatUint(q.Rows, 10)},
	}
	for name, value := range q.Parameters {
		settings.Set("param_"+name, strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`).Replace(value))
	}
	resp, err := c.post(ctx, q.SQL, settings)
	if err != nil {
		return nil, err
	}
	rows := &httpRows{body: resp.Body, lines: bufio.NewReaderSize(resp.Body, 64<<10), csv: q.Encoding == api.CSV}
	if !rows.Next() {
		return nil, errors.Join(rows.Err(), rows.Close())
	}
	for _, name := range rows.cells {
		rows.columns = append(rows.columns, api.Column{Name: unquote(name)})
	}
	if len(rows.columns) > 0 && rows.Next() {
		for i, typ := range rows.cells {
			rows.columns[i].Type = unquote(typ)
		}
	}
	return rows, rows.Err()
}

// unquote reads a name in JSON or CSV.
func unquote(b []byte) string {
	var s string
	if json.Unmarshal(b, &s) == nil {
		return s
	}
	return strings.ReplaceAll(strings.Trim(string(b), `"`), `""`, `"`)
}

type httpRows struct {
	body    io.ReadCloser
	lines   *bufio.Reader
	csv     bool
	columns []api.Column
	line    []byte
	cells   [][]byte
	err     error
}

func (r *httpRows) Columns() []api.Column                { return r.columns }
func (r *httpRows) Append(dst []byte, column int) []byte { return append(dst, r.cells[column]...) }
func (r *httpRows) Err() error                           { return r.err }
func (r *httpRows) Stats() api.Stats                     { return api.Stats{} }
func (r *httpRows) Close() error                         { return r.body.Close() }

func (r *httpRows) Next() bool {
	if r.err != nil {
		return false
	}
	r.line = r.line[:0]
	for { // a quoted string in CSV may hold newlines
		part, err := r.lines.ReadBytes('\n')
		r.line = append(r.line, part...)
		if err == io.EOF && len(r.line) == 0 {
			return false
		}
		if err != nil {
			r.err = err
			return false
		}
		if string(r.line) == "\r\n" { // what follows is a late exception; no row is empty
			rest, _ := io.ReadAll(r.lines)
			r.err = exceptionOf(string(rest))
			return false
		}
		if !r.csv || bytes.Count(r.line, []byte(`"`))%2 == 0 {
			break
		}
	}
	if r.csv {
		r.cells = cutCSV(bytes.TrimSuffix(r.line, []byte("\n")))
		return true
	}
	var cells []json.RawMessage
	r.err = json.Unmarshal(r.line, &cells)
	r.cells = r.cells[:0]
	for _, c := range cells {
		r.cells = append(r.cells, c)
	}
	return r.err == nil
}

// cutCSV cuts a line at the commas that are not quoted.
func cutCSV(line []byte) (cells [][]byte) {
	start, quoted := 0, false
	for i, b := range line {
		if b == '"' {
			quoted = !quoted
		}
		if b == ',' && !quoted {
			cells, start = append(cells, line[start:i]), i+1
		}
	}
	return append(cells, line[start:])
}

// users are the server's two users on one database.
func users(c *devserver.ClickHouse, database string) (admin, reader clickhouse) {
	user, password := c.Admin()
	admin = clickhouse{c.HTTPAddr(), database, user, password}
	user, password = c.Reader()
	return admin, clickhouse{c.HTTPAddr(), database, user, password}
}
