package view_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/view"
)

// departures are n events in the order of time over 30 days, of 300 sites, dictionary-coded.
func departures(ev *schemas.Event, n int) map[string][]any {
	rng := rand.New(rand.NewPCG(1, 2))
	values := make(map[string][]any)
	for _, f := range ev.Fields {
		values[f.Name] = make([]any, n)
	}
	for i := range n {
		values["id"][i] = int64(i)
		values["time"][i] = int64(i) * (30 * 86400_000_000 / int64(n))
		values["site"][i] = fmt.Sprintf("S%03d", rng.IntN(300))
		values["plain"][i] = int64(rng.NormFloat64()*40 + 5)
		values["heat"][i] = rng.ExpFloat64() * 100
	}
	return values
}

// One view over the same groups again and again, the evaluation of the bucket and the condition
// included: site alone with count folded 440 million rows a second on one core of an AMD EPYC.
func BenchmarkFold(b *testing.B) {
	ev := reading()
	const n = 1 << 16
	rec := events(ev, departures(ev, n), 0, n, true)
	for _, bench := range []struct {
		name     string
		dims     map[string]string
		measures map[string]string
	}{
		{"hour×site,count,countif,max,avg", map[string]string{"hour": `bucket(time, "1h")`, "site": "site"},
			map[string]string{"n": "count()", "late": "count(plain > 15)", "most": "max(plain)", "mean": "avg(plain)"}},
		{"hour×site,count", map[string]string{"hour": `bucket(time, "1h")`, "site": "site"}, map[string]string{"n": "count()"}},
		{"site,count", map[string]string{"site": "site"}, map[string]string{"n": "count()"}},
		{"global,count,max", nil, map[string]string{"n": "count()", "most": "max(plain)"}},
		{"id,count", map[string]string{"id": "id"}, map[string]string{"n": "count()"}},
		{"hour×site,uniq", map[string]string{"hour": `bucket(time, "1h")`, "site": "site"}, map[string]string{"u": "uniq(plain)"}},
		{"hour,uniq-id", map[string]string{"hour": `bucket(time, "1h")`}, map[string]string{"u": "uniq(id)"}},
		{"hour×site,quantiles-int", map[string]string{"hour": `bucket(time, "1h")`, "site": "site"}, map[string]string{"q": "quantiles(plain, 0.5, 0.99)"}},
		{"hour×site,quantiles-float", map[string]string{"hour": `bucket(time, "1h")`, "site": "site"}, map[string]string{"q": "quantiles(heat, 0.5, 0.99)"}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p, err := view.Compile(&schemas.View{Name: "v", From: "reading", Dimensions: definitions(bench.dims), Measures: definitions(bench.measures)}, ev)
			if err != nil {
				b.Fatal(err)
			}
			fold, reader := p.NewFold(), column.NewReader()
			b.ReportAllocs()
			for b.Loop() {
				if err := fold.Add(reader.Block(rec), nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
			b.ReportMetric(float64(fold.Groups()), "groups")
		})
	}
}

// A flush with the fold before it, of 57,000 groups of one row with count, avg, uniq and
// quantiles, sorted.
func BenchmarkFlush(b *testing.B) {
	ev := reading()
	const n = 1 << 16
	rec := events(ev, departures(ev, n), 0, n, true)
	p, err := view.Compile(&schemas.View{Name: "v", From: "reading",
		Dimensions: definitions(map[string]string{"hour": `bucket(time, "1h")`, "site": "site"}),
		Measures:   definitions(map[string]string{"n": "count()", "mean": "avg(plain)", "u": "uniq(plain)", "q": "quantiles(plain, 0.5)"})}, ev)
	if err != nil {
		b.Fatal(err)
	}
	fold, reader := p.NewFold(), column.NewReader()
	groups := 0
	b.ReportAllocs()
	for b.Loop() {
		if err := fold.Add(reader.Block(rec), nil); err != nil {
			b.Fatal(err)
		}
		out := fold.Flush()
		groups += int(out.NumRows())
		out.Release()
	}
	b.ReportMetric(float64(groups)/b.Elapsed().Seconds()/1e6, "Mgroups/s")
}
