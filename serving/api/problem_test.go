package api_test

import (
	"context"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"watershed/internal/ingest"
	"watershed/serving/api"
)

// documented are the codes in the package's documentation, with their status.
func documented(t *testing.T) map[api.Code]string {
	t.Helper()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "code                    status  when")
	if !ok {
		t.Fatal("doc.go has no table of codes")
	}
	out := map[api.Code]string{}
	for _, m := range regexp.MustCompile(`(?m)^//\t([a-z-]+) +([0-9]{3}) `).FindAllStringSubmatch(table, -1) {
		out[api.Code(m[1])] = m[2]
	}
	return out
}

// TestProblems brings about every code that the documentation lists.
func TestProblems(t *testing.T) {
	const token = "a-token-of-some-length"
	w := newWorld(t).serve(t, api.Config{Tokens: []string{token}, MaxRows: 1000})
	open := *w
	open.serve(t, api.Config{})
	restlessly := *w
	restlessly.reader = flipping{w.reader, func() { w.flip(t, 1) }}
	restlessly.serve(t, api.Config{})
	broken := *w
	broken.catalog = &catalog{views: w.views, admin: clickhouse{addr: "127.0.0.1:1"}}
	broken.serve(t, api.Config{})

	faulty := *w
	faulty.workers = func() map[string]any { panic("a bug") }
	faulty.serve(t, api.Config{})

	seen := map[api.Code]string{}
	f := func(w *world, r *http.Request, code api.Code, parameter string) api.Problem {
		t.Helper()
		p := problemIn(t, w.do(t, r))
		if p.Code != code || p.Parameter != parameter {
			t.Errorf("%s %s: %+v; want %s of parameter %q", r.Method, r.URL, p, code, parameter)
		}
		seen[p.Code] = strconv.Itoa(p.Status)
		return p
	}
	get := func(path string) *http.Request { return open.request(t, http.MethodGet, path, "", "") }
	sql := func(text, query string) *http.Request {
		return open.request(t, http.MethodPost, "/v1/sql?"+query, "text/plain", text)
	}

	for path, parameter := range map[string]string{
		"dimensions=carrier": "dimensions", "dimensions=hour,hour": "dimensions", "dimensions=hour&dimensions=origin": "dimensions",
		"measures=flights,x": "measures", "measures=&dimensions=": "measures", "grain=1x": "grain", "grain=90m": "grain", "grain=-1h": "grain",
		"grain=1d&dimensions=origin": "grain", "from=yesterday": "from", "to=2001-13-01": "to", "from=2001-06-02&to=2001-06-02": "to", "from=1000-01-01": "from",
		"filter=origin": "filter", "filter=carrier:AA": "filter", "filter=gate:one": "filter", "filter=price:0.001": "filter", "filter=even:1": "filter",
		"filter=hour:now": "filter", "filter=day:2001-06-31": "filter", "filter=origin:%FF": "filter", "null=origin": "null", "null=x": "null",
		"order=x": "order", "order=hour,-hour": "order", "limit=0": "limit", "limit=-1": "limit", "where.origin=JFK": "where.origin",
		"format=xml": "format", "timeout=0": "timeout", "timeout=x": "timeout", "timeout=3600": "timeout", "rows=0": "rows", "rows=99999999999": "rows",
	} {
		f(&open, get("/v1/views/departures?"+path), api.BadParameter, parameter)
	}
	f(&open, sql("SELECT 1", "sql=x"), api.BadParameter, "sql")
	f(&open, open.request(t, http.MethodPost, "/v1/sql", "application/json", `{"sql": "SELECT 1", "parameters": {"a": []}}`), api.BadParameter, "a")
	f(&open, open.request(t, http.MethodPost, "/v1/sql", "application/json", `{"sql": "SELECT 1", "limits": {"seconds": -1}}`), api.BadParameter, "limits.seconds")
	f(&open, sql("  ", ""), api.BadRequest, "")
	f(&open, open.request(t, http.MethodPost, "/v1/sql", "application/json", `{"query": "SELECT 1"}`), api.BadRequest, "")
	if p := f(&open, sql("SELEC 1", ""), api.SQLError, ""); p.ClickHouse != 62 {
		t.Errorf("syntax error: %+v; want ClickHouse's code 62", p)
	}
	f(&open, sql("SELECT * FROM nowhere", ""), api.SQLError, "")
	f(&open, sql("SELECT uniqState(number) FROM numbers(3)", ""), api.SQLError, "")
	f(&open, sql("SELECT throwIf(number = 3) FROM numbers(10)", ""), api.SQLError, "")
	f(w, w.request(t, http.MethodGet, "/v1/views", "", ""), api.Unauthorized, "")
	f(&open, sql("DROP TABLE events", ""), api.Forbidden, "")
	f(&open, get("/v2"), api.NotFound, "")
	f(&open, get("/v1/views/nowhere"), api.ViewNotFound, "")
	taking := receiver(t, api.Config{}, ingest.Config{}, 16<<10)
	publish := func(path, body string) *http.Request {
		return taking.request(t, http.MethodPost, "/v1/events/"+path, lines, body)
	}
	f(taking, publish("nowhere", gate(1)), api.TypeNotFound, "")
	f(taking, publish("gate", "{}"), api.EventsRefused, "")
	for taking.do(t, publish("gate", gate(1))).status == http.StatusAccepted {
	}
	f(taking, publish("gate", gate(1)), api.LogFull, "")
	f(&open, get("/v1/sql"), api.MethodNotAllowed, "")
	r := sql("SELECT 1", "")
	r.Header.Set("Accept", "image/png")
	f(&open, r, api.NotAcceptable, "")
	f(&open, get("/v1/views/uncovered"), api.NotCovered, "")
	f(&open, sql("SELECT * FROM uncovered", ""), api.NotCovered, "")
	f(&open, sql("SELECT '"+strings.Repeat("x", 1<<20)+"'", ""), api.BodyTooLarge, "")
	f(&open, open.request(t, http.MethodPost, "/v1/sql", "image/png", "SELECT 1"), api.UnsupportedMediaType, "")
	r = get("/v1/views")
	r.Host = "rebound.example"
	f(&open, r, api.WrongHost, "")
	f(&open, sql("SELECT number FROM numbers(11)", "rows=10"), api.LimitExceeded, "")
	f(&open, sql("SELECT * FROM departures", "rows=1"), api.LimitExceeded, "")
	f(&open, sql("SELECT groupArray(number) FROM numbers(10000000000)", ""), api.LimitExceeded, "")
	f(&open, sql("SELECT count() FROM numbers(10000000000000)", "timeout=0.2"), api.Timeout, "")
	f(&open, get("/v1/views/departures?min_position=43&max_wait=0.1"), api.NotReached, "")
	f(&restlessly, restlessly.request(t, http.MethodPost, "/v1/sql", "text/plain", "SELECT 1"), api.BuildChanged, "")
	f(&broken, broken.request(t, http.MethodPost, "/v1/sql", "text/plain", "SELECT 1"), api.Unavailable, "")
	free := occupy(t, w)
	f(&open, sql("SELECT 1", ""), api.Busy, "")
	free()
	f(&faulty, faulty.request(t, http.MethodGet, "/v1/status", "", ""), api.Internal, "")

	for code, status := range documented(t) {
		if seen[code] != status {
			t.Errorf("code %s has status %q; documented is %s", code, seen[code], status)
		}
	}
	for code := range seen {
		if documented(t)[code] == "" {
			t.Errorf("code %s is not documented", code)
		}
	}
}

