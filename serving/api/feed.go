package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"watershed/schemas"
)

// A tick is what changed in a view from one place to another. It is never changed once it is made.
type tick struct {
	began    time.Time
	from, to place
	live     schemas.Live
	groups   []byte // as events
	left     uint64 // groups that changed too
	err      error  // then nothing is known
}

// events is what a tail at that place is sent. The id is the last: a client that has it has all before it.
func (t *tick) events(at place) []byte {
	var b []byte
	if t.to.flip != at.flip {
		b = fmt.Appendf(b, "event: build\ndata: {\"build\":%d,\"cut\":%d,\"flip\":%d,\"position\":%d}\n\n", t.live.Build, t.live.Cut, t.to.flip, t.to.seq)
	}
	b = append(b, t.groups...)
	if t.left > 0 {
		b = fmt.Appendf(b, "event: more\ndata: {\"groups\":%d,\"position\":%d}\n\n", t.left, t.to.seq)
	}
	return fmt.Appendf(b, "id: %s\n\n", t.to)
}

// A feed looks for changes on behalf of all tails of one view with the same filters. As with a watch, there is no
// goroutine of its own: of the tails that wait, one looks, and all are sent what it found. If it goes away, its
// query ends, and another's turn comes.
type feed struct {
	every    time.Duration
	fallback time.Duration
	pulse    *pulse
	read     func(ctx context.Context, from place) (*tick, error) // nil: nothing has changed
	turn     chan struct{}                                        // full: somebody looks
	members  int                                                  // guarded by the feeds' mutex

	mu      sync.Mutex    // guards what follows
	last    *tick         // nil: there was none
	changed chan struct{} // closed when last is another
}

func (f *feed) latest() (*tick, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, f.changed
}

// next waits for what changed behind a place. What it returns may have more that was sent before; nothing is
// left out.
func (f *feed) next(ctx context.Context, at place) (*tick, error) {
	for {
		last, changed := f.latest()
		switch {
		case last == nil:
		case last.err != nil:
			return nil, last.err
		case last.to.flip < at.flip: // a tail that has looked by itself since
		case last.from.seq > at.seq && last.to != at: // a tail that went on from before, or was slow
			if t, err := f.read(ctx, at); t != nil || err != nil {
				return t, err
			}
		case last.to.flip > at.flip || last.to.seq > at.seq:
			return last, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		case f.turn <- struct{}{}:
			// Between our look at the last and our turn, another may have had its turn.
			if now, _ := f.latest(); now == last {
				f.look(ctx, last, at)
			}
			<-f.turn
		}
	}
}

// look waits until something has changed behind the last tick, or else behind at. If ctx ends, the next one in
// turn does.
func (f *feed) look(ctx context.Context, last *tick, at place) {
	if last != nil {
		at = last.to
		select {
		case <-after(last.began.Add(f.every)):
		case <-ctx.Done():
			return
		}
	}
	for {
		hint := f.pulse.next()
		began := time.Now()
		t, err := f.read(ctx, at)
		if ctx.Err() != nil {
			return
		}
		if t == nil && err == nil {
			select {
			case <-hint:
			case <-time.After(f.fallback):
			case <-ctx.Done():
				return
			}
			select {
			case <-after(began.Add(f.every)):
				continue
			case <-ctx.Done():
				return
			}
		}
		if t == nil {
			t = &tick{to: at, err: err}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		close(f.changed)
		f.last, f.changed = t, make(chan struct{})
		return
	}
}

// feeds are those that somebody follows.
type feeds struct {
	pulse    *pulse
	fallback time.Duration // 0: as every

	mu    sync.Mutex // guards what follows
	tails int
	all   map[[sha256.Size]byte]*feed
}

// join takes a place among the tails, and in the feed of those that ask for the same. Whoever joins must leave.
func (s *feeds) join(t *tailing, most int, read func(context.Context, place) (*tick, error)) (*feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tails >= most {
		return nil, problem(Busy, "%d tails are open, which is the most", s.tails)
	}
	f := s.all[t.key]
	if f != nil {
		if last, _ := f.latest(); last != nil && last.err != nil {
			f = nil // all who follow it end
		}
	}
	if f == nil {
		f = &feed{every: t.every, fallback: max(s.fallback, t.every), pulse: s.pulse, read: read, turn: make(chan struct{}, 1), changed: make(chan struct{})}
		s.all[t.key] = f
	}
	s.tails++
	f.members++
	return f, nil
}

// leave gives the place back. A feed that nobody follows is forgotten.
func (s *feeds) leave(t *tailing, f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tails--
	if f.members--; f.members == 0 && s.all[t.key] == f {
		delete(s.all, t.key)
	}
}

// A pulse passes hints on to all who wait for one.
type pulse struct {
	mu sync.Mutex
	c  chan struct{}
}

// next is closed at the next hint.
func (p *pulse) next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.c
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.c)
	p.c = make(chan struct{})
}

