package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watershed/schemas"
)

const (
	// heartbeat is how often the server shows that a waiting consumer still lives; a consumer that
	// misses two is given up.
	heartbeat = 2 * time.Second

	// idle is after how long the server forgets a consumer that nobody reads from.
	idle = time.Minute

	pullBytes    = 16 << 20         // asked for ahead of decoding
	closeTimeout = 5 * time.Second  // for taking a consumer back
	longestPause = time.Second      // between attempts to read again
	setupTimeout = 10 * time.Second // for one such attempt
)

// A consumer is one ephemeral JetStream consumer, which starts behind a position and hands over
// messages without acknowledgements. Whatever goes wrong with it, its reader goes on with a new
// one from the last message that it has.
type consumer struct {
	delivered uint64                // by its own count, under Chunks.mu
	meta      jetstream.MsgMetadata // of the message at hand: its sequences, its timestamp and what is behind it
	stop      sync.Once
	stopped   chan struct{} // closed when it must not be used any more
	err       error         // why; set before stopped is closed
}

// errLost says that a message was lost between the server and us.
var errLost = errors.New("a message was lost on its way")

func (k *consumer) fail(err error) {
	k.stop.Do(func() {
		k.err = err
		close(k.stopped)
	})
}

// check makes sure that msg is the next message of the log.
func (k *consumer) check(b *builder, msg jetstream.Msg) error {
	if !metaOf(msg.Reply(), &k.meta) {
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		k.meta = *meta
	}
	k.delivered++
	if k.meta.Sequence.Consumer != k.delivered {
		return errLost // the next consumer will bring it
	}
	seq, last := k.meta.Sequence.Stream, b.last.seq
	if seq == last+1 {
		return nil
	}
	found := hashOf(msg.Subject(), &k.meta, msg.Data())
	if last == 0 {
		return startsAt(msg.Subject(), found)
	}
	if msg.Subject() == cutSubject {
		// What does not decode is refused by the builder, if it is to have it.
		if cut, err := decodeCut(msg.Headers(), msg.Data(), found, k.meta.Timestamp); err == nil && beganAnew(cut, last) {
			return nil
		}
	}
	return &gapError{LogChangedError{Stored: b.position(), Found: found,
		Reason: fmt.Sprintf("messages %d to %d are missing", last+1, seq-1)}}
}

// beganAnew reports that a log was begun anew with a cut, behind position last of the log before.
func beganAnew(cut *schemas.Cut, last uint64) bool {
	return cut.Anew > 0 && cut.Anew >= last && cut.Position.Seq == cut.Anew+1
}

// A gapError says that messages are missing behind the last one read.
type gapError struct{ changed LogChangedError }

func (e *gapError) Error() string { return e.changed.Error() }
func (e *gapError) Unwrap() error { return &e.changed }

// explain tells messages that were trimmed while we waited for them from those that were lost.
func (l *Log) explain(ctx context.Context, err error) error {
	var gap *gapError
	if !errors.As(err, &gap) {
		return err
	}
	info, infoErr := l.stream.Info(ctx)
	if infoErr != nil {
		return infoErr // the next consumer will find the gap again
	}
	if stored := gap.changed.Stored; stored.Seq+1 < info.State.FirstSeq {
		return &TrimmedError{Stored: stored, First: info.State.FirstSeq}
	}
	return &gap.changed
}

// run reads until ctx ends or the log cannot be read on. Every consumer begins by holding the
// last message read against the log: a connection that was lost may have come back to a log that
// was restored to an older state or recreated.
func (c *Chunks) run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, longestPause
	for {
		began := time.Now()
		err := c.consume(ctx)
		if ctx.Err() != nil {
			return errClosed
		}
		if final(err) {
			return err
		}
		if time.Since(began) > longestPause {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		c.log.log.Info("reading the log anew", "reason", err, "after", c.lastSeq(), "in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errClosed
		}
	}
}

// final reports that reading again cannot help.
func final(err error) bool {
	var changed *LogChangedError // a *TrimmedError is one too
	var bad *badMessageError
	return errors.As(err, &changed) || errors.As(err, &bad) ||
		errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, nats.ErrConnectionClosed)
}

func (c *Chunks) lastSeq() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.build.last.seq
}

// consume reads with one consumer until that fails.
func (c *Chunks) consume(ctx context.Context) error {
	c.mu.Lock()
	at := c.build.position()
	c.mu.Unlock()

	cons, err := c.log.consumerAfter(ctx, at)
	if err != nil {
		return err
	}
	// If we stop here, the server forgets the consumer after a while; it holds no state of ours.
	k := &consumer{stopped: make(chan struct{})}
	c.setConsumer(k)
	pull, err := cons.Consume(func(msg jetstream.Msg) { c.add(ctx, k, msg) },
		jetstream.PullMaxBytes(max(pullBytes, 2*int(c.log.conn.MaxPayload()))), jetstream.PullHeartbeat(heartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { k.fail(err) }))
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		k.fail(errClosed)
	case <-k.stopped:
	}
	c.setConsumer(nil)
	pull.Stop()
	<-pull.Closed()
	end, cancel := c.log.whileConnected(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	// A failure leaves it to the server to forget the consumer.
	_ = c.log.stream.DeleteConsumer(end, cons.CachedInfo().Name)
	return c.log.explain(end, k.err)
}

// consumerAfter creates a consumer behind a position, which it holds against the log first.
func (l *Log) consumerAfter(ctx context.Context, at schemas.Position) (jetstream.Consumer, error) {
	ctx, cancel := l.whileConnected(ctx, setupTimeout)
	defer cancel()
	if err := l.verify(ctx, at); err != nil {
		return nil, err
	}
	return l.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Description:       "Watershed reader",
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       at.Seq + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: idle,
	})
}

// whileConnected returns a context that also ends when the connection is lost: what was asked
// over it will not be answered. The caller calls the function returned.
func (l *Log) whileConnected(ctx context.Context, timeout time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	lost := l.conn.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-lost:
			cancel()
		case <-ctx.Done():
		}
		l.conn.RemoveStatusListener(lost)
	}()
	return ctx, func() {
		cancel()
		<-done
	}
}

func (c *Chunks) setConsumer(k *consumer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consumer = k
}
