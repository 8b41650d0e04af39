package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"watershed/schemas"
)

// ChunkOptions say what to read and how much at once. A zero field means its default.
type ChunkOptions struct {
	MaxRows  int      // a chunk ends with the message that reaches it; default 64 Ki
	MaxBytes int      // of payloads, likewise; default 32 MiB, at most 512 MiB
	Types    []string // decode events of these types only; empty: all. Other messages pass unread.
	Traced   int      // name so many messages with a sampled trace; 0: nobody asks, and no header is looked at
}

const (
	defaultRows  = 64 << 10
	defaultChunk = 32 << 20
	maxChunk     = 512 << 20
)

// Chunks reads the log from a position on. While the caller works on one chunk the next is
// decoded. Next must not be called by two goroutines at once; Close may be called beside it.
type Chunks struct {
	log    *Log
	opts   ChunkOptions
	cancel context.CancelFunc
	done   chan struct{} // closed when all goroutines of this reader have ended
	ready  chan struct{} // holds a token when Next may find something new
	room   chan struct{} // holds a token when the chunk being built was taken

	mu       sync.Mutex // guards all that follows
	consumer *consumer  // what may add messages; nil between two
	build    builder
	err      error // why reading ended; chunks built before are still handed out
}

// Chunks returns a reader of the messages behind after, and checks that the log is still the one
// that after was taken from (*LogChangedError). The zero position reads from the beginning, which
// must be sequence 1, or a cut in a log that was recreated further on.
//
// Events are decoded with the definitions of the cut that they stand behind, those before cut 1
// with cut 1's. A log without a cut is ErrNoCut. An event type that only the retiring definitions
// have is decoded too; one that both have is decoded as the new definitions say. A message of a
// type that neither has becomes a Reject of Row -1.
func (l *Log) Chunks(ctx context.Context, after schemas.Position, opts ChunkOptions) (*Chunks, error) {
	opts.MaxRows = cmp.Or(opts.MaxRows, defaultRows)
	opts.MaxBytes = min(cmp.Or(opts.MaxBytes, defaultChunk), maxChunk)
	fail := func(err error) (*Chunks, error) {
		return nil, fmt.Errorf("read log %s after message %d: %w", l.cfg.Stream, after.Seq, err)
	}
	if err := l.verify(ctx, after); err != nil {
		return fail(err)
	}
	cut, epoch, err := l.CutFor(ctx, after.Seq)
	if err != nil {
		return fail(err)
	}
	c := &Chunks{log: l, opts: opts, done: make(chan struct{}), ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	c.build = newBuilder(opts, after, epoch, &cut)

	// The reader outlives this call; Close ends it.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	go func() {
		defer close(c.done)
		err := c.run(run)
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		signal(c.ready)
	}()
	return c, nil
}

// Next returns the messages that have come since the last chunk, at least one, up to the limits,
// and never past a cut. It waits for one if there is none. The caller releases the records.
//
// Errors of ctx leave the reader as it was; nothing is lost. Any other error is final. A
// *LogChangedError is one: the log was truncated, recreated, or misses a message.
func (c *Chunks) Next(ctx context.Context) (*schemas.Chunk, error) {
	for {
		c.mu.Lock()
		if c.build.messages > 0 {
			chunk := c.build.take()
			c.mu.Unlock()
			signal(c.room)
			return chunk, nil
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			return nil, fmt.Errorf("read log %s: %w", c.log.cfg.Stream, err)
		}
		select {
		case <-c.ready:
		case <-c.done: // the error is there now
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close ends reading and waits until all goroutines have ended.
func (c *Chunks) Close() {
	c.cancel()
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	c.build.drop()
}

// errClosed ends a reader that Close was called on.
var errClosed = errors.New("the reader was closed")

// signal leaves a token in ch unless there is one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// add takes a message from a consumer. It returns when there is room for the next one, or when
// the consumer is to stop.
func (c *Chunks) add(ctx context.Context, from *consumer, msg jetstream.Msg) {
	c.mu.Lock()
	if c.consumer != from {
		c.mu.Unlock()
		return // a straggler: its successor reads the message again
	}
	err := from.check(&c.build, msg)
	if err == nil {
		err = c.build.add(msg, &from.meta)
	}
	full := c.build.full()
	if err != nil {
		c.consumer = nil
	}
	c.mu.Unlock()
	if err != nil {
		from.fail(err)
		return
	}
	signal(c.ready)
	for full {
		select {
		case <-c.room:
		case <-ctx.Done():
			return
		case <-from.stopped:
			return
		}
		c.mu.Lock()
		full = c.build.full()
		c.mu.Unlock()
	}
}
