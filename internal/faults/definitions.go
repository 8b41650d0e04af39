package main

import (
	"fmt"
	"strings"
	"time"
)

// definitionFiles are the views under test: without dimensions and with some, with a filter, over
// two types. All have the same measures, so that one query reads them all. "marks" counts events that
// only imports bring, so its value depends on the build alone: an answer in which two views of a
// type disagree on it is made of two builds.
const definitionFiles = `
event: sale
id: id
time: time
fields: {id: string, time: timestamp, name: string, user: int64, value: int64, kind: string}
---
event: visit
id: id
time: time
fields: {id: string, time: timestamp, name: string, user: int64, value: int64, kind: string}
---
view: sales
from: sale
measures: {n: count(), marks: 'count(kind == "mark")', total: sum(value), users: uniq(user)}
---
view: large
from: sale
where: value > 500
dimensions: {name: name}
measures: {n: count(), marks: 'count(kind == "mark")', total: sum(value), users: uniq(user)}
---
view: visits
from: visit
measures: {n: count(), marks: 'count(kind == "mark")', total: sum(value), users: uniq(user)}
---
view: pages
from: visit
dimensions: {day: 'bucket(time, "1d")', name: name}
measures: {n: count(), marks: 'count(kind == "mark")', total: sum(value), users: uniq(user)}
`

// A viewSpec is what the recount knows of a view: the same as its definition, said once more by hand.
type viewSpec struct {
	name      string
	eventType string
	all       bool                // it has no filter
	shows     func(e *event) bool // its filter
	group     func(e *event) string
	groupSQL  string // how the view's rows say the same
}

func viewSpecs() []viewSpec {
	every := func(*event) bool { return true }
	return []viewSpec{
		{"sales", "sale", true, every, func(*event) string { return "" }, "''"},
		{"large", "sale", false, func(e *event) bool { return e.Value > 500 }, func(e *event) string { return e.Name }, "name"},
		{"visits", "visit", true, every, func(*event) string { return "" }, "''"},
		{"pages", "visit", true, every, func(e *event) string { return fmt.Sprintf("%d/%s", e.time.Truncate(24*time.Hour).Unix(), e.Name) },
			"concat(toString(toUnixTimestamp(day)), '/', name)"},
	}
}

// totalsSQL reads one row per view, groupsSQL one per group; each reads all views in one statement.
func totalsSQL(views []viewSpec) string {
	var parts []string
	for _, v := range views {
		parts = append(parts, fmt.Sprintf("SELECT '%s' AS v, '' AS g, toInt64(sum(n)) AS a, toInt64(sum(marks)) AS b, 0 AS c, 0 AS d FROM %s", v.name, v.name))
	}
	return strings.Join(parts, " UNION ALL ")
}

func groupsSQL(views []viewSpec) string {
	var parts []string
	for _, v := range views {
		parts = append(parts, fmt.Sprintf("SELECT '%s' AS v, %s AS g, toInt64(n) AS a, toInt64(marks) AS b, toInt64(ifNull(total, 0)) AS c, toInt64(users) AS d FROM %s", v.name, v.groupSQL, v.name))
	}
	return strings.Join(parts, " UNION ALL ")
}
