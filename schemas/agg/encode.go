package agg

import (
	"encoding/binary"
	"math"
	"slices"
)

// A word is a code in the upper 16 bits and a count in the lower 48.
const (
	codeShift = 48
	countMask = 1<<codeShift - 1
)

// sketchHead begins every sketch: its mapping and the mark of the positive store. sketchTail
// ends one without negative values and zeros.
var (
	sketchHead = append(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte{2}, gammaBits), 0), 1)
	sketchTail = binary.LittleEndian.AppendUint64(append(appendStore([]byte{3}, nil, 0), 4), 0)
)

// appendSketch encodes a sketch of the words, ascending:
//
//	02 · gamma f64 · offset f64 · 01 · positive store · 03 · negative store · 04 · zeros f64
func appendSketch(b []byte, words []uint64) []byte {
	b = append(b, sketchHead...)
	if n := len(words); n > 0 && words[0] >= positive<<codeShift && words[n-1] < zeroCode<<codeShift {
		return append(appendStore(b, words, positive), sketchTail...)
	}
	first, _ := slices.BinarySearch(words, positive<<codeShift)
	last, _ := slices.BinarySearch(words, zeroCode<<codeShift)
	b = appendStore(b, words[first:last], positive)
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
	b = slices.Grow(b, 16+11*max(len(words), min(width, 2*len(words))))
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
