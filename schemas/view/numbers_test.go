package view_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/view"
)

// Groups are right whichever way their keys and pairs are numbered, and as one way gives way to
// another: each case's two keys are drawn so that integers are near, far, first far and later
// near, at the ends of their range, and pairs alone on the left, dense, sparse, or first sparse
// and later dense; some are null. Two flushes, each held against a plain map.
func TestNumbersOfKeysAndPairs(t *testing.T) {
	ev := reading()
	p, err := view.Compile(&schemas.View{Name: "v", From: "reading",
		Dimensions: definitions(map[string]string{"a": "plain", "b": "level"}), Measures: definitions(map[string]string{"n": "count()"})}, ev)
	if err != nil {
		t.Fatal(err)
	}
	const n, blocks = 12_000, 4
	rng := rand.New(rand.NewPCG(3, 4))
	below := func(n int64) func(int) int64 { return func(int) int64 { return rng.Int64N(n) - n/2 } }
	far := func(int) int64 { return int64(rng.Uint64()) }
	for name, key := range map[string][2]func(row int) int64{
		"one and near":          {below(1), below(300)},
		"one and later two":     {func(row int) int64 { return int64(row / 30_000) }, below(5000)},
		"one and far":           {below(1), far},
		"dense":                 {below(40), below(50)},
		"in order":              {func(row int) int64 { return int64(row / 100) }, below(50)},
		"at random, many":       {below(1440), below(20)},
		"sparse":                {below(100_000), below(50_000)},
		"first far, later near": {below(60_000), below(2)},
		"far and near":          {far, below(3)},
		"near, then far": {func(row int) int64 {
			if row < 20_000 {
				return int64(row % 500)
			}
			return int64(rng.Uint64() >> 20)
		}, below(10)},
		"the ends": {func(int) int64 { return math.MaxInt64 - rng.Int64N(6000) }, func(int) int64 { return math.MinInt64 + rng.Int64N(6000) }},
		"both ends": {func(row int) int64 {
			if row%2 == 0 {
				return math.MaxInt64 - rng.Int64N(30)
			}
			return math.MinInt64 + rng.Int64N(30)
		}, below(7)},
	} {
		t.Run(name, func(t *testing.T) {
			fold, reader := p.NewFold(), column.NewReader()
			for range 2 {
				want := make(map[string]uint64)
				for b := range blocks {
					values := make(map[string][]any)
					for _, f := range ev.Fields {
						values[f.Name] = make([]any, n)
					}
					for i := range n {
						row := b*n + i
						values["id"][i], values["time"][i], values["site"][i] = int64(row), int64(0), ""
						values["plain"][i] = key[0](row)
						if row%11 > 0 {
							values["level"][i] = key[1](row)
						}
						want[fmt.Sprint(values["plain"][i], values["level"][i])]++
					}
					if err := fold.Add(reader.Block(events(ev, values, 0, n, true)), nil); err != nil {
						t.Fatal(err)
					}
				}
				rec := fold.Flush()
				inOrder(t, p, rec)
				if int(rec.NumRows()) != len(want) {
					t.Fatalf("got %d groups; want %d", rec.NumRows(), len(want))
				}
				for i := range int(rec.NumRows()) {
					var level any
					if rec.Column(1).IsValid(i) {
						level = rec.Column(1).(*array.Int64).Value(i)
					}
					group := fmt.Sprint(rec.Column(0).(*array.Int64).Value(i), level)
					if got := rec.Column(2).(*array.Uint64).Value(i); got != want[group] {
						t.Fatalf("group %s has %d events; want %d", group, got, want[group])
					}
				}
			}
		})
	}
}
