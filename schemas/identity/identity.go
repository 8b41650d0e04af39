// Package identity says which events are the same event. Identity is (type, id, UTC date of
// event time), in both layers; among equals the one with the smallest (position, row) wins.
// Layers compare 128-bit fingerprints of identities: among 10^12 events the chance of one
// accidental match is below 2^-48.
package identity

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"watershed/schemas"
	"watershed/schemas/column"
)

// A Fingerprint is the 128-bit hash of an identity.
type Fingerprint = xxh3.Uint128

const day = 24 * 60 * 60 * 1e6 // microseconds

// Of appends the fingerprints of a block's rows to dst. The block must have the event's id
// and time columns.
func Of(dst []Fingerprint, ev *schemas.Event, b *column.Block) ([]Fingerprint, error) {
	ids, err := b.Field(ev.ID)
	if err != nil {
		return dst, err
	}
	times, err := b.Field(ev.Time)
	if err != nil {
		return dst, err
	}
	if times.Kind != schemas.Timestamp {
		return dst, fmt.Errorf("event %s: time field %s is a %s column", ev.Name, ev.Time, schemas.Type{Kind: times.Kind})
	}
	prefix := append([]byte(ev.Name), 0)
	key := make([]byte, 0, 64)
	for i, t := range times.Ints {
		key = append(key[:0], prefix...)
		key = binary.LittleEndian.AppendUint32(key, uint32(Date(t)))
		switch ids.Kind {
		case schemas.String:
			key = append(key, ids.Dict.Strings[ids.Codes[i]]...)
		case schemas.Int64:
			key = binary.LittleEndian.AppendUint64(key, uint64(ids.Ints[i]))
		default:
			return dst, fmt.Errorf("event %s: id field %s is a %s column", ev.Name, ev.ID, schemas.Type{Kind: ids.Kind})
		}
		dst = append(dst, nonzero(xxh3.Hash128(key)))
	}
	return dst, nil
}

// nonzero keeps the zero fingerprint for free entries of a Table.
func nonzero(f Fingerprint) Fingerprint {
	if f == (Fingerprint{}) {
		f.Lo = 1
	}
	return f
}

// Date is the UTC date, in days since 1970-01-01, of a time in microseconds since then.
func Date(micros int64) int32 {
	d := micros / day
	if micros%day < 0 {
		d--
	}
	return int32(d)
}

// A Place is where an event was seen: the order in which the first of equal events wins.
// Among imports, which have no sequence, Source tells files apart by their content.
type Place struct {
	Seq    int64
	Row    int32
	Source uint32
}

// Before reports whether p wins over q.
func (p Place) Before(q Place) bool {
	switch {
	case p.Seq != q.Seq:
		return p.Seq < q.Seq
	case p.Row != q.Row:
		return p.Row < q.Row
	default:
		return p.Source < q.Source
	}
}

// Places appends where a block's rows stand to dst. The block must have _seq and _row.
func Places(dst []Place, b *column.Block, source uint32) ([]Place, error) {
	seqs, err := b.Field(schemas.SeqColumn)
	if err != nil {
		return dst, err
	}
	rows, err := b.Field(schemas.RowColumn)
	if err != nil {
		return dst, err
	}
	for i, seq := range seqs.Ints {
		dst = append(dst, Place{Seq: seq, Row: int32(rows.Ints[i]), Source: source})
	}
	return dst, nil
}

// A Table remembers for each fingerprint the first place where it was seen. It is an open
// addressing table of 32 bytes an entry, three eighths to three quarters full.
type Table struct {
	entries []entry
	n       int
}

type entry struct {
	print Fingerprint // zero: free
	place Place
}

// Len is the number of fingerprints held.
func (t *Table) Len() int { return t.n }

// Bytes is the memory held.
func (t *Table) Bytes() int64 { return int64(cap(t.entries)) * 32 }

// See records that an identity was seen at a place. It returns the first place known for it,
// now included: the event at `at` is a duplicate if that is another place than `at`, and
// what stood there before is one if moved is true.
func (t *Table) See(print Fingerprint, at Place) (first Place, moved bool) {
	if 4*(t.n+1) > 3*len(t.entries) {
		t.grow()
	}
	e := t.slot(print)
	switch {
	case e.print == (Fingerprint{}):
		*e = entry{print, at}
		t.n++
	case at.Before(e.place):
		e.place = at
		return at, true
	}
	return e.place, false
}

// First returns the first place known for an identity.
func (t *Table) First(print Fingerprint) (Place, bool) {
	if t.n == 0 {
		return Place{}, false
	}
	e := t.slot(print)
	return e.place, e.print == print
}

func (t *Table) slot(print Fingerprint) *entry {
	mask := uint64(len(t.entries) - 1)
	for i := print.Lo & mask; ; i = (i + 1) & mask {
		if e := &t.entries[i]; e.print == print || e.print == (Fingerprint{}) {
			return e
		}
	}
}

func (t *Table) grow() {
	old := t.entries
	t.entries = make([]entry, max(1024, 2*len(old)))
	for _, e := range old {
		if e.print != (Fingerprint{}) {
			*t.slot(e.print) = e
		}
	}
}
