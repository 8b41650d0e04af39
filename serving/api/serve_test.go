package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"watershed/serving/api"
)

func TestConfigRefusesOpenPorts(t *testing.T) {
	const token = "a-token-of-some-length"
	good := func(c api.Config) {
		t.Helper()
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	bad := func(c api.Config, want string) {
		t.Helper()
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want an error about %q", c, err, want)
		}
	}
	good(api.Config{})
	good(api.Config{Addr: "localhost:0"})
	good(api.Config{Addr: "[::1]:80"})
	good(api.Config{Addr: "0.0.0.0:80", Tokens: []string{token}})
	for _, addr := range []string{":8484", "0.0.0.0:8484", "[::]:8484", "192.0.2.1:80", "example.com:80"} {
		bad(api.Config{Addr: addr}, "not loopback")
	}
	bad(api.Config{Addr: "localhost"}, "host:port")
	bad(api.Config{Tokens: []string{"short"}}, "token 1")
	bad(api.Config{Tokens: []string{""}}, "token 1")
	bad(api.Config{Timeout: time.Hour}, "timeout")
	bad(api.Config{Rows: 1 << 40}, "row limit")
}

func TestTokensAndHosts(t *testing.T) {
	const token = "a-token-of-some-length"
	w := newWorld(t).serve(t, api.Config{Tokens: []string{"another-token-of-some-length", token}})
	f := func(want int, change func(*http.Request)) {
		t.Helper()
		r := w.request(t, http.MethodGet, "/v1/views", "", "")
		change(r)
		if got := w.do(t, r); got.status != want {
			t.Errorf("status %d; want %d", got.status, want)
		}
	}
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	f(http.StatusOK, bearer)
	f(http.StatusOK, func(r *http.Request) { r.SetBasicAuth("anyone", token) })
	f(http.StatusUnauthorized, func(*http.Request) {})
	f(http.StatusUnauthorized, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"x") })
	f(http.StatusUnauthorized, func(r *http.Request) { r.Header.Set("Authorization", token) })
	f(http.StatusUnauthorized, func(r *http.Request) { r.SetBasicAuth(token, "") })
	f(http.StatusOK, func(r *http.Request) { bearer(r); r.Host = "localhost:1" })
	f(http.StatusMisdirectedRequest, func(r *http.Request) { bearer(r); r.Host = "127.0.0.1.example.com" })
	// A page of another site can send text without asking first; it must not run.
	r := w.request(t, http.MethodPost, "/v1/sql", "text/plain", "SELECT 1")
	bearer(r)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	got := w.do(t, r)
	if problemIn(t, got).Code != api.Forbidden || got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("cross-site: %+v; want it forbidden", got)
	}
	// Probes carry no tokens.
	if got := w.get(t, "/livez"); got.status != http.StatusOK {
		t.Errorf("livez: %+v", got)
	}
}

func TestReadinessNamesWhatIsNot(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	f := func(w *world, status int, notReady ...string) {
		t.Helper()
		var body struct {
			OK     bool
			Checks map[string]string
		}
		got := w.get(t, "/readyz")
		if err := json.Unmarshal([]byte(got.body), &body); err != nil {
			t.Fatal(err)
		}
		var not []string
		for name, state := range body.Checks {
			if state != "ok" {
				not = append(not, name)
			}
		}
		slices.Sort(not)
		if got.status != status || body.OK != (status == http.StatusOK) || !slices.Equal(not, notReady) {
			t.Errorf("status %d, %v not ready; want %d, %v", got.status, not, status, notReady)
		}
	}
	f(w, http.StatusOK)
	w.log.Close()
	f(w, http.StatusServiceUnavailable, "log")
	w.admin.must(t, "TRUNCATE TABLE live")
	f(w, http.StatusServiceUnavailable, "live", "log")
}

