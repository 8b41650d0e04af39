package agg_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"watershed/schemas"
	"watershed/schemas/agg"
	"watershed/schemas/column"
)

// cancelling draws values that are apart by many powers of ten, and most of whose sum cancels.
func cancelling(r *rapid.T) []float64 {
	var out []float64
	for range rapid.IntRange(1, 30).Draw(r, "n") {
		x := math.Ldexp(rapid.Float64Range(0.5, 1).Draw(r, "x"), rapid.IntRange(-60, 60).Draw(r, "exponent"))
		out = append(out, x)
		if rapid.Bool().Draw(r, "cancel") {
			out = append(out, -x)
		}
	}
	return out
}

func sumOf(t rapid.TB, f agg.Func, values []float64) agg.Column {
	t.Helper()
	b := array.NewFloat64Builder(memory.DefaultAllocator)
	b.AppendValues(values, nil)
	rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Float64}}, nil), []arrow.Array{b.NewArray()}, int64(len(values)))
	v, err := column.NewReader().Block(rec).Field("x")
	if err != nil {
		t.Fatal(err)
	}
	c := f.New()
	c.Grow(1)
	c.Add(make([]int32, len(values)), nil, f.Prepare(v))
	return c
}

// A fold's sum is the true one, whatever cancels, and however many folds it was divided among: what is lost
// is at most the last place of each state, and of what folds lose of what they lose.
func TestFloatSumsAreNearTheTrueOnes(t *testing.T) {
	f, err := agg.New("sum", schemas.Type{Kind: schemas.Float64}, nil)
	if err != nil {
		t.Fatal(err)
	}
	one := func(r *rapid.T) {
		values := rapid.Custom(cancelling).Draw(r, "values")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		rng.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
		exact, magnitudes := big.NewFloat(0).SetPrec(500), 0.
		for _, x := range values {
			exact.Add(exact, big.NewFloat(x))
			magnitudes += math.Abs(x)
		}
		want, _ := exact.Float64()
		at := rapid.IntRange(0, len(values)).Draw(r, "divided")
		c := sumOf(r, f, values[:at])
		c.Merge([]int32{0}, sumOf(r, f, values[at:]))
		states := c.States([]int32{0})
		got, abs := states[0].(*array.Float64).Value(0), states[1].(*array.Float64).Value(0)
		if ulp := math.Ldexp(math.Abs(want), -52); math.Abs(got-want) > ulp+math.Ldexp(magnitudes, -95) {
			r.Errorf("sum %g; want %g, %g beside it", got, want, math.Abs(got-want))
		}
		if math.Abs(abs-magnitudes) > 1e-13*magnitudes {
			r.Errorf("magnitudes %g; want %g", abs, magnitudes)
		}
	}
	rapid.Check(t, func(r *rapid.T) {
		for range 4 { // it is quick
			one(r)
		}
	})
}

// A sum that overflows is infinite, as ClickHouse's is, and not a remnant of what additions lost.
func TestFloatSumsOverflow(t *testing.T) {
	for _, name := range []string{"sum", "avg"} {
		f, err := agg.New(name, schemas.Type{Kind: schemas.Float64}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := sumOf(t, f, []float64{math.MaxFloat64, math.MaxFloat64, 1}).States([]int32{0})[0].(*array.Float64).Value(0)
		if !math.IsInf(got, 1) {
			t.Errorf("%s over twice the largest number: %g", name, got)
		}
	}
}
