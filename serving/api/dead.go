package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// DeadLetters keeps the events and messages that did not fit their schema.
type DeadLetters interface {
	// Counts counts them by type and reason, most first.
	Counts(ctx context.Context) ([]DeadCount, error)
	// List returns those that match, oldest first, at most filter.Limit; more says that there are others.
	List(ctx context.Context, filter DeadFilter) (letters []DeadLetter, more bool, err error)
	// Replay publishes those that match again, with the ids that they have, and removes each when the log has
	// it. Those that do not fit today's definitions either stay.
	Replay(ctx context.Context, filter DeadFilter) (DeadOutcome, error)
	// Drop removes those that match for good.
	Drop(ctx context.Context, filter DeadFilter) (DeadOutcome, error)
}

// A DeadFilter says which dead letters are meant. A letter matches if it matches all that is set.
type DeadFilter struct {
	IDs          []string // any of these
	Type         string
	Reason       string    // a part of the reason
	Since, Until time.Time // when the log took the message: Since <= t < Until
	Limit        int       // at most so many; 0: all
}

// A DeadLetter is an event, or a whole message, that did not fit its schema.
type DeadLetter struct {
	ID        string    `json:"id" doc:"What show, replay and drop call it"`
	Type      string    `json:"type"`
	Seq       uint64    `json:"seq" doc:"Sequence of the message in the log"`
	Row       int       `json:"row" doc:"Row in the message; -1: the message as a whole"`
	Time      time.Time `json:"time" doc:"When the log took the message"`
	Reason    string    `json:"reason"`
	Truncated int       `json:"truncated,omitempty" doc:"Original size in bytes, if what is kept is not whole"`
	Payload   Payload   `json:"payload" doc:"The original bytes, as text; with base64: before what is none"`
}

// A Payload is bytes that are text as a rule.
type Payload []byte

// base64Mark stands before payloads that are not UTF-8.
const base64Mark = "base64:"

// MarshalJSON writes the bytes as a string; what is not UTF-8 in base64, behind "base64:".
func (p Payload) MarshalJSON() ([]byte, error) {
	if utf8.Valid(p) {
		return json.Marshal(string(p))
	}
	return json.Marshal(base64Mark + base64.StdEncoding.EncodeToString(p))
}

// Schema describes a payload in the interface's description.
func (Payload) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: huma.TypeString} }

// A DeadCount counts dead letters of a kind.
type DeadCount struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// A DeadOutcome is what became of dead letters.
type DeadOutcome struct {
	Replayed int          `json:"replayed,omitempty" doc:"Published again, and no dead letters any more"`
	Dropped  int          `json:"dropped,omitempty" doc:"Removed for good"`
	Left     []DeadLetter `json:"left,omitempty" doc:"Not replayed: reason says why"`
}

// IsDeadID reports whether a text can be the id of a dead letter: message and row, like 42.3.
func IsDeadID(id string) bool {
	seq, row, ok := strings.Cut(id, ".")
	_, seqErr := strconv.ParseUint(seq, 10, 64)
	_, rowErr := strconv.Atoi(row)
	return ok && seqErr == nil && rowErr == nil
}

const (
	deadLimit    = 100    // letters listed unless asked otherwise
	deadMaxLimit = 10_000 // letters listed at most
)

type deadFilterInput struct {
	request
	Type   string `query:"type" doc:"Event type"`
	Reason string `query:"reason" doc:"Part of the reason"`
	Since  string `query:"since" doc:"RFC 3339 or a date: taken by the log then or later"`
	Until  string `query:"until" doc:"RFC 3339 or a date: taken by the log earlier"`
	Limit  string `query:"limit" doc:"At most so many, oldest first"`
}

type deadListOutput struct {
	Body struct {
		Letters []DeadLetter `json:"letters" doc:"Oldest first"`
		More    bool         `json:"more" doc:"There are others beyond the limit"`
	}
}

type deadLetterOutput struct{ Body DeadLetter }

// deadSelection is the body of replay and drop.
type deadSelection struct {
	All    bool     `json:"all,omitempty" doc:"Every dead letter: wanted if nothing else is given"`
	IDs    []string `json:"ids,omitempty"`
	Type   string   `json:"type,omitempty"`
	Reason string   `json:"reason,omitempty"`
	Since  string   `json:"since,omitempty"`
	Until  string   `json:"until,omitempty"`
	Limit  int      `json:"limit,omitempty"`
}

type deadActionInput struct {
	request
	RawBody []byte
}

type deadOutcomeOutput struct{ Body DeadOutcome }