// flipping is a reader after whose every query something happens.
type flipping struct {
	api.Reader
	after func()
}

func (r flipping) Query(ctx context.Context, q api.Query) (api.Rows, error) {
	rows, err := r.Reader.Query(ctx, q)
	r.after()
	return rows, err
}

// occupy takes all the places that the reader has in ClickHouse, until the function that it returns.
func occupy(t *testing.T, w *world) (free func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 32 {
		wait.Go(func() {
			rows, err := w.reader.Query(ctx, api.Query{SQL: "SELECT count(sleepEachRow(0.00004)) FROM numbers(10000000)", Timeout: 50 * time.Second, Rows: 1})
			if err == nil {
				err = rows.Close()
			}
			if err != nil && ctx.Err() == nil {
				t.Errorf("occupy: %v", err)
			}
		})
	}
	w.until(t, "SELECT count() FROM system.processes WHERE user = 'reader'", "32\n")
	return func() {
		cancel()
		wait.Wait()
		w.until(t, "SELECT count() FROM system.processes WHERE user = 'reader'", "0\n")
	}
}

// until polls a query until it has that answer.
func (w *world) until(t *testing.T, sql, want string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for got := ""; got != want; {
		select {
		case <-tick.C:
			got = w.admin.must(t, sql)
		case <-late:
			t.Fatalf("%s: %s; want %s", sql, got, want)
		}
	}
}
