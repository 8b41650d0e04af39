package view_test

import (
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"pgregory.net/rapid"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/view"
)

// Whatever the view and the events: folds of any parts of them, merged in any order, flush what one
// fold of all flushes, byte by byte, but for sums of floats.
func TestMergeEqualsOneFold(t *testing.T) {
	t.Parallel()
	ev := reading()
	rapid.Check(t, func(r *rapid.T) {
		p, err := view.Compile(drawView(r), ev)
		if err != nil {
			r.Fatal(err)
		}
		folds := make([]*view.Fold, rapid.IntRange(2, 4).Draw(r, "folds"))
		for i := range folds {
			folds[i] = p.NewFold()
		}
		for range rapid.IntRange(1, 2).Draw(r, "times") { // folds are used again
			n := rapid.IntRange(0, 120).Draw(r, "events")
			values := drawEvents(r, ev, n)
			whole, reader := p.NewFold(), column.NewReader()
			for from := 0; from < n; {
				to := from + rapid.IntRange(1, n-from).Draw(r, "part")
				block := reader.Block(events(ev, values, from, to, rapid.Bool().Draw(r, "dictionary")))
				add(r, whole, block)
				add(r, rapid.SampledFrom(folds).Draw(r, "fold"), block)
				from = to
			}
			rows := whole.Rows()
			for left := folds; len(left) > 1; {
				left = rapid.Permutation(left).Draw(r, "order")
				left[0].Merge(left[1])
				if left[1].Rows() != 0 || left[1].Groups() != 0 {
					r.Fatalf("%d groups of %d events are left in a fold that was merged", left[1].Groups(), left[1].Rows())
				}
				left = append(left[:1:1], left[2:]...)
				if len(left) == 1 {
					if left[0].Rows() != rows {
						r.Fatalf("merged folds have %d events, not %d", left[0].Rows(), rows)
					}
					sameStates(r, p, whole.Flush(), left[0].Flush(), values)
				}
			}
		}
	})
}

// Folds of many groups and large states merge as well: sets beyond what they hold exactly, sketches of many
// bins, tables and matrices.
func TestMergeOfLargeFolds(t *testing.T) {
	t.Parallel()
	const n = 300_000
	recs, ev := pageviews(n), pageview()
	magnitude := map[string][]any{"heat": {n * 100.}} // about what the latencies come to
	for _, v := range six {
		for _, dims := range []map[string]string{v.dims, {}, {"user": "user", "page": "page"}, {"status": "status", "ms": "latency"}} {
			p, err := view.Compile(&schemas.View{Name: v.name, From: ev.Name, Where: schemas.Expression{Text: v.where},
				Dimensions: definitions(dims), Measures: definitions(v.measures)}, ev)
			if err != nil {
				t.Fatal(err)
			}
			whole, reader := p.NewFold(), column.NewReader()
			folds := []*view.Fold{p.NewFold(), p.NewFold(), p.NewFold()}
			for i, rec := range recs {
				block := reader.Block(rec)
				add(t, whole, block)
				add(t, folds[min(i%4, 2)], block)
			}
			folds[1].Merge(folds[2])
			folds[0].Merge(folds[1])
			if whole.Groups() != folds[0].Groups() || whole.Rows() != folds[0].Rows() {
				t.Fatalf("%s by %v: merged folds have %d groups of %d events; want %d of %d", v.name, dims, folds[0].Groups(), folds[0].Rows(), whole.Groups(), whole.Rows())
			}
			sameStates(t, p, whole.Flush(), folds[0].Flush(), magnitude)
		}
	}
}

func add(t rapid.TB, f *view.Fold, b *column.Block) {
	t.Helper()
	if err := f.Add(b, nil); err != nil {
		t.Fatal(err)
	}
}

// sameStates holds records of states against each other.
func sameStates(t rapid.TB, p *view.Plan, want, got arrow.Record, values map[string][]any) {
	t.Helper()
	if want.NumRows() != got.NumRows() {
		t.Fatalf("merged folds have %d groups; want %d", got.NumRows(), want.NumRows())
	}
	at := len(p.Dimensions)
	for i := range at {
		if !array.Equal(want.Column(i), got.Column(i)) {
			t.Fatalf("dimension %s is %s; want %s", p.Dimensions[i].Name, got.Column(i), want.Column(i))
		}
	}
	for _, m := range p.Measures {
		for _, c := range m.Columns {
			w, g := want.Column(at), got.Column(at)
			at++
			if array.Equal(w, g) {
				continue
			}
			if c.Arrow.ID() == arrow.FLOAT64 && w.NullN() == g.NullN() {
				if near(t, m, w, g, values) {
					continue
				}
			}
			t.Fatalf("state %s of %s is %s; want %s", c.Name, p.Name(), g, w)
		}
	}
}

// near compares states of sums of floats.
func near(t rapid.TB, m view.Measure, want, got arrow.Array, values map[string][]any) bool {
	t.Helper()
	for i := range want.Len() {
		if want.IsNull(i) != got.IsNull(i) || want.IsValid(i) && !same(m, want.ValueStr(i), got.ValueStr(i), values) {
			return false
		}
	}
	return true
}
