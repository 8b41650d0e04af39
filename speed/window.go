package speed

import (
	"time"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

// generations is how many tables a horizon is divided into. The oldest is dropped as a whole,
// when what is left covers the horizon.
const generations = 8

// A window remembers the events of the last stretch of log. An event is a duplicate only if
// one with the same identity and a smaller place is remembered: reading the same stretch
// again finds none.
type window struct {
	horizon time.Duration
	rows    int // remembered at most
	tables  []*identity.Table
	began   time.Time              // log time of the youngest table's first event
	prints  []identity.Fingerprint // of the block at hand
	places  []identity.Place
}

func newWindow(horizon time.Duration, rows int) *window {
	return &window{horizon: horizon, rows: rows, tables: []*identity.Table{{}}}
}

// filter remembers a block's events, which the log holds up to the time at, and returns the
// rows that are no duplicates; nil if none is one.
func (w *window) filter(ev *schemas.Event, b *column.Block, at time.Time) ([]int32, error) {
	w.turn(at)
	var err error
	if w.prints, err = identity.Of(w.prints[:0], ev, b); err != nil {
		return nil, err
	}
	if w.places, err = identity.Places(w.places[:0], b, 0); err != nil {
		return nil, err
	}
	var kept []int32
	for i, print := range w.prints {
		if dup := w.seen(print, w.places[i]); dup && kept == nil {
			kept = make([]int32, 0, b.Len())
			for j := range i {
				kept = append(kept, int32(j))
			}
		} else if !dup && kept != nil {
			kept = append(kept, int32(i))
		}
	}
	return kept, nil
}

func (w *window) seen(print identity.Fingerprint, here identity.Place) bool {
	young := w.tables[len(w.tables)-1]
	for _, t := range w.tables[:len(w.tables)-1] {
		if first, ok := t.First(print); ok {
			return first.Before(here)
		}
	}
	first, _ := young.See(print, here)
	return first.Before(here)
}

// turn begins a new table when the youngest covers its share of the horizon or of the
// memory, and drops what lies behind the horizon.
func (w *window) turn(at time.Time) {
	if w.began.IsZero() {
		w.began = at
	}
	young := w.tables[len(w.tables)-1]
	if at.Sub(w.began) < w.horizon/generations && young.Len() < w.rows/generations {
		return
	}
	w.began = at
	w.tables = append(w.tables, &identity.Table{})
	if len(w.tables) > generations+1 {
		w.tables = w.tables[1:]
	}
}

// bytes is the memory held.
func (w *window) bytes() (n int64) {
	for _, t := range w.tables {
		n += t.Bytes()
	}
	return n
}
