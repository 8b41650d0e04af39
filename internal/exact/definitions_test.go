package exact

import (
	"testing"
	"testing/fstest"

	"watershed/schemas"
)

const eventFiles = `
event: reading
id: id
time: time
fields:
  id: string
  time: timestamp
  site: string
  tag: {type: string, optional: true}
  ok: {type: bool, optional: true}
  level: {type: int64, optional: true}
  plain: int64
  heat: {type: float64, optional: true}
  price: {type: "decimal(18,2)", optional: true}
  due: {type: timestamp, optional: true}
  day: {type: date, optional: true}
---
event: order
id: number
time: placed
fields:
  number: int64
  placed: timestamp
  customer: string
  amount: decimal(38,6)
  quantity: int64
  paid: bool
  rate: float64
  ship: date
`

// firstViews have every measure over every kind of argument, and a dimension of every kind.
const firstViews = `
view: hours
from: reading
where: plain >= 0 || ok
dimensions:
  hour: bucket(time, "1h")
  site: site
measures:
  n: count()
  high: count(level > 10)
  level: sum(level)
  heat: sum(heat)
  low: min(level)
  top: max(heat)
  mean: avg(level)
  warm: avg(heat)
  spread: quantiles(plain, 0.5, 0.99)
  tags: uniq(tag)
---
view: nulls
from: reading
dimensions:
  tag: tag
  ok: ok
  day: day
measures:
  n: count()
  price: sum(price)
  cost: avg(price)
  cheapest: min(price)
  due: max(due)
  first: min(time)
  days: uniq(day)
  dues: uniq(due)
  hot: quantiles(heat, 0.1, 0.9)
  last: max(tag)
---
view: totals
from: reading
measures:
  n: count()
  plain: sum(plain)
  heats: uniq(heat)
  prices: uniq(price)
  levels: uniq(level)
  oks: uniq(ok)
  ids: uniq(id)
  heat: avg(heat)
---
view: levels
from: reading
where: has(level)
dimensions:
  level: level
  heat: heat
  price: price
  due: due
measures:
  n: count()
  sites: min(site)
---
view: customers
from: order
dimensions:
  customer: customer
  date: date(placed)
measures:
  orders: count()
  paid: count(paid)
  revenue: sum(amount)
  mean: avg(amount)
  biggest: max(amount)
  pieces: sum(quantity)
  rate: avg(rate)
  rates: sum(rate)
  ships: min(ship)
  numbers: uniq(number)
  sizes: quantiles(quantity, 0.5, 0.95)
---
view: nothing
from: order
where: quantity > 1000000
dimensions:
  paid: paid
measures:
  n: count()
`

// changedViews replace customers by another definition, drop levels, and add one view.
const changedViews = `
view: shipped
from: order
where: paid
dimensions:
  ship: ship
  rate: rate
measures:
  n: count()
  amounts: uniq(amount)
  last: max(placed)
`

// definitions parses the event files and some views.
func definitions(t testing.TB, views string) *schemas.Set {
	t.Helper()
	set, err := schemas.Load(fstest.MapFS{"definitions.yaml": {Data: []byte(eventFiles + "---" + views)}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// changed is the set that takes the first one's place in some runs.
func changed(t testing.TB) *schemas.Set {
	t.Helper()
	set, more := definitions(t, firstViews), definitions(t, changedViews)
	views := more.Views
	for _, v := range set.Views {
		switch v.Name {
		case "levels":
			continue
		case "customers":
			v.Measures = v.Measures[2:]
			v.Where.Text = "quantity > 2"
		}
		views = append(views, v)
	}
	return &schemas.Set{Events: set.Events, Views: views}
}
