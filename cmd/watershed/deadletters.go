package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"watershed/internal/decode"
	"watershed/internal/eventlog"
	"watershed/serving/api"
)

const (
	countedLetters = 100_000 // dead letters that are looked at to count their reasons
	shownReasons   = 20      // beyond which they are counted together
)

// deadLetters is the log's dead letters as commands and endpoint want them.
type deadLetters struct {
	log    *eventlog.Log
	counts *deadCounts
}

func newDeadLetters(log *eventlog.Log) deadLetters { return deadLetters{log, &deadCounts{}} }

// deadCounts remembers what has been counted, so that only new letters are read.
type deadCounts struct {
	mu     sync.Mutex // guards what follows
	behind uint64     // the letter up to which they are counted
	total  uint64
	by     map[kind]uint64
}

type kind struct{ eventType, reason string }

// Counts counts the dead letters by type and reason, most first.
func (d deadLetters) Counts(ctx context.Context) ([]api.DeadCount, error) {
	info, err := d.log.Info(ctx)
	if err != nil {
		return nil, err
	}
	c := d.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	for again := range 2 {
		if c.by == nil {
			c.behind, c.total, c.by = 0, 0, make(map[kind]uint64)
		}
		if c.total < countedLetters && c.total < info.DeadLetters {
			for l, err := range d.log.DeadLetters(ctx, eventlog.DeadLetterFilter{Behind: c.behind, Limit: int(countedLetters - c.total)}) {
				if err != nil {
					return nil, err
				}
				c.behind = l.Number
				c.total++
				c.by[kind{l.Type, l.Reason}]++
			}
		}
		// Letters were replayed or dropped since: what is counted may be gone.
		if c.total <= info.DeadLetters || again > 0 {
			break
		}
		c.by = nil
	}
	return c.sorted(info.DeadLetters), nil
}

func (c *deadCounts) sorted(total uint64) []api.DeadCount {
	var out []api.DeadCount
	for k, n := range c.by {
		out = append(out, api.DeadCount{Type: k.eventType, Reason: k.reason, Count: n})
	}
	slices.SortFunc(out, func(x, y api.DeadCount) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.Type, y.Type), cmp.Compare(x.Reason, y.Reason))
	})
	rest := total - min(c.total, total)
	for len(out) > shownReasons {
		rest += out[len(out)-1].Count
		out = out[:len(out)-1]
	}
	if rest > 0 {
		out = append(out, api.DeadCount{Type: "*", Reason: "others", Count: rest})
	}
	return out
}

// List returns the letters that match, oldest first.
func (d deadLetters) List(ctx context.Context, f api.DeadFilter) (letters []api.DeadLetter, more bool, err error) {
	for _, filter := range filters(f) {
		filter.Limit = 0
		for l, err := range d.log.DeadLetters(ctx, filter) {
			if err != nil {
				return letters, more, err
			}
			if f.Limit > 0 && len(letters) == f.Limit {
				return letters, true, nil
			}
			letters = append(letters, letterOf(l))
		}
	}
	return letters, false, nil
}

// filters are the log's filters that together select what f does: one for each id.
func filters(f api.DeadFilter) []eventlog.DeadLetterFilter {
	one := eventlog.DeadLetterFilter{Type: f.Type, Reason: f.Reason, Since: f.Since, Until: f.Until, Limit: f.Limit}
	if len(f.IDs) == 0 {
		return []eventlog.DeadLetterFilter{one}
	}
	out := make([]eventlog.DeadLetterFilter, len(f.IDs))
	for i, id := range f.IDs {
		out[i] = one
		out[i].ID = id
	}
	return out
}

func letterOf(l eventlog.DeadLetter) api.DeadLetter {
	out := api.DeadLetter{ID: l.ID, Type: l.Type, Seq: l.Seq, Row: l.Row, Time: l.Time, Reason: l.Reason, Payload: l.Payload}
	if l.Size > len(l.Payload) {
		out.Truncated = l.Size
	}
	return out
}

// Replay publishes the letters that fit today's definitions, and leaves the others.
func (d deadLetters) Replay(ctx context.Context, f api.DeadFilter) (out api.DeadOutcome, err error) {
	fits, err := d.fit(ctx)
	if err != nil {
		return out, err
	}
	var chosen []string
	for _, filter := range filters(f) {
		for l, err := range d.log.DeadLetters(ctx, filter) {
			if err != nil {
				return out, err
			}
			letter := letterOf(l)
			if letter.Reason = fits(&l); letter.Reason != "" {
				out.Left = append(out.Left, letter)
			} else {
				chosen = append(chosen, l.ID)
			}
		}
	}
	// All that match go at once; if some stay, the others go one by one.
	todo := filters(f)
	if len(out.Left) > 0 || f.Limit > 0 {
		todo = filters(api.DeadFilter{IDs: chosen})
		if len(chosen) == 0 {
			todo = nil
		}
	}
	for _, filter := range todo {
		r, err := d.log.ReplayDeadLetters(ctx, filter)
		out.Replayed += r.Replayed
		for _, l := range r.Refused {
			letter := letterOf(l)
			letter.Reason = fmt.Sprintf("of its %d bytes %d were kept, and the log no longer has the others", l.Size, len(l.Payload))
			out.Left = append(out.Left, letter)
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// fit returns a function that says why a letter does not fit the definitions of the log's last
// cut; empty if it does.
func (d deadLetters) fit(ctx context.Context) (func(*eventlog.DeadLetter) string, error) {
	cut, ok, err := d.log.LastCut(ctx)
	if err != nil || !ok {
		return nil, errors.Join(err, eventlog.ErrNoCut)
	}
	decoders := make(map[string]*decode.Decoder)
	return func(l *eventlog.DeadLetter) string {
		ev := cut.Definitions.Event(l.Type)
		if ev == nil {
			return fmt.Sprintf("event type %s is not defined", l.Type)
		}
		if l.Size > len(l.Payload) {
			return "" // cut off: the log may have the rest, and says so
		}
		dec := decoders[l.Type]
		if dec == nil {
			dec = decode.New(ev, eventlog.Limits(&cut))
			decoders[l.Type] = dec
		}
		format, err := decode.FormatOf(func(name string) string { return l.Header[name] })
		if err != nil {
			return err.Error()
		}
		bad := dec.AppendAs(format, l.Payload, l.Seq, time.Now()) // when it will be in the log
		dec.Discard()                                             // the check alone was wanted
		// Of a whole message some events may fit; it goes when one does, as it came.
		if len(bad) > 0 && (l.Row >= 0 || bad[0].Row < 0) {
			return bad[0].Reason
		}
		return ""
	}, nil
}

// Drop removes the letters that match for good.
func (d deadLetters) Drop(ctx context.Context, f api.DeadFilter) (out api.DeadOutcome, err error) {
	for _, filter := range filters(f) {
		n, err := d.log.DropDeadLetters(ctx, filter)
		out.Dropped += n
		if err != nil {
			return out, err
		}
	}
	return out, nil
}
