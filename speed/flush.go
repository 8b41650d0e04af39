package speed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"watershed/internal/crash"
	"watershed/internal/traces"
	"watershed/schemas"
)

const (
	saveEvery  = time.Second     // how often the positions of plans without new states are stored,
	saveAfter  = 10              // or after so many flush intervals, if that is sooner
	stopWithin = 4 * time.Second // how long inserts may still take after a stop

	// flushBytes is the memory of a lane's folds that makes a flush at once. While one flush is
	// inserted, as arrays and as the client's block, the next is folded up to the same size.
	flushBytes = 48 << 20
)

// A flush is the states of a lane's plans on their way into ClickHouse.
type flush struct {
	mark  schemas.Mark
	at    time.Time // the log's timestamp at mark
	since time.Time // the log's timestamp of the first that was read for it; zero: nothing was
	parts []flushPart
	idle  []*planState  // nothing folded since their last flush
	took  time.Duration // the inserts alone
	inAt  time.Time     // when they had ended
	done  chan struct{} // closed when took, inAt, err and refused are set
	err   error

	first  uint64       // sequence of the first message that was read for it, if any was
	traced []trace.Span // of messages in it
}

type flushPart struct {
	plan    *planState
	states  arrow.Record
	rows    int64 // of states, which is released when it is sent
	refused error // ClickHouse's word that it did not take the states
}

// A refusedError says that ClickHouse definitely did not take a plan's states.
type refusedError struct {
	plan  *planState
	cause error
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("view %s: ClickHouse refused its states: %v", e.plan.plan.Name(), e.cause)
}
func (e *refusedError) Unwrap() error { return e.cause }

// flush hands what is folded to an insert in the background, and folding goes on. One flush
// is under way at a time: the one before must have committed, so that no plan's position can
// pass states that are not in.
func (l *lane) flush(ctx, outer context.Context) error {
	refused, err := l.land()
	if err != nil {
		return err
	}
	for _, p := range refused {
		if l.alone != nil {
			return p
		}
		l.remove(p.plan)
		l.s.detach(ctx, outer, p)
	}
	f := &flush{mark: schemas.Mark{Epoch: l.epoch, Position: l.read}, at: l.readAt, since: l.unflushed, done: make(chan struct{})}
	wanted := l.s.w.wanted.Load()
	due := wanted != l.wanted || time.Since(l.savedAt) >= min(saveEvery, saveAfter*l.s.w.cfg.FlushEvery)
	l.wanted = wanted
	for _, p := range l.plans {
		switch {
		case p.fold.Groups() > 0:
			states := p.fold.Flush()
			f.parts = append(f.parts, flushPart{plan: p, states: states, rows: states.NumRows()})
			if p.fold.Bytes() > flushBytes/int64(2*len(l.plans)) {
				p.fold = p.plan.NewFold() // it would keep its memory for the next groups
			}
		case due && p.mark.Position.Seq < l.read.Seq:
			f.idle = append(f.idle, p)
		}
	}
	l.unflushed = time.Time{} // f is all that was read
	if len(f.parts) == 0 && len(f.idle) == 0 {
		return nil
	}
	f.first, f.traced, l.traced = l.first, l.traced, nil
	if len(f.idle) > 0 {
		l.savedAt = time.Now()
	}
	if len(f.parts) > 0 {
		l.flushedAt = time.Now()
	}
	l.inflight = f
	go func() { // joined by land, or by run when the lane ends
		defer close(f.done)
		// An insert that is cut short has an unknown outcome, so a stop lets it end.
		ctx, cancel := linger(ctx, stopWithin)
		defer cancel()
		ctx, span := f.trace(ctx)
		began := time.Now()
		f.err = f.insert(ctx, l.s)
		f.inAt = time.Now()
		f.took = f.inAt.Sub(began)
		f.untrace(span)
		if f.err == nil && l.s.w.cfg.Flushed != nil {
			l.s.w.cfg.Flushed(f.told())
		}
	}()
	return nil
}

// linger returns a context that ends d after ctx does.
func linger(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}

// insert writes the flush.
//
// Each part commits by itself, with its position: if we stop between two, the next start
// reads back different positions for different plans, and folds for each what it lacks.
func (f *flush) insert(ctx context.Context, s *session) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range f.parts {
		part := &f.parts[i]
		g.Go(func() error {
			defer part.states.Release()
			ctx, span := f.insertTrace(ctx, part)
			err := s.w.sink.InsertSpeed(ctx, part.plan.plan, s.term, f.mark, part.states)
			traces.End(span, err)
			if err != nil {
				s.w.stats.retries.Add(1) // by a lane apart, or by the next session, from the stored position
			}
			if refusedBySink(err) {
				part.refused = err
				return nil
			}
			if err != nil {
				return fmt.Errorf("view %s: %w", part.plan.plan.Name(), err)
			}
			crash.At("speed.states-inserted")
			s.w.stats.states.Add(uint64(part.states.NumRows()))
			return nil
		})
	}
	if len(f.idle) > 0 {
		marks := make(map[string]schemas.Mark, len(f.idle))
		for _, p := range f.idle {
			marks[p.plan.Hash] = f.mark
		}
		g.Go(func() error {
			if err := s.w.sink.SavePositions(ctx, s.term, marks); err != nil {
				return err
			}
			crash.At("speed.idle-saved")
			return nil
		})
	}
	return g.Wait()
}

// refusedBySink reports whether ClickHouse itself said that it did not take a plan's states. That
// it did not answer, or that our term is over, is no matter of one plan.
func refusedBySink(err error) bool {
	var refused interface {
		Refused() bool
		Fenced() bool
		Code() int
	}
	return errors.As(err, &refused) && refused.Refused() && !refused.Fenced() && refused.Code() != 0
}

// land waits for the flush under way and takes its positions over. It returns the plans that
// ClickHouse refused; that it refused all of several is an error.
func (l *lane) land() ([]*refusedError, error) {
	f := l.inflight
	if f == nil {
		return nil, nil
	}
	<-f.done
	l.inflight = nil
	if f.err != nil {
		return nil, l.s.failure(f.err)
	}
	crash.At("speed.flushed")
	l.took = f.took
	var refused []*refusedError
	for _, part := range f.parts {
		if part.refused != nil {
			refused = append(refused, &refusedError{part.plan, part.refused})
			continue
		}
		part.plan.mark = f.mark
		l.s.w.stats.stored(part.plan.plan, f.mark, f.at)
	}
	for _, p := range f.idle {
		p.mark = f.mark
		l.s.w.stats.stored(p.plan, f.mark, f.at)
	}
	if n := len(f.parts); n > 1 && n == len(refused) { // no matter of one plan: a full disk, say
		return nil, fmt.Errorf("ClickHouse refused the states of all %d views: %w", n, refused[0])
	}
	l.s.w.stats.flushed(f)
	return refused, nil
}

// flushAll flushes everything folded and waits until it is in.
func (l *lane) flushAll(ctx, outer context.Context) error {
	l.savedAt = time.Time{} // also the positions of plans without states
	for more := true; more; more = l.inflight != nil {
		if err := l.flush(ctx, outer); err != nil {
			return err
		}
	}
	return nil
}

func (l *lane) remove(p *planState) {
	for i, q := range l.plans {
		if q == p {
			l.plans = append(l.plans[:i:i], l.plans[i+1:]...)
			return
		}
	}
}
