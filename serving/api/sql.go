package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// request gives a handler the parts of the HTTP request that huma's inputs do not: repeated query
// parameters, unknown ones, headers as they are. It is a huma.Resolver.
type request struct {
	query  url.Values
	header http.Header
}

var _ huma.Resolver = (*request)(nil)

// Resolve keeps the request's query and headers.
func (r *request) Resolve(ctx huma.Context) []error {
	hr, _ := humago.Unwrap(ctx)
	query, err := url.ParseQuery(hr.URL.RawQuery)
	if err != nil {
		return []error{badParameter("", "query string: %w", err)}
	}
	r.query, r.header = query, hr.Header
	return nil
}

// once is the value of a parameter that may be given once; "" if it is not.
func once(query url.Values, name string) (string, error) {
	switch values := query[name]; len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	default:
		return "", badParameter(name, "%s is given %d times", name, len(values))
	}
}

// outputParameters are those that every query takes; they document the interface and are read out of
// the request.
type outputParameters struct {
	request
	Format  string `query:"format" enum:"json,csv,ndjson" doc:"Output format; default: what Accept says, else json"`
	Timeout string `query:"timeout" doc:"Time limit in seconds"`
	Rows    string `query:"rows" doc:"Longest result, in rows"`
	Min     string `query:"min_position" doc:"Wait until the answer shows the log up to this position"`
	MinHead string `header:"Watershed-Min-Position" doc:"Likewise; the greater of the two counts"`
	Wait    string `query:"max_wait" doc:"For so many seconds at most, default 5, and not beyond timeout"`
}

// output reads the output parameters: format and limits.
func (a *api) output(r request) (format, Query, error) {
	q := Query{Timeout: a.config.Timeout, Rows: a.config.Rows}
	text := map[string]string{}
	for _, name := range []string{"format", "timeout", "rows"} {
		value, err := once(r.query, name)
		if err != nil {
			return format{}, q, err
		}
		text[name] = value
	}
	f, err := chooseFormat(text["format"], r.header)
	if err != nil {
		return f, q, err
	}
	if s := text["timeout"]; s != "" {
		var ok bool
		if q.Timeout, ok = seconds(s); !ok {
			return f, q, badParameter("timeout", "%q: want seconds, more than 0", s)
		}
	}
	if s := text["rows"]; s != "" {
		if q.Rows, err = strconv.ParseUint(s, 10, 64); err != nil {
			return f, q, badParameter("rows", "%q: want a number of rows", s)
		}
	}
	return f, q, a.checkLimits(q)
}

func (a *api) checkLimits(q Query) error {
	if q.Timeout > a.config.MaxTimeout {
		return badParameter("timeout", "%s: at most %s is allowed", q.Timeout, a.config.MaxTimeout)
	}
	if q.Rows == 0 || q.Rows > a.config.MaxRows {
		return badParameter("rows", "%d: want 1 to %d", q.Rows, a.config.MaxRows)
	}
	return nil
}

// only refuses parameters beyond those named.
func only(query url.Values, names ...string) error {
next:
	for name := range query {
		for _, n := range names {
			if n == name {
				continue next
			}
		}
		return badParameter(name, "unknown parameter %q: there are %s", name, strings.Join(names, ", "))
	}
	return nil
}

type sqlInput struct {
	outputParameters
	RawBody []byte `contentType:"text/plain" doc:"One statement"`
}

// sqlBody is a statement as JSON.
type sqlBody struct {
	SQL        string         `json:"sql" doc:"One statement, with {name:Type} for each parameter"`
	Parameters map[string]any `json:"parameters,omitempty" doc:"Values by name: strings, numbers and booleans"`
	Limits     *sqlLimits     `json:"limits,omitempty"`
}

type sqlLimits struct {
	Seconds float64 `json:"seconds,omitempty" doc:"Time limit"`
	Rows    uint64  `json:"rows,omitempty" doc:"Longest result"`
}

func (a *api) sql(ctx context.Context, in *sqlInput) (*huma.StreamResponse, error) {
	if err := only(in.query, "format", "timeout", "rows", "min_position", "max_wait"); err != nil {
		return nil, err
	}
	f, q, err := a.output(in.request)
	if err != nil {
		return nil, err
	}
	if err := readSQL(&q, in.header.Get("Content-Type"), in.RawBody); err != nil {
		return nil, err
	}
	if err := a.checkLimits(q); err != nil {
		return nil, err
	}
	t, err := a.token(in.request, "")
	if err != nil {
		return nil, err
	}
	views, err := a.deps.Catalog.Views(ctx)
	if err != nil {
		return nil, problemOf(ctx, err)
	}
	return a.answer(ctx, views, q, f, t)
}

// readSQL reads the statement and what goes with it. A form's content type is what curl -d sends; the
// body is taken as it is then.
func readSQL(q *Query, contentType string, body []byte) error {
	media := "text/plain"
	if contentType != "" {
		var err error
		if media, _, err = mime.ParseMediaType(contentType); err != nil {
			return problem(UnsupportedMediaType, "Content-Type %q: %w", contentType, err)
		}
	}
	switch media {
	case "text/plain", "application/sql", "application/x-www-form-urlencoded":
		q.SQL = string(body)
	case "application/json":
		if err := readSQLBody(q, body); err != nil {
			return err
		}
	default:
		return problem(UnsupportedMediaType, "Content-Type %q: want text/plain or application/json", media)
	}
	if strings.TrimSpace(q.SQL) == "" {
		return problem(BadRequest, "there is no SQL in the body")
	}
	if !utf8.ValidString(q.SQL) {
		return problem(BadRequest, "the SQL is not UTF-8")
	}
	return nil
}

func readSQLBody(q *Query, body []byte) error {
	var b sqlBody
	if err := strictJSON(body, &b); err != nil {
		return err
	}
	q.SQL = b.SQL
	q.Parameters = make(map[string]string, len(b.Parameters))
	for name, value := range b.Parameters {
		switch v := value.(type) {
		case string:
			q.Parameters[name] = v
		case json.Number, bool:
			q.Parameters[name] = fmt.Sprint(v)
		default:
			return badParameter(name, "parameters.%s: want a string, number or boolean; write other values as ClickHouse does, in a string", name)
		}
	}
	if b.Limits != nil {
		if b.Limits.Seconds != 0 {
			if !(b.Limits.Seconds > 0) || b.Limits.Seconds > 1e9 {
				return badParameter("limits.seconds", "%g: want more than 0", b.Limits.Seconds)
			}
			q.Timeout = time.Duration(b.Limits.Seconds * float64(time.Second))
		}
		if b.Limits.Rows != 0 {
			q.Rows = b.Limits.Rows
		}
	}
	return nil
}

// strictJSON reads a body that is one JSON object of known keys.
func strictJSON(body []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(to); err != nil {
		return problem(BadRequest, "the body is not the JSON that is wanted: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return problem(BadRequest, "there is more after the JSON object")
	}
	return nil
}
