package agg_test

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"watershed/schemas"
	"watershed/schemas/agg"
)

// exactVariance is the true variance of so many integers, over n or over n-1.
func exactVariance(values []int64, sample bool) *big.Rat {
	n, sum, squares := big.NewInt(int64(len(values))), new(big.Int), new(big.Int)
	for _, v := range values {
		x := big.NewInt(v)
		sum.Add(sum, x)
		squares.Add(squares, x.Mul(x, x))
	}
	above := squares.Mul(squares, n)
	above.Sub(above, sum.Mul(sum, sum))
	over := n.Int64()
	if sample {
		over--
	}
	return new(big.Rat).SetFrac(above, new(big.Int).Mul(n, big.NewInt(over)))
}

// Variances of integers and decimals are the true ones, however far from zero the values are: a few last places apart.
func TestVariancesAreExact(t *testing.T) {
	db := database(t)
	rapid.Check(t, func(r *rapid.T) {
		middle := rapid.OneOf(rapid.Int64Range(-5, 5), rapid.Int64Range(-1<<62, 1<<62)).Draw(r, "middle")
		values := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(-9, 9), rapid.Int64Range(-1<<61, 1<<61)), 2, 40).Draw(r, "values")
		digits := make([]int64, len(values)) // as decimals of 18 digits, 4 of them behind the point
		texts := make([]string, len(values))
		for i := range values {
			values[i] += middle
			digits[i] = values[i] % 1e18
			texts[i] = fmt.Sprintf("(%d, %d)", values[i], digits[i])
		}
		var sql []string
		var want []float64
		for _, name := range []string{"variance", "variance_sample", "stddev", "stddev_sample"} {
			for _, of := range []struct {
				arg    string
				typ    schemas.Type
				values []int64
				unit   float64
			}{
				{"x.1", schemas.Type{Kind: schemas.Int64}, values, 1},
				{"reinterpret(x.2, 'Decimal(18, 4)')", schemas.Type{Kind: schemas.Decimal, Precision: 18, Scale: 4}, digits, 1e4},
			} {
				f, err := agg.New(name, of.typ, nil)
				if err != nil {
					r.Fatal(err)
				}
				v, _ := exactVariance(of.values, strings.HasSuffix(name, "_sample")).Float64()
				v /= of.unit * of.unit
				if strings.HasPrefix(name, "stddev") {
					v = math.Sqrt(v)
				}
				sql, want = append(sql, f.RawSQL(of.arg, false)), append(want, v)
			}
		}
		rows, err := db.Rows("SELECT " + strings.Join(sql, ", ") + " FROM (SELECT arrayJoin(CAST([" + strings.Join(texts, ", ") + "], 'Array(Tuple(Int64, Int64))')) AS x)")
		if err != nil {
			r.Fatal(err)
		}
		for i, text := range rows[0] {
			got, err := strconv.ParseFloat(text, 64)
			if err != nil || math.Abs(got-want[i]) > 1e-15*want[i] {
				r.Errorf("%s is %s; want %g", sql[i], text, want[i])
			}
		}
	})
}

// Variances of floats are what ClickHouse's own stable algorithm makes of them.
func TestVariancesOfFloats(t *testing.T) {
	db := database(t)
	for name, own := range map[string]string{"variance": "varPopStable", "variance_sample": "varSampStable", "stddev": "stddevPopStable", "stddev_sample": "stddevSampStable"} {
		f, err := agg.New(name, schemas.Type{Kind: schemas.Float64}, nil)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := db.Rows("SELECT abs(" + f.RawSQL("x", false) + " / " + own + "(x) - 1) < 1e-12 FROM (SELECT sin(number) * 20 + 7 AS x FROM numbers(100000))")
		if err != nil {
			t.Fatal(err)
		}
		if rows[0][0] != "1" && rows[0][0] != "true" {
			t.Errorf("%s is not %s", name, own)
		}
	}
}

// Decimals whose squares no sum holds are refused, with what to write instead.
func TestVarianceOfLongDecimals(t *testing.T) {
	_, err := agg.New("stddev", schemas.Type{Kind: schemas.Decimal, Precision: 19, Scale: 2}, nil)
	if err == nil || !strings.Contains(err.Error(), "double(x)") {
		t.Errorf("stddev of decimal(19,2): %v", err)
	}
}
