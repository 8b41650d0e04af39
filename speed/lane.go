package speed

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/view"
)

// A lane reads the log once for a set of plans and keeps them at one position.
type lane struct {
	s     *session
	alone *view.Plan // in a lane of one plan on its way to the main lane: the plan

	mu        sync.Mutex       // held while a chunk is folded or flushed, and by a lane that joins this one
	plans     []*planState     // of a lane of one plan: none while no cut defines it
	start     schemas.Position // where reading begins
	read      schemas.Position // everything up to here is folded
	readAt    time.Time        // the log's timestamp there
	epoch     uint64           // of what is folded
	savedAt   time.Time        // when positions were saved last
	wanted    uint64           // calls of Worker.Want by then
	inflight  *flush           // the flush that is being inserted
	took      time.Duration    // how long the last flush took
	flushedAt time.Time        // when the last flush of states began
	unflushed time.Time        // the log's timestamp of the first chunk behind the last flush; zero: none was read
	first     uint64           // sequence of that chunk's first message
	traced    []trace.Span     // of messages behind the last flush that stored something; Traced at most

	types   map[string]*schemas.Event // that the cuts met so far define
	readers map[string]*column.Reader // by event type
	window  *window
}

// A planState is a plan in a lane.
type planState struct {
	plan *view.Plan
	fold *view.Fold
	mark schemas.Mark // stored: what stands at or below it is in ClickHouse already

	begins bool // at the cut whose boundary is under way
}

func (s *session) newLane(epoch uint64) *lane {
	return &lane{s: s, epoch: epoch, types: make(map[string]*schemas.Event),
		readers: make(map[string]*column.Reader), window: newWindow(s.w.cfg.Horizon, s.w.cfg.HorizonRows)}
}

// define notes the event types of a cut. Those of one name are the same, but for fields added.
func (l *lane) define(cut *schemas.Cut) {
	for _, set := range []*schemas.Set{&cut.Retiring, &cut.Definitions} {
		for _, ev := range set.Events {
			l.types[ev.Name] = ev
		}
	}
}

func (l *lane) add(p *view.Plan, m schemas.Mark) {
	l.types[p.Event.Name] = p.Event
	l.plans = append(l.plans, &planState{plan: p, fold: p.NewFold(), mark: m})
}

// place chooses where to read from: a horizon before the plan that is furthest behind, so
// that a restart knows the same duplicates as before it. Events at or below a plan's mark are
// remembered, not folded. A log is never trimmed within a horizon of its end; a plan that begins
// at the cut that the log begins with knows of none before.
func (l *lane) place(ctx context.Context) error {
	if len(l.plans) == 0 {
		l.start = l.s.start
		return nil
	}
	first := l.plans[0].mark.Position
	for _, p := range l.plans {
		if p.mark.Position.Seq < first.Seq {
			first = p.mark.Position
		}
		if err := l.s.verify(ctx, p.mark.Position); err != nil { // refuse a log that does not hold what we have stored
			return err
		}
	}
	if first.Seq == 0 {
		return nil
	}
	_, at, err := l.s.w.log.At(ctx, first.Seq)
	if err != nil {
		return err
	}
	l.start, err = l.s.w.log.Before(ctx, at.Add(-l.s.w.cfg.Horizon))
	return err
}

// run folds until ctx ends. When that is because outer ended (a stop, not a failure of
// another lane), it flushes what it has.
func (l *lane) run(ctx, outer context.Context) (err error) {
	src, err := l.s.w.log.Chunks(ctx, l.start)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	pump := startPump(ctx, src)
	defer func() {
		pump.stop()
		src.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		if outer.Err() != nil && err == nil {
			// If we are killed before the flush is in, the next start folds it again.
			stop, cancel := context.WithTimeout(context.WithoutCancel(outer), stopWithin)
			defer cancel()
			err = l.flushAll(stop, outer)
		}
		l.untrace()
		if l.inflight != nil { // nothing outlives its lane
			<-l.inflight.done
		}
	}()
	tick := time.NewTimer(l.s.w.cfg.FlushEvery)
	defer tick.Stop()
	for {
		caught := false
		select {
		case <-ctx.Done():
			return nil
		case r := <-pump.chunks:
			if r.err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("read the log: %w", r.err)
			}
			if err := l.take(ctx, outer, r.chunk); err != nil {
				return err
			}
			// What comes after a rest is shown at once, not at the next tick.
			if caught = r.chunk.Caught; caught && l.rested() {
				next, err := l.tick(ctx, outer)
				if err != nil {
					return err
				}
				tick.Reset(next)
			}
		case <-tick.C:
			next, err := l.tick(ctx, outer)
			if err != nil {
				return err
			}
			tick.Reset(next)
		}
		if l.alone != nil {
			if ended, err := l.leave(ctx, outer, pump, caught); ended || err != nil {
				return err
			}
		}
	}
}

