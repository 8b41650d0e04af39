package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"watershed/serving/api"
)

// finished is the SQL of all measures over raw events, by ClickHouse's own functions.
const finished = `count() AS flights, sum(CAST(late, 'Nullable(Int128)')) AS total, min(CAST(late, 'Nullable(Int64)')) AS least,
	avgOrNull(late) AS mean, uniq(late) AS kinds, quantilesBFloat16(0.5, 0.95)(late) AS delay`

// raw are build 1's events under the names of the dimensions.
const raw = `(SELECT toDateTime64(toStartOfHour(time), 6, 'UTC') AS hour, origin, toInt64(gate) AS gate, day, CAST(price, 'Decimal(18, 2)') AS price, CAST(even, 'Bool') AS even, delay AS late
	FROM events WHERE time < toDateTime64('2001-06-02', 6, 'UTC'))`

// TestTypedQueriesEqualSQL holds typed queries against SQL that was written by hand over raw events.
func TestTypedQueriesEqualSQL(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	f := func(query, sql string) {
		t.Helper()
		got := w.get(t, "/v1/views/departures?format=ndjson&"+query)
		want := w.admin.must(t, strings.NewReplacer("$all", finished, "$raw", raw).Replace(sql)+" FORMAT JSONEachRow")
		if got.status != http.StatusOK || got.body != want {
			t.Errorf("%s: %d\n%.1500s\nwant\n%.1500s", query, got.status, got.body, want)
		}
		if strings.TrimSpace(want) == "" && !strings.Contains(query, "nowhere") {
			t.Errorf("%s: compared nothing", query)
		}
	}
	filter := func(values ...string) string { return url.Values{"filter": values}.Encode() }

	f("", "SELECT hour, origin, gate, day, price, even, $all FROM $raw GROUP BY ALL ORDER BY hour, origin, gate, day, price, even")
	f("dimensions=", "SELECT $all FROM $raw")
	f("dimensions=origin", "SELECT origin, $all FROM $raw GROUP BY origin ORDER BY origin")
	f("dimensions=origin&measures=", "SELECT DISTINCT origin FROM $raw ORDER BY origin")
	f("dimensions=gate,origin&measures=flights,kinds", "SELECT gate, origin, count() AS flights, uniq(late) AS kinds FROM $raw GROUP BY ALL ORDER BY gate, origin")
	f("dimensions=origin&measures=delay&order=-origin", "SELECT origin, quantilesBFloat16(0.5, 0.95)(late) AS delay FROM $raw GROUP BY origin ORDER BY origin DESC")
	f("dimensions=hour&measures=flights&grain=6h", "SELECT hour, flights FROM (SELECT toDateTime64(toStartOfInterval(hour, INTERVAL 6 HOUR), 6, 'UTC') AS h, count() AS n FROM $raw GROUP BY h) AS x (hour, flights) ORDER BY hour")
	f("dimensions=hour,even&grain=1d", "SELECT h AS hour, e AS even, * EXCEPT (h, e) FROM (SELECT toDateTime64(toDate(hour), 6, 'UTC') AS h, even AS e, $all FROM $raw GROUP BY h, e) ORDER BY hour, even")
	f("dimensions=hour&from=2001-06-01T06:00:00Z&to=2001-06-01T12:00:00%2B02:00", "SELECT hour, $all FROM $raw WHERE hour >= '2001-06-01 06:00:00' AND hour < '2001-06-01 10:00:00' GROUP BY hour ORDER BY hour")
	f("dimensions=origin&from=2001-06-01&to=2001-06-01T01:00:00Z&measures=flights", "SELECT origin, count() AS flights FROM $raw WHERE hour = '2001-06-01 00:00:00' GROUP BY origin ORDER BY origin")
	f("dimensions=origin&measures=flights&order=-flights&limit=3", "SELECT origin, count() AS flights FROM $raw GROUP BY origin ORDER BY flights DESC, origin LIMIT 3")
	f("dimensions=origin&measures=flights&"+filter("origin:JFK", "origin:LAX"), "SELECT origin, count() AS flights FROM $raw WHERE origin IN ('JFK', 'LAX') GROUP BY origin ORDER BY origin")
	f("dimensions=&"+filter("origin:JFK", "even:true"), "SELECT $all FROM $raw WHERE origin = 'JFK' AND even")
	f("dimensions=gate&measures=flights&null=gate", "SELECT gate, count() AS flights FROM $raw WHERE gate IS NULL GROUP BY gate")
	f("dimensions=gate&measures=flights&null=gate&"+filter("gate:3"), "SELECT gate, count() AS flights FROM $raw WHERE gate IS NULL OR gate = 3 GROUP BY gate ORDER BY gate")
	f("dimensions=price&measures=flights&"+filter("price:0.25", "price:0.5"), "SELECT price, count() AS flights FROM $raw WHERE price IN (0.25, 0.5) GROUP BY price ORDER BY price")
	f("dimensions=day&"+filter("day:2001-06-01"), "SELECT day, $all FROM $raw WHERE day = '2001-06-01' GROUP BY day")
	f("dimensions=hour&measures=flights&"+filter("hour:2001-06-01T03:00:00Z"), "SELECT hour, count() AS flights FROM $raw WHERE hour = '2001-06-01 03:00:00' GROUP BY hour")
	f("dimensions=origin&"+filter("origin:nowhere"), "SELECT origin, $all FROM $raw WHERE 0 GROUP BY origin")
}

