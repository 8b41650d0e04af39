package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"watershed/internal/eventlog"
)

// ErrBusy is the error of a request for which there is no memory. Nothing of it was read or published.
var ErrBusy = errors.New("too many events are waiting for the log: send them again in a moment")

// ErrClosed is the error of a request that came after Close.
var ErrClosed = errors.New("no more events are taken here: this process is stopping")

// An UnknownTypeError says that the definitions in force have no such event type.
type UnknownTypeError struct {
	Type  string
	Known []string // sorted
}

func (e *UnknownTypeError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("no event type %q is defined; there are none yet", e.Type)
	}
	return fmt.Sprintf("no event type %q is defined; there are %s", e.Type, strings.Join(e.Known, ", "))
}

// A MediaTypeError says that a body is of a kind that is not read.
type MediaTypeError struct{ err error }

func (e *MediaTypeError) Error() string { return e.err.Error() }

// A BodyError says why a body, or a header that belongs to it, makes no sense as a whole.
type BodyError struct{ err error }

func (e *BodyError) Error() string { return e.err.Error() }

// Unwrap returns why.
func (e *BodyError) Unwrap() error { return e.err }

// A TooLargeError says which limit a body exceeds.
type TooLargeError struct {
	Limit    int64
	Unpacked bool // the limit is that of the body unpacked
}

func (e *TooLargeError) Error() string {
	if e.Unpacked {
		return fmt.Sprintf("the body takes more than %d bytes unpacked: send it in parts", e.Limit)
	}
	return fmt.Sprintf("the body has more than %d bytes: send it in parts, or compressed", e.Limit)
}

// A RefusedError says that rows do not fit their type, and that nothing was published for it.
type RefusedError struct {
	Type   string
	Result Result
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%d rows do not fit event type %s; nothing was published", e.Result.Rejected, e.Type)
}

// A LogError says that the log is not known to have all the events of a request, though some of them may be
// in it. Sending the request again does no harm.
type LogError struct {
	Full       bool          // the log has no room; nothing of a message that it refused for that is in it
	RetryAfter time.Duration // when it makes sense to send the request again
	err        error
}

func (e *LogError) Error() string { return e.err.Error() }

// Unwrap returns why.
func (e *LogError) Unwrap() error { return e.err }

// retryAfter is what a client waits if the log does not say for how long.
const retryAfter = 2 * time.Second

// logError is an error of the log, unless it is that of a client that has gone away.
func logError(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	e := &LogError{Full: errors.Is(err, eventlog.ErrLogFull), RetryAfter: retryAfter, err: err}
	var refused *eventlog.PublishError
	if errors.As(err, &refused) && refused.RetryAfter() > 0 {
		e.RetryAfter = refused.RetryAfter()
	}
	return e
}
