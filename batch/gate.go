package batch

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"watershed/schemas"
)

// A Gate says how much drift may go live. The zero Gate is off: a new build goes live whatever its
// audit found, since history is right and the drift is what it heals.
//
// A build that drifted more is gated: it is kept, as newer builds are, but the views go on
// showing the live build and all that the speed layer adds to it. Each later run compares with that
// again, and is gated again, until one runs with its gate off. A view that was not compared holds
// no gate.
type Gate struct {
	on    bool
	share bool    // limit is a share of the larger value, not an amount
	limit float64 // drift above it is gated
}

// ParseGate reads "off", the largest drift of a measure in a group that may go live, such as "0" or
// "250", or the largest drift as a share of the value, such as "0.5%".
func ParseGate(s string) (Gate, error) {
	if s == "off" {
		return Gate{}, nil
	}
	number, share := strings.CutSuffix(s, "%")
	limit, err := strconv.ParseFloat(number, 64)
	if err != nil || limit < 0 || math.IsNaN(limit) || math.IsInf(limit, 0) {
		return Gate{}, fmt.Errorf("gate %q: want off, an amount like 0 or 250, or a share like 0.5%%", s)
	}
	if share {
		limit /= 100
	}
	return Gate{on: true, share: share, limit: limit}, nil
}

// String is what ParseGate reads.
func (g Gate) String() string {
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	switch {
	case !g.on:
		return "off"
	case g.share:
		return number(g.limit*100) + "%"
	default:
		return number(g.limit)
	}
}

// Shut reports whether an audit found more drift than may go live.
func (g Gate) Shut(a schemas.Audit) bool {
	drift := a.Largest
	if g.share {
		drift = a.LargestShare
	}
	return g.on && a.Drifted > 0 && drift > g.limit
}

// Set makes a Gate a flag's value.
func (g *Gate) Set(s string) (err error) {
	*g, err = ParseGate(s)
	return err
}

// Type names the flag's value in its usage.
func (g *Gate) Type() string { return "drift" }
