package main

import (
	"fmt"
	"maps"
	"math/bits"
)

// A row is what a view shows of one group.
type row struct{ n, marks, total, users int64 }

// A table is what a view shows, by group.
type table map[string]row

// recount says what the views must show when everything acknowledged has been folded and the live
// build holds the given number of imports of each type: at least, and at most.
func (l *ledger) recount(views []viewSpec, marks map[string]int64) (least, most map[string]table) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counted == nil {
		l.counted = newCounter(views)
	}
	for ; l.upTo < len(l.acked); l.upTo++ {
		for _, e := range l.acked[l.upTo].Events {
			l.counted.add(e)
		}
	}
	count := func(doubtful bool) map[string]table {
		c := l.counted.clone()
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
		return c.tables()
	}
	return count(false), count(true)
}

// A counter folds events into groups, one event at a time.
type counter struct {
	views  []viewSpec
	groups []map[string]group // by view
}

// A group is a row that is being counted.
type group struct {
	row
	seen [userLimit/64 + 1]uint64 // a bit for each user
}

func newCounter(views []viewSpec) *counter {
	c := &counter{views: views}
	for range views {
		c.groups = append(c.groups, make(map[string]group))
	}
	return c
}

func (c *counter) clone() *counter {
	d := &counter{views: c.views}
	for _, groups := range c.groups {
		d.groups = append(d.groups, maps.Clone(groups))
	}
	return d
}

func (c *counter) add(e *event) {
	for i, v := range c.views {
		if v.eventType != e.Type || !v.shows(e) {
			continue
		}
		name := v.group(e)
		g := c.groups[i][name]
		g.n++
		g.total += e.Value
		if e.Kind == markKind {
			g.marks++
		}
		g.seen[e.User/64] |= 1 << (e.User % 64)
		c.groups[i][name] = g
	}
}

// tables are the rows by view.
func (c *counter) tables() map[string]table {
	tables := make(map[string]table)
	for i, v := range c.views {
		t := make(table, len(c.groups[i]))
		for name, g := range c.groups[i] {
			for _, word := range g.seen {
				g.users += int64(bits.OnesCount64(word))
			}
			t[name] = g.row
		}
		tables[v.name] = t
	}
	return tables
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
