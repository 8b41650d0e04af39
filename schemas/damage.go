package schemas

import (
	"fmt"
	"strings"
)

// Damage is what is missing of the live build and of the speed states on top of it: ClickHouse is a
// cache, and may have lost anything. A batch run computes it again.
type Damage struct {
	Build uint64       // the live build
	All   string       // why no view can answer; empty if only those of Plans cannot
	Plans []PlanDamage // by view
}

// PlanDamage is what is missing of one plan.
type PlanDamage struct {
	Plan    string // hash
	View    string
	Missing []string // in words
	Until   uint64   // a build at this cut or a later one has everything again
}

// None reports whether nothing is missing.
func (d Damage) None() bool { return d.All == "" && len(d.Plans) == 0 }

// Of returns what is missing of a plan, in words; empty if nothing is.
func (d Damage) Of(plan string) string {
	if d.All != "" {
		return d.All
	}
	for _, p := range d.Plans {
		if p.Plan == plan {
			return strings.Join(p.Missing, "; ")
		}
	}
	return ""
}

// String says in words what is missing, a line for each view.
func (d Damage) String() string {
	if d.All != "" {
		return d.All
	}
	var lines []string
	for _, p := range d.Plans {
		lines = append(lines, fmt.Sprintf("view %s: %s", p.View, strings.Join(p.Missing, "; ")))
	}
	return strings.Join(lines, "\n")
}
