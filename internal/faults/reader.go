package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// readEvery is the pause between two answers that nobody waits for.
const readEvery = 700 * time.Millisecond

// A reader asks for the totals of all views all through, and holds each answer against what can be
// known at that moment, whatever is broken:
//
//   - two views of a type show the same imports, and so does every answer of one build;
//   - a total is at least what the log had acknowledged up to the position that the answer names,
//     and at most what had been sent when it came;
//   - a total never goes down, except by duplicates that a new build heals.
type reader struct {
	endpoint string
	views    []viewSpec
	ledger   *ledger
	report   func(kind violation, text string)
	now      chan struct{} // holds a token when somebody waits for the next answer

	mu      sync.Mutex // guards what follows
	last    *answer
	answers int
	errors  int
	reason  error // of the last error
	resting bool  // the log was begun anew: positions name another log for a while
}

func (r *reader) run(ctx context.Context) error {
	sql := totalsSQL(r.views)
	known := make(map[uint64]map[string]int64) // by build
	var before *answer
	mayDrop := make(map[string]int64) // duplicates that `before` may have shown
	for r.pause(ctx) == nil {
		a, err := ask(ctx, r.endpoint, sql)
		r.note(a, err)
		if err != nil {
			continue
		}
		r.checkMix(a, known)
		r.checkBounds(a)
		if before != nil {
			r.checkDrops(before, a, mayDrop)
		}
		before = a
		for _, v := range r.views {
			mayDrop[v.eventType] = r.ledger.mayDrop(v.eventType)
		}
	}
	return nil
}

// pause waits for the time of the next answer.
func (r *reader) pause(ctx context.Context) error {
	t := time.NewTimer(readEvery)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.now:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// hurry makes the reader ask soon.
func (r *reader) hurry() {
	select {
	case r.now <- struct{}{}:
	default:
	}
}

func (r *reader) note(a *answer, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.errors++
		r.reason = err
		return
	}
	r.answers++
	r.last = a
}

// latest is the newest answer; nil: none yet.
func (r *reader) latest() *answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// again waits for an answer to a question that is put after the call.
func (r *reader) again(ctx context.Context) error {
	for from := time.Now(); ; {
		if a := r.latest(); a != nil && a.asked.After(from) {
			return nil
		}
		r.hurry()
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("no answer: %w", errors.Join(err, r.why()))
		}
	}
}

func (r *reader) why() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reason
}

func (r *reader) counts() (answers, errors int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answers, r.errors
}

// rest suspends the check of positions.
func (r *reader) rest(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resting = on
}

func (r *reader) checkMix(a *answer, known map[uint64]map[string]int64) {
	marks := a.marks(r.views)
	for _, v := range r.views {
		if got := a.sum(v.name).marks; got != marks[v.eventType] {
			r.report(mixed, fmt.Sprintf("build %d: view %s shows %d imports, another view of %s shows %d", a.build, v.name, got, v.eventType, marks[v.eventType]))
		}
	}
	if known[a.build] == nil {
		known[a.build] = marks
	}
	for t, n := range known[a.build] {
		if marks[t] != n {
			r.report(mixed, fmt.Sprintf("build %d shows %d imports of %s, and showed %d before", a.build, marks[t], t, n))
		}
	}
}

func (r *reader) checkBounds(a *answer) {
	marks := a.marks(r.views)
	r.mu.Lock()
	resting := r.resting
	r.mu.Unlock()
	for _, v := range r.views {
		if !v.all {
			continue
		}
		n := a.sum(v.name).n
		least, most := r.ledger.bounds(v.eventType, a.position, marks[v.eventType])
		if n < least && !resting {
			r.report(lost, fmt.Sprintf("build %d, position %d: view %s shows %d events; %d were acknowledged up to there", a.build, a.position, v.name, n, least))
		}
		if n > most {
			r.report(double, fmt.Sprintf("build %d, position %d: view %s shows %d events; %d were sent", a.build, a.position, v.name, n, most))
		}
	}
}

func (r *reader) checkDrops(before, a *answer, mayDrop map[string]int64) {
	for _, v := range r.views {
		fell := before.sum(v.name).n - a.sum(v.name).n
		allowed := int64(0)
		if a.build != before.build {
			allowed = mayDrop[v.eventType]
		}
		if fell > allowed {
			r.report(lost, fmt.Sprintf("view %s went down by %d from build %d to %d; %d duplicates could be healed", v.name, fell, before.build, a.build, allowed))
		}
	}
}
