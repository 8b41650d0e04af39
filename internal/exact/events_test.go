package exact

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"watershed/schemas"
)

// An event is one that fits its schema.
type event struct {
	ev     *schemas.Event
	values []any // by field; nil is null, decimals are unscaled
}

// identity is what makes an event the same event.
func (e event) identity() string {
	var id string
	var day int64
	for i, f := range e.ev.Fields {
		switch f.Name {
		case e.ev.ID:
			id = fmt.Sprint(e.values[i])
		case e.ev.Time:
			day = int64(math.Floor(float64(e.values[i].(int64)) / 86_400e6))
		}
	}
	return fmt.Sprintf("%s/%s/%d", e.ev.Name, id, day)
}

// line is the event as history must hold it: see historyLine.
func (e event) line(seq uint64, row int) string {
	var cells []string
	for i, f := range e.ev.Fields {
		cells = append(cells, cell(f.Type.Kind, e.values[i]))
	}
	return strings.Join(append(cells, strconv.FormatUint(seq, 10), strconv.Itoa(row)), "|")
}

func cell(k schemas.Kind, v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return strings.ToUpper(hex.EncodeToString([]byte(v)))
	case bool:
		return map[bool]string{true: "1", false: "0"}[v]
	case float64:
		return strconv.FormatUint(math.Float64bits(v), 10)
	}
	return fmt.Sprint(v)
}

// A generator draws events, messages and files.
type generator struct {
	r      *rand.Rand
	set    *schemas.Set
	next   int
	known  map[string][]event      // events given out, by type
	taken  map[string]map[int]bool // identities that were imported, and in which rows of files
	unique map[string]bool         // identities given out
}

func newGenerator(r *rand.Rand, set *schemas.Set) *generator {
	return &generator{r: r, set: set, known: make(map[string][]event), taken: make(map[string]map[int]bool), unique: make(map[string]bool)}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// days are what events fall on: late ones too, and both sides of a leap day and of a century.
var days = []time.Time{
	time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
	time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC), time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC),
}

func (g *generator) eventType() *schemas.Event { return pick(g.r, g.set.Events...) }

// fresh is an event that was never given out.
func (g *generator) fresh(ev *schemas.Event) event {
	g.next++
	e := event{ev: ev, values: make([]any, len(ev.Fields))}
	for i, f := range ev.Fields {
		switch {
		case f.Name == ev.ID && f.Type.Kind == schemas.String:
			e.values[i] = fmt.Sprintf("%s-%d", pick(g.r, "a", "é", "\"q\\"), g.next)
		case f.Name == ev.ID:
			e.values[i] = int64(g.next) * pick(g.r, int64(1), -1)
		case f.Name == ev.Time:
			e.values[i] = pick(g.r, days...).UnixMicro() + pick(g.r, 0, 86_400e6-1, g.r.Int64N(86_400e6))
		case f.Optional && g.r.IntN(4) == 0:
		default:
			e.values[i] = g.value(f.Type)
		}
	}
	return e
}

func (g *generator) value(t schemas.Type) any {
	r := g.r
	switch t.Kind {
	case schemas.String:
		return pick(r, "", "x", "Zürich", "a\tb\n", strings.Repeat("long ", r.IntN(20)))
	case schemas.Bool:
		return r.IntN(2) == 0
	case schemas.Int64:
		return pick(r, 0, 1, int64(r.IntN(50)-20), r.Int64N(1e12), math.MaxInt64, math.MinInt64)
	case schemas.Float64:
		return pick(r, 0, 0.5, -2, math.Round(r.NormFloat64()*1e6)/1e3, r.Float64()*1e-9) + 0 // never -0
	case schemas.Decimal:
		return pick(r, 0, int64(r.IntN(2000)-1000), r.Int64N(1e17), -r.Int64N(1e17))
	case schemas.Timestamp:
		return pick(r, 0, -1, r.Int64N(4e15)-2e15)
	default:
		return pick(r, 0, -1, int64(r.IntN(40_000)-20_000))
	}
}

// again is an event of the same identity as one given out, sometimes with another payload.
// Without imported, it is of none that was imported; ok is false if there is none.
func (g *generator) again(ev *schemas.Event, imported bool) (event, bool) {
	if len(g.known[ev.Name]) == 0 {
		return event{}, false
	}
	old := pick(g.r, g.known[ev.Name]...)
	if !imported && g.taken[old.identity()] != nil {
		return event{}, false
	}
	return g.vary(old), true
}

