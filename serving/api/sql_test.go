package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"watershed/serving/api"
)

// statements reach all kinds of values.
func statements() []string {
	return []string{
		"SELECT 1 AS x",
		"SELECT number, toString(number) AS text FROM numbers(3)",
		"SELECT number FROM numbers(0)",
		"SELECT tuple(3) AS one, (1, 'x') AS two",
		"SELECT CAST((1, 'x'), 'Tuple(a UInt8, b String)') AS named",
		`SELECT 'a"b\'c\\d/e\n\t' AS "quo""ted/name", NULL AS n, [1, 2] AS list, (1, 'x') AS pair, map('k', 1) AS m`,
		"SELECT toUInt64(18446744073709551615) AS big, toInt128('-170141183460469231731687303715884105728') AS bigger, 0.1 AS f, inf AS i, nan AS nothing, toDecimal64(1.5, 4) AS d",
		"SELECT toDateTime64('2001-06-01 12:00:00.123456', 6, 'UTC') AS t, toDate32('1950-01-02') AS day, true AS yes, toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0') AS id",
		"SELECT * FROM departures ORDER BY ALL LIMIT 200",
		"SELECT origin, sum(flights) AS flights FROM departures GROUP BY origin ORDER BY origin",
		"SELECT * FROM departures WHERE origin = 'nowhere'",
		"SELECT number, randomPrintableASCII(200) != '' AS ok, repeat('é', number % 50) AS s FROM numbers(50000)",
	}
}

func TestFormatsAreThoseOfClickHouse(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	for _, sql := range statements() {
		for format, theirs := range map[string]string{"csv": "CSVWithNames", "ndjson": "JSONEachRow", "json": "JSON"} {
			got := w.sql(t, sql, "format="+format)
			if got.status != http.StatusOK {
				t.Errorf("%s as %s: %d %s", sql, format, got.status, got.body)
				continue
			}
			want := w.admin.must(t, sql+" FORMAT "+theirs)
			body := got.body
			if format == "json" {
				var both [2]map[string]json.RawMessage
				for i, text := range []string{body, want} {
					if err := json.Unmarshal([]byte(text), &both[i]); err != nil {
						t.Fatalf("%s: %v in %s", sql, err, text)
					}
				}
				if both[0]["watershed"] == nil || both[0]["statistics"] == nil {
					t.Errorf("%s: no watershed or statistics in %s", sql, body)
				}
				// Nested values are laid out over lines there; the bytes are compared without that.
				body, want = compact(t, both[0]["meta"], both[0]["data"], both[0]["rows"]), compact(t, both[1]["meta"], both[1]["data"], both[1]["rows"])
			}
			if body != want {
				t.Errorf("%s as %s:\n%.2000s\nwant\n%.2000s", sql, format, body, want)
			}
		}
	}
}

func compact(t *testing.T, parts ...json.RawMessage) string {
	t.Helper()
	b, err := json.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The layout is that of FORMAT JSON too, up to the statistics.
func TestJSONLayout(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	for _, sql := range []string{"SELECT number AS x, 'a/b' AS y FROM numbers(3)", "SELECT 1 AS x WHERE 0"} {
		const end = `"statistics":`
		got, _, ok1 := strings.Cut(w.sql(t, sql, "").body, end)
		want, _, ok2 := strings.Cut(w.admin.must(t, sql+" FORMAT JSON"), end)
		if !ok1 || !ok2 || got != want {
			t.Errorf("got %s; want %s", got, want)
		}
	}
}

func TestEveryAnswerSaysWhatItSaw(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	for path, position := range map[string]string{"/v1/views/departures": "0:42", "/v1/views/departures?format=csv": "0:42"} {
		got := w.get(t, path)
		if b, c, p := got.header.Get("Watershed-Build"), got.header.Get("Watershed-Cut"), got.header.Get("Watershed-Position"); b != "1" || c != "1" || p != position {
			t.Errorf("%s: build %s, cut %s, position %s; want 1, 1, %s", path, b, c, p, position)
		}
	}
	// SQL may read any view: the position is that of the one that is most behind.
	got := w.sql(t, "SELECT 1", "")
	var body struct {
		Watershed struct {
			Build, Cut uint64
			Positions  []struct{ Shard, Seq uint64 }
		}
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Fatal(err)
	}
	s := body.Watershed
	if s.Build != 1 || s.Cut != 1 || len(s.Positions) != 1 || s.Positions[0].Seq != 17 || got.header.Get("Watershed-Position") != "0:17" {
		t.Errorf("saw %+v, header %v; want build 1, cut 1, position 17", s, got.header)
	}
}

func TestSQLAsJSON(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	body := `{"sql": "SELECT {s:String} AS s, {n:Int64} AS n, {b:Bool} AS b", "parameters": {"s": "a'b\\c\td\ne", "n": -5, "b": true}, "limits": {"seconds": 5, "rows": 1}}`
	got := w.do(t, w.request(t, http.MethodPost, "/v1/sql?format=ndjson", "application/json", body))
	if want := `{"s":"a'b\\c\td\ne","n":-5,"b":true}` + "\n"; got.body != want {
		t.Errorf("got %s; want %s", got.body, want)
	}
}

func TestAcceptChoosesTheFormat(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "text/csv": "text/csv; charset=utf-8; header=present",
		"application/x-ndjson": "application/x-ndjson", "text/html, text/csv;q=0.9, application/json;q=0.1": "text/csv; charset=utf-8; header=present",
	} {
		r := w.request(t, http.MethodPost, "/v1/sql", "text/plain", "SELECT 1")
		r.Header.Set("Accept", accept)
		if got := w.do(t, r).header.Get("Content-Type"); got != want {
			t.Errorf("Accept %q: %s; want %s", accept, got, want)
		}
	}
}

// TestReaderCannotEscape asks for what a reader must not have.
func TestReaderCannotEscape(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	for _, sql := range []string{
		"INSERT INTO events SELECT * FROM events", "DROP TABLE events", "CREATE TABLE x (y Int8) ENGINE Memory", "ALTER TABLE events DELETE WHERE 1",
		"SELECT * FROM file('/etc/passwd', 'LineAsString')", "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'x Int8')",
		"SELECT * FROM remote('127.0.0.1:1', system.one)", "SELECT * FROM system.users", "SELECT * FROM system.processes",
		"SELECT 1 SETTINGS max_execution_time = 3600", "SELECT 1 SETTINGS readonly = 0", "SET readonly = 0", "KILL QUERY WHERE 1", "SYSTEM SHUTDOWN",
	} {
		got := w.sql(t, sql, "")
		p := problemIn(t, got)
		if p.Code != api.Forbidden || p.ClickHouse == 0 {
			t.Errorf("%s: %d %s; want forbidden", sql, got.status, got.body)
		}
	}
	if got, want := w.admin.must(t, "SELECT count() FROM events"), "5000\n"; got != want {
		t.Errorf("%s events; want %s", got, want)
	}
}

func problemIn(t testing.TB, r response) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q; want application/problem+json", ct)
	}
	if p.Status != r.status || p.Type != "urn:watershed:problem:"+string(p.Code) || p.Title == "" {
		t.Errorf("status %d with problem %+v", r.status, p)
	}
	return p
}
