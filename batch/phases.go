package batch

import (
	"fmt"
	"time"
)

// Phases says where the time of the slices step went: seconds by what was done, summed over all that was
// done at the same time.
type Phases struct {
	Read       float64 `json:"read"`       // reading and decoding of what is folded
	Duplicates float64 `json:"duplicates"` // the search for duplicates, with all that it reads
	Fold       float64 `json:"fold"`
	Merge      float64 `json:"merge"`  // of the folds of workers that shared a date
	Encode     float64 `json:"encode"` // of folds as states
	Insert     float64 `json:"insert"` // until ClickHouse has the states, has counted them, and knows the slices
}

func (p *Phases) add(q Phases) {
	p.Read += q.Read
	p.Duplicates += q.Duplicates
	p.Fold += q.Fold
	p.Merge += q.Merge
	p.Encode += q.Encode
	p.Insert += q.Insert
}

// A stopwatch tells phases apart that follow one another.
type stopwatch struct{ at time.Time }

func startWatch() stopwatch { return stopwatch{time.Now()} }

// lap adds the time since the last lap to a phase.
func (w *stopwatch) lap(phase *float64) {
	now := time.Now()
	*phase += now.Sub(w.at).Seconds()
	w.at = now
}

// String is the phases in words, in seconds.
func (p Phases) String() string {
	return fmt.Sprintf("read %.2f, duplicates %.2f, fold %.2f, merge %.2f, encode %.2f, insert %.2f", p.Read, p.Duplicates, p.Fold, p.Merge, p.Encode, p.Insert)
}

// Steps is how long each step of the run took, in words, in seconds.
func (r *Report) Steps() string {
	s := r.Seconds
	return fmt.Sprintf("lease %.2f, cut %.2f, snapshots %.2f, slices %.2f, audit %.2f, flip %.2f, garbage %.2f", s.Lease, s.Cut, s.Snapshots, s.Slices, s.Audit, s.Flip, s.Garbage)
}
