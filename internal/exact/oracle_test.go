package exact

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"watershed/schemas"
	"watershed/schemas/view"
)

// ask returns a query's rows, each value as text.
func (p *pipeline) ask(sql string) [][]string {
	p.t.Helper()
	params := url.Values{"default_format": {"JSONCompactStringsEachRow"}, "wait_end_of_query": {"1"}}
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, "http://"+p.server.HTTPAddr()+"/?"+params.Encode(), strings.NewReader(sql))
	p.check(err)
	req.SetBasicAuth(p.server.Admin())
	resp, err := http.DefaultClient.Do(req)
	p.check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	p.check(err)
	if resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s", sql, body)
	}
	var rows [][]string
	for dec := json.NewDecoder(strings.NewReader(string(body))); dec.More(); {
		var row []string
		p.check(dec.Decode(&row))
		rows = append(rows, row)
	}
	return rows
}

// merged is what a view answers.
func (p *pipeline) merged(database string, plan *view.Plan) [][]string {
	p.t.Helper()
	return p.ask(fmt.Sprintf("SELECT * FROM %s.%s", database, plan.Name()))
}

// deltaTable is a type's history as an engine that is not ours reads it.
func (p *pipeline) deltaTable(ev *schemas.Event) string {
	return fmt.Sprintf("deltaLakeLocal('%s')", filepath.Join(p.root, ev.Name))
}

// winners is each event once: of those with one identity the one that came first.
func (p *pipeline) winners(ev *schemas.Event, where string) string {
	return fmt.Sprintf("(SELECT * FROM %s WHERE %s ORDER BY _seq, _row LIMIT 1 BY %s, toDate32(%s, 'UTC'))", p.deltaTable(ev), where, ev.ID, ev.Time)
}

// recount is what ClickHouse makes of the Parquet files itself: of the events at positions
// after `after`, first occurrences in all that `where` selects.
func (p *pipeline) recount(plan *view.Plan, where string, after uint64) [][]string {
	p.t.Helper()
	from := p.winners(plan.Event, where)
	if after > 0 {
		from = fmt.Sprintf("(SELECT * FROM %s WHERE _seq > %d)", from, after)
	}
	return p.ask(plan.SelectFinal(from))
}

// same compares answers without regard to the order of rows: exactly, but sums and means of
// float64 within 1e-9 of the sum of magnitudes.
func (p *pipeline) same(what string, plan *view.Plan, got, want [][]string) {
	p.t.Helper()
	dims := len(plan.Dimensions)
	index := func(rows [][]string) map[string][]string {
		by := make(map[string][]string)
		for _, row := range rows {
			key := fmt.Sprintf("%q", row[:dims])
			if by[key] != nil {
				p.t.Errorf("%s: view %s: group %s comes twice", what, plan.Name(), key)
			}
			by[key] = row[dims:]
		}
		return by
	}
	g, w := index(got), index(want)
	wrong := 0
	note := func(format string, args ...any) {
		if wrong++; wrong <= 5 {
			p.t.Errorf("%s: view %s: "+format, append([]any{what, plan.Name()}, args...)...)
		}
	}
	for key, row := range w {
		if g[key] == nil {
			note("group %s is missing; want %v", key, row)
			continue
		}
		for i, m := range plan.Measures {
			if !p.equal(m, g[key][i], row[i], plan) {
				note("group %s: %s is %s; want %s", key, m.Name, g[key][i], row[i])
			}
		}
	}
	for key, row := range g {
		if w[key] == nil {
			note("group %s is of no event: %v", key, row)
		}
	}
	if wrong > 5 {
		p.t.Errorf("%s: view %s: %d differences in all", what, plan.Name(), wrong)
	}
}

