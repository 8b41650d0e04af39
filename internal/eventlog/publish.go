package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/traces"
)

const (
	contentHeader  = "Content-Type"
	publishTimeout = 10 * time.Second // for an acknowledgement
)

// ErrLogFull is the error of a publish that the log refused because it has reached its
// max_bytes. Nothing was forgotten for it and nothing of it is in the log.
var ErrLogFull = errors.New("the log is full and takes nothing until it is trimmed, which happens once a minute as far as" +
	" history and the views allow (watershed status), or its limit is raised (nats stream edit --max-bytes)")

// A PublishError says which message is not known to be in the log.
type PublishError struct {
	Type    string // event type
	ID      string // message id
	Payload []byte
	Err     error
}

func (e *PublishError) Error() string {
	return fmt.Sprintf("publish message %q of type %s (%d bytes): %s", e.ID, e.Type, len(e.Payload), e.Err)
}

// Unwrap returns the reason.
func (e *PublishError) Unwrap() error { return e.Err }

// RetryAfter says after what time it makes sense to publish the message again, under the same
// id: the log may have room or be reachable then. 0: never; the message itself was refused.
func (e *PublishError) RetryAfter() time.Duration {
	switch {
	case errors.Is(e.Err, ErrLogFull):
		return fullRetry
	case errors.Is(e.Err, ErrUnreachable):
		return unreachableRetry
	}
	return 0
}

const (
	fullRetry        = time.Minute // the log is trimmed once a minute
	unreachableRetry = 2 * time.Second
)

// Publish publishes one message of events of a type, one JSON object per line, and returns its
// sequence when the log has it. Within two minutes a message with the same id is taken only
// once, and its first sequence is returned again; msgID may be empty. Errors are
// *PublishErrors; unless one is ErrLogFull it leaves open whether the message is in the log.
func (l *Log) Publish(ctx context.Context, eventType string, payload []byte, msgID string) (seq uint64, err error) {
	connected, end := l.whileConnected(ctx, publishTimeout)
	defer end()
	ack, err := l.js.PublishMsg(connected, l.eventMessage(ctx, eventType, payload, msgID))
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = fmt.Errorf("%w (the connection was lost before it answered)", ErrUnreachable)
	}
	if err != nil {
		return 0, &PublishError{Type: eventType, ID: msgID, Payload: payload, Err: classify(err)}
	}
	return ack.Sequence, nil
}

// eventMessage carries the trace of the span in ctx, if that is sampled. A header tells nothing of what the message means, so a
// message that is sent again under its id may have another one.
func (l *Log) eventMessage(ctx context.Context, eventType string, payload []byte, msgID string) *nats.Msg {
	header := nats.Header{contentHeader: {"application/x-ndjson"}, jetstream.ExpectedStreamHeader: {l.cfg.Stream}}
	if msgID != "" {
		header[jetstream.MsgIDHeader] = []string{msgID}
	}
	if from := traces.Of(ctx); from != "" {
		header[traces.Header] = []string{from}
	}
	return &nats.Msg{Subject: eventSubject + eventType, Header: header, Data: payload}
}

// ErrUnreachable is the error of a publish that the log did not answer: there is no connection,
// or no server that has the stream, or its disk is full, or it is being begun anew. Whether the
// message is in the log is not known; publish it again, under the same id, after a while.
var ErrUnreachable = errors.New("the log cannot be reached at the moment: publish again under the same id in a few seconds")

// classify turns the server's refusal of a full stream into ErrLogFull, and what passes when the
// server is back into ErrUnreachable.
func classify(err error) error {
	if errors.Is(err, ErrLogFull) || errors.Is(err, ErrUnreachable) {
		return err
	}
	var api *jetstream.APIError
	switch isAPI := errors.As(err, &api); {
	case isAPI && strings.Contains(api.Description, "maximum bytes exceeded"):
		return fmt.Errorf("%w (%w)", ErrLogFull, err)
	case isAPI && api.Code == serverUnavailable, isUnanswered(err):
		return fmt.Errorf("%w (%w)", ErrUnreachable, err)
	}
	return err
}

// serverUnavailable is the code of answers of a server that is starting or out of resources.
const serverUnavailable = 503

// isUnanswered reports that a request got no answer from the log.
func isUnanswered(err error) bool {
	for _, e := range []error{
		nats.ErrReconnectBufExceeded, // ours has no room, see connect: there is no connection
		nats.ErrNoResponders, nats.ErrTimeout, nats.ErrConnectionReconnecting, nats.ErrDisconnected,
		jetstream.ErrNoStreamResponse, jetstream.ErrAsyncPublishTimeout, context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// MaxMessage is how many bytes the log takes in one message, its headers included.
func (l *Log) MaxMessage() int { return int(l.conn.MaxPayload()) }
