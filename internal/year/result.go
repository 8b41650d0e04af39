package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// A Result is a simulation that ended with the answers that it had to end with.
type Result struct {
	Config  Config
	Samples []Sample
	Events  int
	Took    time.Duration
}

// Print writes the samples as a table in Markdown.
func (r *Result) Print(w io.Writer) {
	fmt.Fprint(w, "| day |")
	for _, s := range r.Samples {
		fmt.Fprintf(w, " %d |", s.Day)
	}
	fmt.Fprint(w, "\n|---|")
	for range r.Samples {
		fmt.Fprint(w, "--:|")
	}
	fmt.Fprintln(w)
	for q := range quantities {
		name, natural, _ := q.described()
		if natural {
			name += " *"
		}
		fmt.Fprintf(w, "| %s |", name)
		for _, s := range r.Samples {
			digits := 0
			if q >= resumeSeconds {
				digits = 2
			}
			fmt.Fprintf(w, " %.*f |", digits, s.Values[q])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "\n\\* grows by nature")
	last := r.Samples[len(r.Samples)-1]
	fmt.Fprintf(w, "\n%d days, %d different events, %d groups equal to the recount, %.0f s\n", r.Config.Days, r.Events, last.Groups, r.Took.Seconds())
}

// Bounded says which quantities have grown in the last quarter to more than twice what they were in the
// second, of those that have no reason to: what is counted per date of history does.
func (r *Result) Bounded() (errs []error) {
	for q := range quantities {
		name, natural, slack := q.described()
		second, last := r.most(q, 1), r.most(q, 3)
		if !natural && last > 2*second+slack {
			errs = append(errs, fmt.Errorf("%s: %.2f in the last quarter, %.2f in the second", name, last, second))
		}
	}
	return errs
}

// most is the largest value of a quantity in a quarter, which are numbered from 0.
func (r *Result) most(q quantity, quarter int) float64 {
	var values []float64
	for _, s := range r.Samples {
		if (s.Day-1)*4/r.Config.Days == quarter {
			values = append(values, s.Values[q])
		}
	}
	if len(values) == 0 {
		return 0
	}
	return slices.Max(values)
}
