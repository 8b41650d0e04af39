package batch

import (
	"time"

	"watershed/schemas"
)

const (
	maxConflicts      = 100 // that a report lists by name
	maxAuditConflicts = 10  // that an audit does
)

// A Report is what a run did.
type Report struct {
	Started  time.Time `json:"started"`
	Term     uint64    `json:"term"`
	Build    uint64    `json:"build"`
	Cut      uint64    `json:"cut"`
	Position uint64    `json:"position"` // stream sequence of the cut: the build holds everything before it
	Baseline uint64    `json:"baseline"` // the build that was live
	Flipped  bool      `json:"flipped"`
	Pinned   bool      `json:"pinned"` // not flipped, since a rollback pinned the live build
	Gated    bool      `json:"gated"`  // not flipped, since an audit found more drift than the gate lets through
	Dates    int       `json:"dates"`  // that were read
	Events   uint64    `json:"events"` // rows of the files read, duplicates included
	Groups   uint64    `json:"groups"` // state rows written

	HeldOver []HeldOver `json:"held_over,omitempty"` // types that the build has only up to an older cut

	Slices struct {
		Computed int `json:"computed"`
		Reused   int `json:"reused"`
	} `json:"slices"`

	Duplicates uint64 `json:"duplicates"` // removed from the dates read
	Conflicts  struct {
		Count uint64             `json:"count"`           // duplicates whose payload differs from the winner's
		First []schemas.Conflict `json:"first,omitempty"` // by date, type and place
	} `json:"conflicts"`

	Audit   []schemas.Audit `json:"audit"`
	Rebuilt []schemas.Audit `json:"rebuilt,omitempty"` // rebuilt slices against those before
	Dropped int             `json:"dropped"`           // partitions, tables and views dropped as garbage

	Phases Phases `json:"phases"` // of the slices step

	Seconds struct {
		Lease     float64 `json:"lease"`
		Cut       float64 `json:"cut"`
		Snapshots float64 `json:"snapshots"`
		Slices    float64 `json:"slices"`
		Audit     float64 `json:"audit"`
		Flip      float64 `json:"flip"`
		Garbage   float64 `json:"garbage"`
		Total     float64 `json:"total"`
	} `json:"seconds"`
}

// A HeldOver is an event type whose archive did not reach the build's cut in time. Its views show
// what they showed before: the slices up to an older cut, and all that the speed layer adds to them.
type HeldOver struct {
	Type      string   `json:"type"`
	Cut       uint64   `json:"cut"`                 // up to which the build has it; 0: it has nothing, or what the log began with
	Views     []string `json:"views,omitempty"`     // that stay at that cut
	Uncovered []string `json:"uncovered,omitempty"` // that answer with an error: no build has ever had them
	Reason    string   `json:"reason"`
}

// Drifted is the number of groups whose audit found a difference without an explanation.
func (r *Report) Drifted() (n uint64) {
	for _, a := range r.Audit {
		n += a.Drifted
	}
	return n
}
