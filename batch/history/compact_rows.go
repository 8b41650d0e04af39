package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sort"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

// rowBits is a set of a file's rows; nil is the empty set.
type rowBits []uint64

func (b rowBits) has(row int64) bool { return b != nil && b[row/64]>>(row%64)&1 != 0 }

func (b rowBits) n() (n int64) {
	for _, w := range b {
		n += int64(bits.OnesCount64(w))
	}
	return n
}

var errFull = errors.New("the table is full")

var errOverlap = errors.New("two origins have an event of one identity")

// A twinSearch finds the rows of files before which another row of the same identity stands, by sequence
// and row. Among the rows of one origin that is the order of the batch.
type twinSearch struct {
	table  *Table
	files  []File
	base   []uint32 // per file: rows of the files before it
	losers []rowBits
	firsts identity.Map[identity.Place]
	prints []identity.Fingerprint
	places []identity.Place
	across bool // end with errOverlap when rows of two origins meet; no row is marked
}

// losers returns, by file, the rows of one origin that are duplicates.
func (t *Table) losers(ctx context.Context, files []File, memory int64) ([]rowBits, error) {
	s := &twinSearch{table: t, files: files, losers: make([]rowBits, len(files))}
	return s.losers, s.run(ctx, memory)
}

// overlap tells whether an identity stands in files of two origins.
func (t *Table) overlap(ctx context.Context, files []File, memory int64) (bool, error) {
	s := &twinSearch{table: t, files: files, across: true}
	err := s.run(ctx, memory)
	if errors.Is(err, errOverlap) {
		return true, nil
	}
	return false, err
}

// run keeps the first place of each identity. If the identities do not fit into the memory, it reads the
// ids several times, each time for a part of all fingerprints.
func (s *twinSearch) run(ctx context.Context, memory int64) error {
	rows := int64(0)
	for _, f := range s.files {
		s.base = append(s.base, uint32(rows))
		if rows += f.Rows; rows > math.MaxUint32 {
			return fmt.Errorf("more than %d rows on one date", uint32(math.MaxUint32))
		}
	}
	room := min(identity.Room[identity.Place](memory), int(rows)+1)
	parts := uint64(rows)*20/19/uint64(room) + 1
	width := uint64(math.MaxUint64) / parts
	for k := range parts {
		to := (k+1)*width - 1
		if k == parts-1 {
			to = math.MaxUint64
		}
		if err := s.part(ctx, k*width, to, room); err != nil {
			return err
		}
	}
	return nil
}

// part looks at the identities whose fingerprints' high halves lie in lo..hi. If they turn out not to fit,
// it goes on with both halves; what is marked so far is right, since of two rows that met one is behind.
func (s *twinSearch) part(ctx context.Context, lo, hi uint64, room int) error {
	s.firsts.Reset(room)
	for i := range s.files {
		err := s.file(ctx, i, lo, hi)
		if errors.Is(err, errFull) && lo < hi {
			middle := lo + (hi-lo)/2
			if err := s.part(ctx, lo, middle, room); err != nil {
				return err
			}
			return s.part(ctx, middle+1, hi, room)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *twinSearch) file(ctx context.Context, i int, lo, hi uint64) error {
	ev := s.table.event
	columns := []string{ev.ID, ev.Time, schemas.SeqColumn, schemas.RowColumn}
	reader, from := column.NewReader(), uint32(0)
	return s.table.Scan(ctx, s.files[i], columns, func(rec arrow.Record) (err error) {
		b := reader.Block(rec)
		if s.prints, err = identity.Of(s.prints[:0], ev, b); err != nil {
			return err
		}
		if s.places, err = identity.Places(s.places[:0], b, 0); err != nil {
			return err
		}
		for j, print := range s.prints {
			if print.Hi < lo || print.Hi > hi {
				continue
			}
			here := s.places[j]
			here.Source = s.base[i] + from + uint32(j)
			switch first, fresh := s.firsts.Put(print); {
			case first == nil:
				return errFull
			case fresh:
				*first = here
			case s.across:
				if s.files[s.fileOf(first.Source)].Origin() != s.files[i].Origin() {
					return errOverlap
				}
			case here.Before(*first):
				s.lose(first.Source)
				*first = here
			default:
				s.lose(here.Source)
			}
		}
		from += uint32(len(s.prints))
		return nil
	})
}

// lose marks the row of that number.
func (s *twinSearch) lose(number uint32) {
	i := s.fileOf(number)
	if s.losers[i] == nil {
		s.losers[i] = make(rowBits, (s.files[i].Rows+63)/64)
	}
	row := number - s.base[i]
	s.losers[i][row/64] |= 1 << (row % 64)
}

// fileOf is the file that has the row of that number.
func (s *twinSearch) fileOf(number uint32) int {
	return sort.Search(len(s.base), func(k int) bool { return s.base[k] > number }) - 1
}
