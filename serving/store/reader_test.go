package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"watershed/internal/devserver"
	"watershed/internal/devserver/devtest"
	"watershed/serving/store"
)

func reader(t testing.TB, c *devserver.ClickHouse) *store.Reader {
	t.Helper()
	cfg := configOf(t, c)
	cfg.User, cfg.Password = c.Reader()
	r, err := store.OpenReader(t.Context(), cfg)
	check(t, err)
	t.Cleanup(func() { check(t, r.Close()) })
	return r
}

// overHTTP is ClickHouse's own output.
func overHTTP(t testing.TB, c *devserver.ClickHouse, query string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.HTTPAddr()+"/", strings.NewReader(query))
	check(t, err)
	user, password := c.Reader()
	req.Header.Set("X-ClickHouse-User", user)
	req.Header.Set("X-ClickHouse-Key", password)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", query, text)
	}
	return string(text)
}

// encoded is the same, by the reader's encoders.
func encoded(t testing.TB, r *store.Reader, query string) (json, csv string) {
	t.Helper()
	rows, err := r.Query(t.Context(), store.Query{SQL: query})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var j, c []byte
	for rows.Next() {
		j = append(j, '[')
		for i := range rows.Columns {
			if i > 0 {
				j, c = append(j, ", "...), append(c, ',')
			}
			j, c = rows.AppendJSON(j, i), rows.AppendCSV(c, i)
		}
		j, c = append(j, "]\n"...), append(c, '\n')
	}
	check(t, rows.Err())
	return string(j), string(c)
}

func TestValuesAreWrittenAsClickHouseWritesThem(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	open(t)
	r := reader(t, c)
	for _, x := range []string{
		"true, false, toUInt8(255), toInt8(-128), toInt64(-9223372036854775808), toUInt64(18446744073709551615)",
		"toInt128('-170141183460469231731687303715884105728'), toUInt256('115792089237316195423570985008687907853269984665640564039457584007913129639935')",
		"0., -0., 1., 0.1, 1e20, 1e21, 1.5e21, 1e100, 1e-5, 1e-6, 1e-7, 1.25e-10, 123456789.125, 5e-324, 1.7976931348623157e308",
		"toFloat32(0.1), toFloat32(1e10), toFloat32(16777216), toFloat32(3.4028235e38), toFloat32(1e-7)",
		"nan, inf, -inf, [nan, 1.], [inf]",
		"toDecimal32('1.50', 4), toDecimal128('-0.000001', 6), toDecimal256('12345678901234567890.5', 10), toDecimal64('100', 2), toDecimal64(0, 5)",
		"toDate('2024-02-29'), toDate32('1925-01-01'), toDateTime('2024-02-29 01:02:03', 'UTC'), toDateTime('2024-02-29 01:02:03', 'Europe/Berlin')",
		"toDateTime64('1960-01-01 00:00:00.000001', 6, 'UTC'), toDateTime64('2024-02-29 01:02:03.5', 3, 'Asia/Tokyo'), toDateTime64('2024-02-29 01:02:03', 0, 'UTC')",
		`'plain', '', 'quo"te', 'it\'s', 'back\\slash', 'a/b', 'line\nend\ttab\r', '\b\f\0\x01\x1f\x7f', 'ünïcödé 😀', toFixedString('ab', 4)`,
		"CAST('b', 'Enum8(\\'a\\' = 1, \\'b\\' = -2)'), toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0'), toIPv4('1.2.3.4'), toIPv6('2001:db8::1')",
		"toLowCardinality('lc'), CAST(NULL, 'LowCardinality(Nullable(String))'), NULL, toNullable(5), CAST(NULL, 'Nullable(DateTime64(3, \\'UTC\\'))'), toNullable(toInt128(7))",
		"[1, 2], [], ['a\\'b', 'c\"d\\n'], [[1], []], [NULL, 3], [toDate('2024-01-01')], [toDecimal32('1.10', 2)], [true]",
		"(1, 'x'), CAST((1, 'x'), 'Tuple(a UInt8, bc String)'), map('z', 1, 'a', 2), map(1, ['x', 'y']), [(1, 'a'), (2, 'b')]",
		"toNullable(toDecimal64('3.10', 2)), toNullable(1.5), toNullable('s'), toNullable(toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')), toNullable(true)",
	} {
		json, csv := encoded(t, r, "SELECT "+x)
		if want := overHTTP(t, c, "SELECT "+x+" FORMAT JSONCompactEachRow"); json != want {
			t.Errorf("JSON is\n%swant\n%s", json, want)
		}
		if want := overHTTP(t, c, "SELECT "+x+" FORMAT CSV"); csv != want {
			t.Errorf("CSV is\n%swant\n%s", csv, want)
		}
	}
}

