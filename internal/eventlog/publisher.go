package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/internal/crash"
)

// PublisherOptions bound a Publisher. A zero field means its default.
type PublisherOptions struct {
	InFlight   int           // messages sent and not acknowledged; default 4096
	AckTimeout time.Duration // for one acknowledgement; default 10 seconds
	Patience   time.Duration // for which a message is sent again; default one minute
}

// A Publisher publishes many messages at once. A message that is not acknowledged in time, or
// is refused for a reason that may pass, is sent again under its id; so order is not kept, and a
// message without an id may be in the log twice (its events are dropped as duplicates then).
// Its methods may be called by any number of goroutines.
type Publisher struct {
	log  *Log
	js   jetstream.JetStream
	opts PublisherOptions

	mu       sync.Mutex // guards all that follows
	inFlight map[*nats.Msg]*sent
	open     int     // messages neither acknowledged nor given up
	again    []*sent // those of them that are to be sent again
	failed   []error // *PublishError, given up
	last     uint64
	closed   bool
	changed  chan struct{} // closed and replaced at every change
}

// sent is a message on its way.
type sent struct {
	msg       *nats.Msg
	eventType string
	since     time.Time // when it was sent first
}

// NewPublisher returns a Publisher. Close it.
func (l *Log) NewPublisher(opts PublisherOptions) (*Publisher, error) {
	opts.InFlight = cmp.Or(opts.InFlight, 4096)
	opts.AckTimeout = cmp.Or(opts.AckTimeout, 10*time.Second)
	opts.Patience = cmp.Or(opts.Patience, time.Minute)
	p := &Publisher{log: l, opts: opts, inFlight: make(map[*nats.Msg]*sent), changed: make(chan struct{})}
	js, err := jetstream.New(l.conn, jetstream.WithPublishAsyncMaxPending(2*opts.InFlight), jetstream.WithPublishAsyncTimeout(opts.AckTimeout),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, msg *nats.Msg, ack *jetstream.PubAck) { p.settle(msg, ack.Sequence, nil) }),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, msg *nats.Msg, err error) { p.settle(msg, 0, err) }))
	if err != nil {
		return nil, fmt.Errorf("new publisher: %w", err)
	}
	p.js = js
	return p, nil
}

// Publish sends one message, and waits while too many are unacknowledged. nil means that it was
// sent: whether the log has it, Flush tells. Once a message was given up Publish refuses with
// that message's error until Flush has reported it. The payload must not be changed before Flush.
func (p *Publisher) Publish(ctx context.Context, eventType string, payload []byte, msgID string) error {
	return p.publish(ctx, p.log.eventMessage(ctx, eventType, payload, msgID), eventType)
}

func (p *Publisher) publish(ctx context.Context, msg *nats.Msg, eventType string) error {
	if err := p.settleUntil(ctx, p.opts.InFlight-1, true); err != nil {
		return err
	}
	p.mu.Lock()
	p.open++
	p.mu.Unlock()
	p.send(&sent{msg: msg, eventType: eventType, since: time.Now()})
	return nil
}

// Flush waits until every message is acknowledged or given up, and returns the highest sequence
// acknowledged since the last Flush, and a *PublishError for each message given up, joined.
func (p *Publisher) Flush(ctx context.Context) (last uint64, err error) {
	if err := p.settleUntil(ctx, 0, false); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	last, err = p.last, errors.Join(p.failed...)
	p.last, p.failed = 0, nil
	return last, err
}

// Close gives up what is not acknowledged. Flush first to know what the log has. The log keeps a
// subscription for each Publisher that it had until it is closed itself: the library's own way to
// end one leaves a goroutine behind if it comes too early.
func (p *Publisher) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range p.again {
		p.giveUp(s, errPublisherClosed)
	}
	for _, s := range p.inFlight {
		p.giveUp(s, errPublisherClosed)
	}
	p.again = nil
	clear(p.inFlight)
	p.signal()
}

var errPublisherClosed = errors.New("the publisher was closed")

// giveUp settles a message that the log is not known to have. p.mu is held.
func (p *Publisher) giveUp(s *sent, err error) {
	p.open--
	p.failed = append(p.failed, &PublishError{Type: s.eventType, ID: s.msg.Header.Get(jetstream.MsgIDHeader), Payload: s.msg.Data, Err: classify(err)})
}

// signal wakes those who wait for a change. p.mu is held.
func (p *Publisher) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// settleUntil sends again what has to be, until at most n messages are open.
func (p *Publisher) settleUntil(ctx context.Context, n int, refuse bool) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 10*time.Millisecond, time.Second
	for {
		p.mu.Lock()
		if refuse && len(p.failed) > 0 {
			err := p.failed[0]
			p.mu.Unlock()
			return err
		}
		again := p.again
		p.again = nil
		open, changed := p.open, p.changed
		p.mu.Unlock()
		switch {
		case len(again) > 0:
			if err := wait(ctx, pause.NextBackOff()); err != nil {
				p.mu.Lock()
				p.again = append(p.again, again...)
				p.mu.Unlock()
				return err
			}
			for _, s := range again {
				p.send(s)
			}
		case open <= n:
			return nil
		default:
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send sends a message, for the first time or again.
func (p *Publisher) send(s *sent) {
	// What goes to the library is a message of its own each time, by which its answer is told apart
	// from a late one to an earlier attempt.
	msg := *s.msg
	p.mu.Lock()
	if p.closed {
		p.giveUp(s, errPublisherClosed)
		p.signal()
		p.mu.Unlock()
		return
	}
	p.inFlight[&msg] = s
	p.mu.Unlock()
	if _, err := p.js.PublishMsgAsync(&msg); err != nil {
		p.settle(&msg, 0, err)
	}
	// If we stop here, the log may have the message; who publishes it again under its id, or with
	// its events' ids, does no harm.
	crash.At("eventlog.publisher-sent")
}

// settle takes the outcome of one attempt.
func (p *Publisher) settle(msg *nats.Msg, seq uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.inFlight[msg]
	if !ok {
		return
	}
	delete(p.inFlight, msg)
	switch {
	case err == nil:
		p.open--
		p.last = max(p.last, seq)
	case passes(err) && time.Since(s.since) < p.opts.Patience:
		p.again = append(p.again, s)
	default:
		p.giveUp(s, err)
	}
	p.signal()
}

// passes reports that an error may not come again: not an answer of the stream itself, and not
// the end of the connection.
func passes(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return !errors.Is(classify(err), ErrLogFull) && api.Code == serverUnavailable
	}
	return !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrMaxPayload)
}
