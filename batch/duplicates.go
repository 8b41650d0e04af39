package batch

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/apache/arrow/go/v15/arrow"

	"watershed/batch/history"
	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

const (
	defaultDuplicateMemory = 256 << 20
	leastDuplicateMemory   = 16 << 10 // of one worker
)

// drops says which rows of a date's files are duplicates: rows whose identity another row of
// the date has that stands before them.
type drops struct {
	rows rowset // all of them

	// What the live build may have shown besides the rows that count, for the audit. The others
	// were dropped by the live build as well.
	late  rowset // came through the log since the live build's cut
	again rowset // are in an import that the live build did not have, or were displaced by one

	n         int       // rows
	differing conflicts // those whose payload is not that of the row that counts
	shown     conflicts // those of them that are late or again
}

// A finder finds the duplicates of one date after the other within a bounded memory.
//
// It keeps the first place of each identity in a table. If the identities of a date do not fit
// into the memory, it reads the date several times, each time for those whose fingerprints lie in
// one part of all fingerprints: the result is the same. Beyond the table it holds a bit for each
// row of a file that has a duplicate, and what a block of the scan needs.
type finder struct {
	memory int64 // bytes
	firsts identity.Map[identity.Place]
	pairs  pairs
	twins  identity.Map[twin]
	prints []identity.Fingerprint // of the block at hand
	places []identity.Place
	passes int // over a date's files, of the last date
}

// newFinder returns a finder that keeps its tables within so many bytes, or a little minimum.
func newFinder(memory int64) *finder { return &finder{memory: max(memory, leastDuplicateMemory)} }

// A search is the look for the duplicates of one date.
type search struct {
	*finder
	table *history.Table
	event *schemas.Event
	date  date
	files []history.File // the date's

	order []int    // files in the order in which they are read: winners tend to come first
	base  []uint32 // per file: rows of the files that are read before it
	fresh []bool   // per file: an import that the live build did not have
	after int64    // sequence of the live build's cut
	drops *drops
}

// find finds the duplicates of a date. The files of one that is known to have none
// are not read.
func (f *finder) find(ctx context.Context, snap *snapshot, d date) (*drops, error) {
	out := &drops{rows: make(rowset, len(d.files)), late: make(rowset, len(d.files)), again: make(rowset, len(d.files))}
	f.passes = 0
	if d.distinct() {
		return out, nil
	}
	s := &search{finder: f, table: snap.table, event: snap.table.Event(), date: d, files: d.files, after: int64(snap.baseAt), drops: out}
	rows, err := s.arrange()
	if err != nil {
		return nil, err
	}
	f.pairs.reset(f.memory / 4)
	if err := f.divide(rows, identity.Room[identity.Place](f.memory/4*3), func(p part, room int) (bool, error) {
		return s.losers(ctx, p, room)
	}); err != nil {
		return nil, err
	}
	if out.n = out.rows.n(); out.n == 0 {
		return out, nil
	}
	if f.pairs.complete() {
		f.twins = identity.Map[twin]{}
		err = s.judgePairs(ctx)
		out.differing.first = firstConflicts(out.differing.first, maxConflicts)
		out.shown.first = firstConflicts(out.shown.first, maxAuditConflicts)
		return out, err
	}
	err = f.divide(int64(out.n), identity.Room[twin](f.memory/4), func(p part, room int) (bool, error) {
		return s.judge(ctx, p, room)
	})
	out.differing.first = firstConflicts(out.differing.first, maxConflicts)
	out.shown.first = firstConflicts(out.shown.first, maxAuditConflicts)
	return out, err
}

// distinct tells whether the date is known to hold no identity twice.
func (d date) distinct() bool {
	switch len(d.files) {
	case 0:
		return true
	case 1:
		return d.files[0].Unique || d.files[0].Distinct != ""
	}
	id := d.files[0].Distinct
	return id != "" && !slices.ContainsFunc(d.files, func(f history.File) bool { return f.Distinct != id })
}