func TestQueryErrorsAndLimits(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	open(t)
	r := reader(t, c)
	f := func(q store.Query, code int, message string) {
		t.Helper()
		rows, err := r.Query(t.Context(), q)
		if err == nil {
			for rows.Next() {
			}
			err = rows.Err()
			check(t, rows.Close())
		}
		var e *store.Error
		if !errors.As(err, &e) || e.Code() != code || !strings.Contains(e.Message(), message) {
			t.Errorf("%s: got %v; want code %d, %q", q.SQL, err, code, message)
		}
	}
	f(store.Query{SQL: "SELECT nope"}, 47, "nope")
	f(store.Query{SQL: "SELECT ("}, 62, "Syntax error")
	f(store.Query{SQL: "DROP TABLE live"}, 497, "privileges")
	f(store.Query{SQL: "SELECT number FROM numbers(100)", MaxRows: 10}, 396, "")
	f(store.Query{SQL: "SELECT count() FROM numbers(1e13) WHERE sipHash64(number) = 1", MaxTime: time.Second}, 159, "")
	f(store.Query{SQL: "SELECT 1", MaxTime: time.Hour}, 452, "max_execution_time")
	f(store.Query{SQL: "SELECT throwIf(number = 300000, 'boom') FROM numbers(1000000)", MaxRows: 2_000_000}, 395, "boom")

	json, _ := encoded(t, r, "SELECT 1 WHERE 0")
	if json != "" {
		t.Errorf("no rows are %q", json)
	}
	rows, err := r.Query(t.Context(), store.Query{SQL: "SELECT {n:UInt8} + 1 AS n, {s:String} AS s", Params: map[string]string{"n": "4", "s": "it's \\\\ x"}})
	check(t, err)
	defer rows.Close()
	if !rows.Next() || string(rows.AppendJSON(nil, 0)) != "5" || rows.Columns[1] != (store.Column{Name: "s", Type: "String"}) {
		t.Errorf("parameters: %v %v", rows.Columns, rows.Err())
	}
}

func TestCancelEndsTheQueryOnTheServer(t *testing.T) {
	c := devtest.SharedClickHouse(t)
	open(t)
	r, conn := reader(t, c), admin(t, c)
	for name, end := range map[string]func(rows *store.Rows, cancel context.CancelFunc){
		"cancel": func(rows *store.Rows, cancel context.CancelFunc) { cancel() },
		"close":  func(rows *store.Rows, cancel context.CancelFunc) { _ = rows.Close() },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		id := fmt.Sprintf("%s-%s", t.Name(), name)
		// Rows come at once, and never end.
		rows, err := r.Query(ctx, store.Query{SQL: "SELECT number FROM numbers(1000000000000) WHERE sipHash64(number) % 100000 = 1", ID: id})
		check(t, err)
		if !rows.Next() {
			t.Fatal(rows.Err())
		}
		end(rows, cancel)
		deadline := time.Now().Add(time.Minute)
		for len(ask(t, conn, "SELECT 1 FROM system.processes WHERE query_id = '"+id+"'")) > 0 {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the query still runs", name)
			}
		}
		_ = rows.Close()
	}
}
