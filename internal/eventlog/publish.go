package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/crash"
)

const contentHeader = "Content-Type"

// ErrLogFull is the error of a publish that the log refused because it has reached its
// max_bytes. Nothing was forgotten for it and nothing of it is in the log.
var ErrLogFull = errors.New("the log is full: raise its limit (nats stream edit --max-bytes) or trim it")

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

// Publish publishes one message of events of a type, one JSON object per line, and returns its
// sequence when the log has it. Within two minutes a message with the same id is taken only
// once, and its first sequence is returned again; msgID may be empty. Errors are
// *PublishErrors; unless one is ErrLogFull it leaves open whether the message is in the log.
func (l *Log) Publish(ctx context.Context, eventType string, payload []byte, msgID string) (seq uint64, err error) {
	ack, err := l.js.PublishMsg(ctx, l.eventMessage(eventType, payload, msgID))
	if err != nil {
		return 0, &PublishError{Type: eventType, ID: msgID, Payload: payload, Err: classify(err)}
	}
	crash.At("eventlog.publish-acknowledged")
	return ack.Sequence, nil
}

func (l *Log) eventMessage(eventType string, payload []byte, msgID string) *nats.Msg {
	header := nats.Header{contentHeader: {"application/x-ndjson"}, jetstream.ExpectedStreamHeader: {l.cfg.Stream}}
	if msgID != "" {
		header[jetstream.MsgIDHeader] = []string{msgID}
	}
	return &nats.Msg{Subject: eventSubject + eventType, Header: header, Data: payload}
}

// errUnconnected explains what NATS calls a full buffer: ours has no room, see connect.
var errUnconnected = errors.New("no connection to NATS at the moment")

// classify turns the server's refusal of a full stream into ErrLogFull, and explains what
// happened where NATS's words do not.
func classify(err error) error {
	if errors.Is(err, nats.ErrReconnectBufExceeded) {
		return fmt.Errorf("%w (%w)", errUnconnected, err)
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && strings.Contains(api.Description, "maximum bytes exceeded") {
		return fmt.Errorf("%w (%w)", ErrLogFull, err)
	}
	return err
}
