package batch

import (
	"context"
	"errors"
	"slices"
	"sync"

	"watershed/schemas/view"
)

// A crew is the workers of a computation. Each computes dates of its own; who finds none left helps
// with passes that others have under way, so that one large date keeps all cores busy. Its lock is taken once
// for half a million rows.
type crew struct {
	mu      sync.Mutex // guards what follows, and the passes' pieces
	changed *sync.Cond
	open    []*pass
	share   int64 // rows that a pass must have left for another worker to join it
	busy    int   // workers that still compute dates of their own
	ended   bool
}

func newCrew(workers int, share int64) *crew {
	c := &crew{busy: workers, share: share}
	c.changed = sync.NewCond(&c.mu)
	return c
}

// end sends everybody home, also who waits for others.
func (c *crew) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.changed.Broadcast()
}

// retire books that a worker has no more dates of its own.
func (c *crew) retire() {
	c.mu.Lock()
	c.busy--
	c.mu.Unlock()
	c.changed.Broadcast()
}

// offer lets others join a pass that is large enough for it.
func (c *crew) offer(p *pass) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.rows >= c.share && len(p.pieces) > 1 {
		c.open = append(c.open, p)
		c.changed.Broadcast()
	}
}

// take takes the next piece of a pass.
func (c *crew) take(p *pass) (x piece, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p.pieces) == 0 {
		return piece{}, false
	}
	x, p.pieces = p.pieces[0], p.pieces[1:]
	p.rows -= x.rows
	return x, true
}

// join waits for a pass to help with; nil when there will be none any more.
func (c *crew) join() *pass {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.ended {
		for _, p := range c.open {
			if p.rows >= c.share {
				p.helpers++
				p.reading++
				return p
			}
		}
		if c.busy == 0 {
			return nil
		}
		c.changed.Wait()
	}
	return nil
}

// meet hands a worker's folds over and waits until everybody has read what there was. Nobody joins a pass
// of which nothing is left to read.
func (c *crew) meet(ctx context.Context, p *pass, folds []*view.Fold) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, fold := range folds {
		p.folds[i] = append(p.folds[i], fold)
	}
	p.reading--
	c.changed.Broadcast()
	for p.reading > 0 && !c.ended {
		c.changed.Wait()
	}
	if p.reading > 0 {
		return ctx.Err() // who failed has not handed anything over
	}
	return nil
}

// target takes the next target of a pass, whose folds are the caller's from then on; nil when all are taken.
func (c *crew) target(p *pass) (target int, folds []*view.Fold) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.last == 0 {
		return 0, nil
	}
	p.last--
	folds, p.folds[p.last] = p.folds[p.last], nil
	return p.last, folds
}

// leave ends the help with a pass. An error is the pass's: what it has is not whole.
func (c *crew) leave(p *pass, err error) {
	c.mu.Lock()
	p.helpers--
	p.err = errors.Join(p.err, err)
	c.mu.Unlock()
	c.changed.Broadcast()
}

// wait waits until all who help with a pass have left it, and returns why it is not whole.
func (c *crew) wait(ctx context.Context, p *pass) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(q *pass) bool { return q == p })
	for p.helpers > 0 && !c.ended {
		c.changed.Wait()
	}
	return errors.Join(p.err, ctx.Err())
}
