package agg

import (
	"encoding/binary"
	"math"
	"math/big"
	"slices"
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

// bin is the bin of a magnitude from MinQuantile to MaxQuantile: within ±11,513.
func bin(x float64) int {
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

// A word of a sketch is a code in the upper 16 bits and a count in the lower 48; 0 is none.
// Codes order the bins: negative values, positive values, zero.
const (
	codeShift = 48
	countMask = 1<<codeShift - 1
	binBias   = 11520          // more than the largest bin
	positive  = 1 + 2*binBias  // added to the codes of positive values
	zeroCode  = 1 + 2*positive // beyond all others
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

// appendSketch encodes a sketch of the words, which it sorts:
//
//	02 · gamma f64 · offset f64 · 01 · positive store · 03 · negative store · 04 · zeros f64
func appendSketch(b []byte, words []uint64) []byte {
	slices.Sort(words)
	first, _ := slices.BinarySearch(words, positive<<codeShift)
	last, _ := slices.BinarySearch(words, zeroCode<<codeShift)
	b = append(b, 2)
	b = binary.LittleEndian.AppendUint64(b, gammaBits)
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = appendStore(append(b, 1), words[first:last], positive)
	b = appendStore(append(b, 3), words[:first], 0)
	zeros := 0.
	if last < len(words) {
		zeros = float64(words[last] & countMask)
	}
	return binary.LittleEndian.AppendUint64(append(b, 4), math.Float64bits(zeros))
}

// appendStore encodes one side's bins, ascending, as ClickHouse would:
//
//	dense:  0C · uvarint bins · varint first key · varint 1 · count f64 of each bin
//	sparse: 04 · uvarint bins · of each: varint key - key before (at first 0) · count f64
//
// Varints are zigzag. An empty store is dense with the first key 2^31-1.
func appendStore(b []byte, words []uint64, base int) []byte {
	key := func(w uint64) int64 { return int64(w>>codeShift) - int64(1+binBias+base) }
	count := func(b []byte, n uint64) []byte {
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(n)))
	}
	if len(words) == 0 {
		b = binary.AppendVarint(append(b, 0x0C, 0), math.MaxInt32)
		return binary.AppendVarint(b, 1)
	}
	low := key(words[0])
	width := int(key(words[len(words)-1])-low) + 1
	if 8*(width-len(words)) > 2*len(words) {
		b = binary.AppendUvarint(append(b, 4), uint64(len(words)))
		before := int64(0)
		for _, w := range words {
			b = count(binary.AppendVarint(b, key(w)-before), w&countMask)
			before = key(w)
		}
		return b
	}
	b = binary.AppendUvarint(append(b, 0x0C), uint64(width))
	b = binary.AppendVarint(binary.AppendVarint(b, low), 1)
	next := low
	for _, w := range words {
		for ; next < key(w); next++ {
			b = count(b, 0)
		}
		b = count(b, w&countMask)
		next++
	}
	return b
}