func TestStatusAndBuilds(t *testing.T) {
	w := newWorld(t)
	w.workers = func() map[string]any { return map[string]any{"speed": map[string]int{"flushes": 7}} }
	w.serve(t, api.Config{})
	last := w.publish(t, 50)
	var status struct {
		Live struct{ Build, Flip uint64 }
		Log  struct {
			Last        uint64
			DeadLetters uint64 `json:"dead_letters"`
		}
		Plans []struct {
			View     string
			Position uint64
			Lag      *uint64
		}
		Builds  []api.BuildInfo
		Workers map[string]map[string]int
		Errors  []string
	}
	got := w.get(t, "/v1/status")
	if err := json.Unmarshal([]byte(got.body), &status); err != nil {
		t.Fatalf("%v: %s", err, got.body)
	}
	if status.Live.Build != 1 || status.Log.Last != last || len(status.Errors) > 0 || status.Workers["speed"]["flushes"] != 7 {
		t.Errorf("status %s", got.body)
	}
	if p := status.Plans; len(p) != 2 || p[0].Position != 42 || p[0].Lag == nil || *p[0].Lag != last-42 || *p[1].Lag != last-17 {
		t.Errorf("plans %+v; want lags %d and %d", p, last-42, last-17)
	}
	if b := status.Builds; len(b) != 2 || b[0].Number != 2 || b[0].Live || !b[1].Live {
		t.Errorf("builds %+v; want 2 and the live 1", b)
	}
	// What does not answer is named, and the rest is told all the same.
	w.log.Close()
	got = w.get(t, "/v1/status")
	status.Errors, status.Plans = nil, nil
	if err := json.Unmarshal([]byte(got.body), &status); err != nil {
		t.Fatal(err)
	}
	if len(status.Errors) != 1 || !strings.HasPrefix(status.Errors[0], "log: ") || len(status.Plans) != 2 || status.Plans[0].Lag != nil {
		t.Errorf("without log: %s", got.body)
	}
}

func TestOpenAPIDescribesEveryRoute(t *testing.T) {
	w := newWorld(t).serve(t, api.Config{})
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Responses map[string]struct{ Content map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(w.get(t, "/openapi.json").body), &doc); err != nil {
		t.Fatal(err)
	}
	for path, method := range map[string]string{"/v1/sql": "post", "/v1/views": "get", "/v1/views/{view}": "get", "/v1/status": "get", "/v1/builds": "get", "/livez": "get", "/readyz": "get"} {
		op, ok := doc.Paths[path][method]
		if !ok || op.Responses["default"].Content["application/problem+json"] == nil || op.Responses["200"].Content["application/json"] == nil {
			t.Errorf("%s %s: %+v", method, path, op)
		}
	}
	if tail := doc.Paths["/v1/views/{view}/tail"]["get"]; tail.Responses["200"].Content["text/event-stream"] == nil {
		t.Errorf("get /v1/views/{view}/tail: %+v", tail)
	}
	if len(doc.Paths) != 8 || doc.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s with %d paths; want 3.1.0 with 8", doc.OpenAPI, len(doc.Paths))
	}
}

// TestServeEndsInOrder stops while a query runs: its answer still comes, whole.
func TestServeEndsInOrder(t *testing.T) {
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	addr, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- api.Serve(ctx, api.Config{Addr: "127.0.0.1:0"}, api.Deps{Reader: w.reader, Catalog: w.catalog, Log: w.log, Listening: func(a string) { addr <- a }})
	}()
	select {
	case a := <-addr:
		w.url = "http://" + a
	case err := <-done:
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		if got := w.sql(t, "SELECT sleep(2) AS slept", "format=csv"); got.body != "\"slept\"\n0\n" {
			t.Errorf("answer %+v", got)
		}
	})
	w.until(t, "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep(2)%'", "1\n")
	stop()
	wait.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := api.Serve(t.Context(), api.Config{Addr: ":0"}, api.Deps{Reader: w.reader, Catalog: w.catalog, Log: w.log}); err == nil {
		t.Error("it listens on every address without a token")
	}
}
