package main

import "fmt"

// A row is what a view shows of one group.
type row struct{ n, marks, total, users int64 }

// A table is what a view shows, by group.
type table map[string]row

// recount says what the views must show when everything acknowledged has been folded and the live
// build holds the given number of imports of each type: at least, and at most.
func (l *ledger) recount(views []viewSpec, marks map[string]int64) (least, most map[string]table) {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := func(doubtful bool) map[string]table {
		c := newCounter(views)
		for i := range l.acked {
			for _, e := range l.acked[i].Events {
				c.add(e)
			}
		}
		for eventType, files := range l.imports {
			for _, f := range files[:min(int64(len(files)), marks[eventType])] {
				for _, e := range f.events {
					c.add(e)
				}
			}
		}
		for _, x := range l.copies {
			first := x.of != notImported && int64(x.of) >= marks[x.event.Type] // the import does not show yet
			if x.acked && (first || doubtful && !x.healed && !x.near) {
				c.add(x.event)
			}
		}
		return c.tables
	}
	return count(false), count(true)
}

// A counter folds events into tables, one event at a time.
type counter struct {
	views  []viewSpec
	tables map[string]table
	users  map[string]map[int64]bool // by view and group
}

func newCounter(views []viewSpec) *counter {
	c := &counter{views: views, tables: make(map[string]table), users: make(map[string]map[int64]bool)}
	for _, v := range views {
		c.tables[v.name] = make(table)
	}
	return c
}

func (c *counter) add(e *event) {
	for _, v := range c.views {
		if v.eventType != e.Type || !v.shows(e) {
			continue
		}
		g := v.group(e)
		r := c.tables[v.name][g]
		r.n++
		r.total += e.Value
		if e.Kind == markKind {
			r.marks++
		}
		seen := c.users[v.name+"\x00"+g]
		if seen == nil {
			seen = make(map[int64]bool)
			c.users[v.name+"\x00"+g] = seen
		}
		seen[e.User] = true
		r.users = int64(len(seen))
		c.tables[v.name][g] = r
	}
}

// A difference is how an answer differs from the recount: events lost and counted twice in the view
// that has most of them, and the first groups in words.
type difference struct {
	lost, double int64
	words        []string
}

func (d *difference) none() bool { return d.lost == 0 && d.double == 0 }

// compare holds an answer against the bounds of the recount.
func compare(got, least, most map[string]table, waived bool) difference {
	var d difference
	for view, want := range least {
		var lost, double int64
		groups := make(map[string]bool)
		for g := range want {
			groups[g] = true
		}
		for g := range most[view] {
			groups[g] = true
		}
		for g := range got[view] {
			groups[g] = true
		}
		for g := range groups {
			have, lo, hi := got[view][g], want[g], most[view][g]
			low := max(lo.n-have.n, lo.marks-have.marks, 0)
			high := max(have.n-hi.n, have.marks-hi.marks, 0)
			if low == 0 && (have.total < lo.total || have.users < lo.users) {
				low = 1
			}
			if high == 0 && (have.total > hi.total || have.users > hi.users) {
				high = 1
			}
			if waived {
				high = 0
			}
			lost, double = lost+low, double+high
			if (low > 0 || high > 0) && len(d.words) < 8 {
				d.words = append(d.words, fmt.Sprintf("%s[%s]: got %+v; want %+v to %+v", view, g, have, lo, hi))
			}
		}
		d.lost, d.double = max(d.lost, lost), max(d.double, double)
	}
	return d
}
