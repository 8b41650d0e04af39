package main

import (
	"slices"
	"strings"

	"watershed/schemas/agg"
	"watershed/schemas/view"
)

// peerPlan is a view as somebody would write it who has ClickHouse alone: with its own states of quantiles in
// place of our maps of counts, which take it twice as long to make. Both finish equal.
func peerPlan(p *view.Plan) *view.Plan {
	peer := *p
	peer.Measures = slices.Clone(p.Measures)
	for i := range peer.Measures {
		m := &peer.Measures[i]
		if m.Func.Name() != "quantiles" {
			continue
		}
		typ := m.Arg.Type().ClickHouse()
		if m.Arg.Nullable() {
			typ = "Nullable(" + typ + ")"
		}
		own := ownQuantiles{m.Func, "(" + strings.Join(levels(p, *m), ", ") + ")", typ}
		m.Func, m.Columns = own, own.Columns(m.Name)
	}
	return &peer
}

// ownQuantiles is the measure quantiles with the states of ClickHouse's quantilesBFloat16.
type ownQuantiles struct {
	agg.Func
	levels string // "(0.5, 0.95)"
	arg    string // the argument's type
}

func (q ownQuantiles) Columns(name string) []agg.StateColumn {
	c := q.Func.Columns(name)[0]
	c.ClickHouse = "AggregateFunction(quantilesBFloat16" + q.levels + ", " + q.arg + ")"
	return []agg.StateColumn{c}
}

func (q ownQuantiles) StateSQL(arg string, _ bool) []string {
	return []string{"quantilesBFloat16State" + q.levels + "(" + arg + ")"}
}

func (q ownQuantiles) MergeSQL(cols []string) []string {
	return []string{"quantilesBFloat16MergeState" + q.levels + "(" + cols[0] + ")"}
}

// FinishSQL gives an empty array over nothing, as ours does, where ClickHouse gives NaNs.
func (q ownQuantiles) FinishSQL(cols []string) string {
	return "arrayFilter(x -> NOT isNaN(x), quantilesBFloat16Merge" + q.levels + "(" + cols[0] + "))"
}
