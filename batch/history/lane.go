package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"watershed/internal/crash"
	"watershed/schemas"
)

// A type that is set aside.
type aside struct {
	err   error
	from  *schemas.Position // where it stood or was to begin; nil: not known. Its table may be further on.
	tries int
	next  time.Time // of the next try
}

// pauses are those before tries to bring a type back: they double from first to most.
type pauses struct{ first, most time.Duration }

var defaultPauses = pauses{time.Second, time.Minute}

func (p pauses) before(try int) time.Duration {
	d := p.first
	for range try {
		if d *= 2; d >= p.most {
			return p.most
		}
	}
	return d
}

// Failing are, by event type, the errors for which types are set aside now. It may be called while Run
// runs.
func (a *Archiver) Failing() map[string]error {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]error, len(a.aside))
	for name, x := range a.aside {
		out[name] = x.err
	}
	return out
}

func (a *Archiver) isAside(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.aside[name] != nil
}

// isolated tells whether an error concerns one type only.
func isolated(ctx context.Context, err error) bool {
	var conflict *conflictError
	var other *otherLogError
	return ctx.Err() == nil && !errors.As(err, &conflict) && !errors.As(err, &other)
}

// setAside takes a type out until a lane has brought it back. from is where it stands or was to begin, if
// that is known.
//
// A type that takes events says in its table where it goes on. One that was to begin at a cut, or that a
// lane has read up to where it ended for a while, does not: so the commits of the other types say which
// types are set aside, and from where. No type commits behind a cut that such a type has not passed
// without saying so.
func (a *Archiver) setAside(name string, err error, from *schemas.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, known := a.positions[name]
	switch {
	case from == nil && known:
		from = &at
	case from != nil && !known:
		a.positions[name] = *from
	case !known:
		a.positions[name] = schemas.Position{}
	}
	wait := a.pause.before(0)
	a.aside[name] = &aside{err: err, from: from, next: time.Now().Add(wait)}
	a.cfg.Log.Error("archiver: a type is set aside, the others go on", "type", name, "retry_in", wait, "error", err)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// note says in a change which types are set aside, as the table's txns do not yet.
func (a *Archiver) note(c *change, recorded map[string]int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	want := map[string]int64{}
	for name, x := range a.aside {
		if x.from == nil {
			continue
		}
		want[a.cfg.App+asideInfix+name] = int64(x.from.Seq) + 1
		want[a.cfg.App+asideInfix+name+hashSuffix] = int64(x.from.Hash)
	}
	for app, v := range recorded {
		if _, still := want[app]; !still && strings.HasPrefix(app, a.cfg.App+asideInfix) && v != 0 {
			want[app] = 0
		}
	}
	for app, v := range want {
		had, ok := recorded[app]
		if ok {
			c.expect[app] = had
		}
		if !ok || had != v {
			c.txns = append(c.txns, txn{AppID: app, Version: v})
		}
	}
}

// noted are the types that a table's txns say are set aside, and from where.
func (a *Archiver) noted(txns map[string]int64) map[string]schemas.Position {
	out := map[string]schemas.Position{}
	for app, seq := range txns {
		name, ok := strings.CutPrefix(app, a.cfg.App+asideInfix)
		if ok && seq != 0 && !strings.HasSuffix(name, hashSuffix) {
			out[name] = schemas.Position{Seq: uint64(seq - 1), Hash: uint64(txns[app+hashSuffix])}
		}
	}
	return out
}

// goRetry brings types back beside Run. The context that it returns ends when join is called, which
// waits for the end and passes a panic on.
func (a *Archiver) goRetry(ctx context.Context) (run context.Context, join func()) {
	run, cancel := context.WithCancel(ctx)
	ended := make(chan any, 1)
	go func() {
		defer func() {
			p := recover()
			cancel()
			ended <- p
		}()
		a.retry(run)
	}()
	return run, func() {
		cancel()
		if p := <-ended; p != nil {
			panic(p)
		}
	}
}

// retry brings the types back that are set aside, one at a time, which bounds memory, until ctx ends.
func (a *Archiver) retry(ctx context.Context) {
	for ctx.Err() == nil {
		name, wait, any := a.nextTry()
		if any && wait <= 0 {
			if err := a.bringBack(ctx, name); err != nil && ctx.Err() == nil {
				a.tryLater(name, err)
			}
			continue
		}
		var due <-chan time.Time
		if any {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-due:
		case <-a.wake:
		case <-ctx.Done():
		}
	}
}

// nextTry is the type to be tried next, and how long from now.
func (a *Archiver) nextTry() (name string, wait time.Duration, any bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n, x := range a.aside {
		if d := time.Until(x.next); !any || d < wait {
			name, wait, any = n, d, true
		}
	}
	return name, wait, any
}

func (a *Archiver) tryLater(name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.aside[name]
	x.tries++
	x.err = a.explain(err)
	wait := a.pause.before(x.tries)
	x.next = time.Now().Add(wait)
	a.cfg.Log.Warn("archiver: a type is still set aside", "type", name, "tries", x.tries, "retry_in", wait, "error", x.err)
}

// bringBack reads the log for one type, from what its table says until it is level with the others, and
// lets it join them. It never commits beyond them, since what they record says how far the rejects are
// in the dead letters.
func (a *Archiver) bringBack(ctx context.Context, name string) error {
	after, gone, err := a.standsAt(ctx, name)
	if err != nil {
		return err
	}
	if gone {
		a.back(name)
		a.forget(name)
		return nil
	}
	source, cut, err := a.cfg.Source(ctx, after, name)
	if err != nil {
		return fmt.Errorf("open the log behind %d: %w", after.Seq, err)
	}
	defer source.Close()
	lane := &reading{owner: a, only: name, types: map[string]*archivedType{}, maxBytes: a.cfg.MaxBytes / 4}
	defer lane.drop()
	if err := lane.begin(ctx, cut, after); err != nil {
		return err
	}
	at := after
	if joined, err := a.join(ctx, lane, at, nil); joined || err != nil {
		return err
	}
	for {
		due, waits := lane.due()
		chunk, err := next(ctx, source, due, waits)
		if err != nil {
			return err
		}
		if chunk != nil {
			if joined, err := a.join(ctx, lane, at, chunk); joined || err != nil {
				return err
			}
			if err := lane.take(ctx, chunk); err != nil {
				return err
			}
			at = chunk.Last
		}
		// If we stop here or anywhere in a lane, the table says how far it came, and the next try, or the
		// next process, goes on from there.
		if err := lane.commitDue(ctx); err != nil {
			return err
		}
		if joined, err := a.join(ctx, lane, at, nil); joined || err != nil {
			return err
		}
	}
}

// standsAt is where a type that is set aside goes on; gone, if it takes no events any more.
func (a *Archiver) standsAt(ctx context.Context, name string) (at schemas.Position, gone bool, err error) {
	p, ended, err := a.recorded(ctx, name)
	none := errors.Is(err, fs.ErrNotExist)
	if err != nil && !none {
		return p, false, err
	}
	if !none && !ended {
		return p, false, nil
	}
	a.turn.Lock()
	defined := a.defined[name]
	a.turn.Unlock()
	a.mu.Lock()
	x := *a.aside[name]
	a.mu.Unlock()
	switch {
	case x.from != nil && x.from.Seq > p.Seq:
		return *x.from, false, nil
	case x.from != nil:
		return p, false, nil // it begins with the log, or it ended, and the lane finds out whether it began again
	case !defined:
		return p, true, nil
	}
	return p, false, fmt.Errorf("%s is defined, but its history ends at %d: restore it (before: %w)", name, p.Seq, x.err)
}

// join lets a lane's type take part again if the lane, which stands at a position, has read all that the
// archiver has, be it with the chunk given. The archiver waits meanwhile.
func (a *Archiver) join(ctx context.Context, lane *reading, at schemas.Position, chunk *schemas.Chunk) (bool, error) {
	a.turn.Lock()
	defer a.turn.Unlock()
	if chunk == nil && at.Seq < a.at.Seq || chunk != nil && chunk.Last.Seq <= a.at.Seq {
		return false, nil
	}
	t := lane.types[lane.only]
	if t == nil && a.defined[lane.only] {
		return false, fmt.Errorf("%s is defined, but has not begun", lane.only)
	}
	if t != nil {
		if chunk != nil {
			if err := t.add(chunk, a.at); err != nil {
				return false, err
			}
		}
		if t.position.Seq < a.at.Seq {
			if err := t.commit(ctx, a.at, false); err != nil {
				return false, err
			}
		}
		crash.At("history.level")
		a.step(stepLevel)
		delete(lane.types, lane.only)
		a.main.types[lane.only] = t
	} else {
		a.forget(lane.only)
	}
	a.back(lane.only)
	return true, nil
}

// back ends that a type is set aside.
func (a *Archiver) back(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.aside, name)
	a.cfg.Log.Info("archiver: a type is back", "type", name)
}
