package speed

import (
	"fmt"
	"slices"
	"time"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

// generations is how many parts a horizon is divided into. The oldest is dropped as a whole,
// when what is left covers the horizon.
const generations = 12

// A window remembers the events of the last stretch of log: an event is a duplicate if one with the same
// identity is remembered. It is fed in log order, each event once, so that what is remembered stands before.
//
// Events that fill it take 14.7 bytes each (prints), and up to a twelfth more than the rows asked for are
// remembered: the default of 9,000,000, which is a horizon of 15 minutes at 10,000 events a second, takes 137 MiB
// (TestWindowBytes measures it).
type window struct {
	horizon time.Duration
	rows    int // remembered at most, but for the youngest generation
	known   *prints
	ages    []uint32               // of the generations, the youngest last
	began   time.Time              // log time of the youngest generation's first event
	prints  []identity.Fingerprint // of the block at hand
	touched uint32                 // what touching read: of no use, but not left out for that
}

func newWindow(horizon time.Duration, rows int) *window {
	return &window{horizon: horizon, rows: rows, known: newPrints(rows + rows/generations)}
}

// filter remembers the events of one type in a chunk, and returns the rows of their block that
// are no duplicates; nil if none is one.
func (w *window) filter(ev *schemas.Event, b *column.Block, c *schemas.Chunk) ([]int32, error) {
	var err error
	if w.prints, err = identity.Of(w.prints[:0], ev, b); err != nil {
		return nil, fmt.Errorf("identities of %s: %w", ev.Name, err)
	}
	if len(w.ages) == 0 || c.LastTime.Sub(w.began) >= w.horizon/generations {
		w.turn(c)
	}
	return w.look(c), nil
}

// look remembers the events of w.prints, and returns the rows of those that are no duplicates; nil if none is one.
func (w *window) look(c *schemas.Chunk) (kept []int32) {
	for from := 0; from < len(w.prints); from += ahead {
		some := w.prints[from:min(from+ahead, len(w.prints))]
		touched := uint32(0)
		for _, print := range some {
			touched ^= w.known.touch(print)
		}
		w.touched = touched
		for i, print := range some {
			row := int32(from + i)
			if dup := w.seen(print, c); dup && kept == nil {
				kept = make([]int32, 0, len(w.prints))
				for j := range row {
					kept = append(kept, j)
				}
			} else if !dup && kept != nil {
				kept = append(kept, row)
			}
		}
	}
	return kept
}

// ahead is how many searches begin at once. With nine million events remembered that halved the time of
// looking for duplicates: memory is waited for once.
const ahead = 32

// seen remembers an event of a chunk, and reports whether it is a duplicate.
func (w *window) seen(print identity.Fingerprint, c *schemas.Chunk) bool {
	young := w.ages[len(w.ages)-1]
	if w.known.count[young] >= max(1, w.rows/generations) {
		young = w.turn(c)
	}
	return w.known.add(print, young)
}

// turn begins a new generation, because the youngest covers its share of the horizon or of the memory, and
// drops what lies behind the horizon.
func (w *window) turn(c *schemas.Chunk) uint32 {
	w.began = c.LastTime
	young := uint32(1)
	if n := len(w.ages); n > 0 {
		young = w.ages[n-1]%ages + 1
	}
	w.ages = append(w.ages, young)
	if len(w.ages) > generations+1 {
		w.known.drop(w.ages[0])
		w.ages = slices.Delete(w.ages, 0, 1)
	}
	return young
}

// size is how many events are remembered, and the bytes that they take.
func (w *window) size() (events int, bytes int64) { return w.known.size() }
