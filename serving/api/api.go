package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync/atomic"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"watershed/internal/ingest"
	"watershed/schemas"
)

// Deps are what the endpoint serves from. ReadStatus does without a Reader.
type Deps struct {
	Reader      Reader
	Catalog     Catalog
	Log         Log
	DeadLetters DeadLetters                                    // nil: there are no routes for them
	Ingest      *ingest.Ingest                                 // nil: no events are taken in; it is closed after Serve
	History     func(context.Context) ([]TypeStatus, error)    // positions of the archived types, without their lags; nil: no history here
	Audits      func(context.Context) ([]schemas.Audit, error) // of the newest build; nil: nobody audits
	Workers     func() map[string]any                          // what the loops of this process say of themselves; nil: none run here
	Collectors  []prometheus.Collector                         // metrics of this process, shown beside those of the status
	Ingested    *IngestMetrics                                 // where Ingest is counted, and shown by every endpoint that has it. nil: one of its own
	Level       *slog.LevelVar                                 // of the process' log, for the admin port to change; nil: it is fixed
	Lagging     func(plan string) string                       // why the worker of this process is behind with a plan; empty: it does not know. nil: none runs here
	Tracer      trace.Tracer                                   // of requests; nil: they have no spans
	Version     string                                         // of the program, for the interface's description
	Logger      *slog.Logger                                   // nil: none

	// Stored has Serve told whenever something new may be seen, until stop: so that nobody who waits for a position
	// looks every few milliseconds. It may call too often, and miss some. nil: nobody knows.
	Stored func(f func()) (stop func(), err error)

	// Wanted asks the speed layer to store positions soon. nil: nobody hears it.
	Wanted func()

	// TraceOf is the traceparent header of the message of the log at a position; empty: it has none, or is not there. nil:
	// nobody knows.
	TraceOf func(ctx context.Context, seq uint64) string

	// Listening is called once with the address that Serve listens on; nil: nobody asks.
	Listening func(addr string)
}

type api struct {
	config   Config
	deps     Deps
	logger   *slog.Logger
	tokens   [][sha256.Size]byte // of those who may read
	writers  [][sha256.Size]byte // of those who may publish
	ingested *IngestMetrics      // nil: nothing is taken in
	watch    *watch
	wanted   atomic.Uint64 // number of the look after which Wanted was called last, plus 1
	stopping atomic.Bool   // set when Serve begins to shut down
	stopped  chan struct{} // closed then
	tails    feeds
}

// Handler is the endpoint as a handler, all its checks included. The config's address decides which Host
// headers are taken.
func Handler(cfg Config, deps Deps) (http.Handler, error) {
	a, err := newAPI(cfg, deps)
	if err != nil {
		return nil, err
	}
	return a.handler(deps.Version), nil
}

func newAPI(cfg Config, deps Deps) (*api, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure endpoint: %w", err)
	}
	if deps.Reader == nil && !cfg.Admin || deps.Catalog == nil || deps.Log == nil {
		return nil, errors.New("configure endpoint: reader, catalog and log are needed")
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	a := &api{config: cfg.withDefaults(), deps: deps, logger: deps.Logger}
	a.watch = newWatch(deps.Catalog.Reached)
	a.stopped, a.tails = make(chan struct{}), feeds{pulse: &pulse{c: make(chan struct{})}, all: make(map[[sha256.Size]byte]*feed)}
	for _, t := range cfg.Tokens {
		a.tokens = append(a.tokens, sha256.Sum256([]byte(t)))
	}
	for _, t := range cfg.IngestTokens {
		a.writers = append(a.writers, sha256.Sum256([]byte(t)))
	}
	if a.ingested = deps.Ingested; a.ingested == nil && deps.Ingest != nil {
		a.ingested = NewIngestMetrics()
	}
	return a, nil
}

