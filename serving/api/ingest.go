package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.opentelemetry.io/otel/trace"

	"watershed/internal/ingest"
	"watershed/internal/traces"
)

// eventsPath is where events are taken in; the type follows. What may be asked there is decided by tokens of its own.
const eventsPath = "/v1/events/"

// ingestRoute is that of events.
func (a *api) ingestRoute(h huma.API, operation func(id, method, path, summary string) huma.Operation) {
	op := operation("publish-events", http.MethodPost, eventsPath+"{type}", "Publish events")
	op.Description = "Takes events in, all or none unless partial=true, and answers when the log has acknowledged them. " +
		"Send a request again, with the same Idempotency-Key or just the same events, whenever it was not answered by 202 or 422: " +
		"events that are equal by type, id and date count once."
	op.DefaultStatus = http.StatusAccepted
	const event = `{"id":"x1","time":"2001-07-01T08:00:00Z","origin":"SFO","destination":"JFK","delay":3,"distance":2586}`
	const envelope = `{"specversion":"1.0","id":"7","source":"/gates/b","type":"departure","time":"2001-07-01T08:00:00Z","data":` + event + `}`
	text := func(example string) *huma.MediaType {
		return &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}, Example: example}
	}
	huma.Register(h, op, a.publishEvents)
	// Described only now: for an operation that has a body huma would read it as a whole, before its size is known.
	h.OpenAPI().Paths[op.Path].Post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/x-ndjson":               text(event + "\n" + event + "\n"),
		"application/json":                   {Schema: &huma.Schema{Description: "An event, or an array of events"}, Example: []any{map[string]any{"id": "x1", "time": "2001-07-01T08:00:00Z", "origin": "SFO", "destination": "JFK", "delay": 3, "distance": 2586}}},
		"application/cloudevents+json":       text(envelope),
		"application/cloudevents-batch+json": text("[" + envelope + "]"),
		"application/vnd.apache.arrow.stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary",
			Description: "An Arrow IPC stream whose columns are the event's fields, by their names"}},
	}}
}

// ingestInput documents the parameters of a request that publishes; the body is read while it comes.
type ingestInput struct {
	Type     string `path:"type" doc:"The event type, as the definitions in force have it"`
	Partial  string `query:"partial" enum:"true,false" doc:"true: the rows that fit are published although others do not"`
	Key      string `header:"Idempotency-Key" doc:"The same request under the same key is in the log once, for two minutes; up to 256 characters of ASCII"`
	Encoding string `header:"Content-Encoding" enum:"gzip,zstd,identity"`

	http *http.Request
}

var _ huma.Resolver = (*ingestInput)(nil)

// Resolve keeps the request.
func (in *ingestInput) Resolve(ctx huma.Context) []error {
	in.http, _ = humago.Unwrap(ctx)
	return nil
}

type ingestOutput struct {
	Position string `header:"Watershed-Position" doc:"The same position: what Watershed-Min-Position takes"`
	Body     struct {
		Accepted int          `json:"accepted" doc:"Events that the log has"`
		Rejected int          `json:"rejected" doc:"Rows that do not fit their type"`
		Position uint64       `json:"position" doc:"Sequence of the last message of the log that has one of the events"`
		Rows     []ingest.Row `json:"rows,omitempty" doc:"The first 100 rows that do not fit"`
	}
}

func (a *api) publishEvents(ctx context.Context, in *ingestInput) (out *ingestOutput, err error) {
	began := time.Now()
	var result ingest.Result
	defer func() { a.ingested.count(in.Type, result, time.Since(began), err) }()
	r := ingest.Request{Type: in.Type, Header: in.http.Header.Get, Body: in.http.Body, Length: in.http.ContentLength}
	if r.Partial, err = partial(in.http.URL.RawQuery); err != nil {
		return nil, err
	}
	if result, err = a.deps.Ingest.Accept(ctx, r); err != nil {
		return nil, a.ingestProblem(err)
	}
	trace.SpanFromContext(ctx).SetAttributes(traces.Type.String(in.Type), traces.Events.Int(result.Accepted), traces.Position.Int64(int64(result.Position)))
	out = &ingestOutput{Position: strconv.FormatUint(result.Position, 10)}
	out.Body.Accepted, out.Body.Rejected, out.Body.Position, out.Body.Rows = result.Accepted, result.Rejected, result.Position, result.Rows
	return out, nil
}

// partial reads the only parameter that there is.
func partial(rawQuery string) (bool, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return false, badParameter("", "query string: %w", err)
	}
	if err := only(query, "partial"); err != nil {
		return false, err
	}
	switch value, err := once(query, "partial"); {
	case err != nil:
		return false, err
	case value == "true":
		return true, nil
	case value == "" || value == "false":
		return false, nil
	default:
		return false, badParameter("partial", "%q: want true or false", value)
	}
}

// ingestProblem says what an error of Accept means to the client.
func (a *api) ingestProblem(err error) *Problem {
	var unknown *ingest.UnknownTypeError
	var media *ingest.MediaTypeError
	var body *ingest.BodyError
	var large *ingest.TooLargeError
	var refused *ingest.RefusedError
	var log *ingest.LogError
	switch {
	case errors.As(err, &unknown):
		return problem(TypeNotFound, "%w", err)
	case errors.As(err, &media):
		return problem(UnsupportedMediaType, "%w%s", err, curlHint)
	case errors.As(err, &body):
		return problem(BadRequest, "%w", err)
	case errors.As(err, &large):
		return problem(BodyTooLarge, "%w", err)
	case errors.As(err, &refused):
		p := problem(EventsRefused, "%w; partial=true publishes the rows that fit", err)
		p.Rejected, p.Rows = refused.Result.Rejected, refused.Result.Rows
		return p
	case errors.Is(err, ingest.ErrBusy):
		return problem(Busy, "%w", err)
	}
	p := problem(Unavailable, "the events are not known to be published: %w", err)
	if errors.As(err, &log) {
		if log.Full {
			p = problem(LogFull, "the events were not published: %w", err)
		}
		p.header.Set("Retry-After", strconv.Itoa(int(log.RetryAfter/time.Second)))
	}
	a.logger.Warn("events were not published", "error", err)
	return p
}

// curlHint helps who forgot what curl does by itself.
const curlHint = "; with curl: --data-binary @FILE -H 'Content-Type: application/x-ndjson'"
