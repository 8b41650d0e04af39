package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"watershed/schemas"
)

const definitions = `
event: visit
id: id
time: time
fields:
  id: string
  time: timestamp
  site: string
  ms: int64
---
event: order
id: number
time: placed
fields:
  number: int64
  placed: timestamp
  customer: string
  amount: decimal(12,2)
  paid: bool
---
view: visits_by_hour
from: visit
dimensions:
  hour: bucket(time, "1h")
  site: site
measures:
  visits: count()
  slow: count(ms > 500)
  ms: sum(ms)
  worst: max(ms)
---
view: sites
from: visit
dimensions:
  site: site
measures:
  visits: count()
  mean: avg(ms)
  visitors: uniq(id)
---
view: days
from: visit
dimensions:
  day: date(time)
measures:
  visits: count()
  first: min(time)
  last: max(time)
---
view: customers
from: order
where: paid
dimensions:
  customer: customer
  day: date(placed)
measures:
  orders: count()
  revenue: sum(amount)
---
view: turnover
from: order
measures:
  orders: count()
  paid: count(paid)
  revenue: sum(amount)
  biggest: max(amount)
`

func load() (*schemas.Set, error) {
	return schemas.Load(fstest.MapFS{"year.yaml": {Data: []byte(definitions)}})
}

// An event is a visit or an order: what the other has is unused.
type event struct {
	typ    string
	id     int64
	at     time.Time // microseconds
	who    string    // site or customer
	amount int64     // ms, or cents
	paid   bool
}

func (e event) json() string {
	at := e.at.Format("2006-01-02T15:04:05.000000Z")
	if e.typ == "visit" {
		return fmt.Sprintf(`{"id":"v%d","time":"%s","site":"%s","ms":%d}`, e.id, at, e.who, e.amount)
	}
	return fmt.Sprintf(`{"number":%d,"placed":"%s","customer":"%s","amount":%d.%02d,"paid":%t}`, e.id, at, e.who, e.amount/100, e.amount%100, e.paid)
}

// Shares of a day's events, in percent.
const (
	lateShare      = 2  // bear the date of one of the lateDays before
	lateDays       = 40 //
	againShare     = 3  // of today's events come a second time
	oldAgainShare  = 1  // events of one of the lateDays before come a second time
	eventsAMessage = 20
)

// A generator draws the events of each day, and keeps the list of all.
type generator struct {
	r     *rand.Rand
	start time.Time // midnight of day 0
	next  int64
	days  [][]event // by the day of publishing, each event once
}

func newGenerator(seed uint64) *generator {
	return &generator{r: rand.New(rand.NewPCG(seed, 365)), start: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// A message is what is published at once.
type message struct {
	typ     string
	payload string
}

// day draws the events of the next day, with those that come late and those that come again.
func (g *generator) day(n int) []message {
	today := len(g.days)
	var fresh, all []event
	for range n {
		g.next++
		e := event{typ: "visit", id: g.next, who: fmt.Sprintf("site%d", g.r.IntN(8)), amount: int64(g.r.ExpFloat64() * 300)}
		if g.r.IntN(4) == 0 {
			e = event{typ: "order", id: g.next, who: fmt.Sprintf("c%02d", g.r.IntN(40)), amount: g.r.Int64N(50_000), paid: g.r.IntN(5) > 0}
		}
		date := today
		if g.r.IntN(100) < lateShare {
			date = max(0, today-1-g.r.IntN(lateDays))
		}
		e.at = g.start.AddDate(0, 0, date).Add(time.Duration(g.r.Int64N(86_400_000_000)) * time.Microsecond)
		fresh = append(fresh, e)
		all = append(all, e)
		if g.r.IntN(100) < againShare {
			all = append(all, fresh[g.r.IntN(len(fresh))])
		}
		if before := max(0, today-lateDays); before < today && g.r.IntN(100) < oldAgainShare {
			old := g.days[before+g.r.IntN(today-before)]
			all = append(all, old[g.r.IntN(len(old))])
		}
	}
	g.days = append(g.days, fresh)
	return messages(all)
}

// extra is one more event of the last day.
func (g *generator) extra() event {
	g.next++
	today := len(g.days) - 1
	e := event{typ: "order", id: g.next, at: g.start.AddDate(0, 0, today), who: "c00", amount: 100, paid: true}
	g.days[today] = append(g.days[today], e)
	return e
}

// messages packs events into messages of one type each.
func messages(events []event) []message {
	var out []message
	byType := map[string][]string{}
	flush := func(typ string) {
		if lines := byType[typ]; len(lines) > 0 {
			out = append(out, message{typ, strings.Join(lines, "\n")})
			byType[typ] = nil
		}
	}
	for _, e := range events {
		byType[e.typ] = append(byType[e.typ], e.json())
		if len(byType[e.typ]) == eventsAMessage {
			flush(e.typ)
		}
	}
	for _, typ := range []string{"order", "visit"} {
		flush(typ)
	}
	return out
}

// all are the events of a type, each once.
func (g *generator) all(typ string) []event {
	all := slices.Concat(g.days...)
	return slices.DeleteFunc(all, func(e event) bool { return e.typ != typ })
}