func (a *api) handler(version string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", notFound(mux))
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "Watershed", Version: version,
				Description: "Merged answers of batch and speed layer: read-only SQL and typed queries of views; and events taken in."},
			Components: &huma.Components{
				SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}},
			},
			Security: []map[string][]string{{"token": {}}, {}},
		},
		OpenAPIPath:   "/openapi",
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{humaProblem},
	}
	h := humago.New(mux, config)
	problems := problemResponse(h)
	operation := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, MaxBodyBytes: maxBody,
			SkipValidateParams: true, Responses: map[string]*huma.Response{"default": problems}}
	}
	if !a.config.Admin {
		a.queryRoutes(h, operation)
	}
	huma.Register(h, operation("status", http.MethodGet, "/v1/status", "State of the pipeline"), a.status)
	huma.Register(h, operation("livez", http.MethodGet, "/livez", "The process answers"), a.livez)
	huma.Register(h, operation("readyz", http.MethodGet, "/readyz", "All that is needed answers"), a.readyz)
	if a.deps.DeadLetters != nil && !a.config.Admin {
		a.deadLetterRoutes(h, operation)
	}
	if a.deps.Ingest != nil && !a.config.Admin {
		a.ingestRoute(h, operation)
	}
	if a.config.Admin {
		huma.Register(h, operation("healthz", http.MethodGet, "/healthz", "The process answers"), a.livez)
		a.adminRoutes(mux)
	}
	mux.Handle("GET /metrics", a.metrics())
	return a.guard(mux)
}

// queryRoutes are those of views and builds.
func (a *api) queryRoutes(h huma.API, operation func(id, method, path, summary string) huma.Operation) {
	result := resultResponse()

	sql := operation("sql", http.MethodPost, "/v1/sql", "Run read-only SQL")
	sql.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"text/plain":       {Schema: &huma.Schema{Type: huma.TypeString}},
		"application/json": {Schema: schemaOf[sqlBody](h)},
	}}
	sql.SkipValidateBody = true
	sql.Responses["200"] = result
	huma.Register(h, sql, a.sql)

	view := operation("query-view", http.MethodGet, "/v1/views/{view}", "Query a view")
	view.Responses["200"] = result
	huma.Register(h, view, a.queryView)

	tail := operation("tail-view", http.MethodGet, "/v1/views/{view}/tail", "Follow the groups of a view that change")
	tail.Responses["200"] = &huma.Response{Description: "Server-sent events: groups that changed, as they stand now; build and more",
		Headers: result.Headers, Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}}
	huma.Register(h, tail, a.tail)

	huma.Register(h, operation("list-views", http.MethodGet, "/v1/views", "List the views"), a.listViews)
	huma.Register(h, operation("list-builds", http.MethodGet, "/v1/builds", "List the builds"), a.listBuilds)
}

// problemResponse describes Problem in the interface's description.
func problemResponse(h huma.API) *huma.Response {
	return &huma.Response{Description: "A problem",
		Content: map[string]*huma.MediaType{"application/problem+json": {Schema: schemaOf[Problem](h)}}}
}

// resultResponse describes a query's answer.
func resultResponse() *huma.Response {
	header := func(description string) *huma.Param {
		return &huma.Param{Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	r := &huma.Response{Description: "The result, streamed", Content: map[string]*huma.MediaType{}, Headers: map[string]*huma.Param{
		"Watershed-Build":    header("The live build that the answer saw"),
		"Watershed-Cut":      header("That build's cut"),
		"Watershed-Position": header("shard:sequence that the answer saw the log to, at least"),
	}}
	for _, f := range formats() {
		r.Content[f.accepts[0]] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	}
	r.Content["application/json"].Schema = &huma.Schema{Type: huma.TypeObject, Description: "ClickHouse's FORMAT JSON, and watershed: build, cut, positions"}
	return r
}

// schemaOf registers a type in the interface's description.
func schemaOf[T any](h huma.API) *huma.Schema {
	return h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
}
