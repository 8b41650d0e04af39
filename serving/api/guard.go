package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// guard is what every request passes before it is served, from the outside inwards: access log, security
// headers, Host, cross-origin, token.
func (a *api) guard(next http.Handler) http.Handler {
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		problem(Forbidden, "a page of another site may not ask").write(w)
	}))
	host, _, _ := net.SplitHostPort(a.config.Addr) // Validate has seen it
	onLoopback := isLoopback(host)
	protected := sameOrigin.Handler(next)
	traced := a.traced(protected)
	return a.logged(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		switch {
		case onLoopback && !isLoopback(withoutPort(r.Host)):
			// Otherwise a web page could point its own name at 127.0.0.1 and read our answers.
			problem(WrongHost, "this endpoint is local: ask for it as localhost or 127.0.0.1").write(w)
		case r.URL.Path == "/livez" || r.URL.Path == "/readyz" || r.URL.Path == "/healthz":
			protected.ServeHTTP(w, r)
		default:
			if p := a.refused(r); p != nil {
				p.write(w)
				return
			}
			traced.ServeHTTP(w, r)
		}
	}))
}

func withoutPort(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// refused says why the request may not be served: it carries no token, or not one of its kind. nil: it may.
func (a *api) refused(r *http.Request) *Problem {
	wanted, others, right := a.tokens, a.writers, "read"
	if strings.HasPrefix(r.URL.Path, eventsPath) {
		wanted, others, right = a.writers, a.tokens, "publish events"
		if len(wanted) == 0 && len(others) > 0 {
			return problem(Forbidden, "nobody may publish events here: there are tokens, and none that has the right to")
		}
	}
	switch {
	case len(wanted) == 0 || carries(r, wanted):
		return nil
	case carries(r, others):
		return problem(Forbidden, "this token does not have the right to %s", right)
	}
	return problem(Unauthorized, "want Authorization: Bearer and a token, or the token as basic password")
}

// carries reports whether the request has one of the tokens. It compares hashes, so that the time it takes
// tells nothing.
func carries(r *http.Request, tokens [][sha256.Size]byte) bool {
	_, token, ok := r.BasicAuth()
	if !ok {
		scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return false
		}
		token = strings.TrimSpace(rest)
	}
	sum := sha256.Sum256([]byte(token))
	found := 0
	for _, want := range tokens {
		found |= subtle.ConstantTimeCompare(sum[:], want[:])
	}
	return found == 1
}

// notFound answers what no route does.
func notFound(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" {
				allow = append(allow, method)
			}
		}
		if len(allow) == 0 {
			problem(NotFound, "there is nothing at %s; /openapi.json says what there is", r.URL.Path).write(w)
			return
		}
		p := problem(MethodNotAllowed, "%s: use %s", r.Method, strings.Join(allow, " or "))
		p.header.Set("Allow", strings.Join(allow, ", "))
		p.write(w)
	}
}

// logged writes the access log. Neither query strings nor bodies are in it: they may hold data.
func (a *api) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		start := time.Now()
		complete := false
		defer func() {
			a.logger.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("method", r.Method), slog.String("path", r.URL.Path),
				slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes), slog.Duration("took", time.Since(start)),
				slog.String("remote", r.RemoteAddr), slog.Bool("complete", complete))
		}()
		defer func() {
			// A handler that means to break off an answer stays broken off; any other panic is a bug.
			if bug := recover(); bug != nil {
				if bug == http.ErrAbortHandler || rec.status != 0 {
					panic(bug)
				}
				a.logger.ErrorContext(r.Context(), "panic", "path", r.URL.Path, "panic", bug, "stack", string(debug.Stack()))
				problem(Internal, "a bug in the endpoint; its log says more").write(rec)
			}
		}()
		next.ServeHTTP(rec, r)
		complete = true
	})
}

// A recorder counts what is answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