func (g *generator) vary(old event) event {
	if g.r.IntN(2) == 0 {
		return old
	}
	e := g.fresh(old.ev)
	for i, f := range old.ev.Fields {
		switch f.Name {
		case old.ev.ID:
			e.values[i] = old.values[i]
		case old.ev.Time: // another time of the same day
			us := old.values[i].(int64)
			e.values[i] = us - ((us%86_400e6)+86_400e6)%86_400e6 + g.r.Int64N(86_400e6)
		}
	}
	return e
}

// draw is a new event or, now and then, one that was given out.
func (g *generator) draw(ev *schemas.Event, imported bool) event {
	if g.r.IntN(6) == 0 {
		if e, ok := g.again(ev, imported); ok {
			return e
		}
	}
	return g.fresh(ev)
}

func (g *generator) give(e event) {
	g.known[e.ev.Name] = append(g.known[e.ev.Name], e)
	g.unique[e.identity()] = true
}

// A message is what a producer publishes.
type message struct {
	ev      *schemas.Event
	payload []byte
	events  map[int]event // by row
	misfits int
}

// message draws a message of one type; some of its lines are no events.
func (g *generator) message(imported bool) message {
	m := message{ev: g.eventType(), events: make(map[int]event)}
	var b strings.Builder
	for row := range 1 + g.r.IntN(40) {
		if g.r.IntN(40) == 0 {
			b.WriteString(g.misfit(m.ev) + "\n")
			m.misfits++
			continue
		}
		e := g.draw(m.ev, imported)
		g.give(e)
		m.events[row] = e
		b.WriteString(g.json(e) + "\n")
		if g.r.IntN(20) == 0 {
			b.WriteString(" \n") // a blank line is no event
		}
	}
	m.payload = []byte(b.String())
	return m
}

// misfit is a line that does not fit the schema.
func (g *generator) misfit(ev *schemas.Event) string {
	whole := g.json(g.fresh(ev))
	return pick(g.r, "{", "[]", "{}", whole[:len(whole)-1], strings.Replace(whole, `"`, `"x`, 1),
		whole[:len(whole)-1]+`,"unknown":1}`, strings.Replace(whole, `{`, `{"`+ev.Time+`":"yesterday",`, 1))
}

// json writes an event in one of the ways that are allowed.
func (g *generator) json(e event) string {
	var fields []string
	for _, i := range g.r.Perm(len(e.values)) {
		f, v := e.ev.Fields[i], e.values[i]
		if v == nil && g.r.IntN(2) == 0 {
			continue
		}
		name, _ := json.Marshal(f.Name)
		fields = append(fields, string(name)+":"+g.jsonValue(f.Type, v))
	}
	return "{" + strings.Join(fields, pick(g.r, ",", " , ")) + "}"
}

func (g *generator) jsonValue(t schemas.Type, v any) string {
	if v == nil {
		return "null"
	}
	switch t.Kind {
	case schemas.Decimal:
		text := decimalText(v.(int64), t.Scale)
		return pick(g.r, text, `"`+text+`"`)
	case schemas.Timestamp:
		at := time.UnixMicro(v.(int64)).UTC()
		return pick(g.r, fmt.Sprint(v), `"`+at.Format(time.RFC3339Nano)+`"`, `"`+at.Format("2006-01-02 15:04:05.999999")+`"`)
	case schemas.Date:
		return `"` + dateText(v.(int64)) + `"`
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func dateText(day int64) string { return time.Unix(day*86400, 0).UTC().Format(time.DateOnly) }

func decimalText(unscaled int64, scale int) string {
	sign, digits := "", strconv.FormatInt(unscaled, 10)
	if unscaled < 0 {
		sign, digits = "-", digits[1:]
	}
	if n := scale + 1 - len(digits); n > 0 {
		digits = strings.Repeat("0", n) + digits
	}
	return sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
}

// file draws a file to import: new events, and ones that came through the log or by another
// file. Of two imports of one event the smaller row wins. Which of two files comes first is
// their own matter: so an event has another row in each.
func (g *generator) file(ev *schemas.Event) []event {
	var events []event
	for row := range 1 + g.r.IntN(150) {
		e := g.fresh(ev)
		if g.r.IntN(4) == 0 {
			if old, ok := g.again(ev, true); ok && !g.taken[old.identity()][row] {
				e = old
			}
		}
		g.give(e)
		if id := e.identity(); g.taken[id] == nil {
			g.taken[id] = map[int]bool{row: true}
		} else {
			g.taken[id][row] = true
		}
		events = append(events, e)
	}
	return events
}