// TestValuesAreNeverSQL asks for each awkward origin by its value, and for things that try to be SQL.
func TestValuesAreNeverSQL(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	var all struct {
		Data []struct {
			Origin  string
			Flights uint64
		}
	}
	if err := json.Unmarshal([]byte(w.admin.must(t, "SELECT origin, count() AS flights FROM "+raw+" GROUP BY origin FORMAT JSON")), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Data) != 8 {
		t.Fatalf("%d origins; want 8", len(all.Data))
	}
	ask := func(origin string) string {
		return w.get(t, "/v1/views/departures?format=csv&dimensions=&measures=flights&"+url.Values{"filter": {"origin:" + origin}}.Encode()).body
	}
	for _, o := range all.Data {
		if got, want := ask(o.Origin), fmt.Sprintf("\"flights\"\n%d\n", o.Flights); got != want {
			t.Errorf("origin %q: %s; want %s", o.Origin, got, want)
		}
	}
	for _, o := range []string{"' OR 1 = 1 --", `\' OR 1 = 1 --`, "x'); DROP TABLE events; --", "{x:String}", `\N`, "\x00", "NULL"} {
		if got, want := ask(o), "\"flights\"\n0\n"; got != want {
			t.Errorf("origin %q: %s; want %s", o, got, want)
		}
	}
}

func TestViewsAreDescribed(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	var got struct {
		Live  struct{ Build uint64 }
		Views []struct {
			Name, From, Plan, Definition, Time string
			Covered                            bool
			Position                           uint64
			Dimensions                         []struct{ Name, Is, Type, Bucket string }
			Measures                           []struct{ Name, Is, Type string }
		}
	}
	r := w.get(t, "/v1/views")
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	if len(got.Views) != 2 || got.Views[0].Name != "departures" || !got.Views[0].Covered || got.Views[1].Covered || got.Views[0].Position != 42 || got.Live.Build != 1 {
		t.Fatalf("got %+v", got)
	}
	v := got.Views[0]
	if v.Time != "hour" || v.Dimensions[0].Bucket != "1h0m0s" || v.Dimensions[0].Type != "timestamp" || v.Dimensions[0].Is != "of(hour)" {
		t.Errorf("dimensions %+v", v.Dimensions)
	}
	var types []string
	for _, m := range v.Measures {
		types = append(types, m.Type)
	}
	want := strings.Split(strings.TrimSpace(w.admin.must(t, "SELECT type FROM system.columns WHERE database = currentDatabase() AND table = 'departures' AND name IN ('flights', 'total', 'least', 'mean', 'kinds', 'delay') ORDER BY position FORMAT LineAsString")), "\n")
	if strings.Join(types, "; ") != strings.Join(want, "; ") {
		t.Errorf("measures have types %q; ClickHouse says %q", types, want)
	}
	if !strings.Contains(v.Definition, "view: departures\n") || !strings.Contains(v.Definition, "  hour: of(hour)\n") {
		t.Errorf("definition %s", v.Definition)
	}
}
