package schemas

import (
	"cmp"

	"github.com/apache/arrow/go/v15/arrow"
)

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

	// What the batch dropped as duplicates and the other side may have counted: events that came
	// through the log since the older build's cut; and events that one of the imports has or displaced.
	Late, Again             []uint64
	LateEvents, AgainEvents uint64 // how many there are, after the filter

	Imported  uint64 // events imported between the two builds' snapshots, before the filter
	Conflicts uint64 // dropped ones whose payload is not that of the event that counts
	First     []Conflict
}

// An Audit is what the comparison of one plan found. A group is equal if every measure is,
// explained if every difference is one that the duplicates removed from the group can make, and
// else it has drifted.
type Audit struct {
	View      string `json:"view"`
	Plan      string `json:"plan"`
	Build     uint64 `json:"build"`
	Baseline  uint64 `json:"baseline"`
	Groups    uint64 `json:"groups"` // compared
	Equal     uint64 `json:"equal"`
	Explained uint64 `json:"explained"`
	Drifted   uint64 `json:"drifted"`

	// What explains. LateDuplicates are events that the speed layer had counted twice, since the
	// first lay behind its horizon; ImportDuplicates came again with an import. Both are as the
	// view's count() had counted them, or at most so many if it has none.
	LateDuplicates   uint64 `json:"late_duplicates"`
	ImportDuplicates uint64 `json:"import_duplicates"`
	AtMost           bool   `json:"at_most,omitempty"` // the two are upper bounds
	Imports          uint64 `json:"imports"`           // events imported since the older build, on both sides
	Conflicts        uint64 `json:"conflicts"`         // duplicates removed whose payload was not that of the event that counts

	First []Conflict `json:"first_conflicts,omitempty"` // up to ten of them, by date and place

	Largest      float64      `json:"largest"`           // drift of one measure in one group
	LargestShare float64      `json:"largest_share"`     // the same, over the larger of the two values: 1 if one side has none
	Worst        []AuditGroup `json:"worst,omitempty"`   // up to ten drifted groups, largest first
	Gated        bool         `json:"gated,omitempty"`   // the drift was more than the gate lets through
	Skipped      string       `json:"skipped,omitempty"` // why nothing was compared
}

// An AuditGroup is a measure of one group whose two sides differ without an explanation.
type AuditGroup struct {
	Group    map[string]string `json:"group"` // dimension values as text
	Measure  string            `json:"measure"`
	Baseline string            `json:"baseline"` // what was shown
	Batch    string            `json:"batch"`    // what history says
	Drift    float64           `json:"drift"`    // their difference; 1 if they are no numbers
}

// A Conflict is an event that came again with the same identity and another payload. The one
// that stands first counts.
type Conflict struct {
	Type    string `json:"type"`
	ID      string `json:"id"`
	Date    string `json:"date"`
	Kept    Origin `json:"kept"`
	Dropped Origin `json:"dropped"`
}

// An Origin is where an event stands.
type Origin struct {
	Seq  uint64 `json:"seq"`  // of its message in the log; 0: it was imported
	Row  int32  `json:"row"`  // in the message, or in the imported file
	File string `json:"file"` // of history, below the directory of its type
}

// Compare orders origins by sequence, row and file.
func (o Origin) Compare(p Origin) int {
	return cmp.Or(cmp.Compare(o.Seq, p.Seq), cmp.Compare(o.Row, p.Row), cmp.Compare(o.File, p.File))
}
