package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// defaultWait is how long a position is waited for if the request does not say.
const defaultWait = 5 * time.Second

// A token is the position that an answer must show.
type token struct {
	min  uint64        // 0: any
	view string        // that the query reads; empty: it may read all
	wait time.Duration // until then
}

// token reads it out of a request: of header and parameter the greater counts.
func (a *api) token(r request, view string) (token, error) {
	t := token{view: view, wait: defaultWait}
	text, err := once(r.query, "min_position")
	if err != nil {
		return t, err
	}
	for _, s := range append(r.header.Values("Watershed-Min-Position"), text) {
		if s == "" {
			continue
		}
		// Answers say shard:sequence. There is one shard.
		seq, err := strconv.ParseUint(strings.TrimPrefix(s, "0:"), 10, 64)
		if err != nil {
			return t, badParameter("min_position", "%q: want a position of the log, like 1234 or 0:1234", s)
		}
		t.min = max(t.min, seq)
	}
	wait, err := once(r.query, "max_wait")
	if err != nil {
		return t, err
	}
	if wait != "" {
		var ok bool
		if t.wait, ok = seconds(wait); !ok {
			return t, badParameter("max_wait", "%q: want seconds, more than 0", wait)
		}
	}
	return t, nil
}

// reads reports whether the query may read a view of the live build. A plan that nothing defines any more may
// have had any name.
func (t token) reads(r Reach) bool { return t.view == "" || r.Name() == "" || r.Name() == t.view }

// reached reports whether all that the query may read shows the position.
func (t token) reached(r *Reached) bool {
	for _, p := range r.Plans {
		if t.reads(p) && p.Position < t.min {
			return false
		}
	}
	return true
}

// least is the position that all show that the query may read; the token's own if it reads none.
func (t token) least(r *Reached) uint64 {
	least, any := t.min, false
	for _, p := range r.Plans {
		if t.reads(p) && (!any || p.Position < least) {
			least, any = p.Position, true
		}
	}
	return least
}

// await waits until the live build shows the token's position, and says what an answer sees at least, as long
// as that flip holds: positions do not go back under it. Looks up to number past do not count.
//
// A view that the live build does not cover is not waited for: it throws.
func (a *api) await(ctx context.Context, t token, past uint64) (*look, error) {
	l, err := a.watch.await(ctx, func(l *look) bool {
		if l.n <= past {
			return false
		}
		if t.reached(&l.Reached) {
			return true
		}
		if a.deps.Wanted != nil && a.wanted.Swap(l.n+1) != l.n+1 { // once for all who wait
			a.deps.Wanted()
		}
		return false
	})
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	if l.err != nil {
		return nil, problemOf(context.WithoutCancel(ctx), l.err)
	}
	return nil, a.behind(context.WithoutCancel(ctx), t, &l.Reached)
}

// A Lagging view does not show a position that was asked for.
type Lagging struct {
	View     string `json:"view,omitempty"`
	Plan     string `json:"plan" doc:"Its hash"`
	Position uint64 `json:"position" doc:"Last sequence of the log that it shows"`
	Reason   string `json:"reason"`
}

// behind is the problem of a position that was not reached in time.
func (a *api) behind(ctx context.Context, t token, r *Reached) *Problem {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	info, infoErr := a.deps.Log.Info(ctx)
	var lagging []Lagging
	var names []string
	current := t.least(r)
	for _, p := range r.Plans {
		if !t.reads(p) || p.Position >= t.min {
			continue
		}
		why := ""
		switch {
		case p.Name() == "":
			why = "nothing defines this plan of the live build any more: run a batch"
		case infoErr != nil:
			why = "the log does not answer: " + infoErr.Error()
		case info.stranded(p.Position):
			why = "the log no longer has what comes next: run a batch"
		case t.min > info.Last:
			why = fmt.Sprintf("the log ends at %d", info.Last)
		case a.deps.Lagging != nil:
			why = a.deps.Lagging(p.Plan)
		}
		if why == "" {
			why = "the speed layer has not stored it yet: /v1/status says more"
		}
		lagging = append(lagging, Lagging{View: p.Name(), Plan: p.Plan, Position: p.Position, Reason: why})
		names = append(names, fmt.Sprintf("%s is at %d (%s)", p.Name(), p.Position, why))
	}
	p := problem(NotReached, "position %d was not reached within %s: %s", t.min, t.wait, strings.Join(names, "; "))
	p.MinPosition, p.CurrentPosition, p.Lagging = t.min, &current, lagging
	p.header.Set("Watershed-Position", "0:"+strconv.FormatUint(current, 10))
	return p
}
