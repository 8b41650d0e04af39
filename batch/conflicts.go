package batch

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"watershed/schemas"
	"watershed/schemas/column"
	"watershed/schemas/identity"
)

// errFull ends a scan whose table is full.
var errFull = errors.New("the table is full")

// A twin is the row that counts of an identity that has duplicates.
type twin struct {
	payload uint64 // its hash
	seq     int64  // -1: not read yet
	row     int32
	number  uint32
}

// judge looks at the duplicates of a part of the identities: whether their payload is that of the
// row that counts, and whether the live build may have shown them. It is for dates with so many duplicates
// that there is no room for a list of them; see judgePairs.
//
//  1. The identities that have duplicates are put into the table.
//  2. All rows are read, whole; rows that count are put down, and the duplicates that come after
//     theirs are compared.
//  3. Duplicates that came before theirs are compared. There are few, by the order of the files, and
//     mostly none.
//
// It decides whether all fit in step 1, before it counts anything.
func (s *search) judge(ctx context.Context, p part, room int) (fits bool, err error) {
	s.twins.Reset(room)
	for _, i := range s.order {
		if s.drops.rows[i] == nil {
			continue
		}
		err := s.scan(ctx, i, []string{s.event.ID, s.event.Time}, func(_ *column.Block, from int64) error {
			for j, print := range s.prints {
				if !p.has(print) || !s.drops.rows.has(i, from+int64(j)) {
					continue
				}
				t, fresh := s.twins.Put(print)
				if t == nil {
					return errFull
				}
				if fresh {
					t.seq = -1
				}
			}
			return nil
		})
		if err == errFull {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	early := make([]bool, len(s.files))
	for _, i := range s.order {
		err := s.whole(ctx, p, i, func(c candidate, t *twin) {
			switch duplicate := s.drops.rows.has(i, c.index); {
			case !duplicate:
				c.put(t)
			case t.seq < 0:
				early[i] = true
			default:
				c.compare(t)
			}
		})
		if err != nil {
			return false, err
		}
	}
	for _, i := range s.order {
		if !early[i] {
			continue
		}
		err := s.whole(ctx, p, i, func(c candidate, t *twin) {
			if c.number < t.number && s.drops.rows.has(i, c.index) {
				c.compare(t)
			}
		})
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// A candidate is a row whose identity occurs more than once.
type candidate struct {
	s        *search
	payloads *identity.Payloads // of the block that it is in
	at       int                // in the block
	file     int
	index    int64 // in the file
	number   uint32
	seq      int64
	row      int32
}

// whole reads a file with all columns and calls fn for the rows whose identity is in the table of twins.
func (s *search) whole(ctx context.Context, p part, file int, fn func(c candidate, t *twin)) error {
	columns := []string{schemas.SeqColumn, schemas.RowColumn}
	for _, f := range s.event.Fields {
		columns = append(columns, f.Name)
	}
	return s.scan(ctx, file, columns, func(b *column.Block, from int64) (err error) {
		if s.places, err = identity.Places(s.places[:0], b, 0); err != nil {
			return err
		}
		payloads, err := identity.PayloadsOf(s.event, b)
		if err != nil {
			return err
		}
		for j, print := range s.prints {
			if !p.has(print) {
				continue
			}
			t := s.twins.Get(print)
			if t == nil {
				continue
			}
			index := from + int64(j)
			c := candidate{s, payloads, j, file, index, s.base[file] + uint32(index), s.places[j].Seq, s.places[j].Row}
			fn(c, t)
		}
		return nil
	})
}

// put makes the candidate the row that counts.
func (c candidate) put(t *twin) {
	*t = twin{c.payloads.Hash(c.at), c.seq, c.row, c.number}
}

// compare holds the candidate, a duplicate, against the row that counts.
func (c candidate) compare(t *twin) {
	s, d := c.s, c.s.drops
	kept := s.fileOf(t.number)
	shown := true
	switch rows := s.files[c.file].Rows; {
	case s.fresh[c.file] || s.fresh[kept]:
		d.again.add(c.file, c.index, rows)
	case c.seq > s.after:
		d.late.add(c.file, c.index, rows)
	default:
		shown = false
	}
	if c.payloads.Hash(c.at) == t.payload {
		return
	}
	conflict := schemas.Conflict{
		Type: s.event.Name, ID: c.payloads.ID(c.at), Date: dateText(s.date.day),
		Kept:    schemas.Origin{Seq: uint64(t.seq), Row: t.row, File: s.files[kept].Path},
		Dropped: schemas.Origin{Seq: uint64(c.seq), Row: c.row, File: s.files[c.file].Path},
	}
	d.differing.add(conflict)
	if shown {
		d.shown.add(conflict)
	}
}

// conflicts counts conflicts, and remembers the first ones by date, type and place.
type conflicts struct {
	n     uint64
	first []schemas.Conflict
}

func (c *conflicts) add(list ...schemas.Conflict) {
	c.n += uint64(len(list))
	if c.first = append(c.first, list...); len(c.first) >= 2*maxConflicts {
		c.first = firstConflicts(c.first, maxConflicts)
	}
}

// firstConflicts sorts conflicts by date, type and place, and returns the first of them.
func firstConflicts(list []schemas.Conflict, most int) []schemas.Conflict {
	slices.SortFunc(list, func(a, b schemas.Conflict) int {
		return cmp.Or(cmp.Compare(a.Date, b.Date), cmp.Compare(a.Type, b.Type), a.Dropped.Compare(b.Dropped), a.Kept.Compare(b.Kept))
	})
	return list[:min(len(list), most)]
}
