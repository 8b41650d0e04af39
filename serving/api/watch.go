package api

import (
	"context"
	"sync"
	"time"
)

const (
	lookGap   = 2 * time.Millisecond   // between two looks at least, and at least as long as the last one took
	lookUntil = 10 * time.Millisecond  // the next look comes after so long if nobody says when something was stored,
	lookAgain = 100 * time.Millisecond // and if somebody does, whom it may miss, or if the last look failed
)

// A watch looks how far views reach, on behalf of all requests that wait for it. There is no goroutine of its
// own: of the requests that wait, one looks at a time, and all see what it saw; so nobody looks when nobody waits.
//
// Looking comes after a hint that something was stored, or after a while. Hints may be lost, late or wrong: what
// a request goes by is only what was read.
type watch struct {
	read  func(context.Context) (Reached, error)
	until time.Duration // lookUntil, or lookAgain if there are hints
	turn  chan struct{} // full: somebody looks
	hint  chan struct{} // full: something was stored since the last look began

	mu      sync.Mutex    // guards what follows
	last    *look         // never changed once it is here
	changed chan struct{} // closed when last is another
}

// A look is what was seen at a moment.
type look struct {
	n            uint64 // looks before
	began, ended time.Time
	Reached
	err error // then nothing was seen
}

func newWatch(read func(context.Context) (Reached, error)) *watch {
	w := &watch{read: read, until: lookUntil, turn: make(chan struct{}, 1), hint: make(chan struct{}, 1), last: &look{}, changed: make(chan struct{})}
	w.stored()
	return w
}

// stored is the hint that there is something new to be seen. It does not block.
func (w *watch) stored() {
	select {
	case w.hint <- struct{}{}:
	default:
	}
}

func (w *watch) latest() (*look, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last, w.changed
}

// await returns the first look that is good, which may be one of the past; or the last one, if it is not, with
// the context's error.
func (w *watch) await(ctx context.Context, good func(*look) bool) (*look, error) {
	for {
		l, changed := w.latest()
		if l.n > 0 && l.err == nil && good(l) {
			return l, nil
		}
		select {
		case <-ctx.Done():
			return l, ctx.Err()
		case <-changed:
		case w.turn <- struct{}{}:
			// Between our look at the last and our turn, another may have had its turn.
			if now, _ := w.latest(); now == l {
				w.look(ctx, l)
			}
			<-w.turn
		}
	}
}

// look waits until it is time to look again, and does. If ctx ends, the next one in turn does.
func (w *watch) look(ctx context.Context, last *look) {
	until := w.until
	if last.err != nil {
		until = lookAgain
	}
	select {
	case <-w.hint:
	case <-after(last.ended.Add(until)):
	case <-ctx.Done():
		return
	}
	select {
	case <-after(last.ended.Add(max(lookGap, last.ended.Sub(last.began)))):
	case <-ctx.Done():
		w.stored()
		return
	}
	select {
	case <-w.hint: // what it is about is seen now
	default:
	}
	l := &look{n: last.n + 1, began: time.Now()}
	l.Reached, l.err = w.read(ctx)
	if ctx.Err() != nil {
		w.stored()
		return
	}
	l.ended = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.last, w.changed = l, make(chan struct{})
}

func after(t time.Time) <-chan time.Time { return time.After(time.Until(t)) }