func (p *pipeline) equal(m view.Measure, got, want string, plan *view.Plan) bool {
	if got == want {
		return true
	}
	name := m.Func.Name()
	if m.Arg == nil || m.Arg.Type().Kind != schemas.Float64 || name != "sum" && name != "avg" {
		return false
	}
	var g, w float64
	if json.Unmarshal([]byte(got), &g) != nil || json.Unmarshal([]byte(want), &w) != nil {
		return false
	}
	var scale float64
	rows := p.ask(fmt.Sprintf("SELECT sum(abs(%s)) FROM %s", m.Arg.SQL(), p.deltaTable(plan.Event)))
	p.check(json.Unmarshal([]byte(rows[0][0]), &scale))
	return math.Abs(g-w) <= 1e-9*scale
}

// byHand is the recount of the view `customers` in SQL that this program had no part in.
func (p *pipeline) byHand(ev *schemas.Event) [][]string {
	p.t.Helper()
	return p.ask(fmt.Sprintf(`SELECT customer, day, count(), countIf(paid),
		sum(CAST(amount AS Decimal(76, 6))), toFloat64(sum(CAST(amount AS Decimal(76, 6)))) / count(), max(amount),
		sum(toInt128(quantity)), avg(rate), sum(rate), min(ship), uniq(number), quantilesBFloat16(0.5, 0.95)(quantity)
		FROM (SELECT number, toDate32(placed, 'UTC') AS day, argMin(customer, (_seq, _row)) AS customer, argMin(amount, (_seq, _row)) AS amount,
			argMin(quantity, (_seq, _row)) AS quantity, argMin(paid, (_seq, _row)) AS paid, argMin(rate, (_seq, _row)) AS rate, argMin(ship, (_seq, _row)) AS ship
			FROM %s GROUP BY number, day)
		GROUP BY customer, day`, p.deltaTable(ev)))
}

// historyLine is an expression whose text is event.line's.
func historyLine(ev *schemas.Event) string {
	var cells []string
	for _, f := range ev.Fields {
		text := "toString(" + f.Name + ")"
		switch f.Type.Kind {
		case schemas.String:
			text = "hex(" + f.Name + ")"
		case schemas.Bool:
			text = "toString(toUInt8(" + f.Name + "))"
		case schemas.Float64:
			text = "toString(reinterpretAsUInt64(assumeNotNull(" + f.Name + ")))"
		case schemas.Timestamp:
			text = "toString(toUnixTimestamp64Micro(" + f.Name + "))"
		case schemas.Date:
			text = "toString(toInt32(" + f.Name + "))"
		case schemas.Decimal:
			text = fmt.Sprintf("toString(CAST(%s * toDecimal256('1%s', 0) AS Nullable(Int256)))", f.Name, strings.Repeat("0", f.Type.Scale))
		}
		cells = append(cells, fmt.Sprintf("if(isNull(%s), 'null', assumeNotNull(%s))", f.Name, text))
	}
	cells = append(cells, "toString(_seq)", "toString(_row)")
	return "concatWithSeparator('|', " + strings.Join(cells, ", ") + ")"
}

// historyHolds holds history against the list of what was published and imported.
func (p *pipeline) historyHolds(set *schemas.Set) {
	p.t.Helper()
	var got []string
	for _, ev := range set.Events {
		for _, row := range p.ask("SELECT " + historyLine(ev) + " FROM " + p.deltaTable(ev)) {
			got = append(got, row[0])
		}
	}
	want := slices.Sorted(slices.Values(p.lines))
	slices.Sort(got)
	if len(got) != len(want) {
		p.t.Errorf("history holds %d events; want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			p.t.Fatalf("history holds\n%s\nwant\n%s", got[i], want[i])
		}
	}
	var unique [][]string
	for _, ev := range set.Events {
		unique = append(unique, p.ask("SELECT count() FROM "+p.winners(ev, "true"))...)
	}
	total := 0
	for _, row := range unique {
		var n int
		p.check(json.Unmarshal([]byte(row[0]), &n))
		total += n
	}
	if total != len(p.gen.unique) {
		p.t.Errorf("history holds %d different events; want %d", total, len(p.gen.unique))
	}
}
