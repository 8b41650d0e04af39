// Package speed is the always-on layer: it folds the log into the states of every plan and
// keeps ClickHouse within a flush interval of the log's end.
//
// # The invariant
//
// A plan has a position m, up to which it is stored (Sink.Positions), and a beginning b
// (Sink.Begin). At any moment, and after any stop:
//
//	What the speed table holds of a plan in epochs >= b.Epoch is exactly the plan's events
//	from b to m, each once. If m is before b, that is nothing.
//
// Merged views and rollbacks rely on it: a build that covers the plan up to a cut in an epoch
// >= b.Epoch, and the speed states of the epochs from that cut on, are all events once. (A
// duplicate that comes later than the horizon is the exception; the next batch removes it.)
//
// What keeps it:
//
//   - A flush is one insert of one block into one partition per plan, and carries the log
//     position it reaches. States and position commit together: m moves by exactly what the
//     block holds, or not at all.
//   - A flush ends at a cut. No stored state holds events of two epochs.
//   - Only the newest term writes: an insert of an older one is refused by the table it goes
//     to. An insert whose outcome is unknown ends our own term: we take a new one, so that
//     the insert can no longer land, and read back what did.
//   - b is stored before the first state or position behind it, and only moves to a cut behind
//     m. If we stop in between, m is before b, and the table has nothing in b's epoch, because m
//     lies in an older one; the next start begins the plan again, there or at a later cut.
//
// # Where a plan begins
//
//   - Nothing is stored of it (the first start ever, or ClickHouse was lost): at the first of the
//     cuts in a row that define it, as far back as the log reaches: at the log's beginning
//     if that is sequence 1, else at the cut that a trimmed log begins with.
//   - A cut defines it that follows one that did not: at that cut. What is stored of an earlier time
//     stays in its epochs and is not added to what comes.
//   - The log was begun anew behind its position: at the cut that the new log begins with. What
//     could be saved of the log before is in history, or comes again behind that cut.
//   - The log was trimmed past its position: it is stranded. It waits, and its merged view shows
//     what it did, until the live build covers it up to a cut that is still in the log; it
//     begins at that cut.
//
// # Plans that are behind
//
// A plan that ClickHouse refuses, or that is far behind, reads the log in a lane of its own until
// it has caught up. It holds up neither the log nor the other plans. One such lane runs at a time,
// so that memory stays bounded however many plans are behind.
package speed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/trace"

	"watershed/schemas"
	"watershed/schemas/view"
)

// Role names the speed layer's terms.
const Role = "speed"

// ChunkRows is how many events a chunk of a Source best ends with: with four times as many the worker was no
// faster, and took 30 MB more.
const ChunkRows = 16 << 10

// A Source reads the log on from a position.
type Source interface {
	// Next waits for the next chunk. What it returned before stays valid.
	Next(ctx context.Context) (*schemas.Chunk, error)
	Close()
}

// Log is what the worker needs of the log.
type Log interface {
	// Chunks reads on after a position, and fails if the log does not hold that position
	// any more, or another message at it.
	Chunks(ctx context.Context, after schemas.Position) (Source, error)
	// Before returns the last position whose message is older than t. If there is none, that
	// is where the log begins: the zero position, or in a log that was trimmed or begun anew its
	// first message, which is a cut.
	Before(ctx context.Context, t time.Time) (schemas.Position, error)
	// At returns the position and the log timestamp of the message with that sequence.
	At(ctx context.Context, seq uint64) (schemas.Position, time.Time, error)
	// End returns the sequence and the log timestamp of the last message.
	End(ctx context.Context) (uint64, time.Time, error)
	LastCut(ctx context.Context) (schemas.Cut, bool, error)
	Cut(ctx context.Context, number uint64) (schemas.Cut, error)
	// Next returns a number above floor that was never returned for the counter.
	Next(ctx context.Context, counter string, floor uint64) (uint64, error)
}

// Sink is where states go.
type Sink interface {
	// EnsurePlans makes the tables of plans. Fresh plans are covered by the empty build.
	EnsurePlans(ctx context.Context, plans []*view.Plan, fresh bool) error
	// PublishViews points the merged views at the plans.
	PublishViews(ctx context.Context, plans []*view.Plan) error
	// Term is the newest term of a role.
	Term(ctx context.Context, role string) (uint64, error)
	// TakeOver makes term the role's newest, and ends what older ones have running.
	TakeOver(ctx context.Context, role string, term uint64) error
	// Positions says how far each plan's stored states reach; a plan that never started is absent.
	Positions(ctx context.Context, plans []*view.Plan) (map[string]schemas.Mark, error)
	// SavePositions advances plans that have nothing unflushed, in one insert.
	SavePositions(ctx context.Context, term uint64, marks map[string]schemas.Mark) error
	// Begin stores where plans begin, by their hashes, in one insert.
	Begin(ctx context.Context, term uint64, marks map[string]schemas.Mark) error
	// Begins says where plans began last; a plan that never did is absent.
	Begins(ctx context.Context, plans []*view.Plan) (map[string]schemas.Mark, error)
	// Live says which build is shown, and Build what it covers.
	Live(ctx context.Context) (schemas.Live, error)
	Build(ctx context.Context, number uint64) (schemas.Build, error)
	// Parts is the number of parts in the epoch of a plan that has most.
	Parts(ctx context.Context) (int, error)
	// InsertSpeed commits states together with the position that they reach.
	InsertSpeed(ctx context.Context, p *view.Plan, term uint64, mark schemas.Mark, states arrow.Record) error
}

