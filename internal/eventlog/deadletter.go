package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"watershed/internal/crash"
	"watershed/schemas"
)

// The headers of a dead letter; its body is the original bytes, and it also has the headers that
// say how those are read (decode.HeaderOf).
const (
	reasonHeader    = "Watershed-Reason"
	typeHeader      = "Watershed-Type"
	seqHeader       = "Watershed-Seq"
	rowHeader       = "Watershed-Row"
	timeHeader      = "Watershed-Time"      // the log's timestamp of the message, RFC 3339
	truncatedHeader = "Watershed-Truncated" // original size, if the bytes are not whole

	deadInFlight  = 64
	headerReserve = 4 << 10 // more than the headers take, without those of content
	maxReason     = 1 << 10
	maxToken      = 64
)

// ErrDeadLettersFull is the error of a dead letter that its stream has no room for. Nothing is
// archived past it until there is.
var ErrDeadLettersFull = errors.New("there is no room for more dead letters, and nothing is archived until there is:" +
	" look at them (watershed dlq list), replay them (watershed dlq replay), drop some (watershed dlq drop)," +
	" or raise the limit (nats stream edit --max-bytes on the stream that ends in _DLQ)")

// DeadLetter stores rejects in the dead-letter stream, under dlq.<type>.<seq>.<row>, each once: one
// that is there already is left as it is. It returns when the stream has all of them;
// after an error some may be missing, and the call is repeated as a whole.
func (l *Log) DeadLetter(ctx context.Context, rejects []schemas.Reject) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(deadInFlight)
	for i := range rejects {
		g.Go(func() error { return l.deadLetter(ctx, &rejects[i]) })
	}
	return g.Wait()
}

func (l *Log) deadLetter(ctx context.Context, r *schemas.Reject) error {
	id := fmt.Sprintf("dlq/%d/%d", r.Seq, r.Row)
	// The message id is remembered for two minutes; that its subject has no message yet, for ever.
	_, err := l.js.PublishMsg(ctx, l.deadMessage(r), jetstream.WithMsgID(id),
		jetstream.WithExpectLastSequencePerSubject(0), jetstream.WithExpectStream(l.cfg.Stream+"_DLQ"))
	switch {
	case isWrongLast(err):
		return nil
	case errors.Is(classify(err), ErrLogFull):
		return fmt.Errorf("dead letter %s: %w (%w)", id, ErrDeadLettersFull, err)
	case err != nil:
		return fmt.Errorf("dead letter %s: %w", id, classify(err))
	}
	crash.At("eventlog.deadletter-acknowledged")
	return nil
}

func (l *Log) deadMessage(r *schemas.Reject) *nats.Msg {
	msg := nats.NewMsg(fmt.Sprintf("%s%s.%d.%d", deadSubject, subjectToken(r.Type), r.Seq, r.Row))
	msg.Header.Set(reasonHeader, headerText(r.Reason))
	msg.Header.Set(typeHeader, r.Type)
	msg.Header.Set(seqHeader, strconv.FormatUint(r.Seq, 10))
	msg.Header.Set(rowHeader, strconv.Itoa(r.Row))
	msg.Header.Set(timeHeader, r.Time.UTC().Format(time.RFC3339Nano))
	msg.Data = r.Payload
	content := setContent(msg.Header, r.Header)
	// The server counts headers as payload, and a message that was rejected may be as large as it
	// takes. What is cut off here is still in the log.
	if most := int(l.conn.MaxPayload()) - headerReserve - content; len(msg.Data) > most {
		msg.Header.Set(truncatedHeader, strconv.Itoa(len(msg.Data)))
		msg.Data = msg.Data[:max(most, 0)]
	}
	return msg
}

// headerText is s as a header can hold it: one line, bounded.
func headerText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}

// subjectToken is an event type as one token of a subject. Types that are declared are that
// already; what a producer puts behind "events." may be anything.
func subjectToken(eventType string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, eventType[:min(len(eventType), maxToken)])
}