// deadLetterRoutes registers what there is to do with dead letters.
func (a *api) deadLetterRoutes(h huma.API, operation func(id, method, path, summary string) huma.Operation) {
	huma.Register(h, operation("list-dead-letters", http.MethodGet, "/v1/dlq", "List dead letters"), a.listDead)
	huma.Register(h, operation("get-dead-letter", http.MethodGet, "/v1/dlq/{id}", "Show a dead letter"), a.getDead)
	for name, act := range map[string]func(context.Context, DeadFilter) (DeadOutcome, error){
		"replay": a.deps.DeadLetters.Replay, "drop": a.deps.DeadLetters.Drop,
	} {
		op := operation(name+"-dead-letters", http.MethodPost, "/v1/dlq/"+name, "")
		op.Summary = map[string]string{"replay": "Publish dead letters again", "drop": "Remove dead letters for good"}[name]
		op.SkipValidateBody = true
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: schemaOf[deadSelection](h)}}}
		huma.Register(h, op, func(ctx context.Context, in *deadActionInput) (*deadOutcomeOutput, error) {
			filter, err := deadFilter(in)
			if err != nil {
				return nil, err
			}
			outcome, err := act(ctx, filter)
			if err != nil {
				return nil, problem(Unavailable, "%w", err)
			}
			return &deadOutcomeOutput{outcome}, nil
		})
	}
}

func (a *api) listDead(ctx context.Context, in *deadFilterInput) (*deadListOutput, error) {
	f, err := deadQuery(in.query)
	if err != nil {
		return nil, err
	}
	out := &deadListOutput{}
	if out.Body.Letters, out.Body.More, err = a.deps.DeadLetters.List(ctx, f); err != nil {
		return nil, problem(Unavailable, "%w", err)
	}
	if out.Body.Letters == nil {
		out.Body.Letters = []DeadLetter{}
	}
	return out, nil
}

// deadQuery reads the parameters of the list.
func deadQuery(query url.Values) (f DeadFilter, err error) {
	if err := only(query, "type", "reason", "since", "until", "limit"); err != nil {
		return f, err
	}
	value := make(map[string]string)
	for name := range query {
		if value[name], err = once(query, name); err != nil {
			return f, err
		}
	}
	f = DeadFilter{Type: value["type"], Reason: value["reason"], Limit: deadLimit}
	if err := f.between(value["since"], value["until"]); err != nil {
		return f, err
	}
	if text := value["limit"]; text != "" {
		if f.Limit, err = strconv.Atoi(text); err != nil || f.Limit < 1 || f.Limit > deadMaxLimit {
			return f, badParameter("limit", "%q: want a number from 1 to %d", text, deadMaxLimit)
		}
	}
	return f, nil
}

// between reads the bounds of the time; empty: none.
func (f *DeadFilter) between(since, until string) (err error) {
	if since != "" {
		if f.Since, err = parseTime(since); err != nil {
			return badParameter("since", "%w", err)
		}
	}
	if until != "" {
		if f.Until, err = parseTime(until); err != nil {
			return badParameter("until", "%w", err)
		}
	}
	return nil
}

func (a *api) getDead(ctx context.Context, in *struct {
	request
	ID string `path:"id" doc:"As the list has it"`
}) (*deadLetterOutput, error) {
	if err := only(in.query); err != nil {
		return nil, err
	}
	var letters []DeadLetter
	var err error
	if IsDeadID(in.ID) {
		letters, _, err = a.deps.DeadLetters.List(ctx, DeadFilter{IDs: []string{in.ID}, Limit: 1})
	}
	switch {
	case err != nil:
		return nil, problem(Unavailable, "%w", err)
	case len(letters) == 0:
		return nil, problem(NotFound, "there is no dead letter %q; GET /v1/dlq lists them", in.ID)
	}
	return &deadLetterOutput{letters[0]}, nil
}

// deadFilter reads which dead letters an action is about. What takes all of them must say so.
func deadFilter(in *deadActionInput) (f DeadFilter, err error) {
	if err := only(in.query); err != nil {
		return f, err
	}
	var s deadSelection
	if err := strictJSON(in.RawBody, &s); err != nil {
		return f, err
	}
	f = DeadFilter{IDs: s.IDs, Type: s.Type, Reason: s.Reason, Limit: s.Limit}
	if err := f.between(s.Since, s.Until); err != nil {
		return f, err
	}
	for _, id := range s.IDs {
		if !IsDeadID(id) {
			return f, badParameter("ids", "%q is no id of a dead letter, like 42.3", id)
		}
	}
	if s.Limit < 0 {
		return f, badParameter("limit", "want a number from 1 on")
	}
	filtered := len(s.IDs) > 0 || s.Type != "" || s.Reason != "" || s.Since != "" || s.Until != ""
	if filtered == s.All {
		return f, problem(BadRequest, "want either ids, type, reason, since or until, or \"all\": true")
	}
	return f, nil
}
