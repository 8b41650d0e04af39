package speed

import (
	"sync/atomic"
	"time"

	"watershed/schemas"
)

// Stats is what a worker has done since it started, and where it is.
type Stats struct {
	Term       uint64        `json:"term"`
	Epoch      uint64        `json:"epoch"`
	Read       uint64        `json:"read"`       // stream sequence: folded up to here
	Flushed    uint64        `json:"flushed"`    // stream sequence: in ClickHouse up to here
	Events     uint64        `json:"events"`     // folded or found to be duplicates
	Duplicates uint64        `json:"duplicates"` // dropped
	Rejects    uint64        `json:"rejects"`    // skipped: they do not fit their schema
	States     uint64        `json:"states"`     // rows inserted
	Flushes    uint64        `json:"flushes"`
	LastFlush  time.Duration `json:"last_flush"` // how long the last insert took, in nanoseconds
	Refused    uint64        `json:"refused"`    // times that ClickHouse refused a plan's states
	Restarts   uint64        `json:"restarts"`   // times that the worker started over after an error
}

type counters struct {
	term, epoch, read, flush    atomic.Uint64
	events, duplicates, rejects atomic.Uint64
	states, flushes, took       atomic.Uint64
	rejected, restarts          atomic.Uint64
}

func (c *counters) chunk(chunk *schemas.Chunk) {
	c.epoch.Store(chunk.Epoch)
	c.read.Store(chunk.Last.Seq)
	c.rejects.Add(uint64(len(chunk.Rejects)))
	for _, rec := range chunk.Records {
		c.events.Add(uint64(rec.NumRows()))
	}
}

func (c *counters) flushed(f *flush) {
	c.flush.Store(f.mark.Position.Seq)
	c.flushes.Add(1)
	c.took.Store(uint64(f.took))
}

// Stats returns the worker's figures. It may be called at any time.
func (w *Worker) Stats() Stats {
	c := &w.stats
	return Stats{
		Term: c.term.Load(), Epoch: c.epoch.Load(), Read: c.read.Load(), Flushed: c.flush.Load(),
		Events: c.events.Load(), Duplicates: c.duplicates.Load(), Rejects: c.rejects.Load(),
		States: c.states.Load(), Flushes: c.flushes.Load(), LastFlush: time.Duration(c.took.Load()),
		Refused: c.rejected.Load(), Restarts: c.restarts.Load(),
	}
}
