package api

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
)

// maxLevel is more than the longest name of a level has.
const maxLevel = 32

// adminRoutes are those of the admin port alone. Nothing of net/http's own mux, in which pprof has put itself, is served.
func (a *api) adminRoutes(mux *http.ServeMux) {
	if a.deps.Level != nil {
		mux.HandleFunc("GET /log/level", a.level)
		mux.HandleFunc("PUT /log/level", a.setLevel)
	}
	for path, handler := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.HandleFunc("GET "+path, onlyLocal(handler))
	}
}

func (a *api) level(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, strings.ToLower(a.deps.Level.Level().String())+"\n") // it has gone away: nobody misses it
}

// setLevel changes what is logged from now on, until the process ends.
func (a *api) setLevel(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevel))
	var level slog.Level
	if err == nil {
		err = level.UnmarshalText([]byte(strings.TrimSpace(string(text))))
	}
	if err != nil {
		problem(BadRequest, "want a level as the body: debug, info, warn or error").write(w)
		return
	}
	before := a.deps.Level.Level()
	a.deps.Level.Set(level)
	a.logger.WarnContext(r.Context(), "log level changed", "from", before, "to", level)
	a.level(w, r)
}

// onlyLocal serves those who ask on this machine, by one of its loopback names, whatever the port listens on and
// whichever token they have: profiles hold what is in memory, and cost.
func onlyLocal(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil || !isLoopback(host) || !isLoopback(withoutPort(r.Host)) {
			problem(Forbidden, "profiles are for this machine alone: ask at a loopback address").write(w)
			return
		}
		next(w, r)
	}
}
