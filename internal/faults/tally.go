package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
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

// A book adds up over all lives.
type book struct {
	out   io.Writer
	began time.Time

	mu      sync.Mutex // guards what follows, and the tallies
	entries map[string]*entry
	slow    []string // recoveries that took longer than promised, in words
	bad     int      // violations
	cost    map[string]time.Duration
}

// A tally is where the lives that follow one another write into the book.
type tally struct {
	*book
	lane int    // its number, for messages; 0: all
	now  string // the fault under way; the book's mutex guards it and what follows
	mine int    // violations, and what did not heal
}

func newBook(out io.Writer) *book {
	return &book{out: out, began: time.Now(), entries: make(map[string]*entry), cost: make(map[string]time.Duration)}
}

func (t *tally) say(format string, a ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := ""
	if t.lane > 0 {
		from = fmt.Sprintf("%d: ", t.lane)
	}
	fmt.Fprintf(t.out, "%7.1fs  %s%s\n", time.Since(t.began).Seconds(), from, fmt.Sprintf(format, a...))
}

// spent notes the processor time of a process that has ended.
func (t *tally) spent(kind string, state *os.ProcessState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cost[kind] += state.UserTime() + state.SystemTime()
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
	t.bad++
	t.mine++
	first := t.bad < 50
	text = fmt.Sprintf("%s %d after %s: %s", strings.ToUpper(kind.String()), n, t.now, text)
	t.mu.Unlock()
	if first {
		t.say("%s", text)
	}
}

// failed notes that something did not heal.
func (t *tally) failed(format string, a ...any) {
	t.note(func(e *entry) { e.notHealed++; t.mine++ })
	t.say("  NOT HEALED: "+format, a...)
}

// failures is how much was wrong in the lives of this tally.
func (t *tally) failures() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mine
}

// recovered notes the time that it took, and whether that is within what is promised.
func (t *tally) recovered(d, promised time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry()
	e.recoveries = append(e.recoveries, d)
	if promised > 0 && d > promised {
		e.slow++
		t.slow = append(t.slow, fmt.Sprintf("%s: %.2fs; promised are %.0fs", t.now, d.Seconds(), promised.Seconds()))
	}
}

func (t *tally) note(what func(e *entry)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	what(t.entry())
}

// print writes the table, what was slower than promised, what it cost, and the last line. It reports
// whether nothing is wrong.
func (b *book) print() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\ttimes\tlost\tdouble\tmixed\trecovery p50\tp99\tremarks")
	var sum entry
	for _, name := range slices.Sorted(maps.Keys(b.entries)) {
		e := b.entries[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", name, e.times, e.lost, e.double, e.mixed,
			quantile(e.recoveries, 0.5), quantile(e.recoveries, 0.99), e.remarks())
		sum.times, sum.lost, sum.double, sum.mixed = sum.times+e.times, sum.lost+e.lost, sum.double+e.double, sum.mixed+e.mixed
		sum.notHealed, sum.notMet = sum.notHealed+e.notHealed, sum.notMet+e.notMet
		sum.recoveries = append(sum.recoveries, e.recoveries...)
	}
	fmt.Fprintf(w, "all\t%d\t%d\t%d\t%d\t%s\t%s\n", sum.times, sum.lost, sum.double, sum.mixed, quantile(sum.recoveries, 0.5), quantile(sum.recoveries, 0.99))
	_ = w.Flush() // its error is that of the last line
	fmt.Fprintf(b.out, "slower than promised: %d of %d recoveries\n", len(b.slow), len(sum.recoveries))
	for _, text := range b.slow {
		fmt.Fprintf(b.out, "  %s\n", text)
	}
	fmt.Fprintf(b.out, "processor time: %s\n", b.costs())
	fmt.Fprintf(b.out, "%d faults: lost %d, double %d, mixed %d\n", sum.times, sum.lost, sum.double, sum.mixed)
	return sum.lost == 0 && sum.double == 0 && sum.mixed == 0 && sum.notHealed == 0 && sum.notMet == 0
}

// remarks are what else is to be said of a kind of fault.
func (e *entry) remarks() string {
	var remarks []string
	for _, r := range []struct {
		n    int
		what string
	}{{e.slow, "slower than promised"}, {e.notHealed, "not healed"}, {e.notMet, "not reached"}} {
		if r.n > 0 {
			remarks = append(remarks, fmt.Sprintf("%d %s", r.n, r.what))
		}
	}
	return strings.Join(remarks, ", ")
}

// costs is the processor time of all processes, ClickHouse's being what is left of that of our children.
func (b *book) costs() string {
	var self, children syscall.Rusage
	if err := errors.Join(syscall.Getrusage(syscall.RUSAGE_SELF, &self), syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children)); err != nil {
		return err.Error()
	}
	spent := func(u *syscall.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }
	all := spent(&self) + spent(&children)
	parts := []string{fmt.Sprintf("this program %.0f", spent(&self).Seconds())}
	rest := spent(&children)
	for _, kind := range slices.Sorted(maps.Keys(b.cost)) {
		parts = append(parts, fmt.Sprintf("%s %.0f", kind, b.cost[kind].Seconds()))
		rest -= b.cost[kind]
	}
	return fmt.Sprintf("%.0f s (%s, clickhouse %.0f)", all.Seconds(), strings.Join(parts, ", "), rest.Seconds())
}

// quantile is the value below which a share of the durations lies.
func quantile(all []time.Duration, q float64) string {
	if len(all) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("%.2fs", sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Seconds())
}
