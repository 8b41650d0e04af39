package agg

import (
	"math"
	"math/big"
	"sync"
)

// The bins of ClickHouse's DDSketch at a relative accuracy of 0.01 (QuantileDD.h, DDSketch.h,
// DDSketch/Mapping.h, Store.h, DDSketchEncoding.h): a value's bin is its natural logarithm
// times multiplier, truncated toward zero. Truncation makes the bin around 1 twice as wide,
// so that values below 1 read 1 to 3 % high.
const (
	gammaBits      = 0x3FF052BF5A814AFD // (1+a)/(1-a) for a = 0.01
	multiplierBits = 0x4048ffc9629d2370 // 1/ln(gamma)
	edge           = 1e-9               // nearer than this to a bin's edge the logarithm must be exact
)

// The magnitudes that quantiles take, besides 0. Merging sketches of magnitudes further apart
// than ClickHouse's key range throws, for ever.
const (
	MinQuantile = 1e-100
	MaxQuantile = 1e100
)

// logTable holds, of each 256th of [1, 2), its middle's inverse and its middle's logarithm in
// bins, the logarithm of 2 in bins, and the bins in 1.
type logTable struct {
	part  [1 << logBits]struct{ inverse, bins float64 }
	two   float64
	scale float64
}

const (
	logBits = 8
	near    = 1e-6 // to an edge: more than a hundred times the error of quick's logarithm
)

var logs = sync.OnceValue(func() *logTable {
	m := math.Float64frombits(multiplierBits)
	t := &logTable{two: math.Ln2 * m, scale: m}
	for i := range t.part {
		middle := 1 + (float64(i)+0.5)/(1<<logBits)
		t.part[i].inverse, t.part[i].bins = 1/middle, math.Log(middle)*m
	}
	return t
})

// quick is the bin of nearly all normal magnitudes; ok is false near an edge, where the
// logarithm must be better. x = middle·2^e·(1+r) with |r| < 2^-9, and ln(1+r) = r - r²/2 + r³/3
// up to 2^-38: together the error is below 1e-9 bins, and 1e-8 where e is ±333. It takes 4.5 ns,
// math.Log and its rounding 12.
func (t *logTable) quick(x float64) (n int, ok bool) {
	w := math.Float64bits(x)
	p := &t.part[w>>(52-logBits)&(1<<logBits-1)]
	r := math.Float64frombits(w&(1<<52-1)|1023<<52)*p.inverse - 1
	f := float64(int(w>>52)-1023)*t.two + p.bins + r*(1-r*(0.5-r*(1./3)))*t.scale
	n = int(f)
	d := math.Abs(f - float64(n))
	return n, d > near && d < 1-near
}

// bin is the bin of a magnitude from MinQuantile to MaxQuantile: within ±11,513.
func bin(x float64) int {
	if n, ok := logs().quick(x); ok {
		return n
	}
	m := math.Float64frombits(multiplierBits)
	f := math.Log(x) * m
	if math.Abs(f-math.Round(f)) < edge && x != 1 {
		f = logarithm(x) * m
	}
	return int(f)
}

// logarithm is the correctly rounded natural logarithm of x > 0, about 20 µs: x = m·2^e with m
// in [0.75, 1.5), ln m = 2·artanh((m-1)/(m+1)), whose series gains more than 4 bits a term.
func logarithm(x float64) float64 {
	const precision = 160
	float := func(x float64) *big.Float { return new(big.Float).SetPrec(precision).SetFloat64(x) }
	m, e := math.Frexp(x)
	if m < 0.75 {
		m, e = m*2, e-1
	}
	z := float(0).Quo(float(m-1), float(0).Add(float(m), float(1))) // m-1 is exact
	square, power, sum := float(0).Mul(z, z), float(0).Set(z), float(0).Set(z)
	for k := 3; k < 90; k += 2 {
		power.Mul(power, square)
		sum.Add(sum, float(0).Quo(power, float(float64(k))))
	}
	sum.Mul(sum, float(2))
	ln2, _, err := big.ParseFloat("0.69314718055994530941723212145817656807550013436025525412068000949339362196969", 10, precision, big.ToNearestEven)
	if err != nil {
		panic(err) // a constant
	}
	sum.Add(sum, ln2.Mul(ln2, float(float64(e))))
	y, _ := sum.Float64()
	return y
}

// Codes order the bins: negative values, positive values, zero. 0 is none.
const (
	binBias  = 11520          // more than the largest bin
	positive = 1 + 2*binBias  // added to the codes of positive values
	zeroCode = 1 + 2*positive // beyond all others
)

// code is the code of a value, 0 for one that quantiles do not take.
func code(x float64) uint32 {
	switch a := math.Abs(x); {
	case a == 0:
		return zeroCode
	case !(a >= MinQuantile && a <= MaxQuantile):
		return 0
	case x < 0:
		return uint32(1 + binBias + bin(a))
	default:
		return uint32(1 + binBias + bin(a) + positive)
	}
}

// smallCodes are the codes of 0 to 4,095, the values that integer measures mostly have.
var smallCodes = sync.OnceValue(func() *[4096]uint16 {
	var t [4096]uint16
	for i := range t {
		t[i] = uint16(code(float64(i)))
	}
	return &t
})