// stands looks where a tail's view stands now.
func (a *api) stands(ctx context.Context, t *tailing) (live schemas.Live, here place, reach Reach, err error) {
	now, err := a.viewOf(ctx, t.view.Name())
	if err != nil {
		return live, here, reach, err
	}
	if now.Plan != t.view.Plan {
		return live, here, reach, problem(NotCovered, "the definition of view %s has changed; open the tail again", t.view.Name())
	}
	began := time.Now()
	waiting, cancel := context.WithTimeout(ctx, a.config.Timeout)
	defer cancel()
	a.watch.stored() // something may be
	l, err := a.watch.await(waiting, func(l *look) bool { return l.began.After(began) })
	if err != nil {
		if l.err != nil && ctx.Err() == nil {
			err = l.err
		}
		return live, here, reach, problemOf(ctx, err)
	}
	for _, p := range l.Plans {
		if p.Plan == t.view.Plan {
			return l.Live, place{p.Position, l.Live.Flip}, p, nil
		}
	}
	return live, here, reach, problem(NotCovered, "build %d does not cover view %s, whose definition is newer; the next batch will", l.Live.Build, t.view.Name())
}

// changes reads what changed in a view behind a place; nil: nothing has. Groups and values are of one flip: the
// number before the query and the number after it are the same, as with a.query. The position was read before:
// every flush up to there is in what the query reads.
func (a *api) changes(ctx context.Context, t *tailing, from place) (*tick, error) {
	for range maxAttempts {
		began := time.Now()
		live, here, reach, err := a.stands(ctx, t)
		if err != nil {
			return nil, err
		}
		if here == from {
			return nil, nil
		}
		if here.flip != from.flip {
			from.seq = min(from.seq, here.seq) // a position may come again under another flip
		}
		k := &tick{began: began, from: from, to: here, live: live}
		if reach.States <= from.seq { // nothing was flushed
			return k, nil
		}
		if err := a.readChanges(ctx, t, k, reach.SpeedTable); err != nil {
			return nil, a.explain(ctx, []View{t.view}, err)
		}
		after, err := a.deps.Catalog.Live(ctx)
		if err != nil {
			return nil, problemOf(ctx, err)
		}
		if after.Flip == here.flip {
			return k, nil
		}
	}
	return nil, problem(BuildChanged, "the live build changed %d times while the query was analysed; try again", maxAttempts)
}

// readChanges runs the query of a tick.
func (a *api) readChanges(ctx context.Context, t *tailing, k *tick, speedTable string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, a.config.Timeout+overtime)
	defer cancel()
	q := Query{SQL: t.changesSQL(speedTable), Parameters: escaped(t.parameters), Timeout: a.config.Timeout, Rows: t.groups}
	if len(t.dimensions) > 0 {
		q.Parameters["last"], q.Parameters["groups"] = strconv.FormatUint(k.from.seq, 10), strconv.FormatUint(t.groups, 10)
	}
	rows, err := a.deps.Reader.Query(ctx, q)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns := rows.Columns()
	dims, total := len(t.dimensions), len(columns)-1
	count, sent := "", uint64(0)
	object := func(from, to int) {
		for i := from; i < to; i++ {
			if i > from {
				k.groups = append(k.groups, ',')
			}
			k.groups = append(appendString(k.groups, columns[i].Name), ':')
			k.groups = rows.AppendJSON(k.groups, i)
		}
	}
	for ; rows.Next(); sent++ {
		k.groups = append(k.groups, `data: {"dimensions":{`...)
		object(0, dims)
		k.groups = append(k.groups, `},"measures":{`...)
		object(dims, total)
		k.groups = fmt.Appendf(k.groups, "},\"position\":%d}\n\n", k.to.seq)
		count = string(rows.AppendJSON(nil, total))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if n, err := strconv.ParseUint(count, 10, 64); err == nil && n > sent {
		k.left = n - sent
	}
	return nil
}
