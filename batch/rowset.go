package batch

import (
	"math/bits"

	"watershed/batch/history"
)

// A rowset is a set of rows of a date's files: per file a bit for each row, or nothing while
// none of the file's rows is in it.
type rowset [][]uint64

// add puts a row of a file of so many rows into the set.
func (s rowset) add(file int, row, rows int64) {
	if s[file] == nil {
		s[file] = make([]uint64, (rows+63)/64)
	}
	s[file][row/64] |= 1 << (row % 64)
}

func (s rowset) has(file int, row int64) bool {
	return s[file] != nil && s[file][row/64]>>(row%64)&1 != 0
}

// n is the number of rows in the set.
func (s rowset) n() (n int) {
	for _, words := range s {
		for _, w := range words {
			n += bits.OnesCount64(w)
		}
	}
	return n
}

// only returns those rows of a file that lie in [from, from+n), counted from `from`, ascending.
func (s rowset) only(file, from, n int) []int32 {
	words, out := s[file], []int32{}
	if words == nil {
		return out
	}
	for at := from / 64; at < len(words) && at*64 < from+n; at++ {
		for w := words[at]; w != 0; w &= w - 1 {
			if row := at*64 + bits.TrailingZeros64(w); row >= from && row < from+n {
				out = append(out, int32(row-from))
			}
		}
	}
	return out
}

// without returns the rows 0..n-1 that are not in the set, of the n rows of a file that begin
// at row `from`; nil if that is all of them.
func (s rowset) without(file, from, n int) []int32 {
	drop := s.only(file, from, n)
	if len(drop) == 0 {
		return nil
	}
	kept := make([]int32, 0, n-len(drop))
	for row := int32(0); row < int32(n); row++ {
		if len(drop) > 0 && drop[0] == row {
			drop = drop[1:]
			continue
		}
		kept = append(kept, row)
	}
	return kept
}

// files returns the files that have rows in the set, and what chooses those.
func (s rowset) files(all []history.File) (some []history.File, choose chooser) {
	var at []int
	for i, words := range s {
		if words != nil {
			some, at = append(some, all[i]), append(at, i)
		}
	}
	return some, func(file, from, n int) []int32 { return s.only(at[file], from, n) }
}
