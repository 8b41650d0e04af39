package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"watershed/internal/ingest"
)

// A Code is the stable name of a kind of problem.
type Code string

// The codes; the package's documentation says when each is used.
const (
	BadParameter         Code = "bad-parameter"
	BadRequest           Code = "bad-request"
	SQLError             Code = "sql-error"
	Unauthorized         Code = "unauthorized"
	Forbidden            Code = "forbidden"
	NotFound             Code = "not-found"
	ViewNotFound         Code = "view-not-found"
	TypeNotFound         Code = "type-not-found"
	MethodNotAllowed     Code = "method-not-allowed"
	NotAcceptable        Code = "not-acceptable"
	NotCovered           Code = "not-covered"
	BodyTooLarge         Code = "body-too-large"
	UnsupportedMediaType Code = "unsupported-media-type"
	WrongHost            Code = "wrong-host"
	LimitExceeded        Code = "limit-exceeded"
	EventsRefused        Code = "events-refused"
	Busy                 Code = "busy"
	Internal             Code = "internal"
	BuildChanged         Code = "build-changed"
	Unavailable          Code = "unavailable"
	LogFull              Code = "log-full"
	Timeout              Code = "timeout"
	NotReached           Code = "not-reached"
)

// status is the HTTP status of a code, and its title.
func (c Code) status() (int, string) {
	switch c {
	case BadParameter:
		return http.StatusBadRequest, "A parameter is wrong"
	case BadRequest:
		return http.StatusBadRequest, "The request is malformed"
	case SQLError:
		return http.StatusBadRequest, "ClickHouse refuses the query"
	case Unauthorized:
		return http.StatusUnauthorized, "A token is needed"
	case Forbidden:
		return http.StatusForbidden, "Not allowed"
	case NotFound:
		return http.StatusNotFound, "No such path"
	case ViewNotFound:
		return http.StatusNotFound, "No such view"
	case TypeNotFound:
		return http.StatusNotFound, "No such event type"
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed, "Not by this method"
	case NotAcceptable:
		return http.StatusNotAcceptable, "No such format"
	case NotCovered:
		return http.StatusConflict, "The live build does not cover the view yet"
	case BodyTooLarge:
		return http.StatusRequestEntityTooLarge, "The request is too large"
	case UnsupportedMediaType:
		return http.StatusUnsupportedMediaType, "The body is not of a kind that is read here"
	case WrongHost:
		return http.StatusMisdirectedRequest, "The Host header names another machine"
	case LimitExceeded:
		return http.StatusUnprocessableEntity, "The answer exceeds a limit"
	case EventsRefused:
		return http.StatusUnprocessableEntity, "Events do not fit their type"
	case Busy:
		return http.StatusTooManyRequests, "Too many requests"
	case BuildChanged:
		return http.StatusServiceUnavailable, "The live build keeps changing"
	case Unavailable:
		return http.StatusServiceUnavailable, "An engine does not answer"
	case LogFull:
		return http.StatusServiceUnavailable, "The log is full"
	case Timeout:
		return http.StatusGatewayTimeout, "The query took too long"
	case NotReached:
		return http.StatusGatewayTimeout, "The views have not reached the position"
	}
	return http.StatusInternalServerError, "Internal error"
}

// A Problem is an error as clients see it: RFC 9457.
type Problem struct {
	Type       string `json:"type" format:"uri" doc:"urn:watershed:problem: and the code"`
	Title      string `json:"title" doc:"What kind of problem it is"`
	Status     int    `json:"status" doc:"The HTTP status"`
	Detail     string `json:"detail,omitempty" doc:"What happened, and what to do"`
	Code       Code   `json:"code" doc:"Stable name of the kind of problem"`
	Parameter  string `json:"parameter,omitempty" doc:"The parameter at fault"`
	ClickHouse int    `json:"clickhouse,omitempty" doc:"ClickHouse's error code"`

	Rejected int          `json:"rejected,omitempty" doc:"events-refused: rows that do not fit"`
	Rows     []ingest.Row `json:"rows,omitempty" doc:"events-refused: the first 100 of them"`

	MinPosition     uint64    `json:"min_position,omitempty" doc:"not-reached: the position that was waited for"`
	CurrentPosition *uint64   `json:"current_position,omitempty" doc:"not-reached: what all views of the query show"`
	Lagging         []Lagging `json:"lagging,omitempty" doc:"not-reached: the views that do not show it"`

	cause  error
	header http.Header
}

