package schemas

import "github.com/apache/arrow/go/v15/arrow"

// SliceStates are the states of one slice on their way into a plan's batch table.
type SliceStates struct {
	Slice  uint64
	States arrow.Record // columns as in the plan's StateSchema, one row per group
}

// An AuditSpec says what an audit of one plan holds against what: the old slices, speed
// epochs and imports on one side, the new slices on the other. Slices that both builds share
// are on neither side.
type AuditSpec struct {
	Build    uint64 // the new build
	Baseline uint64 // the older build, shown so far
	From, To uint64 // speed epochs From <= e < To
	Old      []uint64
	New      []uint64
	Imports  []uint64 // what was imported between the two builds' snapshots, duplicates included
	Removed  []uint64 // what the batch dropped as duplicates and the other side may have counted
}

// An Audit is what the comparison of one plan found.
type Audit struct {
	View      string       `json:"view"`
	Plan      string       `json:"plan"`
	Build     uint64       `json:"build"`
	Baseline  uint64       `json:"baseline"`
	Groups    uint64       `json:"groups"`    // compared
	Equal     uint64       `json:"equal"`     // every measure equal
	Explained uint64       `json:"explained"` // differing by no more than the duplicates removed
	Drifted   uint64       `json:"drifted"`
	Largest   float64      `json:"largest"`           // drift of one measure in one group
	Worst     []AuditGroup `json:"worst,omitempty"`   // up to ten drifted groups, largest first
	Skipped   string       `json:"skipped,omitempty"` // why nothing was compared
}

// An AuditGroup is one group whose two sides differ without an explanation.
type AuditGroup struct {
	Group    map[string]string `json:"group"` // dimension values as text
	Measure  string            `json:"measure"`
	Baseline string            `json:"baseline"`
	Batch    string            `json:"batch"`
	Drift    float64           `json:"drift"`
}
