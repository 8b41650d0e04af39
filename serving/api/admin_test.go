package api_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"watershed/serving/api"
)

const adminToken = "a-token-of-the-admin-port"

// TestAdminPort: what it answers, to whom, and that the endpoint answers none of it.
func TestAdminPort(t *testing.T) {
	w := newWorld(t)
	level := new(slog.LevelVar)
	deps := api.Deps{Catalog: w.catalog, Log: w.log, Level: level, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))}
	handler := func(cfg api.Config) http.Handler {
		t.Helper()
		h, err := api.Handler(cfg, deps)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	ask := func(h http.Handler, method, host, remote, path, token, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://"+host+path, strings.NewReader(body))
		r.RemoteAddr = remote
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	const local, there = "127.0.0.1:4711", "192.0.2.7:4711"
	f := func(h http.Handler, method, host, remote, path, token, body string, status int, want string) {
		t.Helper()
		if got := ask(h, method, host, remote, path, token, body); got.Code != status || !strings.Contains(got.Body.String(), want) {
			t.Errorf("%s %s of %s as %s with token %q: %d %.200s; want %d %s", method, path, remote, host, token, got.Code, got.Body, status, want)
		}
	}

	own := handler(api.Config{Addr: "127.0.0.1:0", Admin: true})
	f(own, "GET", "localhost", local, "/healthz", "", "", 200, `"ok":true`)
	f(own, "GET", "localhost", local, "/readyz", "", "", 200, `"log":"ok"`)
	f(own, "GET", "localhost", local, "/metrics", "", "", 200, "watershed_status_errors 0")
	f(own, "GET", "localhost", local, "/debug/pprof/", "", "", 200, "goroutine")
	f(own, "GET", "localhost", local, "/debug/pprof/goroutine?debug=1", "", "", 200, "TestAdminPort")
	f(own, "GET", "evil.example", local, "/metrics", "", "", 421, "wrong-host")
	f(own, "GET", "localhost", local, "/v1/views", "", "", 404, "not-found")

	f(own, "GET", "localhost", local, "/log/level", "", "", 200, "info\n")
	f(own, "PUT", "localhost", local, "/log/level", "", "debug\n", 200, "debug\n")
	if level.Level() != slog.LevelDebug {
		t.Errorf("the level is %s; want DEBUG", level.Level())
	}
	f(own, "PUT", "localhost", local, "/log/level", "", "loud", 400, "debug, info, warn or error")
	f(own, "PUT", "localhost", local, "/log/level", "", strings.Repeat("debug", 100), 400, "bad-request")
	f(own, "POST", "localhost", local, "/log/level", "", "warn", 405, "PUT")
	if level.Level() != slog.LevelDebug {
		t.Errorf("the level is %s after mistakes; want DEBUG", level.Level())
	}

	// Beyond loopback all needs the token but health, and profiles are not even for those who have it.
	open := handler(api.Config{Addr: "0.0.0.0:8485", Admin: true, Tokens: []string{adminToken}})
	f(open, "GET", "worker:8485", there, "/healthz", "", "", 200, `"ok":true`)
	f(open, "GET", "worker:8485", there, "/metrics", "", "", 401, "unauthorized")
	f(open, "GET", "worker:8485", there, "/metrics", adminToken, "", 200, "watershed_status_errors 0")
	f(open, "PUT", "worker:8485", there, "/log/level", "", "error", 401, "unauthorized")
	f(open, "PUT", "worker:8485", there, "/log/level", adminToken, "warn", 200, "warn")
	f(open, "GET", "worker:8485", there, "/debug/pprof/heap", adminToken, "", 403, "this machine alone")
	f(open, "GET", "localhost:8485", there, "/debug/pprof/heap", adminToken, "", 403, "this machine alone")
	f(open, "GET", "worker:8485", local, "/debug/pprof/heap", adminToken, "", 403, "this machine alone")
	f(open, "GET", "localhost:8485", local, "/debug/pprof/heap?debug=1", "", "", 401, "unauthorized")
	f(open, "GET", "localhost:8485", local, "/debug/pprof/heap?debug=1", adminToken, "", 200, "heap profile")
	if _, err := api.Handler(api.Config{Addr: "0.0.0.0:8485", Admin: true}, deps); err == nil {
		t.Error("an admin port beyond loopback without token is taken")
	}

	deps.Reader = w.reader
	endpoint := handler(api.Config{Addr: "127.0.0.1:0"})
	for _, path := range []string{"/debug/pprof/", "/log/level", "/healthz"} {
		f(endpoint, "GET", "localhost", local, path, "", "", 404, "not-found")
	}
}