func problem(code Code, format string, args ...any) *Problem {
	status, title := code.status()
	err := fmt.Errorf(format, args...)
	p := &Problem{Type: "urn:watershed:problem:" + string(code), Title: title, Status: status, Code: code,
		Detail: err.Error(), cause: errors.Unwrap(err), header: http.Header{}}
	switch code {
	case Unauthorized:
		p.header.Set("WWW-Authenticate", `Bearer realm="watershed"`)
		p.header.Add("WWW-Authenticate", `Basic realm="watershed"`)
	case Busy, BuildChanged, Unavailable, LogFull, NotReached:
		p.header.Set("Retry-After", "1")
	}
	return p
}

// badParameter is the problem of one parameter.
func badParameter(name, format string, args ...any) *Problem {
	p := problem(BadParameter, format, args...)
	p.Parameter = name
	return p
}

// Error is the detail. Unwrap gives the cause.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus, GetHeaders and ContentType tell huma how to write the problem.
func (p *Problem) GetStatus() int            { return p.Status }
func (p *Problem) GetHeaders() http.Header   { return p.header }
func (p *Problem) ContentType(string) string { return "application/problem+json" }
func (p *Problem) write(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	// A client that is gone needs no answer; the types above always marshal.
	_ = json.NewEncoder(w).Encode(p)
}

// ClickHouse's error codes (ErrorCodes.cpp) that mean something else than "the query is wrong".
const (
	chTooManyRows          = 158
	chTimeoutExceeded      = 159
	chTooSlow              = 160
	chReadonly             = 164
	chQuotaExceeded        = 201
	chTooManyQueries       = 202
	chMemoryLimitExceeded  = 241
	chTooManyBytes         = 307
	chQueryWasCancelled    = 394
	chThrowIf              = 395
	chTooManyRowsOrBytes   = 396
	chSettingConstraint    = 452
	chAccessDenied         = 497
	chDatabaseAccessDenied = 291
)

// unsupported is an error of a Reader about a result whose types it cannot hand over.
type unsupported interface{ Unsupported() bool }

// damaged is an error of a Reader about a table that ClickHouse cannot read: the message says what heals.
type damaged interface{ Damaged() bool }

// problemOf says what a failed query means to the client.
func problemOf(ctx context.Context, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var server ServerError
	if errors.As(err, &server) && server.Code() != 0 {
		return problemOfServer(server)
	}
	var u unsupported
	if errors.As(err, &u) && u.Unsupported() {
		return problem(SQLError, "%w", err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return problem(Timeout, "the query was stopped at its time limit; ask for less, or for more time with timeout=")
	}
	return problem(Unavailable, "ClickHouse: %w", err)
}

func problemOfServer(err ServerError) *Problem {
	code := SQLError
	switch err.Code() {
	case chTimeoutExceeded, chTooSlow, chQueryWasCancelled:
		code = Timeout
	case chTooManyRows, chTooManyBytes, chTooManyRowsOrBytes, chMemoryLimitExceeded:
		code = LimitExceeded
	case chQuotaExceeded, chTooManyQueries:
		code = Busy
	case chReadonly, chSettingConstraint, chAccessDenied, chDatabaseAccessDenied:
		code = Forbidden
	}
	var broken damaged
	if errors.As(err, &broken) && broken.Damaged() {
		code = Unavailable
	}
	p := problem(code, "%s", err.Message())
	p.ClickHouse, p.cause = err.Code(), err
	return p
}

// humaProblem turns the problems that huma itself finds into ours.
func humaProblem(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	code := Internal
	switch m.Status {
	case http.StatusRequestEntityTooLarge:
		code = BodyTooLarge
	case http.StatusUnsupportedMediaType:
		code = UnsupportedMediaType
	case http.StatusNotAcceptable:
		code = NotAcceptable
	case http.StatusRequestTimeout:
		code = Timeout
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		code = BadRequest
	}
	p := problem(code, "%s", m.Detail)
	p.Status = m.Status
	for _, e := range m.Errors {
		p.Detail += "; " + e.Error()
		if name, ok := strings.CutPrefix(e.Location, "query."); ok {
			q := badParameter(name, "%s", e.Message)
			q.Status = m.Status
			return q, nil
		}
	}
	return p, nil
}