// tick flushes, and says when to do so next.
func (l *lane) tick(ctx, outer context.Context) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.flush(ctx, outer); err != nil {
		return 0, err
	}
	return l.s.pace.next(l.took), nil
}

// rested reports whether the last flush lies so far back that the next may follow at once. Flushes are no
// more frequent for it than by ticks alone.
func (l *lane) rested() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inflight == nil && time.Since(l.flushedAt) >= l.s.pace.next(l.took)
}

// take folds a chunk, and flushes when it ends at a cut or the states have grown large.
func (l *lane) take(ctx, outer context.Context, c *schemas.Chunk) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.foldTraced(ctx, c); err != nil {
		return err
	}
	l.epoch, l.read, l.readAt = c.Epoch, c.Last, c.LastTime
	if l.unflushed.IsZero() {
		l.unflushed, l.first = c.LastTime, c.After.Seq+1
	}
	l.s.w.stats.chunk(c)
	if c.Cut != nil {
		// What is flushed now must not claim the cut: a restart has to meet it again until its
		// boundary is stored.
		l.read = c.BeforeCut
		err := l.boundary(ctx, outer, c.Cut)
		l.read = c.Last
		return err
	}
	groups, bytes := 0, int64(0)
	for _, p := range l.plans {
		groups += p.fold.Groups()
		bytes += p.fold.Bytes()
	}
	if groups >= l.s.w.cfg.FlushRows || groups > 0 && bytes >= flushBytes {
		return l.flush(ctx, outer)
	}
	return nil
}

func (l *lane) fold(c *schemas.Chunk) error {
	for _, name := range sortedTypes(c) {
		rec := c.Records[name]
		reader := l.readers[name]
		if reader == nil {
			reader = column.NewReader()
			l.readers[name] = reader
		}
		block := reader.Block(rec)
		seqs, err := block.Field(schemas.SeqColumn)
		if err != nil {
			return err
		}
		// The main lane remembers events of every type: a view that the next cut defines must
		// know which of its events came before.
		ev := l.types[name]
		if ev == nil || l.alone != nil && l.alone.Event.Name != name {
			continue
		}
		kept, err := l.window.filter(ev, block, c)
		if err != nil {
			return fmt.Errorf("find duplicates of %s: %w", name, err)
		}
		l.s.w.stats.duplicates.Add(uint64(dropped(block, kept)))
		for _, p := range l.plans {
			if p.plan.Event.Name != name {
				continue
			}
			rows, err := fitting(p.plan.Event, ev, block, after(seqs.Ints, p.mark.Position.Seq, kept))
			if err != nil {
				return err
			}
			if rows != nil && len(rows) == 0 {
				continue
			}
			if err := p.fold.Add(block, rows); err != nil {
				return fmt.Errorf("view %s: %w", p.plan.Name(), err)
			}
		}
	}
	return nil
}

// after returns the rows (nil: all) of kept (nil: all) whose sequence is above seq. Sequences ascend.
func after(seqs []int64, seq uint64, kept []int32) []int32 {
	from := sort.Search(len(seqs), func(i int) bool { return uint64(seqs[i]) > seq })
	switch {
	case from == 0:
		return kept
	case kept == nil:
		rows := make([]int32, 0, len(seqs)-from)
		for i := from; i < len(seqs); i++ {
			rows = append(rows, int32(i))
		}
		return rows
	default:
		at, _ := slices.BinarySearch(kept, int32(from))
		return kept[at:]
	}
}

// fitting leaves out rows that do not fit a retiring plan's own schema: they have no value in a
// field that was required when the plan was defined, and are decoded as the field is declared now.
func fitting(own, now *schemas.Event, b *column.Block, rows []int32) ([]int32, error) {
	if own == now {
		return rows, nil
	}
	for _, f := range own.Fields {
		if is := now.Field(f.Name); f.Optional || is == nil || !is.Optional {
			continue
		}
		v, err := b.Field(f.Name)
		if err != nil || v.Valid == nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		if rows == nil {
			rows = make([]int32, b.Len())
			for i := range rows {
				rows[i] = int32(i)
			}
		}
		fit := make([]int32, 0, len(rows))
		for _, row := range rows {
			if v.Valid[row] {
				fit = append(fit, row)
			}
		}
		rows = fit
	}
	return rows, nil
}

func dropped(b *column.Block, kept []int32) int {
	if kept == nil {
		return 0
	}
	return b.Len() - len(kept)
}

func sortedTypes(c *schemas.Chunk) []string {
	names := make([]string, 0, len(c.Records))
	for name := range c.Records {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
