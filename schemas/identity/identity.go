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

// nonzero keeps the zero fingerprint for free entries of a Map.
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