// Config of a worker. The zero value of a setting is its default.
type Config struct {
	FlushEvery  time.Duration // how long states wait for their flush: 100 ms
	FlushRows   int           // groups over all plans that make a flush at once: 500,000
	Horizon     time.Duration // stretch of log in which duplicates are found: 15 minutes
	HorizonRows int           // events remembered for that at most: 9,000,000 (15 bytes each)
	Logger      *slog.Logger  // default: slog.Default()

	// Tracer makes the spans of messages that came with a trace, and of their flushes. nil: there are none.
	Tracer trace.Tracer

	// Flushed is told of every flush as soon as it is in, by several goroutines at once; it must not wait. nil: nobody asks.
	Flushed func(Flush)
}

func (c *Config) defaults() {
	if c.FlushEvery == 0 {
		c.FlushEvery = 100 * time.Millisecond
	}
	if c.FlushRows == 0 {
		c.FlushRows = 500_000
	}
	if c.Horizon == 0 {
		c.Horizon = 15 * time.Minute
	}
	if c.HorizonRows == 0 {
		c.HorizonRows = 9_000_000
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// A Worker runs the speed layer.
type Worker struct {
	cfg   Config
	log   Log
	sink  Sink
	stats counters
	term  uint64 // taken last; 0: none yet

	wanted atomic.Uint64 // calls of Want
}

// New returns a worker that folds log into sink.
func New(log Log, sink Sink, cfg Config) *Worker {
	cfg.defaults()
	return &Worker{cfg: cfg, log: log, sink: sink}
}

// Want has the next flush store the positions of plans without new states too, which otherwise happens every ten
// intervals or once a second: somebody waits for them. It may be called at any time.
func (w *Worker) Want() { w.wanted.Add(1) }

// FencedError says that another worker took over.
type FencedError struct{ Term uint64 }

func (e *FencedError) Error() string {
	return fmt.Sprintf("another speed worker took over from this one (term %d): stop one of the two", e.Term)
}

// Run folds until ctx ends, then flushes once more and returns nil. It rides out a log or a
// ClickHouse that is away for a time; it returns an error when going on would be wrong: the
// log is not the one that the stored positions belong to, or another worker took over.
func (w *Worker) Run(ctx context.Context) error {
	watching, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { w.watch(watching) })
	defer wait.Wait()
	defer cancel()
	return w.sessions(ctx)
}

// sessions starts over after every error that may pass.
func (w *Worker) sessions(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 5*time.Second
	for {
		began := time.Now()
		err := w.session(ctx)
		switch {
		case ctx.Err() != nil:
			if errors.Is(err, context.Canceled) {
				err = nil
			}
			return err
		case isPermanent(err):
			return err
		}
		if time.Since(began) > pause.MaxInterval {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		w.stats.restarts.Add(1)
		w.cfg.Logger.Warn("speed: starting over from the stored positions", "error", err, "in", wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// isPermanent reports whether starting over cannot help: the error says so itself. That the log
// was trimmed past a position is no such error: the next start finds the plan stranded.
func isPermanent(err error) bool {
	var fenced *FencedError
	var trimmed interface{ Trimmed() bool }
	var changed interface{ LogChanged() bool }
	if errors.As(err, &trimmed) && trimmed.Trimmed() {
		return false
	}
	return errors.As(err, &fenced) || errors.As(err, &changed) && changed.LogChanged()
}

// session is one term of the worker: take over, read the positions back, fold until an error.
func (w *Worker) session(ctx context.Context) error {
	s := &session{w: w, slot: make(chan struct{}, 1), pace: pace{every: w.cfg.FlushEvery},
		apart: make(map[string]*view.Plan), stranded: make(map[string]*view.Plan)}
	if err := s.takeOver(ctx); err != nil {
		return err
	}
	behind, err := s.resume(ctx)
	if err != nil {
		return fmt.Errorf("resume: %w", s.failure(err))
	}
	return s.run(ctx, behind)
}
