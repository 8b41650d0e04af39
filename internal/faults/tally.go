package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// A violation is what must never be.
type violation int

const (
	lost violation = iota
	double
	mixed
)

func (v violation) String() string { return [...]string{"lost", "double", "mixed"}[v] }

// An entry is what happened with one kind of fault.
type entry struct {
	times                   int
	lost, double, mixed     int64
	recoveries              []time.Duration
	slow, notHealed, notMet int
}

// A tally adds up over all lives.
type tally struct {
	out io.Writer

	mu      sync.Mutex // guards what follows
	began   time.Time
	now     string // the fault under way
	order   []string
	entries map[string]*entry
	bad     []string // violations in words
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, began: time.Now(), entries: make(map[string]*entry)}
}

func (t *tally) say(format string, a ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%7.1fs  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, a...))
}

// begin says which fault what comes is put down to.
func (t *tally) begin(fault string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = fault
	t.entry().times++
}

// count counts a fault that comes amid another one, which stays the one under way.
func (t *tally) count(fault string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now
	t.now = fault
	t.entry().times++
	t.now = now
}

// entry is that of the fault under way; the mutex is held.
func (t *tally) entry() *entry {
	if t.entries[t.now] == nil {
		t.entries[t.now] = &entry{}
		t.order = append(t.order, t.now)
	}
	return t.entries[t.now]
}

// violate counts one violation.
func (t *tally) violate(kind violation, text string) { t.add(kind, 1, text) }

func (t *tally) add(kind violation, n int64, text string) {
	t.mu.Lock()
	e := t.entry()
	switch kind {
	case lost:
		e.lost += n
	case double:
		e.double += n
	default:
		e.mixed += n
	}
	first := len(t.bad) < 50
	text = fmt.Sprintf("%s %d after %s: %s", strings.ToUpper(kind.String()), n, t.now, text)
	t.bad = append(t.bad, text)
	t.mu.Unlock()
	if first {
		t.say("%s", text)
	}
}

func (t *tally) violations() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.bad)
}

// recovered notes the time that it took, and whether that is within what is promised.
func (t *tally) recovered(d, promised time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry()
	e.recoveries = append(e.recoveries, d)
	if promised > 0 && d > promised {
		e.slow++
	}
}

func (t *tally) note(what func(e *entry)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	what(t.entry())
}

// print writes the table and the last line, and reports whether nothing is wrong.
func (t *tally) print() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\ttimes\tlost\tdouble\tmixed\trecovery p50\tp99\tremarks")
	var sum entry
	for _, name := range slices.Sorted(slices.Values(t.order)) {
		e := t.entries[name]
		var remarks []string
		if e.slow > 0 {
			remarks = append(remarks, fmt.Sprintf("%d slower than promised", e.slow))
		}
		if e.notHealed > 0 {
			remarks = append(remarks, fmt.Sprintf("%d not healed", e.notHealed))
		}
		if e.notMet > 0 {
			remarks = append(remarks, fmt.Sprintf("%d not reached", e.notMet))
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", name, e.times, e.lost, e.double, e.mixed,
			quantile(e.recoveries, 0.5), quantile(e.recoveries, 0.99), strings.Join(remarks, ", "))
		sum.times, sum.lost, sum.double, sum.mixed = sum.times+e.times, sum.lost+e.lost, sum.double+e.double, sum.mixed+e.mixed
		sum.notHealed, sum.notMet = sum.notHealed+e.notHealed, sum.notMet+e.notMet
	}
	_ = w.Flush() // to a buffer of its own, then out: its error is that of the last line
	fmt.Fprintf(t.out, "%d faults: lost %d, double %d, mixed %d\n", sum.times, sum.lost, sum.double, sum.mixed)
	return sum.lost == 0 && sum.double == 0 && sum.mixed == 0 && sum.notHealed == 0 && sum.notMet == 0
}

// quantile is the value below which a share of the durations lies.
func quantile(all []time.Duration, q float64) string {
	if len(all) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("%.2fs", sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Seconds())
}
