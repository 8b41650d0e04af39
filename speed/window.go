package speed

import (
	"fmt"
	"math"
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
// again finds none. It is fed in log order.
//
// An entry is 24 bytes, and a table is three eighths to three quarters full, so that an event
// takes 32 to 64 bytes. The default of rows fills each table to three quarters: 113 MB hold
// 3.1 to 3.5 million events, 32 bytes each (TestWindowBytes measures it).
type window struct {
	horizon time.Duration
	rows    int // remembered at most, but for the youngest table
	tables  []*generation
	began   time.Time              // log time of the youngest table's first event
	prints  []identity.Fingerprint // of the block at hand
}

// A generation is the identities that were first seen in one part of the horizon.
type generation struct {
	identity.Map[place]
	base uint64 // places are relative to this sequence
}

// A place is where an event was seen, relative to its generation's base.
type place struct{ seq, row uint32 }

func newWindow(horizon time.Duration, rows int) *window {
	return &window{horizon: horizon, rows: rows}
}

// filter remembers the events of one type in a chunk, and returns the rows of their block that
// are no duplicates; nil if none is one.
func (w *window) filter(ev *schemas.Event, b *column.Block, c *schemas.Chunk) ([]int32, error) {
	seqs, err := b.Field(schemas.SeqColumn)
	if err != nil {
		return nil, err
	}
	rows, err := b.Field(schemas.RowColumn)
	if err != nil {
		return nil, err
	}
	if w.prints, err = identity.Of(w.prints[:0], ev, b); err != nil {
		return nil, fmt.Errorf("identities of %s: %w", ev.Name, err)
	}
	if len(w.tables) == 0 || c.LastTime.Sub(w.began) >= w.horizon/generations {
		w.turn(c)
	}
	var kept []int32
	for i, print := range w.prints {
		if dup := w.seen(print, uint64(seqs.Ints[i]), uint32(rows.Ints[i]), c); dup && kept == nil {
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

// seen remembers an event of a chunk, and reports whether it is a duplicate.
func (w *window) seen(print identity.Fingerprint, seq uint64, row uint32, c *schemas.Chunk) bool {
	young := w.tables[len(w.tables)-1]
	if young.Len() >= max(1, w.rows/generations) || seq-young.base > math.MaxUint32 {
		young = w.turn(c)
	}
	for _, t := range w.tables[:len(w.tables)-1] {
		if first := t.Get(print); first != nil {
			return first.before(t.base, seq, row)
		}
	}
	here := place{uint32(seq - young.base), row}
	first, fresh := young.Put(print)
	if fresh {
		*first = here
		return false
	}
	return first.before(young.base, seq, row)
}

func (p *place) before(base, seq uint64, row uint32) bool {
	first := base + uint64(p.seq)
	return first < seq || first == seq && p.row < row
}

// turn begins a new table, because the youngest covers its share of the horizon or of the
// memory, and drops what lies behind the horizon. The table's places are relative to the chunk's
// beginning: the chunk's other types may stand before the event at hand.
func (w *window) turn(c *schemas.Chunk) *generation {
	w.began = c.LastTime
	young := &generation{base: c.After.Seq}
	w.tables = append(w.tables, young)
	if len(w.tables) > generations+1 {
		w.tables = append(w.tables[:0:0], w.tables[1:]...) // so that the oldest's memory is free
	}
	return young
}

// size is how many events are remembered, and the bytes that they take.
func (w *window) size() (events int, bytes int64) {
	for _, t := range w.tables {
		events += t.Len()
		bytes += t.Bytes()
	}
	return events, bytes
}
