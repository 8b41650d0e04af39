package batch

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

// A pair is a duplicate and, by its number, a row that stands before it: in the end, the one that counts.
type pair struct{ duplicate, kept uint32 }

// pairs are the duplicates of a date as they were found, while there is room for all of them, and for
// what is put down of the rows that count. With pairs, judging reads the rows that matter and hashes no
// identity; without, it looks for them by their fingerprints.
type pairs struct {
	list []pair
	room int
	over bool // there were more
}

// reset empties the list, and gives it and the twins that it needs so many bytes.
func (p *pairs) reset(bytes int64) {
	p.list, p.over = p.list[:0], false
	p.room = int(bytes / int64(unsafe.Sizeof(pair{})*2+unsafe.Sizeof(twin{})))
}

func (p *pairs) n() int         { return len(p.list) }
func (p *pairs) complete() bool { return !p.over }

// forget drops all but the first n pairs.
func (p *pairs) forget(n int) { p.list = p.list[:min(n, len(p.list))] }

func (p *pairs) add(duplicate, of uint32) {
	switch {
	case p.over:
	case len(p.list) == p.room:
		p.list, p.over = nil, true
	default:
		if len(p.list) == cap(p.list) { // growth by append would take up to three times the list
			p.list = append(make([]pair, 0, min(p.room, max(256, 2*cap(p.list)))), p.list...)
		}
		p.list = append(p.list, pair{duplicate, of})
	}
}

// settle sorts the pairs by duplicate, sets each one's kept row to the one that counts, and returns those,
// ascending. What stood before a duplicate when that was found may have turned out to be one itself.
func (p *pairs) settle() []twin {
	list := p.list
	slices.SortFunc(list, func(a, b pair) int { return cmp.Compare(a.duplicate, b.duplicate) })
	at := func(number uint32) (int, bool) {
		return slices.BinarySearchFunc(list, number, func(x pair, n uint32) int { return cmp.Compare(x.duplicate, n) })
	}
	numbers := make([]uint32, 0, len(list))
	for i := range list {
		kept := list[i].kept
		for k, lost := at(kept); lost; k, lost = at(kept) {
			kept = list[k].kept
		}
		for k, on := i, true; on && list[k].kept != kept; { // the way there is not gone again
			next := list[k].kept
			list[k].kept = kept
			k, on = at(next)
		}
		numbers = append(numbers, kept)
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	twins := make([]twin, len(numbers))
	for i, n := range numbers {
		twins[i] = twin{number: n, seq: -1}
	}
	return twins
}

// judgePairs is judge for all duplicates at once. Rows are read in the order of their numbers; duplicates that
// come in a block before the one of the row that counts are compared in a second reading.
func (s *search) judgePairs(ctx context.Context) error {
	twins := s.pairs.settle()
	for left := s.pairs.list; len(left) > 0; {
		early, kept := left[:0], twins
		for _, i := range s.order {
			if s.files[i].Rows == 0 {
				continue
			}
			end := s.base[i] + uint32(s.files[i].Rows-1)
			losers := before(&left, end, func(p pair) uint32 { return p.duplicate })
			winners := before(&kept, end, func(t twin) uint32 { return t.number })
			if len(losers) == 0 && (len(winners) == 0 || winners[0].seq >= 0) {
				continue
			}
			err := s.rows(ctx, i, func(to uint32, at func(number uint32) candidate) {
				for put := before(&winners, to, func(t twin) uint32 { return t.number }); len(put) > 0; put = put[1:] {
					if t := &put[0]; t.seq < 0 {
						at(t.number).put(t)
					}
				}
				for _, p := range before(&losers, to, func(p pair) uint32 { return p.duplicate }) {
					k := sort.Search(len(twins), func(k int) bool { return twins[k].number >= p.kept })
					if twins[k].seq < 0 {
						early = append(early, p) // no pair is overwritten that was not taken
						continue
					}
					at(p.duplicate).compare(&twins[k])
				}
			})
			if err != nil {
				return err
			}
		}
		left = early
	}
	return nil
}

// before cuts the elements up to a number off an ascending list.
func before[T any](list *[]T, last uint32, number func(T) uint32) (some []T) {
	n := sort.Search(len(*list), func(i int) bool { return number((*list)[i]) > last })
	some, *list = (*list)[:n:n], (*list)[n:]
	return some
}

// rows reads a file with all columns. fn gets the number of the last row of a block, and what makes a candidate
// of one of its rows.
func (s *search) rows(ctx context.Context, file int, fn func(to uint32, at func(number uint32) candidate)) error {
	columns := []string{schemas.SeqColumn, schemas.RowColumn}
	for _, f := range s.event.Fields {
		columns = append(columns, f.Name)
	}
	reader, from := column.NewReader(), s.base[file]
	return s.table.Scan(ctx, s.files[file], columns, func(rec arrow.Record) (err error) {
		b := reader.Block(rec)
		if b.Len() == 0 {
			return nil
		}
		if s.places, err = identity.Places(s.places[:0], b, 0); err != nil {
			return err
		}
		payloads, err := identity.PayloadsOf(s.event, b)
		if err != nil {
			return err
		}
		fn(from+uint32(b.Len())-1, func(number uint32) candidate {
			at := int(number - from)
			return candidate{s, payloads, at, file, int64(number - s.base[file]), number, s.places[at].Seq, s.places[at].Row}
		})
		from += uint32(b.Len())
		return nil
	})
}