// arrange numbers the rows of the date: files by their first sequence, imports by which they are, and else
// in the date's order, which depends on their content alone. Two rows have equal places only if they come
// from two imports, and which they are a compaction leaves as it is.
func (s *search) arrange() (rows int64, err error) {
	s.base, s.fresh = make([]uint32, len(s.files)), make([]bool, len(s.files))
	fresh := make(map[string]bool, len(s.date.fresh))
	for _, file := range s.date.fresh {
		fresh[file.Path] = true
	}
	for i, file := range s.files {
		s.order = append(s.order, i)
		s.fresh[i] = fresh[file.Path]
	}
	slices.SortStableFunc(s.order, func(i, j int) int {
		a, b := s.files[i], s.files[j]
		return cmp.Or(cmp.Compare(a.MinSeq, b.MinSeq), cmp.Compare(a.Origin(), b.Origin()))
	})
	for _, i := range s.order {
		s.base[i] = uint32(rows)
		if rows += s.files[i].Rows; rows > math.MaxUint32 {
			return 0, fmt.Errorf("more than %d rows on one date", uint32(math.MaxUint32))
		}
	}
	return rows, nil
}

// A part is the fingerprints whose high half lies in from..to.
type part struct{ from, to uint64 }

func (p part) has(print identity.Fingerprint) bool { return p.from <= print.Hi && print.Hi <= p.to }

// divide calls do for parts of all fingerprints such that each has about as many of n as there is
// room for. Where do says that a part did not fit, it is called for both halves instead; what it did
// for the whole must do no harm.
func (f *finder) divide(n int64, room int, do func(p part, room int) (fits bool, err error)) error {
	if n < int64(room) {
		room = int(n) + 1
	}
	parts := uint64(1)
	if n > int64(room) {
		parts = uint64(float64(n)/(0.95*float64(room))) + 1
	}
	width := math.MaxUint64 / parts
	var todo []part
	for k := range parts {
		todo = append(todo, part{k * width, (k+1)*width - 1})
	}
	todo[parts-1].to = math.MaxUint64
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		f.passes++
		fits, err := do(p, room)
		if err != nil {
			return err
		}
		if fits {
			continue
		}
		if p.from == p.to {
			return fmt.Errorf("%d identities with one half of their fingerprints equal", room)
		}
		middle := p.from + (p.to-p.from)/2
		todo = append(todo, part{p.from, middle}, part{middle + 1, p.to})
	}
	return nil
}

// losers marks the duplicates among a part of the date's identities. Whichever two rows of one
// identity meet, the one that stands behind is a duplicate for certain: so a part that turns out not
// to fit has marked nothing wrong.
func (s *search) losers(ctx context.Context, p part, room int) (fits bool, err error) {
	s.firsts.Reset(room)
	paired := s.pairs.n()
	columns := []string{s.event.ID, s.event.Time, schemas.SeqColumn, schemas.RowColumn}
	for _, i := range s.order {
		err := s.scan(ctx, i, columns, func(b *column.Block, from int64) (err error) {
			if s.places, err = identity.Places(s.places[:0], b, 0); err != nil {
				return err
			}
			for j, print := range s.prints {
				if j%warmRows == 0 {
					s.firsts.Warm(s.prints[j:min(j+warmRows, len(s.prints))])
				}
				if !p.has(print) {
					continue
				}
				here := s.places[j]
				here.Source = s.base[i] + uint32(from) + uint32(j)
				first, fresh := s.firsts.Put(print)
				switch {
				case first == nil:
					return errFull
				case fresh:
					*first = here
				case here.Before(*first):
					s.drop(first.Source, here.Source)
					*first = here
				default:
					s.drop(here.Source, first.Source)
				}
			}
			return nil
		})
		if err == errFull {
			s.pairs.forget(paired)
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// warmRows is how many rows of a block are looked for at a time.
const warmRows = 256

// drop marks the row of that number as a duplicate of another.
func (s *search) drop(number, of uint32) {
	i := s.fileOf(number)
	s.drops.rows.add(i, int64(number-s.base[i]), s.files[i].Rows)
	s.pairs.add(number, of)
}

// fileOf returns the file that has the row of that number.
func (s *search) fileOf(number uint32) int {
	at := sort.Search(len(s.order), func(k int) bool { return s.base[s.order[k]] > number }) - 1
	return s.order[at] // the last that begins there: files before it that do too are empty
}

// scan reads columns of a file, block by block, and sets s.prints to the block's fingerprints.
func (s *search) scan(ctx context.Context, file int, columns []string, fn func(b *column.Block, from int64) error) error {
	reader, at := column.NewReader(), int64(0)
	return s.table.Scan(ctx, s.files[file], columns, func(rec arrow.Record) (err error) {
		b := reader.Block(rec)
		if s.prints, err = identity.Of(s.prints[:0], s.event, b); err != nil {
			return err
		}
		err = fn(b, at)
		at += int64(b.Len())
		return err
	})
}
